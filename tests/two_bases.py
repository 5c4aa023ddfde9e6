"""Two bases with the same bins and crosses and other trees, rows, and statistics of them."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from amalgamator.policy import BasisPolicy, FoldConfig
from models.basis import Basis, encode
from models.families.scorecard import Statistics
from models.release import Release
from models.release_hashes import seal_release
from models.summary import Contribution, ContributionKey
from models.trees import TreeList, bare_trees, together
from tests.consortium import SCHEMA

N_FEATURES = SCHEMA.n_features
EDGES = ((0, (-1.0, 0.0, 0.5)), (2, (0.0,)), (5, (-0.5, 1.0)))
CONFIG = FoldConfig(
    schema=SCHEMA,
    ridge=4.0,
    leaf_ridge=9.0,
    half_life_d=100.0,
    prior_logit=-2.0,
    basis=BasisPolicy(min_n=10**9),
    trust=None,
)


def stump(feature: int, threshold: float, *, absent_left: bool = False) -> TreeList:
    """Return a tree of one node."""
    return bare_trees(
        n_nodes=np.array([1], np.int32),
        feature=np.array([feature], np.int16),
        threshold=np.array([threshold], np.float32),
        absent_left=np.array([absent_left], np.uint8),
        left=np.array([-1], np.int16),
        right=np.array([-2], np.int16),
    )


def three_leaves(*, renumbered: bool = False) -> TreeList:
    """Return one tree of two nodes; renumbered, its leaves stand in another order."""
    return bare_trees(
        n_nodes=np.array([2], np.int32),
        feature=np.array([0, 5], np.int16),
        threshold=np.array([0.0, 1.0], np.float32),
        absent_left=np.array([1, 0], np.uint8),
        left=np.array([1, -3 if renumbered else -1], np.int16),
        right=np.array([-1, -2] if renumbered else [-3, -2], np.int16),
    )


def basis_with(number: int, trees: list[TreeList], edges: object = EDGES) -> Basis:
    """Return a basis of three features, two crosses and these trees."""
    known = dict(edges)  # type: ignore[call-overload]  # pairs
    counts = np.array([len(known.get(f, ())) for f in range(N_FEATURES)], np.int32)
    values = np.array([e for f in range(N_FEATURES) for e in known.get(f, ())], np.float32)
    return Basis(
        number=number,
        schema_hash=SCHEMA.hash,
        edges=values,
        n_edges=counts,
        coarse_edges=values,
        n_coarse_edges=counts,
        selected=np.array(sorted(known), np.int32),
        crosses=np.array([[0, 2], [5, 0]], np.int32),
        n_categories=np.zeros(N_FEATURES, np.int32),
        trees=bare_trees(**_plain(together(trees))),
        drawn=9,
        grown=9,
    )


def _plain(trees: TreeList) -> dict[str, NDArray[np.generic]]:
    names = ("n_nodes", "feature", "threshold", "absent_left", "left", "right")
    return {name: getattr(trees, name) for name in names}


def old_basis() -> Basis:
    """Return basis 1: a tree that goes, a stump that stays, a tree that stays."""
    return basis_with(1, [stump(2, 0.0), stump(5, 1.0, absent_left=True), three_leaves()])


def new_basis() -> Basis:
    """Return basis 2: what stays in another order and numbered otherwise, and a new stump."""
    return basis_with(
        2, [three_leaves(renumbered=True), stump(0, 0.5), stump(5, 1.0, absent_left=True)]
    )


def rows(n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return features, of which some are absent, and outcomes."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, N_FEATURES)).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    return features, rng.random(n) < 0.2


def statistics_of(
    member: str, bucket: int, basis: Basis, *, seed: int, n: int = 80, worker: str = "0"
) -> Contribution:
    """Return statistics of drawn rows at drawn log-odds, as a member publishes them."""
    features, is_fraud = rows(n, seed)
    statistics = Statistics(basis.n_weights)
    statistics.add(encode(basis, features), is_fraud, logits_of(n, seed), kept=np.ones(n, np.bool_))
    packed, gradient = statistics.rounded(np.zeros(basis.n_weights))
    return Contribution(
        key=ContributionKey(member, worker, "statistics", bucket),
        epoch=1,
        basis=basis.number,
        n=n,
        arrays={"curvature": packed, "gradient": gradient},
    )


def logits_of(n: int, seed: int) -> NDArray[np.float64]:
    """Return the log-odds at which those rows were scored; none is dull."""
    return np.random.default_rng(seed + 1).uniform(-3.0, 2.0, n)


def dense(basis: Basis, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the active weights as a matrix of zeros and ones."""
    out = np.zeros((len(features), basis.n_weights))
    for x, active in zip(out, encode(basis, features), strict=True):
        x[active[active >= 0]] = 1.0
    return out


def renumbered(basis: Basis, number: int) -> Basis:
    """Return the same transforms under another number."""
    return replace(basis, number=number)


def release_on(basis: Basis, weights: NDArray[np.float64], next_basis: Basis | None) -> Release:
    """Return a sealed release with a scorer and nothing else."""
    return seal_release(
        Release(
            number=4,
            epoch=3,
            created_ms=0,
            release_id="",
            sources=(),
            basis=basis,
            weights=weights,
            next_basis=next_basis,
            evidence={},
        )
    )
