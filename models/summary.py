"""What a member publishes: cumulative, keyed contributions that merge by addition."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.trees import TreeList

TREE_ARRAYS = (
    "n_nodes",
    "gain",
    "feature",
    "threshold",
    "absent_left",
    "left",
    "right",
    "leaf_n",
    "leaf_accounts",
)
Part = Literal[
    "histograms", "statistics", "moments", "trees", "evidence", "answers", "net", "epoch"
]


class ContributionKey(NamedTuple):
    """Newest per key wins; merged is the sum over keys."""

    member: str
    worker: str
    part: Part
    bucket: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contribution:
    """One keyed, cumulative piece of what a member's worker has learnt.

    Parameters
    ----------
    key
        Who, which part, which bucket: ``evidence``: the UTC day (days since 1970) in which
        outcomes became known; ``statistics``: that day // the schema's bucket length;
        the rest: 0.
    epoch
        Cadence index at publication (event or wall time // cadence).
    basis
        Number of the basis that ``statistics``, ``moments``, ``trees`` and ``net`` refer to, and of
        the set of probes that ``answers`` are to; 0 for the other parts.
    n
        Matured transactions behind the numbers, >= 0.
    arrays
        Name -> array; the registered names, dtypes and shapes of each part:

        - ``histograms``: ``feature`` int16, ``is_fraud`` uint8, ``cell`` int16, ``count``
          uint32, all of shape (n_cells,), sorted by (feature, is_fraud, cell), no repeats.
        - ``statistics``: ``curvature`` float32 of shape (w * (w + 1) / 2,), the upper
          triangle row by row of A; ``gradient`` float64 of shape (w,), b.
        - ``moments``: the arrays of `models.copula.Moments`: ``n`` int64 (2,), ``sums`` int64
          (2, m), ``products`` int64 (2, m * (m + 1) / 2), m = 2 * n_features.
        - ``trees``: the arrays of a `models.trees.TreeList` without values of leaves, and
          ``period`` int32 (1,), see `proposal_arrays`.
        - ``evidence``: the fields of `models.entity_risk.EvidenceCells`.
        - ``answers``: ``logit`` float32 (n_probes,): log-odds of each probe of a release's set.
        - ``net``: ``flat`` float32 (n_parameters(n_features),): the parameters of a
          `models.families.mlp_parameters.MlpSummary`, whose rows are ``n``.
        - ``epoch``: ``watermark_ms`` int64 (1,), ``n_contributions`` int64 (1,): closes the
          member's epoch; published last.
    """

    key: ContributionKey
    epoch: int
    basis: int
    n: int
    arrays: Mapping[str, NDArray[np.generic]]


def proposal_arrays(trees: TreeList, period: int) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of a ``trees`` contribution: trees proposed in a period."""
    arrays: dict[str, NDArray[np.generic]] = {name: getattr(trees, name) for name in TREE_ARRAYS}
    return arrays | {"period": np.array([period], np.int32)}


def proposed_trees(arrays: Mapping[str, NDArray[np.generic]]) -> tuple[TreeList, int]:
    """Return the trees and the period of a ``trees`` contribution.

    Raises
    ------
    InvalidTreesError
        If the arrays are no trees.
    """
    trees = TreeList(**{name: arrays[name] for name in TREE_ARRAYS})  # type: ignore[arg-type]  # checked by TreeList
    return trees, int(np.asarray(arrays["period"], np.int64)[0])
