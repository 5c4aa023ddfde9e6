"""Rows lie each at a place of its own and stay there, however they come and go."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.stretches import Stretches

Step = tuple[str, int]
STEPS = st.lists(st.tuples(st.sampled_from(["append", "drop"]), st.integers(0, 40)), max_size=40)


@pytest.fixture(autouse=True, scope="module")
def _few_places() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stream.stretches.FIRST_PLACES", 16)
        yield


def held(stretches: Stretches) -> list[int]:
    """Return the place of every row, asked for one by one."""
    return stretches.places(np.arange(stretches.size)).tolist()


def of_spans(stretches: Stretches, first: int, last: int) -> list[int]:
    """Return the same of some rows, by stretches."""
    found: list[int] = []
    for rows, places in stretches.spans(first, last):
        assert rows.start == first + len(found)
        found += range(places.start, places.stop)
    return found


def run(stretches: Stretches, steps: list[Step], piece: int) -> list[int]:
    """Do the steps, so many rows at a time; return the places that a list of them would hold."""
    places = held(stretches)
    for what, n in steps:
        if what == "drop":
            gone = min(n, len(places))
            stretches.drop(gone)
            del places[:gone]
        else:
            for start in range(0, n, piece):
                given = stretches.append(min(piece, n - start))
                places += [place for each in given for place in range(each.start, each.stop)]
    return places


@given(STEPS)
def test_a_place_is_one_rows_alone_and_stays_it(steps: list[Step]) -> None:
    """Against a plain list of places."""
    stretches = Stretches()
    places = run(stretches, steps, piece=1_000)
    assert stretches.size == len(places)
    assert held(stretches) == of_spans(stretches, 0, len(places)) == places
    assert len(set(places)) == len(places)
    assert max(places, default=-1) < stretches.n_used <= stretches.n_places
    for first in range(0, len(places), 7):
        assert of_spans(stretches, first, first + 9) == places[first : first + 9]


@given(STEPS, STEPS, st.integers(1, 9))
def test_places_do_not_depend_on_how_many_came_at_a_time(
    steps: list[Step], more: list[Step], piece: int
) -> None:
    """So that a state is the same however a stream was cut, and after a restart."""
    whole, cut, again = Stretches(), Stretches(), Stretches()
    run(whole, [*steps, *more], piece=1_000)
    run(cut, steps, piece)
    again.load(**cut.arrays())
    run(again, more, piece)
    assert held(again) == held(whole)
    found, expected = again.arrays(), whole.arrays()
    assert {n: a.tolist() for n, a in found.items()} == {n: a.tolist() for n, a in expected.items()}


def test_places_that_were_let_go_of_are_used_again() -> None:
    """A log of steady size needs no more of them, and few stretches."""
    stretches = Stretches()
    stretches.append(1_000)
    for _ in range(200):
        stretches.drop(70)
        stretches.append(70)
    assert stretches.n_used <= 1_000 + 1_000 // 8 + 16 + 70
    assert len(stretches.arrays()["stretches"]) <= 3


@pytest.mark.parametrize(
    ("stretches", "places"),
    [
        ([[0, 9]], [16, 8]),
        ([[0, 5], [4, 8]], [16, 8]),
        ([[5, 4]], [16, 8]),
        ([[0, 8]], [7, 8]),
        ([], [16, 8]),
    ],
)
def test_places_that_cannot_be_are_refused(stretches: list[list[int]], places: list[int]) -> None:
    """Beyond the end, twice, the wrong way round, none."""
    with pytest.raises(ValueError, match="each at its own"):
        Stretches().load(np.array(stretches, np.int64), np.array(places, np.int64))
