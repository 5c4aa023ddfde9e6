"""Evidence of several members on the same UTC day, added up cell by cell; pure."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.entity_risk import NEVER_MS, PSEUDONYM_BYTES, EvidenceCells, cell_keys

_HOUR_BITS = np.uint64(8)
_HOUR_MASK = np.uint64(0xFF)
_LATEST = np.iinfo(np.int64).max

Arrays = Mapping[str, NDArray[np.generic]]


def merge_cells(parts: Sequence[tuple[Arrays, float]]) -> EvidenceCells:
    """Return the weighted sum of cells: n, f added, first fraud least, last ones greatest.

    Senders of weight 0 are left out. O(n log n) in the number of cells; the cells of
    each part need no order, the result is sorted.

    Parameters
    ----------
    parts
        Arrays of `models.entity_risk.EvidenceCells` with the weight of their sender, >= 0, in an
        order that does not depend on arrival: floating-point sums follow it.
    """
    counted = [(arrays, weight) for arrays, weight in parts if weight > 0.0]
    if not counted:
        return _empty()
    columns = {name: _joined(counted, name) for name in counted[0][0]}
    weight = np.concatenate([np.full(len(arrays["n"]), w) for arrays, w in counted])
    keys = cell_keys(columns)
    order = np.lexsort(keys[::-1])
    keys = [key[order] for key in keys]
    starts = _starts(keys)
    if not len(starts):
        return _empty()
    weight = weight[order]
    first = np.where(columns["first_fraud_ms"] == NEVER_MS, _LATEST, columns["first_fraud_ms"])
    first = np.minimum.reduceat(first[order], starts)
    cells = EvidenceCells(
        name=columns["name"][order][starts].astype(np.uint8, copy=False),
        kind=(keys[2][starts] >> _HOUR_BITS).astype(np.uint8),
        hour=(keys[2][starts] & _HOUR_MASK).astype(np.uint8),
        n=np.add.reduceat(columns["n"][order] * weight, starts).astype(np.float32),
        f=np.add.reduceat(columns["f"][order] * weight, starts).astype(np.float32),
        first_fraud_ms=np.where(first == _LATEST, NEVER_MS, first),
        last_fraud_ms=np.maximum.reduceat(columns["last_fraud_ms"][order], starts),
        last_legit_ms=np.maximum.reduceat(columns["last_legit_ms"][order], starts),
    )
    return _read_only(cells)


def _joined(parts: Sequence[tuple[Arrays, float]], name: str) -> NDArray[np.generic]:
    return np.concatenate([arrays[name] for arrays, _ in parts])


def _starts(keys: Sequence[NDArray[np.uint64]]) -> NDArray[np.intp]:
    """Return where a new cell begins in sorted keys."""
    if not len(keys[0]):
        return np.empty(0, np.intp)
    changed = np.zeros(len(keys[0]), bool)
    changed[0] = True
    for key in keys:
        changed[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(changed)


def _empty() -> EvidenceCells:
    return _read_only(
        EvidenceCells(
            name=np.empty((0, PSEUDONYM_BYTES), np.uint8),
            kind=np.empty(0, np.uint8),
            hour=np.empty(0, np.uint8),
            n=np.empty(0, np.float32),
            f=np.empty(0, np.float32),
            first_fraud_ms=np.empty(0, np.int64),
            last_fraud_ms=np.empty(0, np.int64),
            last_legit_ms=np.empty(0, np.int64),
        )
    )


def _read_only(cells: EvidenceCells) -> EvidenceCells:
    for array in cells.arrays().values():
        array.flags.writeable = False
    return cells
