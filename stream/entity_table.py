"""One bank's entities: rows by pseudonym, own outcomes of each day to publish, others' evidence."""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.entity_risk import (
    PSEUDONYM_BYTES,
    EvidenceCells,
    count_outcomes,
    empty_cells,
    pseudonyms,
)
from models.evidence_changes import Changes, DayChange, InstalledDay, day_change
from models.features.accounts import DAY_MS, HOUR_MS, NEVER, RING
from models.features.entities import (
    ENTITY,
    SHARED_HOURS,
    add_others,
    clear_others_day,
    clear_others_hours,
    learn_outcomes,
    new_entities,
)
from models.features.name_index import NameIndex
from models.features.room import Room
from models.named_arrays import under
from stream.new_cells import NewCells, Outcomes
from stream.text_rows import TextRows, seed_of
from stream.touched import TouchedPages

_OTHERS_AGES = ("others_last_fraud_ms", "others_last_legit_ms", "others_episode_ms")
_OTHERS_RINGS = ("others_day_n", "others_day_f", "others_hour_n", "others_hour_f")
_KEPT_VERSIONS = 64
_FIRST_ROWS = 1_024
_HOUR_DAYS = SHARED_HOURS // 24


class EntityTable:
    """State of every entity that this bank or, by a release, another one has seen.

    Parameters
    ----------
    kinds
        Entity kinds of the schema, in order.
    secret
        The members' pseudonym key.
    """

    def __init__(self, kinds: tuple[str, ...], secret: bytes) -> None:
        self.kinds = kinds
        self._secret = secret
        self._room = Room(ENTITY)
        self.state: NDArray[np.void] = self._room.rows(_FIRST_ROWS)
        self.days = np.full(RING, NEVER, np.int64)
        self._index = NameIndex()
        self._rows_of = [
            TextRows(partial(self._add_texts, kind), seed_of(secret)) for kind in range(len(kinds))
        ]
        self._new: dict[int, NewCells] = {}
        self._whole: dict[int, EvidenceCells] = {}
        self._published: dict[int, list[tuple[int, EvidenceCells]]] = {}
        self._seen: dict[int, InstalledDay] = {}
        self._installed: dict[int, int] = {}
        self._touched: dict[int, NDArray[np.int64]] = {}
        self._touched_hours: dict[int, NDArray[np.int64]] = {}
        self._weights: tuple[tuple[str, str, float], ...] = ()
        self._written = {
            "state": TouchedPages(ENTITY.itemsize),
            "names": TouchedPages(PSEUDONYM_BYTES),
            "kinds": TouchedPages(1),
        }

    @property
    def size(self) -> int:
        """Entities known."""
        return self._index.size

    def rows(self, kind: int, texts: Sequence[str | None]) -> NDArray[np.int64]:
        """Return the entities' rows, new ones added; -1 where the text is None."""
        return self._rows_of[kind].rows(texts)

    def _add_texts(self, kind: int, texts: list[str]) -> NDArray[np.int64]:
        names = b"".join(map(pseudonyms(self._secret, self.kinds[kind]), texts))
        return self._add(
            np.frombuffer(names, np.uint8).reshape(-1, PSEUDONYM_BYTES),
            np.full(len(texts), kind, np.uint8),
        )

    def _add(self, names: NDArray[np.uint8], kinds: NDArray[np.uint8]) -> NDArray[np.int64]:
        size = self.size
        rows = self._index.rows(names, kinds)
        for pages in self._written.values():
            pages.span(size, self.size)
        if self.size > len(self.state):
            self.state = self._room.rows(self.size + self.size // 8 + _FIRST_ROWS)
        self.state[size : self.size] = new_entities(self.size - size)
        return rows

    def learn(
        self,
        row: NDArray[np.int64],
        event_ms: NDArray[np.int64],
        known_ms: NDArray[np.int64],
        is_fraud: NDArray[np.bool_],
    ) -> None:
        """Add outcomes, in the order in which they became known; row -1 is skipped."""
        self._written["state"].rows(row)
        learn_outcomes(self.state, row, event_ms, known_ms, is_fraud)
        day = known_ms // DAY_MS
        for one in np.unique(day).tolist():
            mine = (day == one) & (row >= 0)
            of_day = Outcomes(row[mine], known_ms[mine], event_ms[mine], is_fraud[mine])
            self._new_of(one).add(of_day)

    def _new_of(self, day: int) -> NewCells:
        if day not in self._new:
            self._new[day] = NewCells(partial(self._count, day))
        return self._new[day]

    def unpublished(self) -> dict[int, tuple[EvidenceCells, NewCells]]:
        """Give up, of each day that has some, the outcomes since the last call; the cells before.

        Together they are the day's cells, which `hold` must bring back.
        """
        return {day: (self._known_cells(day), self._new.pop(day)) for day in sorted(self._new)}

    def hold(self, whole: Mapping[int, EvidenceCells]) -> None:
        """Take back the cells of days, as they are with what `unpublished` gave."""
        self._whole |= whole

    def _known_cells(self, day: int) -> EvidenceCells:
        if day in self._whole:
            return self._whole[day]
        versions = self._published.get(day)
        return versions[-1][1] if versions else empty_cells()

    def _count(self, day: int, outcomes: Outcomes) -> EvidenceCells:
        row, known_ms, event_ms, is_fraud = outcomes
        hour = (known_ms - day * DAY_MS) // HOUR_MS
        return count_outcomes(self._index.names, self._index.kinds, row, hour, event_ms, is_fraud)

    def published(self, cells: Mapping[int, tuple[int, EvidenceCells]], *, open_day: int) -> None:
        """Remember what was published of each day and under which number.

        Of many versions that no release has shown to be passed, as while the amalgamator is away,
        the first, which the last release may hold, and the newest are kept.

        Parameters
        ----------
        cells
            Day -> (sequence number, cells).
        open_day
            Days before it get no more outcomes.
        """
        for day, version in cells.items():
            versions = self._published.setdefault(day, [])
            versions.append(version)
            del versions[1:-_KEPT_VERSIONS]
            if self._whole.get(day) is version[1]:  # nothing was cut: the version says it all
                del self._whole[day]
        for day in [d for d in self._whole if d < open_day and d not in self._new]:
            del self._whole[day]

    def install(
        self,
        evidence: Mapping[int, EvidenceCells],
        *,
        seq: int,
        weight: float,
        weights: tuple[tuple[str, str, float], ...],
        max_frauds: int = 0,
        changes: Changes = MappingProxyType({}),
    ) -> None:
        """Replace the others' evidence by a release's, own contributions taken out.

        Parameters
        ----------
        evidence
            Day -> merged cells, own included.
        seq
            Own newest sequence number in the release; -1 if it holds nothing of ours.
        weight
            With which own counts were added.
        weights
            (member, worker, weight) of all; when they change, everything is installed afresh.
        max_frauds
            The cap under which own counts were added, see `models.entity_risk.capped`.
        changes
            What `changes_of` gave; found out here where something is another since.
        """
        if weights != self._weights:
            self._forget_others()
            self._weights = weights
        newest = max(evidence, default=0)
        for day in sorted(evidence):
            own, known = self._own_in_release(day, seq), self._seen.get(day)
            if _is_installed(known, evidence[day], own):
                continue
            change = changes.get(day)
            if change is None or not change.is_from(known, evidence[day], own):
                change = day_change(
                    known,
                    evidence[day],
                    own,
                    max_frauds=max_frauds,
                    with_hours=day >= newest - 1,
                )
            self._seen[day], identity = change.seen, change.identity
            if day > newest - RING and self._installed.get(day) != identity:
                if change.is_whole:
                    self._install_day(day, change, weight)
                else:
                    self._change_day(day, change, weight)
                self._installed[day] = identity
        for gone in [d for d in self._installed if d not in evidence]:
            del self._installed[gone]
        self._seen = {day: seen for day, seen in self._seen.items() if day in evidence}
        for old in [d for d in self._published if d < newest - RING]:
            del self._published[old]

    def changes_of(
        self, evidence: Mapping[int, EvidenceCells], *, seq: int, max_frauds: int
    ) -> Changes:
        """Return what `install` will change: the slow part, safe in another thread."""
        newest, found = max(evidence, default=0), {}
        for day, cells in evidence.items():
            versions = self._versions_in_release(day, seq)
            own, known = versions[-1][1] if versions else None, self._seen.get(day)
            if not _is_installed(known, cells, own):
                found[day] = day_change(
                    known, cells, own, max_frauds=max_frauds, with_hours=day >= newest - 1
                )
        return found

    def _forget_others(self) -> None:
        self._written["state"].span(0, self.size)
        for name in _OTHERS_RINGS:
            self.state[name] = 0.0
        for name in _OTHERS_AGES:
            self.state[name] = NEVER
        self.days[:] = NEVER
        self._touched.clear()
        self._touched_hours.clear()
        self._installed.clear()
        self._seen.clear()

    def _own_in_release(self, day: int, seq: int) -> EvidenceCells | None:
        versions = self._versions_in_release(day, seq)
        if not versions:
            return None
        self._published[day] = [v for v in self._published[day] if v[0] >= versions[-1][0]]
        return versions[-1][1]

    def _versions_in_release(self, day: int, seq: int) -> list[tuple[int, EvidenceCells]]:
        return [version for version in self._published.get(day, []) if version[0] <= seq]

    def _install_day(self, day: int, change: DayChange, weight: float) -> None:
        """Replace all of a day."""
        with_hours = change.seen.with_hours
        slot = day % RING
        self.days[slot] = day
        everything = np.arange(self.size, dtype=np.int64)
        before = self._touched.get(slot, everything)
        self._touched[slot] = np.empty(0, np.int64)
        self._written["state"].rows(before)
        clear_others_day(self.state, before, day)
        if with_hours:
            of_hours = self._touched_hours.get(day % _HOUR_DAYS, everything)
            self._touched_hours[day % _HOUR_DAYS] = np.empty(0, np.int64)
            self._written["state"].rows(of_hours)
            clear_others_hours(self.state, of_hours, day)
        for cells, sign in zip(change.cells, (1.0, -weight), strict=True):
            rows = self._add_cells(day, cells, sign, with_hours=with_hours)
            self._touch(day, rows, with_hours=with_hours)

    def _change_day(self, day: int, change: DayChange, weight: float) -> None:
        """Replace what is held of the entities in which two versions of a day differ.

        They are as if all of the day had been replaced, to the last bit.
        """
        changed, with_hours = change.changed, change.seen.with_hours
        rows = self._add(changed.names, changed.kinds)
        self._written["state"].rows(rows)
        clear_others_day(self.state, rows, day)
        if with_hours:
            clear_others_hours(self.state, rows, day)
        self._touch(day, rows[changed.is_new], with_hours=with_hours)
        for cells, sign in zip(change.cells, (1.0, -weight), strict=True):
            self._add_cells(day, cells, sign, with_hours=with_hours)

    def _touch(self, day: int, rows: NDArray[np.int64], *, with_hours: bool) -> None:
        """Take note of which rows hold something of a day, where it is not any of all."""
        for touched, slot, is_held in (
            (self._touched, day % RING, True),
            (self._touched_hours, day % _HOUR_DAYS, with_hours),
        ):
            if is_held and slot in touched:
                touched[slot] = np.concatenate([touched[slot], rows])

    def _add_cells(
        self, day: int, cells: EvidenceCells, sign: float, *, with_hours: bool
    ) -> NDArray[np.int64]:
        """Add cells to the others' evidence; return their rows."""
        rows = self._add(cells.name, cells.kind)
        nothing = np.full(len(cells), NEVER, np.int64)
        self._written["state"].rows(rows)
        add_others(
            self.state,
            rows,
            day,
            cells.hour if with_hours else np.full(len(cells), 255, np.uint8),
            cells.n * np.float32(sign),
            cells.f * np.float32(sign),
            cells.first_fraud_ms if sign > 0 else nothing,
            cells.last_fraud_ms if sign > 0 else nothing,
            cells.last_legit_ms if sign > 0 else nothing,
        )
        return rows

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays."""
        out: dict[str, NDArray[np.generic]] = {
            "weights": np.frombuffer(msgspec.msgpack.encode(self._weights), np.uint8),
            "state": self.state[: self.size].view(np.uint8),
            "names": self._index.names,
            "kinds": self._index.kinds,
            "days": self.days,
            "installed": np.array(sorted(self._installed), np.int64),
            "identities": np.array([v for _, v in sorted(self._installed.items())], np.uint64),
        }
        for day, new in self._new.items():
            out |= {f"new/{day}/{name}": array for name, array in new.arrays().items()}
        for day, whole in self._whole.items():
            out |= {f"whole/{day}/{field}": array for field, array in whole.arrays().items()}
        for day, versions in self._published.items():
            for seq, cells in versions:
                for field, array in cells.arrays().items():
                    out[f"published/{day}/{seq}/{field}"] = array
        return out

    def versions(self) -> dict[str, int]:
        """Return of arrays that never change, name -> number: what was published under one."""
        return {
            f"published/{day}/{seq}/{field}": seq
            for day, versions in self._published.items()
            for seq, cells in versions
            for field in cells.arrays()
        }

    def touched(self) -> dict[str, TouchedPages]:
        """Return array -> pages that may have changed since they were copied."""
        return self._written

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave."""
        stored = np.ascontiguousarray(arrays["state"]).view(ENTITY).reshape(-1)
        self.state = self._room.rows(len(stored) + _FIRST_ROWS)
        self.state[: len(stored)] = stored
        self._index = NameIndex()
        self._index.rows(
            np.asarray(arrays["names"], np.uint8), np.asarray(arrays["kinds"], np.uint8)
        )
        self.days = np.array(arrays["days"], np.int64)
        for rows_of in self._rows_of:
            rows_of.forget()
        self._weights = msgspec.msgpack.decode(
            np.asarray(arrays["weights"]).tobytes(), type=tuple[tuple[str, str, float], ...]
        )
        self._new, self._published, self._touched, self._touched_hours = {}, {}, {}, {}
        installed = np.asarray(arrays["installed"]).tolist()
        self._installed = dict(
            zip(installed, np.asarray(arrays["identities"]).tolist(), strict=True)
        )
        for day in sorted({int(key.split("/")[1]) for key in arrays if key.startswith("new/")}):
            self._new_of(day).load(under(f"new/{day}/", arrays))
        held = {int(key.split("/")[1]) for key in arrays if key.startswith("whole/")}
        self._whole = {day: EvidenceCells(**under(f"whole/{day}/", arrays)) for day in sorted(held)}  # type: ignore[arg-type]  # dtypes are as they were stored
        versions = {
            (int(day), int(seq))
            for _, day, seq, _ in (k.split("/") for k in arrays if k.startswith("published/"))
        }
        for day, seq in sorted(versions):
            fields = under(f"published/{day}/{seq}/", arrays)
            self._published.setdefault(day, []).append((seq, EvidenceCells(**fields)))  # type: ignore[arg-type]  # dtypes are as they were stored
        for pages in self._written.values():
            pages.clear()


def _is_installed(known: InstalledDay | None, cells: EvidenceCells, own: object) -> bool:
    """Return whether a day holds the very same values, which need not be hashed to be known."""
    return known is not None and known.merged.cells is cells and known.published is own
