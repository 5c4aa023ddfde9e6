"""Settings of all tests: Hypothesis repeats its examples, and has time for compilations."""

from hypothesis import settings

# `pytest --hypothesis-profile=explore` draws new examples at every run and remembers failures
settings.register_profile("repeat", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None, max_examples=1_000)
settings.load_profile("repeat")
