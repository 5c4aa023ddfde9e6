"""A table gives what the same records give as JSON, sorted as a stream is."""

import csv
import json
import time
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.decoding import TransactionDecoder
from models.errors import InvalidInputError
from models.mapping import load_mapping
from models.records import written_values
from models.tables import read_table
from models.words import Words

MAPPING = """
bank = "tablebank"
[transaction]
transaction_id = "id"
event_time = "t"
account_id = "account"
amount = "amount"
currency = "ccy"
[time]
format = "epoch_s"
origin = "2018-04-01T00:00:00Z"
[currencies]
EUR = 1.0
JPY = 0.006
BHD = 2.4
[entities]
terminal = "terminal"
[attributes]
age = { path = "age", type = "number" }
[label]
fraud_values = [1]
legit_values = [0]
[table]
label = "fraud"
"""


@pytest.fixture(scope="module")
def mapping(tmp_path_factory):
    """Return a mapping for tables."""
    path = tmp_path_factory.mktemp("mapping") / "tablebank.toml"
    path.write_text(MAPPING, encoding="utf-8")
    return load_mapping(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder for files."""
    return tmp_path_factory.mktemp("tables")


NAMES = ("id", "t", "account", "amount", "ccy", "terminal", "age", "fraud")


def as_rows(batch):
    """Return a batch as comparable rows."""
    return list(
        zip(
            batch.transaction_id,
            batch.account_id,
            batch.event_time_ms.tolist(),
            batch.amount_minor.tolist(),
            batch.amount.tolist(),
            batch.currency,
            batch.entities["terminal"],
            written_values(batch.attributes["age"]),
            strict=True,
        )
    )


def from_json(mapping, rows):
    """Decode rows as JSON records; return (rows by stream order, errors)."""
    values = [
        json.dumps({k: v for k, v in zip(NAMES, row, strict=True) if v is not None}).encode()
        for row in rows
    ]
    decoded = TransactionDecoder(mapping).decode(values)
    ordered = sorted(as_rows(decoded.batch), key=lambda row: (row[2], row[0]))
    return ordered, decoded.errors


def write_csv(path, rows):
    """Write rows with a header; None is an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_MINIMAL)
        writer.writerow(NAMES)
        writer.writerows([["" if cell is None else cell for cell in row] for row in rows])


number_texts = st.one_of(
    st.decimals(-5, 10**6, places=2).map(str),
    st.decimals(0, 10**6, places=4).map(str),
    st.floats(0, 1e18).map(repr),
    st.sampled_from(
        (
            *(
                "",
                "nan",
                "inf",
                "-1",
                "1e400",
                "1e3",
                ".5",
                "5.",
                "+5",
                " 7 ",
                "0x10",
                "1_0",
                "1,5",
            ),
            *(
                "12.345",
                "1.005",
                "1.0050000000000000000001",
                "x",
                "1e15",
                "10000000000000.01",
                "-0",
            ),
        )
    ),
)
ids = st.text("abcXYZ019-", min_size=1, max_size=5)


@settings(max_examples=150, deadline=None)
@given(
    cells=st.lists(
        st.tuples(
            st.integers(0, 10**8).map(str) | number_texts,
            ids | st.just(""),
            number_texts,
            st.sampled_from(["EUR", "JPY", "BHD", "XXX", ""]),
            ids | st.just(""),
            number_texts,
        ),
        min_size=1,
        max_size=6,
    )
)
def test_csv_gives_what_json_texts_give(mapping, folder, cells):
    """Every cell is the text that a JSON record would hold."""
    rows = [(f"T{i}", *cell, "0") for i, cell in enumerate(cells)]
    write_csv(folder / "a.csv", rows)
    table = read_table(folder / "a.csv", mapping)
    expected, errors = from_json(mapping, rows)
    assert as_rows(table.batch) == expected
    assert table.errors == errors


@pytest.mark.parametrize("text", ["1.0050000000000000000001", "1e400", "+5", " 7 ", "inf"])
def test_long_or_odd_number_in_a_clean_column_is_read_as_its_text(mapping, folder, text):
    """Read as float64, the first would be a tie, the second infinite."""
    rows = [("T0", 1, "A", text, "EUR", 1, 1, "0")]
    write_csv(folder / "long.csv", rows)
    table = read_table(folder / "long.csv", mapping)
    expected, errors = from_json(mapping, [("T0", 1, "A", text, "EUR", "1", 1, "0")])
    assert as_rows(table.batch) == expected
    assert table.errors == errors


doubles = st.one_of(
    st.integers(0, 10**9).map(lambda cents: cents / 100),
    st.floats(0, 1e6),
    st.floats(-1e3, 1e16),
    st.sampled_from([12.345, 1.005, 1.015, 0.0, -0.0, 1e300, 1e13]),
)


@settings(max_examples=150, deadline=None)
@given(
    cells=st.lists(
        st.tuples(
            st.integers(-(2**31), 2**40) | st.floats(0, 2e8),
            st.integers(-5, 2**62),
            doubles,
            st.sampled_from(["EUR", "JPY", "BHD", "XXX"]),
            st.integers(0, 9999) | st.none(),
            st.floats(-1e9, 1e9) | st.none(),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_parquet_gives_what_json_numbers_give(mapping, folder, cells):
    """Integers are ids, doubles are amounts, null is absent."""
    is_float_time = any(isinstance(cell[0], float) for cell in cells)
    rows = [
        (i, float(cell[0]) if is_float_time else cell[0], *cell[1:], 0)
        for i, cell in enumerate(cells)
    ]
    kinds = [pa.int64(), pa.float64() if is_float_time else pa.int64(), pa.int64(), pa.float64(),
             pa.string(), pa.int64(), pa.float64(), pa.int8()]  # fmt: skip
    columns = list(zip(*rows, strict=True))
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    pq.write_table(pa.table(dict(zip(NAMES, arrays, strict=True))), folder / "a.parquet")
    table = read_table(folder / "a.parquet", mapping)
    expected, errors = from_json(mapping, rows)
    assert as_rows(table.batch) == expected
    assert table.errors == errors


def test_rows_are_by_time_then_id_as_text(mapping, folder):
    """T10 is before T9; label, row of the file and bank follow their row."""
    rows = [
        ("T9", 5, 1, 1, "EUR", 1, 1, 1),
        ("T10", 5, 2, 1, "EUR", 1, 1, 0),
        ("T1", 4, 3, 1, "EUR", 1, 1, 1),
    ]
    write_csv(folder / "b.csv", rows)
    table = read_table(folder / "b.csv", mapping, bank_column="account")
    assert table.batch.transaction_id == ["T1", "T10", "T9"]
    assert table.is_fraud is not None
    assert table.is_fraud.tolist() == [True, False, True]
    assert table.source_rows.tolist() == [2, 1, 0]
    assert table.bank == ["3", "2", "1"]


def test_equal_ids_are_one_object(mapping, folder):
    """Memory: millions of rows share the texts of their accounts."""
    rows = [(f"T{i}", i, "a-long-account", 1, "EUR", 77, 1, 0) for i in range(3)]
    write_csv(folder / "c.csv", rows)
    batch = read_table(folder / "c.csv", mapping).batch
    assert batch.account_id[0] is batch.account_id[2]


def test_unknown_verdict_is_an_error(mapping, folder):
    """A label that is neither fraud nor legitimate is not guessed."""
    write_csv(folder / "d.csv", [("T0", 1, 1, 1, "EUR", 1, 1, "perhaps")])
    assert [reason for _, reason, _ in read_table(folder / "d.csv", mapping).errors] == [
        "unknown_verdict"
    ]


def test_missing_column_is_named_with_a_near_miss(mapping, folder):
    """The message says which columns are there."""
    (folder / "e.csv").write_text("id,t,account,amout,ccy,terminal,age,fraud\n", encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"'amount'.*did you mean 'amout'"):
        read_table(folder / "e.csv", mapping)


@pytest.mark.parametrize("name", ["no.csv", "no.parquet"])
def test_unreadable_file_is_an_input_error(mapping, folder, name):
    """As are missing files."""
    with pytest.raises(InvalidInputError, match="no"):
        read_table(folder / name, mapping)
    (folder / "f.parquet").write_bytes(b"not parquet")
    with pytest.raises(InvalidInputError, match="Parquet"):
        read_table(folder / "f.parquet", mapping)


def test_empty_table_gives_an_empty_batch(mapping, folder):
    """A header alone is fine."""
    write_csv(folder / "g.csv", [])
    table = read_table(folder / "g.csv", mapping)
    assert len(table.batch) == 0
    assert table.errors == []


def test_timestamps_of_parquet_need_no_format(mapping, folder):
    """A column of timestamps is an instant whatever the mapping says; naive ones need a zone."""
    rows = {
        "id": ["a", "b"],
        "t": pa.array([1_767_610_800_000, None], pa.timestamp("ms", "UTC")),
        "account": ["x", "x"],
        "amount": [1.0, 1.0],
        "ccy": ["EUR", "EUR"],
        "terminal": [1, 1],
        "age": [1.0, 1.0],
        "fraud": [0, 0],
    }
    pq.write_table(pa.table(rows), folder / "h.parquet")
    table = read_table(folder / "h.parquet", mapping)
    assert table.batch.event_time_ms.tolist() == [1_767_610_800_000]
    assert [reason for _, reason, _ in table.errors] == ["missing_field"]


def test_a_million_cells_take_less_than_ten_seconds(mapping, folder):
    """125,000 rows at once; guards against a fall back to cell by cell for clean columns."""
    n = 125_000
    rng = np.random.default_rng(1)
    pq.write_table(
        pa.table(
            {
                "id": np.arange(n),
                "t": np.sort(rng.integers(10**7, size=n)),
                "account": rng.integers(1000, size=n),
                "amount": rng.integers(10**5, size=n) / 100,
                "ccy": ["EUR"] * n,
                "terminal": rng.integers(1000, size=n),
                "age": rng.random(n),
                "fraud": np.zeros(n, np.int8),
            }
        ),
        folder / "i.parquet",
    )
    start_s = time.perf_counter()
    assert len(read_table(folder / "i.parquet", mapping).batch) == n
    assert time.perf_counter() - start_s < 10.0


WIDE = MAPPING.replace(
    'age = { path = "age", type = "number" }',
    """age = { path = "age", type = "number" }
old = { path = "age", type = "number" }
word = { path = "word", type = "text" }
size = { path = "size", type = "number" }""",
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Return a mapping with attributes of both types."""
    path = tmp_path_factory.mktemp("mapping") / "wide.toml"
    path.write_text(WIDE, encoding="utf-8")
    return load_mapping(path)


def write_wide(path, **arrays):
    """Write rows of good payments, the newest first, with these attributes."""
    n = len(next(iter(arrays.values())))
    good = {
        "id": [f"T{i}" for i in range(n)],
        "t": list(range(n, 0, -1)),
        "account": ["A"] * n,
        "amount": [1.0] * n,
        "ccy": ["EUR"] * n,
        "terminal": ["P"] * n,
        "fraud": [0] * n,
    }
    others = {"age": [None] * n, "word": [None] * n, "size": [None] * n}
    columns = {
        name: pa.array([None] * n, pa.float64()) if name != "word" else pa.array([None] * n)
        for name in others
    } | arrays
    pq.write_table(pa.table(good | columns), path)


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int8(), pa.string()), pa.int64()])
def test_text_attributes_are_coded(wide, folder, kind):
    """Rows follow their payment; null and the empty text are absent; each text once."""
    written = [3, 5, None, 3] if kind == pa.int64() else ["b", "", None, "a"]
    write_wide(folder / "w.parquet", word=pa.array(written, kind))
    table = read_table(folder / "w.parquet", wide)
    column = table.batch.attributes["word"]
    assert isinstance(column, Words)
    assert column.codes.dtype == np.int32
    expected = ["3", None, "5", "3"] if kind == pa.int64() else ["a", None, None, "b"]
    assert column.tolist() == expected
    assert len(set(column.words)) == len(column.words) == 2
    assert table.errors == []


def test_a_text_attribute_that_is_too_long_is_an_error_of_its_rows(wide, folder):
    """Every row that has it."""
    write_wide(folder / "x.parquet", word=["a", "x" * 257, "b", "x" * 257])
    table = read_table(folder / "x.parquet", wide)
    assert [(row, reason) for row, reason, _ in table.errors] == [
        (1, "too_large"),
        (3, "too_large"),
    ]
    assert table.batch.attributes["word"].tolist() == ["b", "a"]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (pa.float64(), np.float64),
        (pa.float32(), np.float32),
        (pa.int64(), np.float64),
        (pa.int32(), np.float64),
        (pa.int16(), np.float32),
        (pa.uint8(), np.float32),
        (pa.string(), np.float64),
        (pa.decimal128(9, 2), np.float64),
        (pa.null(), np.float64),
    ],
)
def test_number_attributes_take_the_width_that_holds_them(wide, folder, kind, dtype):
    """The values are those of the file; null is NaN; two attributes may read one column."""
    values = [None] * 3 if kind == pa.null() else [7, None, 3]
    written = [None if v is None else str(v) for v in values] if kind == pa.string() else values
    write_wide(folder / "n.parquet", age=pa.array(written, kind))
    table = read_table(folder / "n.parquet", wide)
    for name in ("age", "old"):
        column = table.batch.attributes[name]
        assert column.dtype == dtype
        expected = [np.nan if v is None else float(v) for v in reversed(values)]
        np.testing.assert_array_equal(column, expected)
    assert table.errors == []


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1.0, float("nan"), None], "not_finite"),
        ([1.0, float("inf"), None], "not_finite"),
        ([1.0, -1.5e308, None], "too_large"),
        (["1", "x", None], "wrong_type"),
        (["1", "nan", None], "not_finite"),
        ([True, False, None], "wrong_type"),
    ],
)
def test_a_number_attribute_that_is_none_is_an_error_of_its_row(wide, folder, values, reason):
    """As it is in a record; an absent one is none."""
    write_wide(folder / "o.parquet", size=values)
    table = read_table(folder / "o.parquet", wide)
    assert (1, reason) in [(row, why) for row, why, _ in table.errors]
    assert 2 not in [row for row, _, _ in table.errors]


def test_whole_numbers_beyond_float64_are_rounded_as_in_a_record(wide, folder):
    """2**53 + 1 lies between two of them; the even one is taken, and null stays absent."""
    write_wide(folder / "p.parquet", size=pa.array([2**53 + 1, None], pa.int64()))
    column = read_table(folder / "p.parquet", wide).batch.attributes["size"]
    np.testing.assert_array_equal(column, [np.nan, 2.0**53])


def test_a_hundred_attributes_take_little_time_and_memory(folder):
    """100 columns of 50,000 rows: about eight bytes a value, four for texts, no Python objects."""
    n, n_columns = 50_000, 100
    rng = np.random.default_rng(2)
    text = MAPPING
    arrays = {}
    for j in range(n_columns):
        kind = "text" if j % 2 else "number"
        text = text.replace("[label]", f'a{j} = {{ path = "a{j}", type = "{kind}" }}\n[label]')
        values = rng.random(n)
        numbers = pa.array(values, mask=values < 0.4)
        words = pa.array([f"w{i}" for i in range(50)]).take(pa.array((values * 50).astype(int)))
        arrays[f"a{j}"] = words if j % 2 else numbers
    (folder / "hundred.toml").write_text(text, encoding="utf-8")
    write_wide(folder / "q.parquet", **arrays)
    mapping = load_mapping(folder / "hundred.toml")
    tracemalloc.start()
    start_s = time.perf_counter()
    batch = read_table(folder / "q.parquet", mapping).batch
    took_s = time.perf_counter() - start_s
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took_s < 10.0
    assert peak_bytes < 2 * (8 + 4) / 2 * n * n_columns
    held = sum(
        column.codes.nbytes if isinstance(column, Words) else column.nbytes
        for column in batch.attributes.values()
    )
    assert held == n * (50 * 8 + 50 * 4) + n * 8  # and age
