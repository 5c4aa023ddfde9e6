"""One bank's worker as a pure value machine: transactions, labels and releases in, decisions out.

Everything runs on event time. ``tick_ms`` quantises maturing: when the watermark passes a multiple
of it, labels that came and transactions whose label horizon passed are learnt, before the next
transaction is scored; so the result does not depend on how the stream was cut into batches.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from models.entity_risk import EvidenceCells
from models.features.accounts import DAY_MS, HOUR_MS
from models.features.accounts import N_FEATURES as N_ACCOUNT
from models.features.entities import N_FEATURES as N_ENTITY
from models.features.entities import read
from models.histograms import to_cells
from models.records import Alert, Label, TransactionBatch
from models.release import Release
from models.schema import Schema
from models.summary import Contribution, ContributionKey, Part
from stream.account_table import AccountTable
from stream.admission import AdmissionPolicy, admit
from stream.entity_table import EntityTable
from stream.experts import LearningPolicy, Matured, OwnExpert, SharedExpert
from stream.judge import EXPERTS, N_RECENT, Judge, JudgePolicy
from stream.label_join import LabelJoin, Rejected, hash_ids
from stream.row_log import FRAUD, LEGIT, RowLog


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineConfig:
    """What a worker needs to know.

    Parameters
    ----------
    member, worker
        Who publishes.
    schema
        The consortium's.
    secret
        The members' pseudonym key.
    tick_ms
        Quantum of maturing, > 0, divides a day.
    label_horizon_ms
        After it a transaction without a label counts as legitimate.
    retention_ms
        For how long matured rows are kept (late chargebacks, re-encoding, blend).
    statistics_cadence_ms
        Event time between publications of statistics and histograms; evidence goes every epoch.
    learning, judging, admission
        Policies of the scorecards, of blend and alerts, of what is taken in.
    """

    member: str
    worker: str = "0"
    schema: Schema
    secret: bytes = field(repr=False)
    tick_ms: int = HOUR_MS
    label_horizon_ms: int = 7 * DAY_MS
    retention_ms: int = 90 * DAY_MS
    statistics_cadence_ms: int = DAY_MS
    learning: LearningPolicy = LearningPolicy()
    judging: JudgePolicy = JudgePolicy()
    admission: AdmissionPolicy = AdmissionPolicy()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """The outcome of one batch.

    Parameters
    ----------
    accepted
        int64 of shape (n,): positions in the batch that were scored, in order.
    scores
        float64 of shape (n, 2): log-odds of the own and the merged scorecard, NaN for none.
    logit
        float64 of shape (n,): the blend.
    alert
        bool of shape (n,).
    alerts
        One per True in ``alert``.
    rejected
        Rows that were not scored, and why.
    release
        Number of the release that scored the last row, 0 for none.
    """

    accepted: NDArray[np.int64]
    scores: NDArray[np.float64]
    logit: NDArray[np.float64]
    alert: NDArray[np.bool_]
    alerts: list[Alert]
    rejected: list[Rejected]
    release: int


class Pipeline:
    """State of one worker; see the module's text.

    Parameters
    ----------
    config
        Fixed for the pipeline's life.
    """

    def __init__(self, config: PipelineConfig) -> None:
        schema = config.schema
        n_kinds = len(schema.entity_kinds)
        self.config = config
        self.accounts = AccountTable(config.secret)
        self.entities = EntityTable(schema.entity_kinds, config.secret)
        self.log = RowLog(
            n_entities=n_kinds,
            n_features=len(schema.feature_names),
            n_own=n_kinds * N_ENTITY,
            n_experts=len(EXPERTS),
        )
        self.labels = LabelJoin()
        self.own = OwnExpert(schema, config.learning)
        self.shared = SharedExpert(schema, config.learning)
        self.judge = Judge(config.member, schema, config.judging)
        self.watermark_ms = -1
        self.newest_ms: dict[int, int] = {}
        self.tick_ms = -1
        self.release_number = 0
        self.statistics_due_ms = -1
        self._cells: list[tuple[int, ContributionKey, EvidenceCells]] = []

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
        for start, stop in _segments(arrival_ms, self.config.tick_ms):
            self.advance(int(arrival_ms[start]))
            rows = accepted[start:stop]
            mine = np.array([hashes[i] for i in rows.tolist()], np.uint64)
            scored.append(self._score_segment(batch.take(rows), arrival_ms[start:stop], mine))
            self.watermark_ms = int(arrival_ms[stop - 1])
        scores, logit, alert = (
            np.concatenate(column) if scored else empty
            for column, empty in zip(
                list(zip(*scored, strict=True))[:3] or [(), (), ()],
                (np.empty((0, len(EXPERTS))), np.empty(0), np.empty(0, bool)),
                strict=True,
            )
        )
        return Scored(
            accepted=accepted,
            scores=scores,
            logit=logit,
            alert=alert,
            alerts=[one for segment in scored for one in segment[3]],
            rejected=rejected,
            release=self.release_number,
        )

    def _score_segment(
        self,
        batch: TransactionBatch,
        arrival_ms: NDArray[np.int64],
        hashes: NDArray[np.uint64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], list[Alert]]:
        n = len(batch)
        account = self.accounts.rows(batch.account_id)
        features = np.empty((n, len(self.config.schema.feature_names)), np.float32)
        self.accounts.observe(account, batch.event_time_ms, batch.amount, features)
        entity, own = self._read_entities(batch, features)
        scores = (
            np.column_stack([self.own.score(_own_rows(features, own)), self.shared.score(features)])
            .astype(np.float32)
            .astype(np.float64)
        )
        self.log.append(
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
        self.labels.unpark(self.log, hashes.tolist(), self.tick_ms)
        logit, alert, threshold = self.judge.decide(scores, batch.event_time_ms)
        chosen = np.flatnonzero(alert)
        alerts = self.judge.explain(
            batch.take(chosen),
            (_own_rows(features[chosen], own[chosen]), features[chosen]),
            logit[chosen],
            threshold=threshold[chosen],
            release=self.release_number,
        )
        return scores, logit, alert, alerts

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
        self.log.settle(due, legit, self.log.arrival_ms[due] + horizon_ms)
        index = np.concatenate([self.labels.take_fresh(self.log, until_ms), due])
        if not len(index):
            return
        index = index[np.lexsort((index, self.log.known_ms[index]))]
        own, shared = self._matured(index)
        self.own.learn(own)
        self.shared.learn(shared)
        event_ms, known_ms = self.log.event_ms[index], shared.known_ms
        frauds = np.flatnonzero(shared.is_fraud)
        account = self.log.account[index[frauds]].astype(np.int64)
        self.accounts.learn_frauds(account, event_ms[frauds], known_ms[frauds])
        for k in range(len(self.config.schema.entity_kinds)):
            row = self.log.entity[index, k].astype(np.int64)
            self.entities.learn(row, event_ms, known_ms, shared.is_fraud)

    def _matured(self, index: NDArray[np.int64]) -> tuple[Matured, Matured]:
        """Return rows of the log for the own and for the shared expert."""
        features = self.log.features[index]
        shared = Matured(
            features=features,
            is_fraud=self.log.outcome[index] == FRAUD,
            hashes=self.log.hash[index],
            known_ms=self.log.known_ms[index],
        )
        return replace(shared, features=_own_rows(features, self.log.own[index])), shared

    def _retained(self) -> tuple[Matured, Matured]:
        known_ms = self.log.known_ms
        return self._matured(np.flatnonzero((known_ms >= 0) & (known_ms <= self.tick_ms)))

    def _end_day(self) -> None:
        if self.own.wants_basis:
            self.own.rebase(self._retained()[0])
        self.own.end_day()
        if self.own.basis is not None and self.own.weights is not None:
            recent = self.log.features[-N_RECENT:], self.log.own[-N_RECENT:]
            self.judge.new_scorer(0, self.own.basis, self.own.weights, _own_rows(*recent))
        self.judge.refit(self.log, self.tick_ms)
        self.judge.rescore(self.log, self._rescored)
        self.log.drop_before(
            self.tick_ms - self.config.retention_ms, keep_from=self.labels.first_fresh(self.log)
        )

    def contributions(self, epoch: int) -> list[Contribution]:
        """Return what changed since the last call as cumulative pieces, the closing one last."""
        out = []

        def add(part: Part, bucket: int, n: int, arrays: Mapping[str, NDArray[np.generic]]) -> None:
            key = ContributionKey(self.config.member, self.config.worker, part, bucket)
            basis = 0
            if part == "statistics" and self.shared.collecting is not None:
                basis = self.shared.collecting.number
            out.append(Contribution(key=key, epoch=epoch, basis=basis, n=n, arrays=arrays))

        n = self.shared.n
        if self.tick_ms >= self.statistics_due_ms:
            self.statistics_due_ms = self.tick_ms + self.config.statistics_cadence_ms
            for bucket, (n_rows, packed, gradient) in self.shared.contributions(
                self.tick_ms
            ).items():
                add("statistics", bucket, n_rows, {"curvature": packed, "gradient": gradient})
            add("histograms", 0, n, to_cells(self.shared.counts))
        self._cells = []
        for day, cells in self.entities.changed_cells().items():
            add("evidence", day, int(cells.n.sum()), cells.arrays())
            self._cells.append((len(out) - 1, out[-1].key, cells))
        closing = {
            "watermark_ms": np.array([self.watermark_ms], np.int64),
            "n_contributions": np.array([len(out)], np.int64),
        }
        add("epoch", 0, n, closing)
        return out

    def published(self, seqs: Sequence[int]) -> None:
        """Note the sequence numbers under which the last `contributions` went out, one for each."""
        cells = {key.bucket: (seqs[i], cells) for i, key, cells in self._cells}
        self.entities.published(cells, open_day=self.tick_ms // DAY_MS)
        self._cells = []

    def install(self, release: Release) -> None:
        """Swap a release in; an older one than the installed is ignored."""
        if release.number <= self.release_number:
            return
        self.release_number = release.number
        mine = (self.config.member, self.config.worker)
        own = [s for s in release.sources if (s.member, s.worker) == mine]
        self.entities.install(
            release.evidence,
            seq=own[0].seq if own else -1,
            weight=own[0].weight if own else 0.0,
            weights=tuple((s.member, s.worker, s.weight) for s in release.sources),
            max_frauds=own[0].max_frauds if own else 0,
        )
        collecting = release.next_basis or release.basis
        is_new_scorer = not _same(self.shared.weights, release.weights)
        retained = None
        if self.shared.needs_rows(collecting):
            retained = self._retained()[1]
            self.statistics_due_ms = self.tick_ms  # the others wait for them
        self.shared.install(release.basis, release.weights, collecting, retained)
        if is_new_scorer and release.basis is not None and release.weights is not None:
            recent = self.log.features[-N_RECENT:]
            self.judge.new_scorer(1, release.basis, release.weights, recent)
            self.judge.rescore(self.log, self._rescored)

    def _rescored(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the experts' scores of logged rows under what is in force now."""
        features = self.log.features[index]
        own = self.own.score(_own_rows(features, self.log.own[index]))
        return np.column_stack([own, self.shared.score(features)])


def _segments(arrival_ms: NDArray[np.int64], tick_ms: int) -> Iterator[tuple[int, int]]:
    """Yield the pieces of a batch that lie within one tick."""
    if len(arrival_ms):
        cuts = (np.flatnonzero(np.diff(arrival_ms // tick_ms)) + 1).tolist()
        yield from zip([0, *cuts], [*cuts, len(arrival_ms)], strict=True)


def _same(a: NDArray[np.float64] | None, b: NDArray[np.float64] | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))


def _own_rows(features: NDArray[np.float32], own: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows as the own expert sees them: the account's, then own evidence alone."""
    return np.concatenate([features[:, :N_ACCOUNT], own], axis=1)
