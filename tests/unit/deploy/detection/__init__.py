"""Tests of the evaluation of detection."""
