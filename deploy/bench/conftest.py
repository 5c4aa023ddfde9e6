"""Keeps the tests away from what runs in the peers' own environment."""

collect_ignore = ["peers.py"]
