"""Benchmarks: timings of the pieces, and of the whole job beside what else would do it."""
