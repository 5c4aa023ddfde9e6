"""Tests of `stream.host`."""
