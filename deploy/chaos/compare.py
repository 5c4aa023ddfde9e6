"""A disturbed run held against the undisturbed one; pure. No finding names a record or a value."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from deploy.chaos.outcome import BankOutcome, Outcome
from deploy.chaos.small_world import DELAY_MS, HORIZON_MS, HOUR_MS
from deploy.local import BankStream
from models.summary import Contribution
from stream.manifest import Arrays

LABEL_COUNTS = "labels/counts"
_DUPLICATES = 1
EXCEPTIONS = {
    f"{LABEL_COUNTS}[duplicates]": "labels are sent again on purpose, and read again after a kill",
    "outbox/prev_hash": "a hash over headers that hold the wall clock",
    "outbox/key, outbox/raw": "headers hold the wall clock; that none waits is compared",
    "offsets": "what is sent again has offsets too; that the last tick is done is compared",
}
"""What is not compared of a stored state, and why."""


class Difference(NamedTuple):
    """A figure that is not what it should be, at which bank, how many times, and in what."""

    figure: str
    where: str
    n: int
    what: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What a stream says that a bank must have learnt by its last tick.

    Parameters
    ----------
    matured, frauds
        Transactions whose outcome is known, and those of them that are frauds.
    """

    matured: int
    frauds: int


def expected_of(stream: BankStream, end_ms: int) -> Expected:
    """Count by the calendar what is known by the last tick of a stream that ends at ``end_ms``.

    Every fraud has a label `DELAY_MS` after it, sooner than `HORIZON_MS`, after which the others
    count as legitimate.
    """
    last_ms = end_ms - HOUR_MS
    frauds = {one.transaction_id for one in stream.labels}
    is_fraud = np.array([one in frauds for one in stream.transactions.transaction_id], np.bool_)
    times = stream.transactions.event_time_ms
    n_frauds = int(np.count_nonzero(is_fraud & (times + DELAY_MS <= last_ms)))
    n_legit = int(np.count_nonzero(~is_fraud & (times + HORIZON_MS <= last_ms)))
    return Expected(n_frauds + n_legit, n_frauds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came out.

    Parameters
    ----------
    figures
        By name.
    differences
        Empty where nothing differs.
    """

    figures: Mapping[str, float]
    differences: tuple[Difference, ...]


def compare(
    chaos: Outcome, calm: Outcome, streams: Mapping[str, BankStream], end_ms: int, halted: str = ""
) -> Verdict:
    """Return every figure, and what differs.

    Parameters
    ----------
    halted
        Why the disturbed run did not come to its end; empty where it did.
    """
    found = [Difference("finished", "all", 1, halted)] if halted else []
    expected = {bank: expected_of(stream, end_ms) for bank, stream in streams.items()}
    for bank, stream in streams.items():
        one, other = chaos.banks[bank], calm.banks[bank]
        found += _said_differences(bank, one, other, stream)
        found += _learnt_differences(bank, one, other, expected[bank])
        found += (Difference("state_equal", bank, 1, w) for w in _state_differences(one, other))
    found += _consortium_differences(chaos, calm)
    counts = dict.fromkeys(("transactions_lost", "decisions_changed", "alerts_lost"), 0.0)
    counts |= dict.fromkeys(("alerts_added", "outcomes_lost", "learned_twice"), 0.0)
    for name in counts:
        counts[name] = float(sum(one.n for one in found if one.figure == name))
    truths = {
        name: float(not any(d.figure == name for d in found))
        for name in ("finished", "state_equal", "fold_equal", "release_equal")
    }
    told = {
        "transactions": float(sum(len(s.transactions) for s in streams.values())),
        "alerts": float(sum(len(bank.alerts) for bank in calm.banks.values())),
        "releases": float(calm.release[0]),
        "matured": float(sum(one.matured for one in expected.values())),
        "decisions_repeated": float(sum(bank.repeated for bank in chaos.banks.values())),
        "quarantined": float(len(chaos.quarantined)),
    }
    return Verdict(figures={**counts, **truths, **told}, differences=tuple(found))


def _counted(figure: str, bank: str, n: int, what: str) -> Iterator[Difference]:
    if n:
        yield Difference(figure, bank, n, what)


def _said_differences(
    bank: str, chaos: BankOutcome, calm: BankOutcome, stream: BankStream
) -> Iterator[Difference]:
    ids = set(stream.transactions.transaction_id)
    said = chaos.decisions
    yield from _counted("transactions_lost", bank, len(ids - said.keys()), "without a decision")
    several = sum(len(said[one]) > 1 for one in said)
    yield from _counted("transactions_lost", bank, several, "with several distinct decisions")
    strange = len(said.keys() - ids)
    yield from _counted("transactions_lost", bank, strange, "decided that were never sent")
    changed = sum(said[one] != calm.decisions[one] for one in said.keys() & calm.decisions.keys())
    yield from _counted("decisions_changed", bank, changed, "decided otherwise")
    missing = len(calm.alerts.keys() - chaos.alerts.keys())
    yield from _counted("alerts_lost", bank, missing, "alerts that did not come")
    added = len(chaos.alerts.keys() - calm.alerts.keys())
    yield from _counted("alerts_added", bank, added, "alerts that should not have come")


def _learnt_differences(
    bank: str, chaos: BankOutcome, calm: BankOutcome, expected: Expected
) -> Iterator[Difference]:
    learnt = _learnt(chaos.arrays)
    stream, undisturbed = _wanted(expected), _learnt(calm.arrays)
    for counted, than in ((stream, "the stream holds"), (undisturbed, "undisturbed")):
        for name, wanted in counted.items():
            more = learnt[name] - wanted
            yield from _counted("learned_twice", bank, max(more, 0), f"{name} more than {than}")
            yield from _counted("outcomes_lost", bank, max(-more, 0), f"{name} fewer than {than}")


def _wanted(expected: Expected) -> dict[str, int]:
    return {
        "outcomes in own histograms": expected.matured,
        "frauds in own histograms": expected.frauds,
        "outcomes in shared histograms": expected.matured,
        "frauds in shared histograms": expected.frauds,
        "labels joined": expected.frauds,
    }


def _learnt(arrays: Arrays) -> dict[str, int]:
    found: dict[str, int] = {}
    for expert in ("own", "shared"):
        counts = np.asarray(arrays[f"panel/{expert}/counts"])  # (features, outcomes, bins)
        found[f"outcomes in {expert} histograms"] = int(counts[0].sum())
        found[f"frauds in {expert} histograms"] = int(counts[0, 1].sum())
    found["labels joined"] = int(np.asarray(arrays[LABEL_COUNTS])[0])
    return found


def _state_differences(chaos: BankOutcome, calm: BankOutcome) -> Iterator[str]:
    yield from chaos.faults
    for name in sorted(chaos.arrays.keys() | calm.arrays.keys()):
        if name not in chaos.arrays or name not in calm.arrays:
            where = "the undisturbed" if name in chaos.arrays else "the disturbed"
            yield f"array {name!r}: missing in {where} run"
            continue
        one, other = np.asarray(chaos.arrays[name]), np.asarray(calm.arrays[name])
        if name == LABEL_COUNTS:
            one, other = np.delete(one, _DUPLICATES), np.delete(other, _DUPLICATES)
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            yield f"array {name!r}: {one.dtype}{one.shape}, undisturbed {other.dtype}{other.shape}"
        elif one.tobytes() != other.tobytes():
            n = int(np.count_nonzero(~np.equal(one, other))) if one.size else 0
            yield f"array {name!r}: {n} of {one.size} values differ"
    fields, others = msgspec.msgpack.decode(chaos.meta), msgspec.msgpack.decode(calm.meta)
    for name in sorted(fields.keys() | others.keys()):
        if fields.get(name) != others.get(name):
            yield f"scalar {name!r} differs"
    if chaos.seq != calm.seq:
        yield f"outbox/seq: {chaos.seq}, undisturbed {calm.seq}"
    if chaos.letters:
        yield f"outbox: {chaos.letters} summaries wait"


def _consortium_differences(chaos: Outcome, calm: Outcome) -> Iterator[Difference]:
    if chaos.release != calm.release:
        what = f"number {chaos.release[0]}, undisturbed {calm.release[0]}, or another content"
        yield Difference("release_equal", "amalgamator", 1, what)
    if chaos.refolded != chaos.release[1]:
        yield Difference("fold_equal", "amalgamator", 1, "the topics fold to another release")
    for reason in sorted(set(chaos.quarantined)):
        n = chaos.quarantined.count(reason)
        yield Difference("fold_equal", "amalgamator", n, f"summaries refused: {reason}")
    for key in sorted(chaos.held.keys() | calm.held.keys()):
        place = f"{key.member} {key.part} {key.bucket}"
        if key not in chaos.held or key not in calm.held:
            yield Difference("fold_equal", place, 1, "held in one of the runs only")
            continue
        one, other = chaos.held[key], calm.held[key]
        if one.seq != other.seq:
            yield Difference("fold_equal", place, 1, f"seq {one.seq}, undisturbed {other.seq}")
        if not _is_same(one.contribution, other.contribution):
            yield Difference("fold_equal", place, 1, "other sums")


def _is_same(one: Contribution, other: Contribution) -> bool:
    same = (one.epoch, one.basis, one.n) == (other.epoch, other.basis, other.n)
    return (
        same
        and one.arrays.keys() == other.arrays.keys()
        and all(np.array_equal(array, other.arrays[name]) for name, array in one.arrays.items())
    )
