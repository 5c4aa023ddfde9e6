"""A labelled file is cut into banks, each with the stream of payments and frauds that it sees."""

import numpy as np
import pytest

from deploy.bank_rows import bank_stream, kept_apart, read_bank_rows
from deploy.splits import parse_split
from models.errors import InvalidInputError
from models.records import TransactionBatch
from tests.unit.deploy.small_backtest import MAPPING

HEAD = (
    "transaction_id,bank,event_time_ms,account_id,amount,currency,"
    "terminal,merchant,device,channel,fraud,owner"
)
ROWS = (
    "P2,south,1767571202000,A1,5.00,EUR,T1,M1,,till,1,x",
    "P1,north,1767571201000,A1,9.99,EUR,T1,M1,D1,online,0,y",
    "P4,north,1767571203000,A2,-1.00,EUR,T2,M1,,till,0,x",
    "P3,south,1767571202000,A3,0.50,EUR,,M1,,till,0,x",
)


def table(tmp_path, rows=ROWS, head=HEAD):
    """Return the path of a CSV file of these rows."""
    path = tmp_path / "rows.csv"
    path.write_text("\n".join((head, *rows)) + "\n", encoding="utf-8")
    return path


def without(tmp_path, line):
    """Return a mapping of simulated files without one line."""
    text = MAPPING.read_text(encoding="utf-8")
    assert line in text
    path = tmp_path / "mapping.toml"
    path.write_text(text.replace(line, ""), encoding="utf-8")
    return path


def batch(ids, accounts):
    """Return payments a second apart."""
    n = len(ids)
    return TransactionBatch(
        transaction_id=ids,
        account_id=accounts,
        event_time_ms=np.arange(n, dtype=np.int64) * 1_000,
        amount_minor=np.full(n, 100, np.int64),
        amount=np.ones(n),
        currency=["EUR"] * n,
    )


def test_rows_are_in_time_order_with_bank_and_label(tmp_path):
    """Ties go by transaction id; banks are numbered in the order of their names."""
    rows = read_bank_rows(table(tmp_path), MAPPING)
    assert rows.batch.transaction_id == ["P1", "P2", "P3"]
    assert rows.names == ("north", "south")
    assert rows.bank.tolist() == [0, 1, 1]
    assert rows.is_fraud.tolist() == [False, True, False]


def test_bad_rows_are_left_out_with_a_reason(tmp_path):
    """Of four rows one has a negative amount: three are kept and one reason is given."""
    rows = read_bank_rows(table(tmp_path), MAPPING)
    assert len(rows.batch) == 3
    assert len(rows.refused) == 1


def test_another_column_may_name_the_bank(tmp_path):
    """It goes before the mapping's own."""
    rows = read_bank_rows(table(tmp_path), MAPPING, bank_column="owner")
    assert rows.names == ("x", "y")
    assert rows.bank.tolist() == [1, 0, 0]


def test_a_split_goes_before_any_column(tmp_path):
    """Banks are those that the split gives to the accounts of the rows."""
    text = "4:0.5,0.5"
    rows = read_bank_rows(table(tmp_path), MAPPING, split=text, bank_column="owner")
    split = parse_split(text)
    assert rows.names == split.names
    assert rows.bank.tolist() == split.banks(["A1", "A1", "A3"]).tolist()


def test_mapping_without_label_is_refused(tmp_path):
    """A back-test needs to know what was fraud."""
    with pytest.raises(InvalidInputError, match="label"):
        read_bank_rows(table(tmp_path), without(tmp_path, 'label = "fraud"\n'))


def test_file_that_says_nothing_of_banks_is_refused(tmp_path):
    """The message names all three ways to say it."""
    with pytest.raises(InvalidInputError, match=r"--split.*--bank-column.*bank"):
        read_bank_rows(table(tmp_path), without(tmp_path, 'bank = "bank"\n'))


def test_file_without_a_good_row_is_refused(tmp_path):
    """Neither a header alone nor bad rows alone can be run."""
    for rows in ((), ROWS[2:3]):
        with pytest.raises(InvalidInputError, match="no good row"):
            read_bank_rows(table(tmp_path, rows), MAPPING)


def test_column_that_is_not_there_is_refused(tmp_path):
    """The message names it."""
    with pytest.raises(InvalidInputError, match="'country'"):
        read_bank_rows(table(tmp_path), MAPPING, bank_column="country")


def test_stream_labels_each_fraud_once_after_the_delay():
    """Rows 1 and 3 are frauds, paid at 1 and 3 seconds, said 7 seconds later."""
    own = batch(["P0", "P1", "P2", "P3"], ["A", "B", "A", "B"])
    stream = bank_stream(own, np.array([False, True, False, True]), 7_000)
    said = [(one.transaction_id, one.is_fraud, one.labelled_at_ms) for one in stream.labels]
    assert said == [("P1", True, 8_000), ("P3", True, 10_000)]
    assert stream.transactions is own


def test_accounts_of_two_banks_are_never_the_same_account():
    """The same text in two banks gives two names, in one bank one."""
    found = kept_apart(batch(["P0", "P1", "P2"], ["7", "7", "7"]), np.array([0, 1, 0]))
    first, second, third = found.account_id
    assert first == third != second


def test_transaction_ids_are_only_renamed_where_one_repeats():
    """Distinct ids stay as they are; else all become distinct between banks."""
    bank = np.array([0, 1])
    assert kept_apart(batch(["P0", "P1"], ["7", "8"]), bank).transaction_id == ["P0", "P1"]
    renamed = kept_apart(batch(["P0", "P0"], ["7", "8"]), bank).transaction_id
    assert len(set(renamed)) == 2
