"""Outcomes counted as they come are what they are when counted together."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.entity_risk import EvidenceCells, count_outcomes
from stream.new_cells import NewCells, Outcomes

HOUR_MS = 3_600_000
NAMES = np.random.default_rng(3).integers(0, 256, (40, 16)).astype(np.uint8)
KINDS = (np.arange(40) % 3).astype(np.uint8)


@pytest.fixture(autouse=True, scope="module")
def _counted_soon() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stream.new_cells._COUNTED_AT", 8)
        yield


def count(outcomes: Outcomes) -> EvidenceCells:
    """Count by hours of the first day."""
    hour = outcomes.known_ms // HOUR_MS
    columns = (outcomes.row, hour, outcomes.event_ms, outcomes.is_fraud)
    return count_outcomes(NAMES, KINDS, *columns)


def some(n: int, seed: int) -> Outcomes:
    """Return n outcomes of few entities and hours."""
    rng = np.random.default_rng(seed)
    known_ms = rng.integers(0, 3, n) * HOUR_MS + 1
    event_ms = rng.integers(0, 1_000, n)
    return Outcomes(rng.integers(0, 40, n), known_ms, event_ms, rng.random(n) < 0.3)


def texts(cells: EvidenceCells) -> dict[str, list[object]]:
    return {name: array.tolist() for name, array in cells.arrays().items()}


@given(st.lists(st.integers(0, 30), max_size=25), st.integers(0, 25), st.booleans())
def test_they_are_as_if_counted_together(sizes: list[int], at: int, is_asked: bool) -> None:
    """However many came at a time, stored and taken up in between, and looked at before."""
    parts = [some(n, seed) for seed, n in enumerate(sizes)]
    new = NewCells(count)
    for i, part in enumerate(parts):
        if i == at:
            before, new = new, NewCells(count)
            new.load(before.arrays())
            if is_asked:
                new.all()
        new.add(part)
    whole = Outcomes(*map(np.concatenate, zip(some(0, 0), *parts, strict=True)))
    assert texts(new.all()) == texts(count(whole))
    assert texts(new.all()) == texts(count(whole))


def test_few_are_left_to_be_counted_when_all_are_asked_for() -> None:
    """Fewer than are counted together, and few runs."""
    new = NewCells(count)
    for seed in range(100):
        new.add(some(7, seed))
        held = new.arrays()
        assert len(held.get("newest/row", ())) < 8 + 7
        assert sum(name.endswith("/name") for name in held) <= 7
