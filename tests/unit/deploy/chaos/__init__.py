"""Tests of the chaos suite."""
