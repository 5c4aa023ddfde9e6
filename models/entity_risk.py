"""Evidence on entities (terminals, merchants, devices): keyed pseudonyms and mergeable counts."""

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

PSEUDONYM_BYTES = 16
NEVER_MS = -1
_HOURS = 24
MAX_CELLS = 2**20
"""Of a day, in one envelope: 50 bytes each, so that they fit into what an envelope may have."""
STEP = 16
"""Capped counts and the weights of evidence are multiples of 1 / 16: their products stay exact."""


def pseudonym(secret: bytes, kind: str, entity_id: str) -> bytes:
    """Return the 16-byte name under which members, and they alone, know an entity.

    HMAC-SHA256 under a key that the members hold and the amalgamator does not.
    """
    return pseudonyms(secret, kind)(entity_id)


def pseudonyms(secret: bytes, kind: str) -> Callable[[str], bytes]:
    """Return what gives `pseudonym` of one kind: what is the same for all is hashed once."""
    begun = hmac.new(secret, f"{kind}\x00".encode(), "sha256")

    def of(entity_id: str) -> bytes:
        keyed = begun.copy()
        keyed.update(entity_id.encode())
        return keyed.digest()[:PSEUDONYM_BYTES]

    return of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvidenceCells:
    """Outcomes that became known in one UTC day, one cell per (entity, hour of that day).

    Cells are sorted by (name, kind, hour) and do not repeat; all arrays have one entry a cell.

    Parameters
    ----------
    name
        ndarray of shape (n_cells, 16), uint8: pseudonyms.
    kind
        uint8: index into the schema's entity kinds.
    hour
        uint8 in [0, 23]: hour of the day in which the outcome became known.
    n, f
        float32, 0 <= f <= n: outcomes and frauds (whole numbers from a member; weighted sums
        in a release).
    first_fraud_ms, last_fraud_ms, last_legit_ms
        int64: event times of the cell's frauds and legitimate transactions, -1 for none.
    """

    name: NDArray[np.uint8]
    kind: NDArray[np.uint8]
    hour: NDArray[np.uint8]
    n: NDArray[np.float32]
    f: NDArray[np.float32]
    first_fraud_ms: NDArray[np.int64]
    last_fraud_ms: NDArray[np.int64]
    last_legit_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.n)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the fields by name, as a contribution carries them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def take(self, index: NDArray[np.int64]) -> "EvidenceCells":
        """Return the cells at ``index``."""
        return EvidenceCells(**{name: array[index] for name, array in self.arrays().items()})  # type: ignore[arg-type]  # same dtypes


def concatenate(parts: Sequence[EvidenceCells]) -> EvidenceCells:
    """Return the cells of all parts one after the other, not yet aggregated; at least one part."""
    columns = [part.arrays() for part in parts]
    return EvidenceCells(
        **{name: np.concatenate([c[name] for c in columns]) for name in columns[0]}
    )


def empty_cells() -> EvidenceCells:
    """Return the identity of `aggregate`."""
    return EvidenceCells(
        name=np.empty((0, PSEUDONYM_BYTES), np.uint8),
        kind=np.empty(0, np.uint8),
        hour=np.empty(0, np.uint8),
        n=np.empty(0, np.float32),
        f=np.empty(0, np.float32),
        first_fraud_ms=np.empty(0, np.int64),
        last_fraud_ms=np.empty(0, np.int64),
        last_legit_ms=np.empty(0, np.int64),
    )


def cell_keys(arrays: Mapping[str, NDArray[Any]]) -> list[NDArray[np.uint64]]:
    """Return what cells are sorted by, most significant first: two halves of the name, the rest."""
    halves = np.ascontiguousarray(arrays["name"]).view(">u8").astype(np.uint64)
    rest = arrays["kind"].astype(np.uint64) * np.uint64(256) + arrays["hour"].astype(np.uint64)
    return [halves[:, 0], halves[:, 1], rest]


def key_rows(cells: EvidenceCells) -> NDArray[np.uint64]:
    """Return `cell_keys` as rows of shape (n_cells, 3)."""
    return np.column_stack(cell_keys(cells.arrays()))


def _order_of(keys: Sequence[NDArray[np.uint64]]) -> NDArray[np.intp]:
    """Return a stable order by several keys, of which the first is nearly always another.

    It is sorted by the first alone, which costs a tenth, and then where that is the same.
    """
    order = np.argsort(keys[0])
    first = keys[0][order]
    is_tied = np.zeros(len(order) + 1, np.bool_)
    is_tied[1:-1] = first[1:] == first[:-1]
    tied = np.flatnonzero(is_tied[1:] | is_tied[:-1])
    if len(tied):
        rows = np.sort(order[tied])
        order[tied] = rows[np.lexsort([key[rows] for key in keys[::-1]])]
    return order


def _sorted(cells: EvidenceCells) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return a stable order by (name, kind, hour), and from the second on which repeat the last."""
    keys = cell_keys(cells.arrays())
    order = _order_of(keys)
    is_again = np.ones(max(len(cells) - 1, 0), np.bool_)
    for key in keys:
        ordered = key[order]
        is_again &= ordered[1:] == ordered[:-1]
    return order, is_again


def aggregate(cells: EvidenceCells) -> EvidenceCells:
    """Return sorted cells without repeats: counts added, first frauds the least, last the greatest.

    Sums run in float64 in the order given, so whole numbers stay exact.
    """
    if not len(cells):
        return cells
    order, is_again = _sorted(cells)
    sorted_cells = cells.take(order)
    first = np.flatnonzero(np.r_[True, ~is_again])
    unknown = np.iinfo(np.int64).max
    fraud = np.where(sorted_cells.first_fraud_ms < 0, unknown, sorted_cells.first_fraud_ms)
    first_fraud = np.minimum.reduceat(fraud, first)
    return EvidenceCells(
        name=sorted_cells.name[first],
        kind=sorted_cells.kind[first],
        hour=sorted_cells.hour[first],
        n=np.add.reduceat(sorted_cells.n.astype(np.float64), first).astype(np.float32),
        f=np.add.reduceat(sorted_cells.f.astype(np.float64), first).astype(np.float32),
        first_fraud_ms=np.where(first_fraud == unknown, NEVER_MS, first_fraud),
        last_fraud_ms=np.maximum.reduceat(sorted_cells.last_fraud_ms, first),
        last_legit_ms=np.maximum.reduceat(sorted_cells.last_legit_ms, first),
    )


def added(one: EvidenceCells, two: EvidenceCells) -> EvidenceCells:
    """Return what `aggregate` gives of two lists that are sorted without repeats, in one pass."""
    if not len(one) or not len(two):
        return one if len(one) else two
    out = {
        name: np.empty((len(one) + len(two), *array.shape[1:]), array.dtype)
        for name, array in one.arrays().items()
    }
    columns, columns_two = (tuple(each.arrays().values()) for each in (one, two))
    keys, keys_two = key_rows(one), key_rows(two)
    n = _add_sorted(keys, keys_two, columns, columns_two, tuple(out.values()))
    return EvidenceCells(**{name: array[:n] for name, array in out.items()})


@nb.njit(cache=True, nogil=True)
def _add_sorted(keys, keys_two, one, two, out):  # type: ignore[no-untyped-def]  # compiled
    """Merge columns in the order of `EvidenceCells`; return how many cells came of it."""
    i = j = k = 0
    while i < len(keys) or j < len(keys_two):
        order = compare_keys(keys, i, keys_two, j)
        if order <= 0:
            _put(one, i, out, k)
        else:
            _put(two, j, out, k)
        if order == 0:
            out[3][k] += two[3][j]
            out[4][k] += two[4][j]
            if two[5][j] >= 0 and (out[5][k] < 0 or two[5][j] < out[5][k]):
                out[5][k] = two[5][j]
            out[6][k] = max(out[6][k], two[6][j])
            out[7][k] = max(out[7][k], two[7][j])
        i += order <= 0
        j += order >= 0
        k += 1
    return k


@nb.njit(cache=True)
def compare_keys(keys, i, keys_two, j):  # type: ignore[no-untyped-def]  # compiled
    """Return -1 where the first's key comes before the second's, 0 where they are the same, 1."""
    if i == len(keys) or j == len(keys_two):
        return -1 if j == len(keys_two) else 1
    for k in range(keys.shape[1]):
        if keys[i, k] != keys_two[j, k]:
            return -1 if keys[i, k] < keys_two[j, k] else 1
    return 0


@nb.njit(cache=True)
def _put(cells, i, out, k):  # type: ignore[no-untyped-def]  # compiled
    for byte in range(PSEUDONYM_BYTES):
        out[0][k, byte] = cells[0][i, byte]
    out[1][k], out[2][k] = cells[1][i], cells[2][i]
    out[3][k], out[4][k] = cells[3][i], cells[4][i]
    out[5][k], out[6][k], out[7][k] = cells[5][i], cells[6][i], cells[7][i]


def count_outcomes(
    names: NDArray[np.uint8],
    kinds: NDArray[np.uint8],
    row: NDArray[np.int64],
    hour: NDArray[np.int64],
    event_ms: NDArray[np.int64],
    is_fraud: NDArray[np.bool_],
) -> EvidenceCells:
    """Return the cells of single outcomes; the same as `aggregate` of a cell for each.

    Parameters
    ----------
    names, kinds
        Of all entities: uint8 of shape (n_entities, 16) and (n_entities,).
    row
        int64 of shape (n,): which entity.
    hour
        int64 of shape (n,) in [0, 23]: of the day in which the outcome became known.
    event_ms, is_fraud
        int64 and bool of shape (n,).
    """
    place = row * _HOURS + hour
    order = np.argsort(place)  # of one place in any order: counts, least and greatest are the same
    of_cell, n, f, first_fraud_ms, last_fraud_ms, last_legit_ms = _count(
        place[order], event_ms[order], is_fraud[order]
    )
    entity = of_cell // _HOURS
    return aggregate(
        EvidenceCells(
            name=names[entity],
            kind=kinds[entity],
            hour=(of_cell % _HOURS).astype(np.uint8),
            n=n,
            f=f,
            first_fraud_ms=first_fraud_ms,
            last_fraud_ms=last_fraud_ms,
            last_legit_ms=last_legit_ms,
        )
    )


@nb.njit(cache=True, nogil=True)
def _count(place, event_ms, is_fraud):  # type: ignore[no-untyped-def]  # compiled
    """Count the outcomes of each place; equal places follow each other."""
    n_rows = len(place)
    of_cell = np.empty(n_rows, np.int64)
    n, f = np.zeros(n_rows, np.float32), np.zeros(n_rows, np.float32)
    first_fraud, last_fraud = np.full(n_rows, NEVER_MS), np.full(n_rows, NEVER_MS)
    last_legit = np.full(n_rows, NEVER_MS)
    k = -1
    for i in range(n_rows):
        if k < 0 or of_cell[k] != place[i]:
            k += 1
            of_cell[k] = place[i]
        n[k] += 1.0
        if is_fraud[i]:
            f[k] += 1.0
            if first_fraud[k] < 0 or event_ms[i] < first_fraud[k]:
                first_fraud[k] = event_ms[i]
            last_fraud[k] = max(last_fraud[k], event_ms[i])
        else:
            last_legit[k] = max(last_legit[k], event_ms[i])
    end = k + 1
    return of_cell[:end], n[:end], f[:end], first_fraud[:end], last_fraud[:end], last_legit[:end]


def _entity_starts(cells: EvidenceCells) -> NDArray[np.intp]:
    """Return the place of each entity's first cell; cells are sorted, and there are some."""
    high, low, _ = cell_keys(cells.arrays())
    is_first = np.ones(len(cells), np.bool_)
    is_first[1:] = cells.kind[1:] != cells.kind[:-1]
    for half in (high, low):
        is_first[1:] |= half[1:] != half[:-1]
    return np.flatnonzero(is_first)


def most_telling(cells: EvidenceCells, n: int) -> EvidenceCells:
    """Return at most ``n`` of a day's cells: those of entities with frauds, then the fullest.

    What is left out is of entities that nobody reported a fraud of on that day, as long as the
    others fit: it would have lowered their rate a little.

    Parameters
    ----------
    cells
        Sorted.
    n
        >= 0.
    """
    if len(cells) <= n:
        return cells
    first = _entity_starts(cells)
    sizes = np.diff(np.r_[first, len(cells)])
    has_frauds = np.repeat(np.add.reduceat(cells.f.astype(np.float64), first) > 0.0, sizes)
    order = np.lexsort((-cells.n, ~has_frauds))  # stable: of equals the first
    return cells.take(np.sort(order[:n]))


def present_in(cells: EvidenceCells, others: EvidenceCells) -> EvidenceCells:
    """Return the cells whose entity and hour ``others`` have, too; both sorted without repeats."""
    return cells.take(places_in(key_rows(cells), key_rows(others)))


@nb.njit(cache=True, nogil=True)
def places_in(keys, keys_two):  # type: ignore[no-untyped-def]  # compiled
    """Return the places of the keys that the second list has, too; both ascend."""
    out, n, j = np.empty(len(keys), np.int64), 0, 0
    for i in range(len(keys)):
        while j < len(keys_two) and compare_keys(keys, i, keys_two, j) > 0:
            j += 1
        if j < len(keys_two) and compare_keys(keys, i, keys_two, j) == 0:
            out[n] = i
            n += 1
    return out[:n].copy()


def capped(cells: EvidenceCells, max_frauds: int) -> EvidenceCells:
    """Return a day's cells with at most about ``max_frauds`` frauds of each entity.

    Both counts of an entity that has more are scaled down alike, in all hours of the day, so that
    its fraud rate stays; they are rounded to multiples of 1 / 16, so that a member that knows its
    own cells takes exactly them out of a sum. 0 is no cap.

    Parameters
    ----------
    cells
        Of one sender; sorted.
    max_frauds
        Frauds of an entity and day, >= 0.
    """
    if max_frauds <= 0 or not len(cells):
        return cells
    first = _entity_starts(cells)
    frauds = np.add.reduceat(cells.f.astype(np.float64), first)
    if not (frauds > max_frauds).any():
        return cells
    sizes = np.diff(np.r_[first, len(cells)])
    share = np.repeat(np.minimum(1.0, max_frauds / np.maximum(frauds, 1.0)), sizes)

    def scaled(count: NDArray[np.float32]) -> NDArray[np.float32]:
        fine = np.rint(count.astype(np.float64) * share * STEP) / STEP
        return np.where(share < 1.0, fine, count).astype(np.float32)

    return replace(cells, n=scaled(cells.n), f=scaled(cells.f))
