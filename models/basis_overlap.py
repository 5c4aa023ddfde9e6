"""What two bases have in common: where the weights of one stand in the other.

A transform is common where it turns every row into the same choice: bins of a feature with
identical edges, a cross of the same features with identical coarse edges, the same tree (however
its nodes are numbered), the bias. Features that are categories must besides have the same numbers
in place of their categories.
"""

from collections.abc import Hashable, Iterator
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models.basis import MISSING, Basis
from models.tree_checks import leaf_order, tree_hashes

_FEW = 16  # pairs of bases that anybody asks about at a time


@lru_cache(maxsize=_FEW)
def places_in(old: Basis, new: Basis) -> NDArray[np.int64]:
    """Return where each weight of ``old`` stands in ``new``, `models.basis.MISSING` where nowhere.

    Parameters
    ----------
    old, new
        Of one schema; of different ones nothing is common.

    Returns
    -------
    ndarray of shape (old.n_weights,), int64
        Read-only; no place comes twice.
    """
    places = np.full(old.n_weights, MISSING, np.int64)
    if old.schema_hash == new.schema_hash and old.n_features == new.n_features:
        there = dict(_transforms(new))
        for what, weights in dict(_transforms(old)).items():
            if what in there:
                places[weights] = there[what]
    places.flags.writeable = False
    return places


def _transforms(basis: Basis) -> Iterator[tuple[Hashable, NDArray[np.int64]]]:
    """Yield what each transform does, and its weights in an order that follows from that."""
    ranges = [np.arange(a, b) for a, b in pairwise(basis.offsets.tolist())]
    fine, coarse = _by_feature(basis.edges, basis.n_edges), _coarse(basis)
    known = _categories(basis)
    n_plain = basis.n_transforms - len(basis.trees)
    yield "bias", ranges[0]
    for feature, weights in zip(basis.selected.tolist(), ranges[1:], strict=False):
        yield ("bins", feature, fine[feature], known[feature]), weights
    crosses = zip(basis.crosses.tolist(), ranges[1 + len(basis.selected) :], strict=False)
    for (left, right), weights in crosses:
        sides = (left, coarse[left], known[left], right, coarse[right], known[right])
        yield ("cross", *sides), weights
    for tree, digest in enumerate(tree_hashes(basis.trees)):
        looked_at = np.unique(basis.trees.feature[basis.trees.nodes(tree)]).tolist()
        leaves = ranges[n_plain + tree][leaf_order(basis.trees, tree)]
        yield ("tree", digest, tuple(known[feature] for feature in looked_at)), leaves


def _coarse(basis: Basis) -> list[bytes]:
    return _by_feature(basis.coarse_edges, basis.n_coarse_edges)


def _categories(basis: Basis) -> list[bytes]:
    cells = _by_feature(basis.category_cells, basis.n_categories)
    logits = _by_feature(basis.category_logits, basis.n_categories)
    return [a + b for a, b in zip(cells, logits, strict=True)]


def _by_feature(values: NDArray[np.generic], counts: NDArray[np.int32]) -> list[bytes]:
    """Return the bytes of each feature's values; 0 and -0 are one value."""
    plain = values + values.dtype.type(0)  # type: ignore[operator]  # numbers
    ends = np.cumsum(counts, dtype=np.int64)
    return [
        plain[a:b].tobytes() for a, b in zip((ends - counts).tolist(), ends.tolist(), strict=True)
    ]
