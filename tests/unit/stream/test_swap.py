"""Rows encoded for another basis while decisions are made are those encoded at the swap."""

from dataclasses import replace

import numpy as np
import pytest

from models.features.accounts import DAY_MS
from models.release import Age, Release
from stream.pipeline import Pipeline
from tests.unit.stream.small_bank import (
    Event,
    Exchange,
    Trace,
    a_config,
    a_log,
    consortium_releases,
    feed,
    payments,
)

BATCH, LABELS = payments(0)
LOG = a_log(BATCH, LABELS)
RELEASES = consortium_releases()
PLACES = [i for i, event in enumerate(LOG) if isinstance(event, Exchange)]


def a_bank(until: int) -> Pipeline:
    """Return one that has installed every release up to a place of the log."""
    pipeline = Pipeline(a_config())
    feed(pipeline, BATCH, LOG[:until], RELEASES, trace=Trace())
    return pipeline


def plain(first: int, last: int) -> list[Event]:
    return [event for event in LOG[first:last] if not isinstance(event, Exchange)]


def another(pipeline: Pipeline) -> Release:
    """Return a release like the newest, which asks for a basis of another number and other bins."""
    newest = RELEASES[max(RELEASES)]
    assert newest.basis is not None
    basis = replace(newest.basis, number=newest.basis.number + 7)
    age = Age(pipeline.release_age.epoch + 1, pipeline.release_age.number + 1)
    return replace(newest, epoch=age.epoch, number=age.number, basis=basis, next_basis=None)


def sums(pipeline: Pipeline) -> dict[str, np.ndarray]:
    """Return the statistics by bucket, whatever the order in which rows were added."""
    found = pipeline.panel.shared.contributions(pipeline.tick_ms)
    out = {}
    for bucket, (n, given) in found.items():
        packed, gradient = given().values()
        out |= {f"{bucket}/n": np.array([n]), f"{bucket}/A": packed, f"{bucket}/b": gradient}
    return out


@pytest.mark.parametrize("n_later", [0, 40, 400])
def test_outcomes_that_came_meanwhile_are_in_it_once(n_later: int) -> None:
    """Of a day at most, before whose end nothing is dropped; against the rows encoded at once."""
    at = PLACES[-2] + 1
    ready, at_once = a_bank(at), a_bank(at)
    release = another(ready)
    swap = ready.swap_of(release)
    swap.find_out()
    later = plain(at, min(at + n_later, PLACES[-1]))
    n_before = ready.panel.shared.n
    for pipeline in (ready, at_once):
        feed(pipeline, BATCH, later, trace=Trace())
    assert (ready.panel.shared.n > n_before) is (n_later > 0)
    assert swap.encoded() is not None
    ready.install(release, swap)
    at_once.install(release)
    found, expected = sums(ready), sums(at_once)
    assert found.keys() == expected.keys()
    assert sum(int(expected[name][0]) for name in expected if name.endswith("/n")) > 0
    for name, array in expected.items():
        assert np.allclose(found[name], array, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("is_found_out_before", [True, False])
def test_rows_that_were_changed_meanwhile_are_encoded_at_the_swap(
    *, is_found_out_before: bool
) -> None:
    """As where amounts are aligned: what was or will be seen may be anything."""
    at = PLACES[-2] + 1
    ready, at_once = a_bank(at), a_bank(at)
    release = another(ready)
    swap = ready.swap_of(release)
    if is_found_out_before:
        swap.find_out()
    for pipeline in (ready, at_once):
        pipeline.log.change_features(half_of_all)
    if not is_found_out_before:
        swap.find_out()
    assert swap.encoded() is None
    ready.install(release, swap)
    at_once.install(release)
    assert {n: a.tobytes() for n, a in ready.panel.arrays().items()} == {
        n: a.tobytes() for n, a in at_once.panel.arrays().items()
    }


def half_of_all(features: np.ndarray) -> None:
    features *= np.float32(0.5)


def test_a_day_that_ends_meanwhile_lets_go_of_no_rows() -> None:
    """They go the next time; what was made ready serves."""
    pipeline = a_bank(PLACES[-2] + 1)
    release, before = another(pipeline), pipeline.log.size
    swap = pipeline.swap_of(release)
    for is_held in (True, False):
        pipeline.log.drop_before(
            pipeline.tick_ms - 20 * DAY_MS, keep_from=pipeline.log.size, max_matured=5
        )
        assert (pipeline.log.size == before) is is_held
        if is_held:
            swap.find_out()
            assert swap.encoded() is not None
            pipeline.install(release, swap)
            del swap


def test_a_release_of_the_same_basis_encodes_nothing() -> None:
    """There is nothing to be made ready but evidence."""
    pipeline = a_bank(PLACES[-1] + 1)
    newest = RELEASES[max(RELEASES)]
    age = Age(pipeline.release_age.epoch + 1, pipeline.release_age.number + 1)
    swap = pipeline.swap_of(replace(newest, epoch=age.epoch, number=age.number))
    swap.find_out()
    assert swap.encoded() is None
