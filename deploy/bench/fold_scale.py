"""What members cost an amalgamator: letting their summaries in, and folding them; no broker.

Each member publishes what a bank does after its first basis, about a megabyte in all, by the
learner, codec and key of a bank: histograms (about 25 KB), statistics of one bucket for a basis of
some 590 weights (about 700 KB), and evidence of eight days (about 240 KB: 600 cells a day on
entities that about six members' cells of a day share, a twentieth of which see frauds). Members
differ in their rows but not in what frauds look like, so that none is doubted. Moments, trees,
answers and nets, which are off by default or come once in weeks, are left out.

What is timed is a fold from nothing, as after a restart or where every member has published all
anew: trust in every member, the sums and their solution, the evidence of every day, and the
release's hashes; with the product's own policy but for the size of the basis. In a running
consortium a fold finds the sums of older buckets and days as it left them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter, time_ns

import numpy as np
from numpy.typing import NDArray

from amalgamator.core import Amalgamator
from amalgamator.gate import Accepted
from amalgamator.policy import FoldConfig
from amalgamator.registry import Member, Registry
from deploy.bench.own_process import in_own_process, resident_bytes, with_peak_growth
from deploy.demo import KINDS
from models.basis import Basis
from models.basis_builder import BasisShape
from models.entity_risk import PSEUDONYM_BYTES, EvidenceCells, aggregate
from models.errors import UnavailableError
from models.features.accounts import DAY_MS
from models.histograms import to_cells
from models.keys import Signer, Verifier
from models.matured import Matured
from models.release import Release
from models.schema import Schema
from models.summary import Contribution, ContributionKey, Part
from stream.experts import LearningPolicy, SharedExpert
from stream.outbox import Outbox

CONSORTIUM = "bench"
SCHEMA = Schema(entity_kinds=KINDS)
_ROUNDS = {5: 3, 50: 3, 500: 1}
_WORKER = "0"
_DAY = 20_454  # 2026-01-01, since 1970
_ROWS = 3_000
_FEATURE_STEP = 0.25
_TELLING = 8
_CELLS_A_DAY = 600
_N_DAYS = 8
_ENTITIES_A_MEMBER = 100
_BAD_EVERY = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldSize:
    """How large a member's summaries are; as above by default.

    Parameters
    ----------
    plain_weights
        Bound on the weights of the basis, see `models.basis_builder.BasisShape`.
    cells
        Cells of evidence a day, before those of one entity and hour become one.
    days
        Of evidence.
    rows
        Matured transactions.
    """

    plain_weights: int = 600
    cells: int = _CELLS_A_DAY
    days: int = _N_DAYS
    rows: int = _ROWS


class MadeMember:
    """A member that publishes what it has learnt from made-up rows.

    Parameters
    ----------
    number
        From which follow name, key and rows.
    names
        Pseudonyms of the consortium's entities, uint8 of shape (n_entities, 16).
    size
        Of its summaries.
    """

    def __init__(self, number: int, names: NDArray[np.uint8], size: FoldSize) -> None:
        self.name = _name(number)
        self._outbox = Outbox(CONSORTIUM, SCHEMA, _signer(number), _now_ms)
        self._rng = np.random.default_rng(number)
        self._names = names
        self._size = size
        self._rows = _matured(size.rows, self._rng)
        self._expert = SharedExpert(SCHEMA, LearningPolicy())
        self._expert.learn(self._rows)

    def histograms(self) -> bytes:
        """Return the envelope of its histograms."""
        return self._sealed("histograms", 0, self._size.rows, to_cells(self._expert.counts))

    def summaries(self, basis: Basis) -> Iterator[bytes]:
        """Yield the envelopes of all its parts, statistics for a basis among them."""
        yield self.histograms()
        self._expert.install(None, None, basis, self._rows)
        learnt = self._expert.contributions((_DAY + self._size.days) * DAY_MS)
        for bucket, (n, arrays) in learnt.items():
            yield self._sealed("statistics", bucket, n, arrays(), basis=basis.number)
        for day in range(_DAY, _DAY + self._size.days):
            cells = self._cells(day)
            yield self._sealed("evidence", day, int(cells.n.sum()), cells.arrays())

    def _cells(self, day: int) -> EvidenceCells:
        n = self._size.cells
        entity = self._rng.integers(len(self._names), size=n)
        at_ms = day * DAY_MS + self._rng.integers(DAY_MS // 2, size=n)
        count = self._rng.integers(1, 3, n).astype(np.float32)
        frauds = ((entity % _BAD_EVERY == 0) & (self._rng.random(n) < 0.5)).astype(np.float32)
        when = np.where(frauds > 0, at_ms, -1)
        return aggregate(
            EvidenceCells(
                name=self._names[entity],
                kind=(entity % len(KINDS)).astype(np.uint8),
                hour=self._rng.integers(24, size=n).astype(np.uint8),
                n=count,
                f=frauds,
                first_fraud_ms=when,
                last_fraud_ms=when,
                last_legit_ms=np.where(count > frauds, at_ms, -1),
            )
        )

    def _sealed(
        self,
        part: Part,
        bucket: int,
        n: int,
        arrays: dict[str, NDArray[np.generic]],
        *,
        basis: int = 0,
    ) -> bytes:
        contribution = Contribution(
            key=ContributionKey(self.name, _WORKER, part, bucket),
            epoch=1,
            basis=basis,
            n=n,
            arrays=arrays,
        )
        self._outbox.put([contribution])
        (letter,) = self._outbox.letters
        self._outbox.confirm(letter)
        return letter.raw


def _name(number: int) -> str:
    return f"member-{number:04d}"


def _signer(number: int) -> Signer:
    return Signer(number.to_bytes(32, "big"))


def _registered(number: int) -> Member:
    """Return a member's entry in the registry, as weighty as every other."""
    verifier = Verifier(_signer(number).public_key)
    return Member(name=_name(number), verifiers={verifier.key_id: verifier}, workers=(_WORKER,))


def _matured(n: int, rng: np.random.Generator) -> Matured:
    """Return rows whose first few features tell frauds, by the same rule at every member."""
    rough = rng.normal(size=(n, SCHEMA.n_features)) / _FEATURE_STEP
    features = (np.rint(rough) * _FEATURE_STEP).astype(np.float32)
    log_odds = 0.6 * features[:, :_TELLING].sum(axis=1) - 4.5
    return Matured(
        features=features,
        is_fraud=rng.random(n) < 1.0 / (1.0 + np.exp(-log_odds)),
        hashes=rng.integers(2**63, size=n, dtype=np.uint64),
        known_ms=np.full(n, _DAY * DAY_MS),
    )


def _pseudonyms(n: int) -> NDArray[np.uint8]:
    """Return the names of n entities, even over all bytes as those of a keyed hash are."""
    return np.random.default_rng(0).integers(256, size=(n, PSEUDONYM_BYTES), dtype=np.uint8)


def _now_ms() -> int:
    return time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ready:
    """An amalgamator that holds all summaries and has folded none of them.

    Parameters
    ----------
    amalgamator
        The release that it goes on from asks for statistics and has none.
    founding
        That release.
    receive_s
        Seconds that the gate took in all, of the wall clock.
    summary_bytes
        Of all envelopes.
    """

    amalgamator: Amalgamator
    founding: Release
    receive_s: float
    summary_bytes: int


def make_ready(n_members: int, size: FoldSize = FoldSize()) -> Ready:
    """Have members publish, and let in what they published.

    Raises
    ------
    UnavailableError
        If a summary is refused, or the members' histograms give no basis.
    """
    config = FoldConfig(schema=SCHEMA, shape=BasisShape(plain_weights=size.plain_weights))
    registered = [_registered(number) for number in range(1, n_members + 1)]
    registry = Registry(
        consortium=CONSORTIUM,
        entity_kinds=KINDS,
        members={member.name: member for member in registered},
    )
    names = _pseudonyms(_ENTITIES_A_MEMBER * n_members)
    founder = Amalgamator(registry, config)
    for number in range(1, n_members + 1):
        _receive(founder, MadeMember(number, names, size).histograms())
    founding = founder.close_epoch(0)
    if founding is None or founding.next_basis is None:
        raise UnavailableError("expected a basis of the members' histograms, got none")
    amalgamator = Amalgamator(registry, config, previous=founding)
    receive_s, summary_bytes = 0.0, 0
    for number in range(1, n_members + 1):
        sent = list(MadeMember(number, names, size).summaries(founding.next_basis))
        started_s = perf_counter()
        for raw in sent:
            _receive(amalgamator, raw)
        receive_s += perf_counter() - started_s
        summary_bytes += sum(map(len, sent))
    return Ready(
        amalgamator=amalgamator,
        founding=founding,
        receive_s=receive_s,
        summary_bytes=summary_bytes,
    )


def _receive(amalgamator: Amalgamator, raw: bytes) -> None:
    outcome = amalgamator.receive(raw, _now_ms())
    if not isinstance(outcome, Accepted):
        raise UnavailableError(f"expected an accepted summary, got {outcome}")


def fold_anew(ready: Ready) -> Release:
    """Fold all that is held, nothing of it remembered from a fold before.

    Raises
    ------
    UnavailableError
        If the release has no weights, or a member does not count in full: what was folded is not
        what it was meant to be.
    """
    amalgamator = ready.amalgamator
    amalgamator.set_registry(amalgamator.registry)  # begins with a folder that knows nothing
    amalgamator.resume(ready.founding)
    release = amalgamator.close_epoch(1)
    if release is None or release.weights is None:
        raise UnavailableError("expected a release with weights, got none")
    if doubted := amalgamator.trust.doubted():
        raise UnavailableError(f"expected no doubted member, got {len(doubted)}: {doubted[0]}")
    return release


def measure_fold(n_members: int, rounds: int, size: FoldSize = FoldSize()) -> dict[str, float]:
    """Return seconds of a fold, and what receiving takes and all of it holds.

    Parameters
    ----------
    n_members
        That have published.
    rounds
        The least of so many folds is taken.
    size
        Of their summaries.
    """
    fold_anew(make_ready(3, FoldSize(plain_weights=60, cells=20, days=2)))  # compiles
    before = resident_bytes()
    ready = make_ready(n_members, size)
    held = resident_bytes() - before
    taken_s, growth = [], 0
    for _ in range(rounds):
        started_s = perf_counter()
        _, grown = with_peak_growth(lambda: fold_anew(ready))
        taken_s.append(perf_counter() - started_s)
        growth = max(growth, grown)
    return {
        f"fold_{n_members}_members_1mb_s": min(taken_s),
        f"fold_{n_members}_members_mb": growth / 1e6,
        f"held_{n_members}_members_mb": held / 1e6,
        "receive_member_ms": ready.receive_s / n_members * 1e3,
        "summary_member_mb": ready.summary_bytes / n_members / 1e6,
    }


def measure_folds() -> dict[str, float]:
    """Return the figures of 5, 50 and 500 members; what is of a member is of the most members."""
    figures: dict[str, float] = {}
    for n_members, rounds in _ROUNDS.items():
        figures |= in_own_process(measure_fold, n_members, rounds)
    few_s, many_s = (figures[f"fold_{n}_members_1mb_s"] for n in (50, 500))
    return {**figures, "fold_500_vs_50": many_s / few_s}
