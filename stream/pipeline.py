"""One bank's worker as a pure value machine: transactions, labels and releases in, decisions out.

Everything runs on event time. ``tick_ms`` quantises maturing: when the watermark passes a multiple
of it, labels that came and transactions whose label horizon passed are learnt, before the next
transaction is scored; so the result does not depend on how the stream was cut into batches.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.alignment import correction_by_outcomes
from models.families.base import Family, SharedNet
from models.families.registry import make_families, make_shared_net
from models.features.accounts import DAY_MS
from models.features.accounts import N_FEATURES as N_ACCOUNT
from models.features.attributes import attribute_rows
from models.features.entities import N_FEATURES as N_ENTITY
from models.features.entities import read
from models.records import Label, TransactionBatch
from models.release import Age, Release, Source
from models.summary import Contribution
from stream.account_table import AccountTable
from stream.admission import admit, segments
from stream.day_work import DayOver, do_at_once
from stream.drift import DriftWatch
from stream.drift_policy import DriftAlarm, watched_columns
from stream.entity_table import EntityTable
from stream.expert_arrays import is_same_weights
from stream.fixed_rows import FixedRows
from stream.judge import N_RECENT, Judge
from stream.known_rows import KnownRows
from stream.label_join import LabelJoin, Rejected, hash_ids
from stream.panel import Panel, Piece
from stream.pipeline_config import PipelineConfig
from stream.row_log import LEGIT, RowLog, own_rows
from stream.scales import AttributeScales
from stream.scored import Scored, Segment
from stream.summaries import Draft, Summaries
from stream.swap import Swap
from stream.units import UnitAlignment, rescale_state


class Pipeline:
    """State of one worker; see the module's text.

    Parameters
    ----------
    config
        Fixed for the pipeline's life.

    Attributes
    ----------
    leaves_days
        Whether what is slow at a day's end is left to whoever asks for `day_over`.
    day_over
        The newest day of which it is left, None for none; see `stream.day_work`.
    """

    def __init__(self, config: PipelineConfig) -> None:
        schema = config.schema
        n_kinds = len(schema.entity_kinds)
        self.config = config
        self.accounts = AccountTable(config.secret)
        self.entities = EntityTable(schema.entity_kinds, config.secret)
        self.panel = Panel(
            schema,
            config.learning,
            self.untrained_families(),
            config.proposing,
            config.roles,
            self.untrained_net(),
        )
        self.log = RowLog(
            n_entities=n_kinds,
            n_features=len(schema.feature_names),
            n_own=n_kinds * N_ENTITY,
            n_experts=len(self.panel.names),
        )
        self.labels = LabelJoin()
        self.judge = Judge(config.member, schema, config.judging, cold=self.panel.cold)
        self.watermark_ms = -1
        self.newest_ms: dict[int, int] = {}
        self.tick_ms = -1
        self.release_age = Age()
        self.summaries = Summaries(config.member, config.worker, config.statistics_cadence_ms)
        self.units = UnitAlignment(is_known=config.is_unit_known)
        self.scales = AttributeScales(schema, config.unknown_scales)
        self.known = KnownRows(self.log, self.units, self.scales, self.panel.names)
        self.leaves_days = False
        self.day_over: DayOver | None = None
        columns = watched_columns(schema)
        self.drift = DriftWatch(config.drift, columns, self.panel.names) if config.drift else None
        self.drift_alarms: list[DriftAlarm] = []

    def score(
        self, batch: TransactionBatch, *, clock_ms: int | None = None, source: int = 0
    ) -> Scored:
        """Score transactions in order, learning what falls due between them.

        Parameters
        ----------
        batch
            Canonical records.
        clock_ms
            Wall clock of a live worker: no event may lie after it; None in replay.
        source
            Which of several streams it is of, each of which is nearly in time order by itself.
        """
        hashes = hash_ids(batch.transaction_id)
        attributes = attribute_rows(self.config.schema, batch)
        batch = replace(batch, attributes={})  # no column to cut at every tick
        accepted, arrival_ms, rejected = admit(
            batch.event_time_ms,
            hashes,
            self.log,
            watermark_ms=self.watermark_ms,
            newest_ms=self.newest_ms.get(source, -1),
            clock_ms=clock_ms,
            policy=self.config.admission,
        )
        if len(accepted):
            newest_ms = int(batch.event_time_ms[accepted].max())
            self.newest_ms[source] = max(self.newest_ms.get(source, -1), newest_ms)
        scored = []
        for start, stop in segments(arrival_ms, self.config.tick_ms):
            self.advance(int(arrival_ms[start]))
            rows = accepted[start:stop]
            part = batch.take(rows), attributes[rows]
            scored.append(self._score_segment(*part, arrival_ms[start:stop], hashes[rows]))
            self.watermark_ms = int(arrival_ms[stop - 1])
        return Scored.of(
            scored,
            accepted=accepted,
            experts=self.panel.names,
            rejected=rejected,
            release=self.release_age.number,
        )

    def _score_segment(
        self,
        batch: TransactionBatch,
        attributes: NDArray[np.float32],
        arrival_ms: NDArray[np.int64],
        hashes: NDArray[np.uint64],
    ) -> Segment:
        n = len(batch)
        account = self.accounts.rows(batch.account_id)
        features = np.empty((n, self.config.schema.n_features), np.float32)
        features[:, self.config.schema.n_features - attributes.shape[1] :] = attributes
        amount = self.units.in_reference(batch.amount)
        self.accounts.observe(account, batch.event_time_ms, amount, features)
        entity, own = self._read_entities(batch, features)
        mine, shared = own_rows(features, own), self.scales.in_consortium(features)
        self.scales.count(features)
        scores = self.units.heard(self.panel.of_consortium, self.panel.score(mine, shared))
        scores = scores.astype(np.float32).astype(np.float64)  # as the log keeps them
        if self.drift:
            self.drift.observe_scored(mine)
        added = self.log.append(
            {
                "hash": hashes,
                "event_ms": batch.event_time_ms,
                "arrival_ms": arrival_ms,
                "account": account,
                "entity": entity,
                "features": features,
                "own": own,
                "scores": scores,
            }
        )
        self.labels.unpark(self.log, added, self.tick_ms)
        logit, alert, threshold = self.judge.decide(scores, batch.event_time_ms)
        chosen = np.flatnonzero(alert)
        alerts = self.judge.explain(
            batch.take(chosen),
            (mine[chosen], shared[chosen]),
            logit[chosen],
            threshold=threshold[chosen],
            release=self.release_age.number,
        )
        return Segment(scores, logit, alert, alerts)

    def _read_entities(
        self, batch: TransactionBatch, features: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        n, kinds = len(batch), self.config.schema.entity_kinds
        entity = np.full((n, len(kinds)), -1, np.int64)
        own = np.empty((n, len(kinds) * N_ENTITY), np.float32)
        for k, kind in enumerate(kinds):
            if kind in batch.entities:
                entity[:, k] = self.entities.rows(k, batch.entities[kind])
            of_kind = slice(k * N_ENTITY, (k + 1) * N_ENTITY)
            shared = slice(N_ACCOUNT + of_kind.start, N_ACCOUNT + of_kind.stop)
            read(
                self.entities.state,
                self.entities.days,
                np.ascontiguousarray(entity[:, k]),
                batch.event_time_ms,
                own[:, of_kind],
                features[:, shared],
            )
        return entity, own

    def learn(self, labels: Sequence[Label]) -> list[Rejected]:
        """Take labels in; they are learnt when the watermark next passes a tick after them."""
        return self.labels.learn(self.log, labels, self.tick_ms)

    def advance(self, now_ms: int) -> None:
        """Move the watermark to ``now_ms`` and learn what falls due up to its tick."""
        tick_ms = now_ms // self.config.tick_ms * self.config.tick_ms
        if self.tick_ms < 0:
            self.tick_ms = tick_ms
        while self.tick_ms < tick_ms:
            end_of_day = (self.tick_ms // DAY_MS + 1) * DAY_MS
            self._mature(min(end_of_day, tick_ms))
            self.tick_ms = min(end_of_day, tick_ms)
            if self.tick_ms == end_of_day:
                self._end_day()
        self.watermark_ms = max(self.watermark_ms, now_ms)

    def _mature(self, until_ms: int) -> None:
        horizon_ms = self.config.label_horizon_ms
        due = self.log.due(until_ms - horizon_ms)
        legit = np.full(len(due), LEGIT, np.int8)
        self.log.settle(due, legit, self.log.at(due).arrival_ms + horizon_ms)
        index = np.concatenate([self.labels.take_fresh(self.log, until_ms), due])
        if not len(index):
            return
        index = index[np.lexsort((index, self.log.at(index).known_ms))]
        rows = self.log.at(index)
        shared = self.known.as_shared(rows)
        shareable = shared.take(self.known.shareable(index))
        own = replace(shared, features=own_rows(rows.features, rows.own))
        self.panel.learn(own, shared, shareable)
        if self.drift:
            self.drift.observe_matured(rows.scores.astype(np.float64), shared.is_fraud)
        event_ms, known_ms = rows.event_ms, shared.known_ms
        frauds = np.flatnonzero(shared.is_fraud)
        account = rows.account[frauds].astype(np.int64)
        self.accounts.learn_frauds(account, event_ms[frauds], known_ms[frauds])
        for row in rows.entity.astype(np.int64).T:
            self.entities.learn(np.ascontiguousarray(row), event_ms, known_ms, shared.is_fraud)

    def untrained_families(self) -> list[Family]:
        """Return the bank's own models as they are before the first payment."""
        return make_families(self.config.families, seed=self.config.seed)

    def untrained_net(self) -> SharedNet | None:
        """Return what the bank trains for its consortium as it is then, None for nothing."""
        return make_shared_net(self.config.families) if self.config.uses_nets else None

    def _align(self) -> None:
        shared, is_first = self.panel.shared, not self.units.is_aligned
        found = self.units.align(shared.counts, shared.basis, self.tick_ms, self._correction)
        if found is not None:
            rescale_state(self.accounts, self.log, found)
            if is_first:  # later it is a matter of per cents, which models outlive
                own = self.known.own(self.tick_ms)
                self.panel.realign(own, self.untrained_families(), self.untrained_net())
                self._note_scorers({1})
            else:
                shared.recount(self.known.for_all(self.tick_ms))

    def _correction(self) -> float | None:
        return correction_by_outcomes(
            self.panel.shared.score, self.known.for_all(self.tick_ms).whole()
        )

    def _end_day(self) -> None:
        if self.drift:
            self.drift_alarms += self.drift.end_day(self.tick_ms // DAY_MS - 1)
        self._align()
        if self.scales.settle(self.panel.shared.basis):
            self.log.version += 1
        forgetting = self.drift.forgetting(0) if self.drift else 1.0
        window = self.drift.blend_window() if self.drift else 1.0
        over = DayOver(self.tick_ms // DAY_MS, forgetting, window)
        if self.leaves_days:
            self.day_over = over
        else:
            do_at_once(self, over)
        self.rejudge({0})
        self.log.drop_before(
            self.tick_ms - self.config.retention_ms,
            keep_from=self.labels.first_fresh(self.log),
            max_matured=self.config.retained_rows,
        )

    def rejudge(self, experts: set[int]) -> None:
        """Explain alerts by scorecards that are others now, and tell the budget what scores are."""
        if experts:
            self._note_scorers(experts)
        self.judge.rescore(self.log, self._rescored)

    def _note_scorers(self, experts: set[int]) -> None:
        newest = self.log.newest(N_RECENT)
        features, own = newest.features, newest.own
        shared = self.scales.in_consortium(features)
        for expert, (basis, weights) in self.panel.scorers().items():
            if expert in experts:
                recent = own_rows(features, own) if expert == 0 else shared
                self.judge.new_scorer(expert, basis, weights, recent)

    def contributions(self, epoch: int) -> list[Contribution]:
        """Return what changed since the last call as cumulative pieces, the closing one last."""
        written = self.summaries.written(self.draft(epoch))
        self.summaries.hold(self.entities, written)
        return written.contributions

    def draft(self, epoch: int) -> Draft:
        """Return what `contributions` is made of.

        The state lacks it until `stream.summaries.Summaries.hold` is told what was written.
        """
        return self.summaries.draft(
            self.panel,
            self.entities,
            epoch=epoch,
            now_ms={"tick": self.tick_ms, "watermark": self.watermark_ms},
            is_aligned=self.units.is_aligned,
            answers=self._answers() if self.units.is_aligned else (),
        )

    def _answers(self) -> list[Piece]:
        return self.panel.answers(self.judge.blend.apply, self.scales.in_own)

    def published(self, seqs: Sequence[int]) -> None:
        """Note the sequence numbers under which the last `contributions` went out, one for each."""
        self.summaries.published(self.entities, seqs, self.tick_ms)

    def swap_of(self, release: Release) -> Swap:
        """Return what makes `install` quick, once `Swap.find_out` has been called."""
        shared, encoding = self.panel.shared, None
        if shared.needs_rows(release.asked_basis):
            encoding = shared.untaught(), self.known_to_all()
        return Swap(release, self.entities, self._source_in(release), encoding)

    def known_to_all(self) -> FixedRows:
        """Return the matured rows that the consortium may learn from, as they are now."""
        return FixedRows(
            self.log, lambda: self.known.index_for_all(self.tick_ms), self.known.as_shared
        )

    def _source_in(self, release: Release) -> Source | None:
        mine = (self.config.member, self.config.worker)
        return next((s for s in release.sources if (s.member, s.worker) == mine), None)

    def install(self, release: Release, swap: Swap | None = None) -> None:
        """Swap a release in; an older one than the installed is ignored.

        Parameters
        ----------
        release
            To be in force.
        swap
            What `swap_of` gave of it.
        """
        if release.age <= self.release_age:
            return
        self.release_age = release.age
        own = self._source_in(release)
        self.entities.install(
            release.evidence,
            seq=own.seq if own else -1,
            weight=own.weight if own else 0.0,
            weights=tuple((s.member, s.worker, s.weight) for s in release.sources),
            max_frauds=own.max_frauds if own else 0,
            changes=swap.days if swap else {},
        )
        before = self.panel.shared.weights
        encoded = swap.encoded() if swap else None
        if self.panel.install(release, lambda: self.known.for_all(self.tick_ms), encoded):
            self.summaries.due_ms = self.tick_ms  # the others wait for them
        if is_new := not is_same_weights(before, release.weights):
            self._note_scorers({1})
        if self.panel.install_frozen(release) or is_new:
            self.judge.rescore(self.log, self._rescored)

    def _rescored(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the experts' scores of logged rows under what is in force now."""
        rows = self.log.at(index)
        features = rows.features
        own = own_rows(features, rows.own)
        return self.units.heard(
            self.panel.of_consortium,
            self.panel.rescore(
                own, self.scales.in_consortium(features), rows.scores, rows.arrival_ms
            ),
        )
