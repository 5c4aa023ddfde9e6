"""One bank: the Faust worker around a pure pipeline."""
