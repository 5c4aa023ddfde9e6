"""A pipeline's state as arrays: stopping and going on anywhere is as never having stopped."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import StateError
from models.schema import Schema
from stream.drift_policy import DriftPolicy
from stream.pipeline import Pipeline
from stream.pipeline_state import State, dump, restore
from stream.store import StateStore
from tests.unit.stream.small_bank import (
    Trace,
    a_config,
    a_log,
    bits,
    consortium_releases,
    copied,
    feed,
    payments,
    same_contributions,
)

BATCH, LABELS = payments(0)
LOG = a_log(BATCH, LABELS)
RELEASES = consortium_releases()


RIVER = 'river {model = "river.linear_model.LogisticRegression"}'


def contents(pipeline: Pipeline) -> tuple[dict[str, bytes], bytes]:
    """Return the whole state as bytes."""
    state = dump(pipeline)
    return {name: array.tobytes() for name, array in state.arrays.items()}, state.meta


PIPELINE = Pipeline(a_config())
WHOLE = feed(PIPELINE, BATCH, LOG, RELEASES)
END = copied(dump(PIPELINE))


def assert_same(trace: Trace, pipeline: Pipeline) -> None:
    """Compare a run with the uninterrupted one."""
    assert bits(trace.scores) == bits(WHOLE.scores)
    assert bits(trace.logits) == bits(WHOLE.logits)
    assert trace.alerts == WHOLE.alerts
    assert trace.refused == WHOLE.refused
    assert same_contributions(trace.contributions, WHOLE.contributions)
    assert contents(pipeline) == contents(PIPELINE)


@settings(max_examples=6)
@given(st.lists(st.integers(0, len(LOG)), min_size=1, max_size=6))
def test_going_on_from_a_dump_is_as_never_having_stopped(stops: list[int]) -> None:
    """Scores, alerts, contributions and the state at the end agree to the bit."""
    pipeline, trace = Pipeline(a_config()), Trace()
    places = sorted({0, *stops, len(LOG)})
    for start, stop in pairwise(places):
        pipeline = restore(a_config(), copied(dump(pipeline)))
        feed(pipeline, BATCH, LOG[start:stop], RELEASES, trace=trace)
    assert_same(trace, pipeline)


def test_a_dump_does_not_disturb_the_pipeline() -> None:
    """It may be taken as often as one likes."""
    pipeline, trace = Pipeline(a_config()), Trace()
    for start in range(0, len(LOG), 100):
        dump(pipeline)
        feed(pipeline, BATCH, LOG[start : start + 100], RELEASES, trace=trace)
    assert_same(trace, pipeline)


def test_an_array_of_the_same_version_is_the_same() -> None:
    """What was published stays as it is."""
    pipeline, trace = Pipeline(a_config()), Trace()
    before: dict[str, tuple[int, bytes]] = {}
    kept = 0
    for start in range(0, len(LOG), 50):
        feed(pipeline, BATCH, LOG[start : start + 50], RELEASES, trace=trace)
        state = dump(pipeline)
        now = {n: (v, state.arrays[n].tobytes()) for n, v in state.versions.items()}
        for name in now.keys() & before.keys():
            if now[name][0] == before[name][0]:
                assert now[name][1] == before[name][1], name
                kept += 1
        before = now
    assert kept


def test_a_restored_pipeline_shares_nothing_with_the_state() -> None:
    """What it does later does not reach the arrays that it came from."""
    stop = len(LOG) // 2
    pipeline = Pipeline(a_config())
    feed(pipeline, BATCH, LOG[:stop], RELEASES)
    state = copied(dump(pipeline))
    before = {name: array.tobytes() for name, array in state.arrays.items()}
    feed(restore(a_config(), state), BATCH, LOG[stop:], RELEASES)
    assert {name: array.tobytes() for name, array in state.arrays.items()} == before


def test_a_state_goes_through_the_store(tmp_path: Path) -> None:
    """Stored, loaded and restored it is the same to the bit, empty arrays included."""
    store = StateStore(tmp_path / "state")
    store.save(END.arrays, END.meta, {("t", 0): 5})
    held = store.load()
    store.close()
    assert held is not None
    assert contents(restore(a_config(), State(held.arrays, held.meta))) == contents(PIPELINE)


@pytest.mark.parametrize(
    "changes",
    [
        {"member": "south"},
        {"worker": "1"},
        {"schema": Schema(entity_kinds=("merchant",))},
    ],
)
def test_a_state_of_another_member_worker_or_schema_is_refused(changes: dict[str, object]) -> None:
    """Numbers that mean something else are not gone on with; the message says both."""
    with pytest.raises(StateError, match=r"expected .*, got .*'north', '0'"):
        restore(a_config(**changes), END)


def test_a_state_of_other_families_is_refused_by_their_names() -> None:
    """Its columns of scores would mean other experts."""
    expected = "expected the experts own, merged, river, got those of other families: own, merged"
    with pytest.raises(StateError, match=f"{expected}$"):
        restore(a_config(families=(RIVER,)), END)
    watched = copied(dump(Pipeline(a_config(families=(RIVER,)))))
    with pytest.raises(StateError, match="expected the experts own, merged, got"):
        restore(a_config(), watched)


def test_drift_watch_may_be_switched_on_and_off_between_starts() -> None:
    """It begins anew; everything else goes on as it was."""
    watched = restore(a_config(drift=DriftPolicy()), END)
    assert watched.drift
    assert np.isnan(watched.drift.calibration_ratio(0))
    again = restore(a_config(), copied(dump(watched)))
    assert contents(again) == contents(PIPELINE)


def test_every_array_is_needed() -> None:
    """A part that lacks its arrays is refused, with the name of the first one missing."""
    for part in (
        *("accounts", "entities", "log", "labels", "judge"),
        *("panel/own", "panel/shared", "panel/proposer"),
    ):
        rest = {k: v for k, v in END.arrays.items() if not k.startswith(f"{part}/")}
        with pytest.raises(StateError):
            restore(a_config(), State(rest, END.meta))


@pytest.mark.parametrize("meta", [b"", b"\x80", END.meta[:-1], END.meta + b"\x00"])
def test_a_damaged_text_is_refused(meta: bytes) -> None:
    """Empty, without fields, cut, or too long."""
    with pytest.raises(StateError, match="expected version 11"):
        restore(a_config(), State(END.arrays, meta))


def test_names_of_accounts_and_terminals_are_not_in_the_state() -> None:
    """Only keyed hashes and pseudonyms are."""
    names = {*BATCH.account_id, *BATCH.transaction_id, *BATCH.entities["terminal"]}
    assert all(name is not None and re.fullmatch("[APT][0-9]{6,}", name) for name in names)
    stored = b"".join(np.ascontiguousarray(array).tobytes() for array in END.arrays.values())
    assert not re.findall(rb"[APT][0-9]{6}", stored + END.meta)


def test_a_state_of_another_split_is_refused_by_both_counts() -> None:
    """Its accounts would be other workers'; one worker alone stores what it always did."""
    with pytest.raises(StateError, match="expected one of 4 workers, got one of 1: its accounts"):
        restore(a_config(workers=4), END)
    split = copied(dump(Pipeline(a_config(workers=2))))
    with pytest.raises(StateError, match="expected one of 1 workers, got one of 2: its accounts"):
        restore(a_config(), split)
    assert contents(restore(a_config(workers=2), split)) == contents(Pipeline(a_config(workers=2)))
    assert b"workers" not in END.meta
