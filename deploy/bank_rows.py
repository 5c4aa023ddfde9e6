"""A file of transactions as rows of banks: what each bank has, and as the stream that it sees."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.local import BankStream
from deploy.splits import parse_split
from models.errors import InvalidInputError
from models.mapping import load_mapping
from models.records import Label, TransactionBatch
from models.tables import read_table


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BankRows:
    """The good rows of a file, by (event time, transaction id).

    Parameters
    ----------
    batch
        The transactions.
    is_fraud
        bool of shape (n,).
    bank
        int64 of shape (n,): index into ``names``.
    names
        The banks.
    refused
        Why each bad row was left out.
    """

    batch: TransactionBatch
    is_fraud: NDArray[np.bool_]
    bank: NDArray[np.int64]
    names: tuple[str, ...]
    refused: Sequence[str]


def read_bank_rows(
    file: Path, mapping: Path, *, split: str | None = None, bank_column: str | None = None
) -> BankRows:
    """Read a file with labels, and split it into banks.

    Parameters
    ----------
    file, mapping
        The transactions, and where their columns lie.
    split
        See `deploy.splits.parse_split`; None: by ``bank_column`` or the mapping's.
    bank_column
        Column that names each row's bank.

    Raises
    ------
    InvalidInputError
        If there is no good row or no label column, or nothing says how to split.
    """
    table = read_table(file, load_mapping(mapping), bank_column=bank_column)
    if table.is_fraud is None:
        raise InvalidInputError(f"{mapping}: expected [table] label, got none")
    if len(table.batch) == 0:
        raise InvalidInputError(f"{file}: expected transactions, got no good row")
    if split is not None:
        shares = parse_split(split)
        bank, names = shares.banks(table.batch.account_id), shares.names
    elif table.bank is not None:
        names = tuple(sorted(set(table.bank)))
        place = {name: i for i, name in enumerate(names)}
        bank = np.array([place[name] for name in table.bank], np.int64)
    else:
        raise InvalidInputError(
            "expected --split, --bank-column or the mapping's [table] bank, "
            "to split the file into banks"
        )
    return BankRows(
        batch=table.batch,
        is_fraud=table.is_fraud,
        bank=bank,
        names=names,
        refused=[reason for _, reason, _ in table.errors],
    )


def without_attributes(rows: BankRows) -> BankRows:
    """Return the rows with accounts and entities alone to learn from."""
    return replace(rows, batch=replace(rows.batch, attributes={}))


def bank_stream(batch: TransactionBatch, is_fraud: NDArray[np.bool_], delay_ms: int) -> BankStream:
    """Return a bank's rows, with a label for each fraud ``delay_ms`` after it was paid."""
    labels = [
        Label(
            transaction_id=batch.transaction_id[i],
            is_fraud=True,
            source="chargeback",
            labelled_at_ms=int(batch.event_time_ms[i]) + delay_ms,
        )
        for i in np.flatnonzero(is_fraud).tolist()
    ]
    return BankStream(transactions=batch, labels=labels)


def kept_apart(batch: TransactionBatch, bank: NDArray[np.int64]) -> TransactionBatch:
    """Return the batch with names that no two banks share.

    Two banks may give the same number to different accounts. Transaction ids stay as they are
    unless one repeats: they decide which rows are thinned, in the consortium as on pooled data.
    """

    def named(ids: Sequence[str]) -> list[str]:
        return [f"{i}/{text}" for i, text in zip(bank.tolist(), ids, strict=True)]

    ids = batch.transaction_id
    return replace(
        batch,
        account_id=named(batch.account_id),
        transaction_id=ids if len(set(ids)) == len(ids) else named(ids),
    )
