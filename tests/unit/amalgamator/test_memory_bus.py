"""The bus in memory behaves as a compacted topic does."""

from amalgamator.memory_bus import MemoryBus, MemorySummarySource
from models.fragments import FragmentRecord


def record(key: bytes, value: bytes | None) -> FragmentRecord:
    """Return a record without headers."""
    return FragmentRecord(key, value, ())


def test_offsets_count_per_topic_and_survive_compaction() -> None:
    """The newest of each key stays at its place, deleted keys go."""
    bus = MemoryBus()
    bus.append("t", [record(b"a", b"1"), record(b"b", b"2"), record(b"a", b"3")])
    bus.append("u", [record(b"a", b"9")])
    bus.append("t", [record(b"b", None)])
    bus.compact("t")
    assert bus.read("t", 0) == [(2, record(b"a", b"3"))]
    assert (bus.end_offset("t"), bus.end_offset("u"), bus.end_offset("none")) == (4, 1, 0)


def test_a_source_gives_every_record_once_and_knows_when_it_has_caught_up() -> None:
    """Caught up means what was there at the start, even if compaction removed the last record."""
    bus = MemoryBus()
    bus.append("t", [record(b"a", b"1"), record(b"b", b"2"), record(b"b", None)])
    bus.compact("t")
    source = MemorySummarySource(bus, ["t", "u"])
    assert not source.is_caught_up()
    assert [one.offset for one in source.poll(0.0)] == [0]
    assert source.is_caught_up()
    bus.append("u", [record(b"c", b"3")])
    assert [(one.topic, one.offset) for one in source.poll(0.0)] == [("u", 0)]
    assert source.poll(0.0) == []
    source.close()
