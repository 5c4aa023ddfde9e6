"""A small consortium for tests: seeded contributions of every part, keys and a registry."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from amalgamator.registry import Member, Registry
from models.basis import Basis
from models.codec import Context, encode_contribution
from models.entity_risk import EvidenceCells
from models.envelope import open_envelope
from models.histograms import N_CELLS
from models.keys import Signer, Verifier
from models.schema import Schema
from models.summary import Contribution, ContributionKey, proposal_arrays
from models.trees import TreeList

SCHEMA = Schema(entity_kinds=("terminal",))
CONSORTIUM = "test"
MEMBERS = ("alpha", "beta", "gamma")
AMALGAMATOR = Signer(bytes([99]) * 32)
NOW_MS = 1_750_000_000_000


def signer_of(member: str) -> Signer:
    """Return a member's key, the same on every run."""
    return Signer((member.encode() * 32)[:32])


def member_of(name: str, workers: Sequence[str] = ("0",)) -> Member:
    """Return a registered member with its one key."""
    verifier = Verifier(signer_of(name).public_key)
    return Member(name=name, verifiers={verifier.key_id: verifier}, workers=tuple(workers))


def registry_of(members: Iterable[str] = MEMBERS) -> Registry:
    """Return a registry of these members with one worker each."""
    return Registry(
        consortium=CONSORTIUM,
        entity_kinds=SCHEMA.entity_kinds,
        members={name: member_of(name) for name in members},
    )


def evidence(
    member: str, day: int, *, seed: int, epoch: int = 1, n_cells: int = 20
) -> Contribution:
    """Return evidence of a day on names that members share."""
    rng = np.random.default_rng(seed)
    names = np.zeros((n_cells, 16), np.uint8)
    names[:, 0] = rng.integers(0, 4, n_cells)
    names[:, 15] = rng.integers(0, 2, n_cells)
    hour = rng.integers(0, 24, n_cells).astype(np.uint8)
    _, kept = np.unique(np.column_stack([names, hour]), axis=0, return_index=True)
    names, hour = names[kept], hour[kept]
    n = rng.integers(1, 9, len(kept)).astype(np.float32)
    f = np.minimum(rng.integers(0, 3, len(kept)), n).astype(np.float32)
    at_ms = day * 86_400_000 + rng.integers(0, 10_000, len(kept))
    cells = EvidenceCells(
        name=names,
        kind=np.zeros(len(kept), np.uint8),
        hour=hour,
        n=n,
        f=f,
        first_fraud_ms=np.where(f > 0, at_ms, -1),
        last_fraud_ms=np.where(f > 0, at_ms + 5, -1),
        last_legit_ms=np.where(n > f, at_ms + 9, -1),
    )
    key = ContributionKey(member, "0", "evidence", day)
    return Contribution(key=key, epoch=epoch, basis=0, n=int(n.sum()), arrays=cells.arrays())


def histograms(member: str, *, n: int, n_frauds: int, seed: int, epoch: int = 1) -> Contribution:
    """Return histograms of n rows, each feature in a few cells of its own."""
    rng = np.random.default_rng(seed)
    n_features = len(SCHEMA.feature_names)
    counts = np.zeros((n_features, 2, N_CELLS), np.uint32)
    for feature in range(n_features):
        for is_fraud, size in ((0, n - n_frauds), (1, n_frauds)):
            cells = N_CELLS // 2 + 1 + rng.integers(0, 400, size)
            np.add.at(counts[feature, is_fraud], cells, 1)
    feature, is_fraud, cell = np.nonzero(counts)
    return Contribution(
        key=ContributionKey(member, "0", "histograms", 0),
        epoch=epoch,
        basis=0,
        n=n,
        arrays={
            "feature": feature.astype(np.int16),
            "is_fraud": is_fraud.astype(np.uint8),
            "cell": cell.astype(np.int16),
            "count": counts[feature, is_fraud, cell],
        },
    )


def statistics(member: str, bucket: int, *, basis: int, n_weights: int, seed: int) -> Contribution:
    """Return normal equations of rows with three active weights each, the bias among them."""
    rng = np.random.default_rng(seed)
    square, gradient = np.zeros((n_weights, n_weights)), np.zeros(n_weights)
    n_rows = 30
    for _ in range(n_rows):
        row = np.unique(np.r_[0, rng.integers(1, n_weights, 2)]) if n_weights > 1 else np.array([0])
        h = rng.uniform(0.01, 0.25)
        square[np.ix_(row, row)] += h
        gradient[row] += rng.normal()
    return Contribution(
        key=ContributionKey(member, "0", "statistics", bucket),
        epoch=2,
        basis=basis,
        n=n_rows,
        arrays={
            "curvature": square[np.triu_indices(n_weights)].astype(np.float32),
            "gradient": gradient,
        },
    )


def moments(
    member: str,
    *,
    basis: Basis,
    n: int,
    seed: int,
    linked: tuple[int, int] | None = None,
) -> Contribution:
    """Return moments of n rows, a tenth of them frauds, in which two features may go together.

    Features are independent but for the ``linked`` ones, which in frauds have the same sign.
    """
    rng = np.random.default_rng(seed)
    d = len(SCHEMA.feature_names)
    z = np.clip(np.rint(64 * rng.normal(size=(n, d))), -256, 256).astype(np.int64)
    is_fraud = np.arange(n) % 10 == 0
    if linked is not None:
        a, b = linked
        z[is_fraud, b] = np.sign(z[is_fraud, a]) * np.abs(z[is_fraud, b])
    x = np.concatenate([z, np.ones_like(z)], axis=1)
    upper = np.triu_indices(2 * d)
    of_class = [x[~is_fraud], x[is_fraud]]
    v = np.array([10, 1])
    return Contribution(
        key=ContributionKey(member, "0", "moments", 0),
        epoch=2,
        basis=basis.number,
        n=10 * n,
        arrays={
            "n": v * [len(one) for one in of_class],
            "sums": np.array([k * one.sum(axis=0) for k, one in zip(v, of_class, strict=True)]),
            "products": np.array(
                [k * (one.T @ one)[upper] for k, one in zip(v, of_class, strict=True)]
            ),
        },
    )


def proposal(
    member: str, period: int, *, basis: Basis, n_trees: int, seed: int, n: int = 150
) -> Contribution:
    """Return stumps at edges of the basis, the first with the highest gain."""
    rng = np.random.default_rng(seed)
    first_edge = np.cumsum(basis.n_edges) - basis.n_edges
    feature = rng.choice(np.flatnonzero(basis.n_edges), n_trees).astype(np.int16)
    place = first_edge[feature] + rng.integers(0, basis.n_edges[feature])
    trees = TreeList(
        n_nodes=np.ones(n_trees, np.int32),
        feature=feature,
        threshold=basis.edges[place],
        absent_left=rng.integers(0, 2, n_trees).astype(np.uint8),
        left=np.full(n_trees, -1, np.int16),
        right=np.full(n_trees, -2, np.int16),
        leaf_n=np.full(2 * n_trees, 60, np.uint32),
        leaf_accounts=np.full(2 * n_trees, 30, np.uint32),
        gain=np.sort(rng.uniform(1, 9, n_trees).astype(np.float32))[::-1].copy(),
    )
    return Contribution(
        key=ContributionKey(member, "0", "trees", 0),
        epoch=2,
        basis=basis.number,
        n=n,
        arrays=proposal_arrays(trees, period),
    )


def closing(member: str, epoch: int, n_contributions: int = 0) -> Contribution:
    """Return the contribution that closes a member's epoch."""
    return Contribution(
        key=ContributionKey(member, "0", "epoch", 0),
        epoch=epoch,
        basis=0,
        n=0,
        arrays={
            "watermark_ms": np.array([epoch * 86_400_000], np.int64),
            "n_contributions": np.array([n_contributions], np.int64),
        },
    )


def envelopes(contributions: Iterable[Contribution]) -> list[bytes]:
    """Return each contribution as its member's next envelope, chained."""
    last: dict[str, tuple[int, bytes]] = {}
    sealed = []
    for contribution in contributions:
        member = contribution.key.member
        seq, prev_hash = last.get(member, (0, b""))
        raw = encode_contribution(
            contribution, context_of(seq=seq + 1, prev_hash=prev_hash), signer_of(member)
        )
        last[member] = (seq + 1, open_envelope(raw).hash)
        sealed.append(raw)
    return sealed


def context_of(*, seq: int = 1, prev_hash: bytes = b"") -> Context:
    """Return an envelope's context at the test's time."""
    context = Context(
        consortium=CONSORTIUM, seq=0, prev_hash=b"", schema_hash=SCHEMA.hash, created_ms=NOW_MS
    )
    return replace(context, seq=seq, prev_hash=prev_hash)


def a_log(n_days: int = 3, epoch: int = 1) -> list[Contribution]:
    """Return what three members publish: evidence, histograms with enough rows, a closed epoch."""
    log = []
    for i, member in enumerate(MEMBERS):
        log += [evidence(member, 20_000 + d, seed=10 * i + d, epoch=epoch) for d in range(n_days)]
        log.append(histograms(member, n=1_500, n_frauds=20, seed=i, epoch=epoch))
        log.append(closing(member, epoch, len(log)))
    return log
