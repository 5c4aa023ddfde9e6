"""A data set of another world: payments with hundreds of anonymous attributes, at eight banks.

Nothing of the simulator's structure is in it: frauds follow the attributes (see
`deploy.foreign_signal`), entities say little. Half the attributes are mostly missing, most are
useless, they shift from bank to bank and with time, and some banks lack some. It is there to see
what the consortium gains on data that no feature of ours was made for.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deploy.foreign_columns import Column, draw_column, hidden_traits
from deploy.foreign_signal import Situation, suspicion
from models.errors import InvalidInputError
from models.tables import PARQUET_SUFFIXES
from models.words import Words

ENTITY_KINDS = ("e1", "e2", "e3", "e4", "e5")
DAY_MS = 86_400_000
_START_MS = 1_704_067_200_000  # 2024-01-01
_LARGEST_TO_SMALLEST = 16.0
_ROWS_PER_ACCOUNT = 6
_TELLING_SHARE = 0.12
_MIN_TELLING = 12
_HOT_SHARE = 0.01
_ENTITY_EFFECT = 0.3
_HOT_EFFECT = 1.5
_ABSENCE_EFFECT = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignConfig:
    """What to make.

    Parameters
    ----------
    n_rows
        Payments of all banks, at least 100 for each bank.
    n_attributes
        1 to 999.
    n_banks
        2 to 99; the largest has sixteen times the payments of the smallest.
    n_days
        Of event time, > 0.
    seed
        The same seed gives the same file.

    Raises
    ------
    InvalidInputError
        If a number is out of its range.
    """

    n_rows: int = 300_000
    n_attributes: int = 200
    n_banks: int = 8
    n_days: int = 150
    seed: int = 1

    def __post_init__(self) -> None:
        for name, low, high in (
            ("n_banks", 2, 99),
            ("n_attributes", 1, 999),
            ("n_days", 1, 3_650),
            ("n_rows", 100 * self.n_banks, 50_000_000),
            ("seed", 0, 2**63 - 1),
        ):
            if not low <= getattr(self, name) <= high:
                got = getattr(self, name)
                raise InvalidInputError(f"{name}: expected {low:,} to {high:,}, got {got:,}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForeignPayments:
    """All payments, in order of time; each array has shape (n,).

    Parameters
    ----------
    bank, account
        int64.
    event_time_ms
        int64, milliseconds since 1970 UTC.
    amount
        float64, two decimals.
    entities
        For each of `ENTITY_KINDS` an int64 number of the entity, -1 where absent.
    attributes
        By name.
    is_fraud
        bool.
    """

    bank: NDArray[np.int64]
    account: NDArray[np.int64]
    event_time_ms: NDArray[np.int64]
    amount: NDArray[np.float64]
    entities: tuple[NDArray[np.int64], ...]
    attributes: dict[str, NDArray[np.float32] | Words]
    is_fraud: NDArray[np.bool_]


def foreign_payments(config: ForeignConfig) -> ForeignPayments:
    """Return the payments of a configuration."""
    rng = np.random.default_rng([config.seed, 0])
    n = config.n_rows
    bank, account = _who(config, rng)
    event_time_ms = _when(config, rng)
    progress = ((event_time_ms - _START_MS) / (config.n_days * DAY_MS)).astype(np.float32)
    traits = hidden_traits(bank, account, progress, rng)
    log_amount = 3.0 + 0.5 * traits[0] + rng.normal(0.0, 0.9, n)
    entities = tuple(_entity(n, rng) for _ in ENTITY_KINDS)
    score = sum(_entity_score(entity, progress, rng) for entity in entities)
    attributes: dict[str, NDArray[np.float32] | Words] = {}
    telling = _telling(config, rng)
    seen = [((log_amount - 3.0) / 1.05).astype(np.float32)]
    for j in range(config.n_attributes):
        column = draw_column(traits, bank, np.random.default_rng([config.seed, 1, j]))
        attributes[f"a{j + 1:03d}"] = column.values
        if telling[j]:
            seen.append(column.seen)
            score = score + _absence_score(column, rng)
    situation = Situation(bank=bank, n_banks=config.n_banks, progress=progress)
    score = score + suspicion(seen, situation, rng)
    return ForeignPayments(
        bank=bank,
        account=account,
        event_time_ms=event_time_ms,
        amount=np.maximum(np.rint(np.exp(log_amount) * 100) / 100, 0.01),
        entities=entities,
        attributes=attributes,
        is_fraud=_outcomes(score, bank, config.n_banks, rng),
    )


def bank_shares(n_banks: int) -> NDArray[np.float64]:
    """Return each bank's share of the payments, the largest first."""
    shares = _LARGEST_TO_SMALLEST ** (-np.arange(n_banks) / (n_banks - 1))
    normed: NDArray[np.float64] = shares / shares.sum()
    return normed


def write_foreign(config: ForeignConfig, path: Path) -> Path:
    """Write the payments as Parquet and their mapping beside it; return the mapping's path.

    Raises
    ------
    InvalidInputError
        If the name is not one of a Parquet file, or the files cannot be written.
    """
    if path.suffix not in PARQUET_SUFFIXES:
        expected = " or ".join(PARQUET_SUFFIXES)
        raise InvalidInputError(f"{path}: expected a name that ends with {expected}")
    payments = foreign_payments(config)
    mapping = path.with_suffix(".toml")
    try:
        pq.write_table(foreign_table(payments), path)
        mapping.write_text(mapping_text(payments, path.stem), encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"{path}: expected a file to write, got: {error}") from error
    return mapping


def foreign_table(payments: ForeignPayments) -> pa.Table:
    """Return the payments as the table that `mapping_text` reads."""
    n = len(payments.bank)
    columns: dict[str, pa.Array] = {
        "transaction_id": pa.array([f"X{i:08d}" for i in range(n)]),
        "bank": _named("bank-", payments.bank, 1),
        "event_time_ms": pa.array(payments.event_time_ms),
        "account_id": pa.array([f"A{i:07d}" for i in payments.account.tolist()]),
        "amount": pa.array(payments.amount),
        "currency": pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), ["EUR"]),
    }
    for kind, entity in zip(ENTITY_KINDS, payments.entities, strict=True):
        columns[kind] = _named(f"{kind}-", entity, 0)
    for name, column in payments.attributes.items():
        columns[name] = _arrow(column)
    columns["fraud"] = pa.array(payments.is_fraud.astype(np.int8))
    return pa.table(columns)


def mapping_text(payments: ForeignPayments, name: str) -> str:
    """Return the mapping of the file."""
    entities = "\n".join(f'{kind} = "{kind}"' for kind in ENTITY_KINDS)
    attributes = "\n".join(
        f'{each} = {{ path = "{each}", type = "{_type(column)}" }}'
        for each, column in payments.attributes.items()
    )
    return _MAPPING.format(name=name, entities=entities, attributes=attributes)


_MAPPING = """\
# Made by `amalgam foreign`.
[transaction]
transaction_id = "transaction_id"
event_time = "event_time_ms"
account_id = "account_id"
amount = "amount"
currency = "currency"

[time]
format = "epoch_ms"

[currencies]
EUR = 1.0

[entities]
{entities}

[attributes]
{attributes}

[label]
transaction_id = "transaction_id"
account_id = "account_id"
is_fraud = "fraud"
fraud_values = [1]
legit_values = [0]
source = {{ constant = "chargeback" }}
labelled_at = "labelled_at_ms"

[table]
label = "fraud"
bank = "bank"
"""


def _who(
    config: ForeignConfig, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each row's bank and account; an account is of one bank."""
    shares = bank_shares(config.n_banks)
    bank = rng.choice(config.n_banks, config.n_rows, p=shares)
    n_accounts = np.maximum(config.n_rows * shares / _ROWS_PER_ACCOUNT, 1.0).astype(np.int64)
    first = np.concatenate([[0], np.cumsum(n_accounts)[:-1]])
    place = rng.random(config.n_rows) ** 1.5  # some pay more often than others
    return bank, first[bank] + (place * n_accounts[bank]).astype(np.int64)


def _when(config: ForeignConfig, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return instants in order, fewer at night, more towards the end."""
    day = (rng.random(config.n_rows) ** 0.9 * config.n_days).astype(np.int64)
    second = rng.normal(50_000, 18_000, config.n_rows).astype(np.int64) % 86_400
    return np.sort(_START_MS + day * DAY_MS + second * 1_000)


def _telling(config: ForeignConfig, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which attributes frauds follow."""
    n = min(config.n_attributes, max(_MIN_TELLING, round(_TELLING_SHARE * config.n_attributes)))
    telling = np.zeros(config.n_attributes, np.bool_)
    telling[rng.choice(config.n_attributes, n, replace=False)] = True
    return telling


def _entity(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return numbers of entities, few of them in most rows."""
    n_entities = max(10, int(n / rng.uniform(5, 60)))
    number = (n_entities * rng.random(n) ** rng.uniform(2.0, 3.5)).astype(np.int64)
    number[rng.random(n) < rng.uniform(0.0, 0.4)] = -1
    return number


def _entity_score(
    entity: NDArray[np.int64], progress: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return an entity's lasting effect, and that of the few that are hot for a while."""
    n = int(entity.max()) + 1
    lasting = np.append(rng.normal(0.0, _ENTITY_EFFECT, n), 0.0)
    is_hot = np.append(rng.random(n) < _HOT_SHARE, False)
    since = np.append(rng.random(n), 0.0)
    age = progress - since[entity]
    hot: NDArray[np.bool_] = is_hot[entity] & (age >= 0.0) & (age < 0.15)
    score: NDArray[np.float64] = lasting[entity] + _HOT_EFFECT * hot
    return score


def _absence_score(column: Column, rng: np.random.Generator) -> NDArray[np.float64]:
    weight = float(rng.normal(0.0, _ABSENCE_EFFECT)) if rng.random() < 0.25 else 0.0
    return weight * column.is_absent.astype(np.float64)


def _outcomes(
    score: NDArray[np.float64],
    bank: NDArray[np.int64],
    n_banks: int,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Return which payments are frauds: 1 to 4 % at each bank, by its scores."""
    probability = np.empty(len(score))
    for b, rate in enumerate(rng.uniform(0.012, 0.038, n_banks).tolist()):
        own = bank == b
        probability[own] = _at_rate(score[own], rate)
    return rng.random(len(score)) < probability


def _at_rate(score: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """Return probabilities whose mean is the rate, by halving the range of the constant."""
    low, high = -60.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        too_many = float(_sigmoid(score + middle).mean()) > rate if len(score) else True
        low, high = (low, middle) if too_many else (middle, high)
    return _sigmoid(score + low)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    y: NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * x))
    return y


def _named(prefix: str, number: NDArray[np.int64], first: int) -> pa.DictionaryArray:
    n = int(number.max()) + 1
    mask = number < 0
    codes = pa.array(number.astype(np.int32), mask=mask)
    return pa.DictionaryArray.from_arrays(codes, [f"{prefix}{i + first}" for i in range(n)])


def _arrow(column: NDArray[np.float32] | Words) -> pa.Array:
    if isinstance(column, Words):
        codes = pa.array(column.codes, mask=column.codes < 0)
        return pa.DictionaryArray.from_arrays(codes, list(column.words))
    return pa.array(column, mask=np.isnan(column))


def _type(column: NDArray[np.float32] | Words) -> str:
    return "text" if isinstance(column, Words) else "number"
