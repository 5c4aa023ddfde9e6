"""Entities in which two versions of a day differ, against plain dictionaries."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from models.entity_risk import EvidenceCells, aggregate
from models.evidence_changes import Entities, KeyedCells, cells_of, changed_entities, united
from tests.unit.models.test_entity_risk import ROW_LISTS, Row, cells, rows_of

Entity = tuple[bytes, int]


def by_entity(some: EvidenceCells) -> dict[Entity, list[Row]]:
    found: dict[Entity, list[Row]] = {}
    for row in rows_of(some):
        found.setdefault(row[:2], []).append(row)
    return found


def told(entities: Entities) -> list[tuple[Entity, bool]]:
    names = [name.tobytes() for name in entities.names]
    pairs = zip(names, entities.kinds.tolist(), strict=True)
    return list(zip(pairs, entities.is_new.tolist(), strict=True))


def expected(old: EvidenceCells, new: EvidenceCells) -> list[tuple[Entity, bool]]:
    before, after = by_entity(old), by_entity(new)
    differing = {e for e in before.keys() | after.keys() if before.get(e) != after.get(e)}
    return [(entity, entity not in before) for entity in sorted(differing)]


VERSIONS = st.tuples(ROW_LISTS, ROW_LISTS, ROW_LISTS).map(
    lambda lists: [aggregate(cells([*lists[0], *more])) for more in (lists[1], lists[2], [])]
)


@given(VERSIONS)
def test_entities_that_differ_are_found_and_no_others(versions: Sequence[EvidenceCells]) -> None:
    """In counts, ages, hours, or by being there at all; in order; a version equals itself."""
    one, two, three = versions
    for old, new in ((one, two), (two, three), (three, one)):
        found = changed_entities(KeyedCells.of(old), KeyedCells.of(new))
        assert told(found) == expected(old, new)
    assert told(changed_entities(KeyedCells.of(one), KeyedCells.of(one))) == []


@given(VERSIONS, VERSIONS)
def test_a_union_has_each_once(one: list[EvidenceCells], two: list[EvidenceCells]) -> None:
    """New is what is new to whoever names it; its cells are all that there are of it."""
    first, second = (changed_entities(*map(KeyedCells.of, v[:2])) for v in (one, two))
    both = dict(told(first)), dict(told(second))
    wanted = {
        entity: all(flags[entity] for flags in both if entity in flags)
        for entity in sorted(both[0].keys() | both[1].keys())
    }
    together = united(first, second)
    assert told(together) == list(wanted.items())
    held = by_entity(one[1])
    assert rows_of(cells_of(KeyedCells.of(one[1]), together)) == [
        row for entity, rows in held.items() if entity in wanted for row in rows
    ]
