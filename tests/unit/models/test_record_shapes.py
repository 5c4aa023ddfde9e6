"""Reading fields of records: as a dictionary would give them, wherever a chunk is cut."""

import json

from hypothesis import given
from hypothesis import strategies as st

from models.fields import MAX_TEXT_CHARS
from models.record_shapes import MAX_RECORD_BYTES, Faults, RecordReader

PATHS = [("id",), ("at", "place"), ("at", "deep", "x"), ("n",)]
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=4)
VALUES = SCALARS | st.lists(SCALARS, max_size=2)
INNER = st.dictionaries(
    st.sampled_from(["place", "deep", "other"]),
    VALUES | st.dictionaries(st.sampled_from(["x", "y"]), VALUES, max_size=2),
    max_size=3,
)
RECORDS = st.dictionaries(
    st.sampled_from(["id", "at", "n", "unread"]), VALUES | INNER, max_size=4
).map(lambda record: json.dumps(record).encode())
RAW = RECORDS | st.sampled_from([None, b"", b"{", b"[1]", b"7", b'{"n": 1e999}', b'{"id": "\xff"}'])
Row = tuple[object, ...]


def read(values: list[bytes | None]) -> tuple[list[Row], Faults]:
    faults: Faults = {}
    columns = RecordReader(PATHS).read(values, faults)
    assert len(columns) == len(values)
    return list(zip(*map(columns.column, PATHS), strict=True)), faults


TEXTS = {("id",): True, ("at", "place"): False, ("at", "deep", "x"): True}
USUAL = st.fixed_dictionaries(
    {
        "id": st.text(max_size=3) | st.integers(0, 9),
        "at": st.fixed_dictionaries(
            {"deep": st.fixed_dictionaries({"x": st.text(max_size=3) | st.just("x" * 999)})},
            optional={"place": st.none() | st.text(max_size=3) | st.just(7)},
        ),
    }
).map(lambda record: json.dumps(record).encode())


def is_identifier(value: object) -> bool:
    return type(value) is str and 0 < len(value) <= MAX_TEXT_CHARS


@given(values=st.lists(RAW, max_size=4) | st.lists(USUAL, max_size=4))
def test_what_should_be_texts_is_read_the_same_and_checked(values: list[bytes | None]) -> None:
    """Whether it is good is known of a whole chunk, where it is."""
    faults: Faults = {}
    columns = RecordReader(PATHS, TEXTS).read(values, faults)
    rows = list(zip(*map(columns.column, PATHS), strict=True))
    assert (repr(rows), faults) == (repr(read(values)[0]), read(values)[1])
    found = [
        is_identifier(value) or (value is None and not is_needed)
        for path, is_needed in TEXTS.items()
        for value in columns.column(path)
    ]
    assert columns.are_checked == (all(found) and not faults)


def below(value: object, path: tuple[str, ...]) -> object:
    """Return what stands at a path by plain dictionaries, None where nothing does."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


@given(values=st.lists(RECORDS, max_size=6))
def test_fields_are_those_of_the_parsed_record(values: list[bytes]) -> None:
    """What is lacking, null or in something that is no object is None."""
    rows, _ = read(list(values))
    expected = [tuple(below(json.loads(value), path) for path in PATHS) for value in values]
    assert repr(rows) == repr(expected)


@given(values=st.lists(RAW, min_size=1, max_size=6))
def test_a_record_is_read_the_same_in_any_company(values: list[bytes | None]) -> None:
    """One that cannot be read does not change what the others give."""
    rows, faults = read(values)
    for i, value in enumerate(values):
        alone, fault = read([value])
        assert repr(alone) == repr([rows[i]])
        assert fault.get(0) == faults.get(i)


def test_what_cannot_be_read_is_told_apart() -> None:
    """By a reason, without any value of the record."""
    values = [
        None,
        b"{",
        b"[]",
        b'{"n": 1e999}',
        b" " * (MAX_RECORD_BYTES + 1),
        b'{"id": "\xff"}',
        b'{"at": "home"}',
        b'{"at": {"deep": []}}',
    ]
    reasons = [reason for _, (reason, _) in sorted(read(values)[1].items())]
    assert reasons == [
        "not_an_object",
        "malformed_json",
        "not_an_object",
        "too_large",
        "too_large",
        "malformed_json",
        "wrong_type",
        "wrong_type",
    ]


def test_what_is_not_read_may_be_anything_that_is_json() -> None:
    """A number beyond all bounds in a field that no mapping names harms nobody."""
    rows, faults = read([b'{"unread": 1e999, "id": "x", "unread": [{"id": "y"}]}'])
    assert (rows, faults) == ([("x", None, None, None)], {})


def test_the_last_of_repeated_keys_counts_and_keys_may_be_escaped() -> None:
    """As for any reader of JSON."""
    rows, _ = read([b'{"id": "a", "\\u0069d": "b", "at": {"place": 1}, "at": {"place": 2}}'])
    assert rows == [("b", 2, None, None)]
