"""Puts the parts together: the ``amalgam`` command, the local consortium, back-test and demo."""
