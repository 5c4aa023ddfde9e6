"""Batches of transactions: picking rows and joining batches is picking and joining lists."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.records import (
    Alert,
    DeadLetter,
    Decision,
    Reason,
    TransactionBatch,
    concatenate_batches,
    written_values,
)
from models.words import Words

SCALARS = ("transaction_id", "account_id", "event_time_ms", "amount_minor", "amount", "currency")
NUMBERS = {"event_time_ms": np.int64, "amount_minor": np.int64, "amount": np.float64}


def batch_of(numbers: list[int]) -> TransactionBatch:
    """Return one row for each number, every field telling which."""
    return TransactionBatch(
        transaction_id=[f"T{i}" for i in numbers],
        account_id=[f"A{i}" for i in numbers],
        event_time_ms=np.array(numbers, np.int64) + 10**12,
        amount_minor=np.array(numbers, np.int64) * 100,
        amount=np.array(numbers, np.float64) / 2,
        currency=["EUR" if i % 2 else "JPY" for i in numbers],
        entities={
            "terminal": [f"P{i}" if i % 3 else None for i in numbers],
            "ip": [None for _ in numbers],
        },
        attributes={
            "age": np.array([i if i % 2 else np.nan for i in numbers], np.float64),
            "short": np.array(numbers, np.float32),
            "channel": Words.of(["web" if i % 2 else None for i in numbers]),
        },
    )


def columns(batch: TransactionBatch) -> dict[str, Any]:
    """Return every column as a list, after a look at the arrays' types."""
    for name, dtype in NUMBERS.items():
        assert getattr(batch, name).dtype == dtype
    found = {name: list(getattr(batch, name)) for name in SCALARS}
    found |= {f"entity {kind}": list(column) for kind, column in batch.entities.items()}
    dtypes = {"age": np.dtype(np.float64), "short": np.dtype(np.float32), "channel": None}
    assert {name: getattr(c, "dtype", None) for name, c in batch.attributes.items()} == dtypes
    return found | {
        f"attribute {name}": list(written_values(column))
        for name, column in batch.attributes.items()
    }


@given(n=st.integers(0, 9), start=st.integers(-10, 10), stop=st.integers(-10, 10))
def test_a_slice_of_rows_is_the_slice_of_every_column(n: int, start: int, stop: int) -> None:
    """Whatever the bounds; the length is that of the columns."""
    numbers = list(range(n))
    part = batch_of(numbers).rows(slice(start, stop))
    assert columns(part) == columns(batch_of(numbers[start:stop]))
    assert len(part) == len(numbers[start:stop])


@given(
    index=st.lists(st.integers(0, 6), max_size=9)
    | st.tuples(st.integers(0, 6), st.integers(0, 6)).map(lambda ends: list(range(*sorted(ends))))
)
def test_taken_rows_come_in_the_order_asked(index: list[int]) -> None:
    """Contiguous or not, backwards and repeated, none at all."""
    taken = batch_of(list(range(7))).take(np.array(index, np.int64))
    assert columns(taken) == columns(batch_of(index))


@pytest.mark.parametrize("index", [[1, 3, 3], [2, 1], [1, 1], [0, 2, 1, 3], [3, 4, 5], [6]])
def test_ends_alone_do_not_make_a_range(index: list[int]) -> None:
    """Three indices from 1 to 3 need not be 1, 2, 3."""
    taken = batch_of(list(range(7))).take(np.array(index, np.int64))
    assert columns(taken) == columns(batch_of(index))


@given(parts=st.lists(st.lists(st.integers(0, 99), max_size=4), min_size=1, max_size=4))
def test_joined_batches_are_the_rows_one_after_the_other(parts: list[list[int]]) -> None:
    """One batch or several, empty ones among them; the operands stay as they are."""
    batches = [batch_of(part) for part in parts]
    joined = concatenate_batches(batches)
    assert columns(joined) == columns(batch_of([i for part in parts for i in part]))
    assert [columns(batch) for batch in batches] == [columns(batch_of(part)) for part in parts]


def test_cutting_and_joining_gives_the_batch_back() -> None:
    """At every place."""
    whole = batch_of(list(range(6)))
    for cut in range(7):
        pieces = [whole.rows(slice(0, cut)), whole.rows(slice(cut, None))]
        assert columns(concatenate_batches(pieces)) == columns(whole)


MESSAGES = [
    Decision(
        transaction_id="T1",
        event_time_ms=1,
        y_score=0.25,
        alert=True,
        release="r1",
        expert_scores={"own": -1.5},
    ),
    Alert(
        alert_id="a",
        case_id="c",
        transaction_id="T1",
        account_id="A1",
        event_time_ms=1,
        amount_minor=100,
        currency="EUR",
        y_score=0.25,
        threshold=0.2,
        release="r1",
        reasons=[Reason(feature="n_1d", contribution=1.5, text="many payments today")],
    ),
    DeadLetter(
        reason="bad_time", detail="at: late", topic="t", partition=1, offset=2, payload=b"\x00\xff"
    ),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_come_back_from_json(message: msgspec.Struct) -> None:
    """What a worker sends out can be read again, and not be changed."""
    encoded = msgspec.json.encode(message)
    assert msgspec.json.decode(encoded, type=type(message)) == message
    with pytest.raises(AttributeError):
        message.release = "other"


def test_a_dead_letter_s_payload_is_base64() -> None:
    """By RFC 4648 the bytes 00 ff 10 are written AP8Q."""
    letter = msgspec.structs.replace(MESSAGES[2], payload=b"\x00\xff\x10")
    assert msgspec.json.decode(msgspec.json.encode(letter))["payload"] == "AP8Q"
