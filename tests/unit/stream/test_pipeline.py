"""The pure pipeline: independent of batches, blind to the future, sums as counted by hand.

Runs over a simulated bank compare whole traces to the bit; sums are counted again in plain Python.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.runs import RunPlan, local_amalgamator
from models.categories import category_values
from models.entity_risk import EvidenceCells, pseudonym
from models.features.accounts import DAY_MS, HOUR_MS
from models.features.accounts import N_FEATURES as N_ACCOUNT
from models.records import Label, TransactionBatch
from models.schema import Schema, attribute_specs
from stream.alerts import alert_id_of
from stream.label_join import hash_ids
from stream.pipeline import Pipeline
from stream.pipeline_state import dump, restore
from stream.row_log import FRAUD
from tests.unit.stream.small_bank import (
    HORIZON_MS,
    LEARNING,
    SECRET,
    Event,
    Exchange,
    Trace,
    a_config,
    a_log,
    bits,
    consortium_releases,
    feed,
    payments,
    publish,
    same_contributions,
)

BATCH, LABELS = payments(0)
LOG = a_log(BATCH, LABELS)
RELEASES = consortium_releases()
START_MS = int(BATCH.event_time_ms[0]) // DAY_MS * DAY_MS


CHANNEL = attribute_specs({"channel": "text"})


def run(log: list[Event] = LOG, cuts: list[int] | None = None) -> Trace:
    """Return what comes of a log, cut at these places."""
    return feed(Pipeline(a_config()), BATCH, log, RELEASES, cuts=cuts or [])


WHOLE = run()


def some(times_ms: list[int], prefix: str = "t") -> TransactionBatch:
    """Return payments of one account at one terminal at these times after the start."""
    n = len(times_ms)
    return TransactionBatch(
        transaction_id=[f"{prefix}{i}" for i in range(n)],
        account_id=["a"] * n,
        event_time_ms=np.array(times_ms, np.int64) + START_MS,
        amount_minor=np.full(n, 1_000),
        amount=np.full(n, 10.0),
        currency=["EUR"] * n,
        entities={"terminal": ["T"] * n},
    )


def said(transaction_id: str, after_ms: int, *, is_fraud: bool = True) -> Label:
    """Return a label said some time after the start."""
    return Label(
        transaction_id=transaction_id,
        is_fraud=is_fraud,
        source="chargeback",
        labelled_at_ms=START_MS + after_ms,
    )


def outcomes(pipeline: Pipeline) -> tuple[int, int]:
    """Return how many legitimate and fraudulent outcomes were learnt."""
    legit, frauds = pipeline.panel.shared.counts[0].sum(axis=1).tolist()
    return legit, frauds


def test_the_log_of_these_tests_has_everything_in_it() -> None:
    """Both scorecards, a fitted blend, releases with scorers, alerts with reasons."""
    scores = np.array(WHOLE.scores).reshape(-1, 2)
    assert not np.isnan(scores[-100:]).any()
    assert np.isnan(scores[:100]).all()
    assert sum(release.weights is not None for release in RELEASES.values()) >= 3
    assert any(alert.reasons for alert in WHOLE.alerts)
    assert {piece.key.part for piece in WHOLE.contributions} == {
        "statistics",
        "histograms",
        "evidence",
        "epoch",
    }


@settings(max_examples=6)
@given(st.lists(st.integers(0, len(LOG)), max_size=60))
def test_cutting_the_log_anywhere_changes_no_bit(cuts: list[int]) -> None:
    """Scores, blend, alerts and contributions are those of the uncut log."""
    trace = run(cuts=cuts)
    assert bits(trace.scores) == bits(WHOLE.scores)
    assert bits(trace.logits) == bits(WHOLE.logits)
    assert trace.alerts == WHOLE.alerts
    assert same_contributions(trace.contributions, WHOLE.contributions)


def test_one_record_at_a_time_changes_no_bit() -> None:
    """The finest cut of all."""
    trace = run(cuts=list(range(len(LOG))))
    assert bits(trace.logits) == bits(WHOLE.logits)
    assert trace.alerts == WHOLE.alerts
    assert same_contributions(trace.contributions, WHOLE.contributions)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("how", ["flipped", "never said"])
def test_a_score_does_not_depend_on_labels_said_later(share: float, how: str) -> None:
    """Neither on the transaction's own; what comes after the labels does depend on them."""
    places = [place for place, event in enumerate(LOG) if isinstance(event, Label)]
    first = places[int(share * len(places))]
    later: list[Event] = [
        replace(event, is_fraud=not event.is_fraud) if isinstance(event, Label) else event
        for event in LOG[first:]
        if how == "flipped" or not isinstance(event, Label)
    ]
    trace = run([*LOG[:first], *later])
    n_before = sum(isinstance(event, int) for event in LOG[:first])
    assert bits(trace.scores[: 2 * n_before]) == bits(WHOLE.scores[: 2 * n_before])
    assert bits(trace.logits[:n_before]) == bits(WHOLE.logits[:n_before])
    before = set(BATCH.transaction_id[:n_before])
    assert [a for a in trace.alerts if a.transaction_id in before] == [
        a for a in WHOLE.alerts if a.transaction_id in before
    ]
    assert bits(trace.scores) != bits(WHOLE.scores)


def test_a_score_does_not_depend_on_later_transactions() -> None:
    """A log that ends gives the first scores of one that goes on."""
    stop = len(LOG) * 2 // 3
    trace = run(LOG[:stop])
    assert bits(trace.logits) == bits(WHOLE.logits[: len(trace.logits)])
    assert trace.alerts == WHOLE.alerts[: len(trace.alerts)]


def test_a_label_handed_over_early_is_used_when_it_was_said() -> None:
    """Nothing that is known too soon gets into scorecards, blend or contributions."""
    label_of = {label.transaction_id: label for label in LABELS}
    early: list[Event] = []
    for event in LOG:
        if not isinstance(event, Label):
            early.append(event)
        if isinstance(event, int) and BATCH.transaction_id[event] in label_of:
            early.append(label_of[BATCH.transaction_id[event]])
    trace = run(early)
    assert bits(trace.logits) == bits(WHOLE.logits)
    assert trace.alerts == WHOLE.alerts
    assert same_contributions(trace.contributions, WHOLE.contributions)


def test_a_label_before_its_transaction_is_learnt_after_it() -> None:
    """Topics are read at different paces."""
    pipeline = Pipeline(a_config())
    pipeline.learn([said("t1", 0)])
    pipeline.score(some([0, 5]))
    pipeline.advance(START_MS + HOUR_MS)
    assert outcomes(pipeline) == (0, 1)


def test_time_may_pass_at_once_or_tick_by_tick() -> None:
    """Days without payments, while outcomes fall due, leave the same state."""
    at_once, by_ticks = Pipeline(a_config()), Pipeline(a_config())
    for pipeline in (at_once, by_ticks):
        feed(pipeline, BATCH, LOG, RELEASES)
        pipeline.learn([label for label in LABELS if label not in LOG])
    midnight_ms = (at_once.watermark_ms // DAY_MS + 3) * DAY_MS
    for hours in range(-60, 1):
        by_ticks.advance(midnight_ms + hours * HOUR_MS)
    at_once.advance(midnight_ms)
    left, right = dump(at_once), dump(by_ticks)
    assert {k: v.tobytes() for k, v in left.arrays.items()} == {
        k: v.tobytes() for k, v in right.arrays.items()
    }


def test_a_release_of_own_evidence_alone_adds_nothing() -> None:
    """What is shared and what is own are the same to a consortium of one."""
    pipeline, trace = Pipeline(a_config()), Trace()
    amalgamator = local_amalgamator(("north",), pipeline.config.schema, RunPlan(learning=LEARNING))
    for epoch in range(START_MS // DAY_MS, START_MS // DAY_MS + 7):
        stop = LOG.index(Exchange(epoch))
        start = LOG.index(Exchange(epoch - 1)) + 1 if Exchange(epoch - 1) in LOG else 0
        feed(pipeline, BATCH, LOG[start:stop], trace=trace)
        for contribution, seq in publish(pipeline, epoch, trace):
            amalgamator.accept(contribution, seq)
        release = amalgamator.close_epoch(epoch)
        assert release is not None
        pipeline.install(release)
    assert release.evidence
    of_terminals = pipeline.log.features[:, N_ACCOUNT:]
    assert of_terminals.any()
    np.testing.assert_allclose(of_terminals, pipeline.log.own, rtol=1e-5, atol=1e-6)


def test_a_label_is_learnt_at_the_first_tick_after_it() -> None:
    """In the same hour a fraud changes nothing yet; past the hour it is in account and terminal."""
    pipeline = Pipeline(a_config())
    pipeline.score(some([0]))
    pipeline.learn([said("t0", 30 * 60_000)])
    pipeline.score(some([HOUR_MS - 1], "u"))
    pipeline.score(some([HOUR_MS], "v"))
    names = pipeline.config.schema.feature_names
    frauds = pipeline.log.features[:, [names.index("frauds_7d"), names.index("terminal.f_7d")]]
    expected = np.log1p(np.array([[0, 0], [0, 0], [1, 1]], np.float64))
    assert frauds == pytest.approx(expected)


def test_silence_counts_as_legitimate_after_the_horizon() -> None:
    """At the first tick at or after payment plus horizon, and not one tick before."""
    pipeline = Pipeline(a_config())
    pipeline.score(some([10, HOUR_MS]))
    pipeline.advance(START_MS + HORIZON_MS + HOUR_MS - 1)
    assert outcomes(pipeline) == (0, 0)
    pipeline.advance(START_MS + HORIZON_MS + HOUR_MS)
    assert outcomes(pipeline) == (2, 0)


def test_a_label_in_time_takes_the_place_of_silence() -> None:
    """One outcome a transaction; said or not, none is counted twice."""
    pipeline = Pipeline(a_config())
    pipeline.score(some([0, 1, 2]))
    pipeline.learn([said("t0", DAY_MS), said("t1", DAY_MS, is_fraud=False)])
    pipeline.advance(START_MS + DAY_MS)
    assert outcomes(pipeline) == (1, 1)
    pipeline.advance(START_MS + 2 * HORIZON_MS)
    assert outcomes(pipeline) == (2, 1)


def test_a_chargeback_after_the_horizon_is_learnt_as_one_more_outcome() -> None:
    """The silence was learnt before; the fraud is added and a second report of it is not."""
    pipeline = Pipeline(a_config())
    pipeline.score(some([0]))
    pipeline.advance(START_MS + HORIZON_MS)
    late = said("t0", HORIZON_MS + HOUR_MS)
    assert pipeline.learn([late, late]) == []
    pipeline.advance(START_MS + HORIZON_MS + DAY_MS)
    assert outcomes(pipeline) == (1, 1)


def test_a_day_with_more_evidence_than_an_envelope_takes_is_cut_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It goes on publishing; how many cells had no room is known."""
    most = max(len(p.arrays["n"]) for p in WHOLE.contributions if p.key.part == "evidence")
    monkeypatch.setattr("stream.summaries.MAX_CELLS", most - 2)
    pipeline, trace, begin, left_out = Pipeline(a_config()), Trace(), 0, []
    for end in [i + 1 for i, event in enumerate(LOG) if isinstance(event, Exchange)]:
        feed(pipeline, BATCH, LOG[begin:end], RELEASES, trace=trace)
        left_out.append(pipeline.summaries.left_out)
        begin = end
    sizes = [len(p.arrays["n"]) for p in trace.contributions if p.key.part == "evidence"]
    assert max(sizes) == most - 2
    assert max(left_out) == 2


def test_evidence_published_is_what_a_count_gives() -> None:
    """Cell by cell: outcomes and frauds of each terminal by the hour in which they were known."""
    newest = {
        piece.key.bucket: EvidenceCells(**piece.arrays)  # type: ignore[arg-type]  # its fields
        for piece in WHOLE.contributions
        if piece.key.part == "evidence"
    }
    found = {
        (cells.name[i].tobytes(), day * 24 + int(cells.hour[i])): (cells.n[i], cells.f[i])
        for day, cells in newest.items()
        for i in range(len(cells))
    }
    label_of = {label.transaction_id: label for label in LABELS}
    n: Counter[tuple[bytes, int]] = Counter()
    f: Counter[tuple[bytes, int]] = Counter()
    published_ms = (max(e.epoch for e in LOG if isinstance(e, Exchange)) + 1) * DAY_MS
    for i, transaction_id in enumerate(BATCH.transaction_id):
        label = label_of.get(transaction_id)
        paid_ms = int(BATCH.event_time_ms[i])
        known_ms = paid_ms + HORIZON_MS if label is None else label.labelled_at_ms
        if known_ms <= published_ms:
            terminal = BATCH.entities["terminal"][i]
            assert terminal is not None
            cell = pseudonym(SECRET, "terminal", terminal), known_ms // HOUR_MS
            n[cell] += 1
            f[cell] += label is not None and label.is_fraud
    assert found == {cell: (n[cell], f[cell]) for cell in n}


def test_an_epoch_closes_with_its_watermark_and_the_number_of_its_pieces() -> None:
    """The closing piece is the last of each epoch."""
    epochs: dict[int, list[tuple[str, np.ndarray]]] = {}
    for piece in WHOLE.contributions:
        is_closing = piece.key.part == "epoch"
        epochs.setdefault(piece.epoch, []).append(
            (piece.key.part, piece.arrays["n_contributions"] if is_closing else np.zeros(0))
        )
        if is_closing:
            assert piece.arrays["watermark_ms"].tolist() == [(piece.epoch + 1) * DAY_MS]
    for pieces in epochs.values():
        assert [part for part, _ in pieces].count("epoch") == 1
        part, count = pieces[-1]
        assert part == "epoch"
        assert count.tolist() == [len(pieces) - 1]


def test_what_did_not_change_is_not_published_again() -> None:
    """Evidence of unchanged days stays away; histograms keep to the statistics' cadence."""
    pipeline = Pipeline(a_config(statistics_cadence_ms=DAY_MS))
    pipeline.score(some([0]))
    pipeline.advance(START_MS + HORIZON_MS)
    parts = []
    for hours in (0, 1, 24):
        pipeline.advance(START_MS + HORIZON_MS + hours * HOUR_MS)
        made = pipeline.contributions(hours)
        pipeline.published(range(len(made)))
        parts.append([piece.key.part for piece in made])
    assert parts == [["histograms", "evidence", "epoch"], ["epoch"], ["histograms", "epoch"]]


def test_installing_a_release_twice_or_an_older_one_changes_nothing() -> None:
    """Not a bit of the whole state."""
    pipeline = Pipeline(a_config())
    feed(pipeline, BATCH, LOG, RELEASES)
    before = {name: array.tobytes() for name, array in dump(pipeline).arrays.items()}
    meta = dump(pipeline).meta
    for release in RELEASES.values():
        pipeline.install(release)
    after = {name: array.tobytes() for name, array in dump(pipeline).arrays.items()}
    assert after == before
    assert dump(pipeline).meta == meta


def test_a_release_of_a_later_epoch_is_installed_whatever_its_number() -> None:
    """The consortium's topic was made anew; the state goes on from there."""
    pipeline = Pipeline(a_config())
    feed(pipeline, BATCH, LOG, RELEASES)
    last = max(RELEASES.values(), key=lambda release: release.age)
    assert pipeline.release_age == last.age
    assert last.number > 1
    anew = replace(last, epoch=last.epoch + 1, number=1)
    pipeline.install(anew)
    assert pipeline.release_age == anew.age
    assert restore(a_config(), dump(pipeline)).release_age == anew.age


def test_alerts_are_the_rows_marked_and_carry_the_release_that_scored_them() -> None:
    """One alert per mark, in order, above its threshold."""
    pipeline = Pipeline(a_config())
    last = max(place for place, event in enumerate(LOG) if isinstance(event, Exchange))
    feed(pipeline, BATCH, LOG[: last + 1], RELEASES)
    rows = np.array([event for event in LOG[last:] if isinstance(event, int)])
    scored = pipeline.score(BATCH.take(rows))
    marked = [BATCH.transaction_id[i] for i in rows[scored.alert].tolist()]
    assert marked
    assert [alert.transaction_id for alert in scored.alerts] == marked
    assert [alert.alert_id for alert in scored.alerts] == [alert_id_of("north", t) for t in marked]
    number = str(max(release.number for release in RELEASES.values()))
    assert {alert.release for alert in scored.alerts} == {number}
    assert all(alert.y_score > alert.threshold for alert in scored.alerts)


def test_refused_rows_leave_the_others_as_if_they_had_not_come() -> None:
    """Duplicates, in the batch or before, and rows too late are reported by position."""
    clean = Pipeline(a_config())
    expected = clean.score(some([0, 3 * DAY_MS]))
    pipeline = Pipeline(a_config())
    dirty = some([0, 3 * DAY_MS, 5, 3 * DAY_MS])
    dirty = replace(dirty, transaction_id=["t0", "t1", "late", "t0"])
    scored = pipeline.score(dirty)
    assert scored.accepted.tolist() == [0, 1]
    assert [(r.row, r.reason) for r in scored.rejected] == [
        (2, "late_event"),
        (3, "duplicate_transaction"),
    ]
    assert bits(scored.scores.ravel()) == bits(expected.scores.ravel())
    again = pipeline.score(dirty)
    assert len(again.accepted) == 0
    assert [r.row for r in again.rejected] == [0, 1, 2, 3]
    assert dump(pipeline).meta == dump(clean).meta


def test_an_empty_batch_gives_an_empty_answer() -> None:
    """With the shapes of any other."""
    scored = Pipeline(a_config()).score(some([]))
    assert scored.scores.shape == (0, 2)
    assert scored.logit.shape == scored.alert.shape == (0,)
    assert scored.alerts == scored.rejected == []


def test_the_secret_is_not_shown() -> None:
    """A configuration may be logged."""
    assert "secret" not in repr(a_config(secret=b"do not show"))
    assert "do not show" not in repr(a_config(secret=b"do not show"))


def test_a_label_said_just_before_old_rows_are_dropped_is_learnt_for_its_own() -> None:
    """Rows move up when old ones go: said after midnight's tick, of a row that then moves."""
    config = a_config(label_horizon_ms=DAY_MS, retention_ms=2 * DAY_MS)
    pipeline = Pipeline(config)
    paid = [day * DAY_MS + hour * HOUR_MS for day in range(4) for hour in range(4)]
    pipeline.score(some(paid))
    assert pipeline.learn([said("t10", 4 * DAY_MS + HOUR_MS // 6)]) == []
    before = pipeline.log.size
    pipeline.score(some([4 * DAY_MS + HOUR_MS // 3, 4 * DAY_MS + 2 * HOUR_MS], prefix="late"))
    assert pipeline.log.size < before + 2
    assert outcomes(pipeline)[1] == 1
    row = int(pipeline.log.find(hash_ids(["t10"]))[0])
    assert row >= 0
    assert pipeline.log.outcome[row] == FRAUD
    assert np.count_nonzero(pipeline.log.outcome == FRAUD) == 1


def test_attributes_are_features_of_both_experts() -> None:
    """After account and entities; an own row has own evidence, then the same attributes."""
    specs = attribute_specs({"channel": "text", "age": "number", "lacking": "number"})
    schema = Schema(entity_kinds=("terminal",), attributes=specs)
    pipeline = Pipeline(a_config(schema=schema))
    n = len(BATCH)
    age = np.where(np.arange(n) % 3 == 0, np.nan, np.arange(n) / 7)
    batch = replace(BATCH, attributes={**BATCH.attributes, "age": age})
    accepted = pipeline.score(batch).accepted
    without = Pipeline(a_config())
    without.score(BATCH)
    features = pipeline.log.features
    rows = pipeline.log.event_ms >= 0
    expected = np.column_stack(
        [
            age[accepted],
            category_values("channel", BATCH.attributes["channel"][accepted]),
            np.full(len(accepted), np.nan),
        ]
    ).astype(np.float32)
    kept = expected[-len(features) :]
    np.testing.assert_array_equal(features[rows][:, 32:], kept)
    np.testing.assert_array_equal(features[:, :32], without.log.features)
    shared = pipeline.log.at(np.arange(5)).matured()
    own = pipeline.log.at(np.arange(5)).matured_as_own()
    assert own.features.shape == shared.features.shape == (5, 35)
    np.testing.assert_array_equal(own.features[:, 32:], kept[:5])
    np.testing.assert_array_equal(own.features[:, 20:32], pipeline.log.own[:5])


def test_attributes_change_nothing_about_cuts() -> None:
    """One record at a time gives the bits of the whole."""
    config = a_config(schema=Schema(entity_kinds=("terminal",), attributes=CHANNEL))
    events = [event for event in LOG if not isinstance(event, Exchange)][:600]
    traces = [feed(Pipeline(config), BATCH, events, cuts=cuts) for cuts in ([], range(len(events)))]
    assert bits(traces[0].scores) == bits(traces[1].scores)
