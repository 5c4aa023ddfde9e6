"""The consortium's service: gate, fold and release, behind ports."""
