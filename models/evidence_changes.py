"""What two versions of a day's evidence differ in, by entity: a release changes few of many."""

from collections.abc import Mapping
from typing import NamedTuple, Self

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.entity_risk import (
    MAX_CELLS,
    PSEUDONYM_BYTES,
    EvidenceCells,
    capped,
    compare_keys,
    empty_cells,
    key_rows,
    places_in,
    present_in,
)
from models.named_arrays import digest_of

_HOUR_BITS = np.uint64(0xFF)


class KeyedCells(NamedTuple):
    """Sorted cells without repeats, and whose they are.

    Parameters
    ----------
    cells
        One for each entity and hour.
    keys
        uint64 of shape (n_cells, 3): of the cells' entities, see `Entities`.
    """

    cells: EvidenceCells
    keys: NDArray[np.uint64]

    @classmethod
    def of(cls, cells: EvidenceCells) -> Self:
        """Return cells with the keys of their entities."""
        keys = key_rows(cells)
        keys[:, 2] &= ~_HOUR_BITS
        return cls(cells, keys)


class InstalledDay(NamedTuple):
    """A day of a release as a bank has installed it.

    Parameters
    ----------
    merged
        The release's cells.
    published
        What the bank published of them, None for nothing.
    taken_out
        What was taken out of them: the same under the release's cap.
    with_hours
        Whether hours are held, too.
    """

    merged: KeyedCells
    published: EvidenceCells | None
    taken_out: KeyedCells
    with_hours: bool

    def identity(self) -> int:
        """Return a hash of what the day holds, by which it is known again after a restart."""
        parts = {"merged": self.merged.cells, "taken_out": self.taken_out.cells}
        return digest_of(
            {f"{p}/{name}": a for p, cells in parts.items() for name, a in cells.arrays().items()}
        )


class Entities(NamedTuple):
    """Entities in the order of cells, without repeats.

    Parameters
    ----------
    keys
        uint64 of shape (n, 3): both halves of the name, the kind times 256.
    is_new
        bool of shape (n,): those that the older version does not know.
    """

    keys: NDArray[np.uint64]
    is_new: NDArray[np.bool_]

    @property
    def names(self) -> NDArray[np.uint8]:
        """Pseudonyms, (n, 16)."""
        halves = np.ascontiguousarray(self.keys[:, :2]).astype(">u8")
        return halves.view(np.uint8).reshape(-1, PSEUDONYM_BYTES)

    @property
    def kinds(self) -> NDArray[np.uint8]:
        """Kinds, (n,)."""
        return (self.keys[:, 2] // np.uint64(256)).astype(np.uint8)


def changed_entities(old: KeyedCells, new: KeyedCells) -> Entities:
    """Return the entities whose cells are not the same in both."""
    columns, columns_two = (tuple(one.cells.arrays().values())[2:] for one in (old, new))
    out = np.empty((len(old.keys) + len(new.keys), 3), np.uint64)
    is_new = np.zeros(len(out), np.bool_)
    n = _differing(old.keys, columns, new.keys, columns_two, out, is_new)
    return Entities(out[:n], is_new[:n])


@nb.njit(cache=True, nogil=True)
def _differing(keys, columns, keys_two, columns_two, out, is_new):  # type: ignore[no-untyped-def]  # compiled
    i = j = k = 0
    while i < len(keys) or j < len(keys_two):
        order = compare_keys(keys, i, keys_two, j)
        stop = _entity_end(keys, i) if order <= 0 else i
        stop_two = _entity_end(keys_two, j) if order >= 0 else j
        if order != 0 or not _are_same(columns, i, stop, columns_two, j, stop_two):
            out[k] = keys_two[j] if order > 0 else keys[i]
            is_new[k] = order > 0
            k += 1
        i, j = stop, stop_two
    return k


@nb.njit(cache=True)
def _entity_end(keys, start):  # type: ignore[no-untyped-def]  # compiled
    stop = start + 1
    while stop < len(keys) and compare_keys(keys, start, keys, stop) == 0:
        stop += 1
    return stop


@nb.njit(cache=True)
def _are_same(columns, i, stop, columns_two, j, stop_two):  # type: ignore[no-untyped-def]  # compiled
    if stop - i != stop_two - j:
        return False
    for at in range(stop - i):
        if (
            columns[0][i + at] != columns_two[0][j + at]
            or columns[1][i + at] != columns_two[1][j + at]
            or columns[2][i + at] != columns_two[2][j + at]
            or columns[3][i + at] != columns_two[3][j + at]
            or columns[4][i + at] != columns_two[4][j + at]
            or columns[5][i + at] != columns_two[5][j + at]
        ):
            return False
    return True


def united(one: Entities, two: Entities) -> Entities:
    """Return the entities of either; those of both are new where they are so in both."""
    out = np.empty((len(one.keys) + len(two.keys), 3), np.uint64)
    is_new = np.empty(len(out), np.bool_)
    n = _unite(*one, *two, out, is_new)
    return Entities(out[:n], is_new[:n])


@nb.njit(cache=True, nogil=True)
def _unite(keys, new, keys_two, new_two, out, is_new):  # type: ignore[no-untyped-def]  # compiled
    i = j = k = 0
    while i < len(keys) or j < len(keys_two):
        order = compare_keys(keys, i, keys_two, j)
        out[k] = keys_two[j] if order > 0 else keys[i]
        is_new[k] = (order > 0 or new[i]) and (order < 0 or new_two[j])
        i += order <= 0
        j += order >= 0
        k += 1
    return k


def cells_of(keyed: KeyedCells, entities: Entities) -> EvidenceCells:
    """Return the cells of some entities, in order."""
    return keyed.cells.take(places_in(keyed.keys, entities.keys))


class DayChange(NamedTuple):
    """What a day of a release changes: slow to find out, and made of values that never change.

    Parameters
    ----------
    known
        What was installed of the day, None for nothing.
    seen
        What takes its place.
    changed
        The entities in which they differ; none where all of the day is replaced.
    cells
        What is added: merged, and to be taken out; those of ``changed``, or all.
    identity
        Of ``seen``, see `InstalledDay.identity`.
    """

    known: InstalledDay | None
    seen: InstalledDay
    changed: Entities
    cells: tuple[EvidenceCells, EvidenceCells]
    identity: int

    @property
    def is_whole(self) -> bool:
        """Whether all of the day is replaced."""
        return self.known is None or self.known.with_hours < self.seen.with_hours

    def is_from(self, known: InstalledDay | None, cells: EvidenceCells, own: object) -> bool:
        """Return whether this is what these very values give."""
        is_of_release = self.seen.merged.cells is cells and self.seen.published is own
        return is_of_release and self.known is known


Changes = Mapping[int, DayChange]
"""Day -> what a release changes of it."""


def day_change(
    known: InstalledDay | None,
    cells: EvidenceCells,
    published: EvidenceCells | None,
    *,
    max_frauds: int,
    with_hours: bool,
) -> DayChange:
    """Return what a day of a release changes.

    Parameters
    ----------
    known
        What is installed of the day.
    cells
        The release's, own included.
    published
        What it holds of the bank's own, None for nothing.
    max_frauds
        The cap under which that was added, see `models.entity_risk.capped`.
    with_hours
        Whether hours are held, too.
    """
    own = empty_cells() if published is None else capped(published, max_frauds)
    if len(cells) >= MAX_CELLS:  # others' may have taken the place of ours
        own = present_in(own, cells)
    merged, taken = KeyedCells.of(cells), KeyedCells.of(own)
    seen = InstalledDay(merged, published, taken, with_hours)
    none = Entities(np.empty((0, 3), np.uint64), np.empty(0, np.bool_))
    whole = DayChange(known, seen, none, (cells, own), seen.identity())
    if known is None or whole.is_whole:
        return whole
    changed = united(
        changed_entities(known.merged, merged), changed_entities(known.taken_out, taken)
    )
    parts = cells_of(merged, changed), cells_of(taken, changed)
    return whole._replace(changed=changed, cells=parts)
