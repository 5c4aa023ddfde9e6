"""Fragments: any envelope comes back whole, and nothing half is ever given out."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import DecodeError, InvalidInputError
from models.fragments import FragmentRecord, Reassembler, Splitter, split


def feed(reassembler: Reassembler, records: list[FragmentRecord]) -> list[bytes]:
    """Return the envelopes that records complete."""
    found = (reassembler.add(record) for record in records)
    return [envelope for envelope in found if envelope is not None]


@given(st.binary(min_size=1, max_size=300), st.integers(1, 64), st.integers(0, 2**40))
def test_every_envelope_comes_back_in_one_piece(envelope: bytes, size: int, seq: int) -> None:
    """Any length, any fragment size."""
    records = split(envelope, b"a|b", seq, fragment_bytes=size)
    assert all(len(record.value or b"") <= size for record in records)
    assert feed(Reassembler(), records) == [envelope]


@given(st.permutations(range(5)))
def test_the_order_of_fragments_does_not_matter(order: list[int]) -> None:
    """Reordered and repeated fragments give the envelope once."""
    envelope = bytes(range(50))
    records = split(envelope, b"k", 7, fragment_bytes=10)
    shuffled = [records[i] for i in order[:-1] for _ in range(2)] + [records[order[-1]]]
    assert feed(Reassembler(), shuffled) == [envelope]


def test_a_version_published_by_half_gives_nothing_and_does_not_mix() -> None:
    """A crash after two of three pieces, then a newer version in the same slot."""
    torn = split(b"a" * 30, b"k", 2, fragment_bytes=10)[:2]
    whole = split(b"b" * 30, b"k", 4, fragment_bytes=10)
    assert feed(Reassembler(), torn + whole) == [b"b" * 30]


def test_the_last_whole_version_survives_compaction_beside_a_torn_one() -> None:
    """The splitter alternates slots of a key whatever the sequence numbers are."""
    splitter = Splitter()
    log = splitter.split(b"a" * 2_000_000, b"k", 10)
    log += splitter.split(b"b" * 2_000_000, b"k", 12)
    log += splitter.split(b"c" * 2_000_000, b"k", 14)[:1]
    compacted = list({record.key: record for record in log}.values())
    assert feed(Reassembler(), compacted)[-1] == b"b" * 2_000_000


def test_a_splitter_goes_on_after_the_slot_that_it_observed() -> None:
    """A restart does not overwrite the last version."""
    first = Splitter().split(b"x", b"k", 1)
    again = Splitter()
    again.observe(first[0].key)
    assert again.split(b"y", b"k", 2)[0].key != first[0].key


def test_tombstones_are_passed_over() -> None:
    """A deleted record completes nothing."""
    assert Reassembler().add(FragmentRecord(b"k|0|0", None, ())) is None


DIGEST = ("sha256", hashlib.sha256(b"x").digest())
GOOD = (("seq", b"1"), ("i", b"0"), ("of", b"1"), DIGEST)


@pytest.mark.parametrize(
    ("key", "headers"),
    [
        (b"", GOOD),
        (b"k|2|0", GOOD),
        (b"k|0", ()),
        (b"k|0|0", ()),
        (b"k|0|0", (*GOOD, ("more", b"1"))),
        (b"k|0|0", (("seq", b"-1"), *GOOD[1:])),
        (b"k|0|0", (("seq", b"9" * 20), *GOOD[1:])),
        (b"k|0|0", (("seq", b"1"), ("i", b"1"), ("of", b"1"), DIGEST)),
        (b"k|0|0", (("seq", b"1"), ("i", b"0"), ("of", b"0"), DIGEST)),
        (b"k|0|0", (*GOOD[:3], ("sha256", b"short"))),
        (b"k|0|0", (*GOOD[:3], ("sha256", bytes(32)))),
    ],
)
def test_what_is_no_fragment_is_refused(key: bytes, headers: tuple[tuple[str, bytes], ...]) -> None:
    """Wrong key, headers, numbers or hash."""
    with pytest.raises(DecodeError) as refusal:
        Reassembler().add(FragmentRecord(key, b"x", headers))
    assert refusal.value.reason == "fragment"


def test_an_envelope_beyond_the_bound_is_refused() -> None:
    """Also when each of its pieces is small."""
    records = split(b"x" * 100, b"k", 1, fragment_bytes=10)
    with pytest.raises(DecodeError) as refusal:
        feed(Reassembler(max_envelope_bytes=50), records)
    assert refusal.value.reason == "size"


def test_a_claim_of_very_many_pieces_is_refused_before_memory_is_taken() -> None:
    """The bound on pieces holds for the first record already."""
    headers = (("seq", b"1"), ("i", b"0"), ("of", b"999999999999"), DIGEST)
    with pytest.raises(DecodeError) as refusal:
        Reassembler().add(FragmentRecord(b"k|0|0", b"x", headers))
    assert refusal.value.reason == "size"


def test_incomplete_envelopes_are_dropped_oldest_first_when_there_are_too_many() -> None:
    """The newest can still be completed, the oldest cannot."""
    reassembler = Reassembler(max_pending_bytes=25)
    old = split(b"o" * 20, b"old", 1, fragment_bytes=10)
    new = split(b"n" * 30, b"new", 2, fragment_bytes=10)
    assert feed(reassembler, old[:1] + new + old[1:]) == [b"n" * 30]


def test_an_empty_envelope_is_refused() -> None:
    """There is nothing to send."""
    with pytest.raises(InvalidInputError):
        split(b"", b"k", 1)
