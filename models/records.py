"""Canonical records: what a bank's own format is mapped to, and what a worker sends out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.words import Words, concatenate_words

LabelSource = Literal["chargeback", "analyst", "rule"]
AttributeColumn = NDArray[np.float64] | NDArray[np.float32] | Words
"""One attribute of all rows: numbers with NaN for an absent one, or texts.

Numbers are float64, so that a record can be written again with the digits it came with; columns
of a file that holds them in less are float32, which is exact there and half the size.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TransactionBatch:
    """Transactions of one bank as columns, in the order in which they are to be processed.

    Parameters
    ----------
    transaction_id, account_id
        Texts as the bank writes them, one per row.
    event_time_ms
        ndarray of shape (n,), int64: when it was paid, milliseconds since 1970 UTC.
    amount_minor
        ndarray of shape (n,), int64, >= 0: in minor units of ``currency``.
    amount
        ndarray of shape (n,), float64, >= 0: in major units of the consortium's reference currency.
    currency
        ISO 4217 codes, one per row.
    entities
        Kind -> one text or None (absent) per row.
    attributes
        Name -> one number or text per row, or neither (absent).
    """

    transaction_id: Sequence[str]
    account_id: Sequence[str]
    event_time_ms: NDArray[np.int64]
    amount_minor: NDArray[np.int64]
    amount: NDArray[np.float64]
    currency: Sequence[str]
    entities: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    attributes: Mapping[str, AttributeColumn] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.event_time_ms)

    def rows(self, index: slice) -> "TransactionBatch":
        """Return the batch of a contiguous range of rows."""
        return TransactionBatch(
            transaction_id=self.transaction_id[index],
            account_id=self.account_id[index],
            event_time_ms=self.event_time_ms[index],
            amount_minor=self.amount_minor[index],
            amount=self.amount[index],
            currency=self.currency[index],
            entities={kind: column[index] for kind, column in self.entities.items()},
            attributes={name: column[index] for name, column in self.attributes.items()},
        )

    def take(self, index: NDArray[np.int64]) -> "TransactionBatch":
        """Return the batch of the rows at ``index``, in that order."""
        if not len(index):
            return self.rows(slice(0, 0))
        first, last = int(index[0]), int(index[-1])
        if last - first + 1 == len(index) and bool((np.diff(index) == 1).all()):
            return self if len(index) == len(self) else self.rows(slice(first, last + 1))
        picked = index.tolist()
        return TransactionBatch(
            transaction_id=[self.transaction_id[i] for i in picked],
            account_id=[self.account_id[i] for i in picked],
            event_time_ms=self.event_time_ms[index],
            amount_minor=self.amount_minor[index],
            amount=self.amount[index],
            currency=[self.currency[i] for i in picked],
            entities={kind: [c[i] for i in picked] for kind, c in self.entities.items()},
            attributes={name: column[index] for name, column in self.attributes.items()},
        )


def concatenate_batches(batches: Sequence[TransactionBatch]) -> TransactionBatch:
    """Return the rows of several batches of one mapping, one after the other; at least one."""
    if len(batches) == 1:
        return batches[0]
    first = batches[0]
    return TransactionBatch(
        transaction_id=[x for batch in batches for x in batch.transaction_id],
        account_id=[x for batch in batches for x in batch.account_id],
        event_time_ms=np.concatenate([batch.event_time_ms for batch in batches]),
        amount_minor=np.concatenate([batch.amount_minor for batch in batches]),
        amount=np.concatenate([batch.amount for batch in batches]),
        currency=[x for batch in batches for x in batch.currency],
        entities={k: [x for batch in batches for x in batch.entities[k]] for k in first.entities},
        attributes={
            name: _concatenate([batch.attributes[name] for batch in batches])
            for name in first.attributes
        },
    )


def written_values(column: AttributeColumn) -> Sequence[float | str | None]:
    """Return an attribute's values as they stand in records, None where absent."""
    if isinstance(column, Words):
        return column.tolist()
    numbers: list[float] = column.tolist()
    return [None if number != number else number for number in numbers]  # noqa: PLR0124  # NaN


def _concatenate(columns: Sequence[AttributeColumn]) -> AttributeColumn:
    if isinstance(columns[0], Words):
        return concatenate_words(columns)  # type: ignore[arg-type]  # one mapping, one type
    return np.concatenate(columns)  # type: ignore[arg-type]  # likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What a transaction turned out to be.

    Parameters
    ----------
    transaction_id
        The bank's own id of the transaction.
    is_fraud
        True for fraud.
    source
        Who says so.
    labelled_at_ms
        When it was said, milliseconds since 1970 UTC.
    """

    transaction_id: str
    is_fraud: bool
    source: LabelSource
    labelled_at_ms: int


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One summand of a score in words.

    ``feature`` names the transform, ``contribution`` is in log-odds against the usual transaction
    (positive: towards fraud), ``text`` is a plain sentence part.
    """

    feature: str
    contribution: float
    text: str


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one transaction; ``y_score`` is a probability of fraud in [0, 1]."""

    transaction_id: str
    event_time_ms: int
    y_score: float
    alert: bool
    release: str
    expert_scores: dict[str, float]


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction that an analyst should see; ``alert_id`` repeats when processing repeats."""

    alert_id: str
    case_id: str
    transaction_id: str
    account_id: str
    event_time_ms: int
    amount_minor: int
    currency: str
    y_score: float
    threshold: float
    release: str
    reasons: list[Reason]


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A record that was not used, and why.

    ``payload`` is the record as it came (JSON: base64), empty where a replay held it back for
    long; topic, partition and offset say where it lies.
    """

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    payload: bytes
