"""Anonymous attributes of the foreign data set: mixed scales, many missing, shifts by bank."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.words import ABSENT, Words

N_HIDDEN = 12
"""Hidden traits of a payment, of which attributes are noisy pictures."""

Shape = Literal["normal", "heavy", "cubic", "count", "ratio", "grade", "text"]
_SHAPES: tuple[Shape, ...] = ("normal", "heavy", "cubic", "count", "ratio", "grade", "text")
_SHAPE_SHARES = (0.2, 0.15, 0.1, 0.12, 0.08, 0.1, 0.25)
_MOSTLY_MISSING = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Column:
    """One attribute of all payments.

    Parameters
    ----------
    values
        float32 of shape (n,), NaN where absent, or texts.
    seen
        float32 of shape (n,): what it tells, of mean near 0 and deviation near 1; 0 where absent.
    is_absent
        bool of shape (n,).
    """

    values: NDArray[np.float32] | Words
    seen: NDArray[np.float32]
    is_absent: NDArray[np.bool_]


def hidden_traits(
    bank: NDArray[np.int64],
    account: NDArray[np.int64],
    progress: NDArray[np.float32],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Return the hidden traits: of the payment, the account and the bank, and drift.

    Returns
    -------
    ndarray of shape (N_HIDDEN, n), float32
    """
    n_banks, n_accounts = int(bank.max()) + 1, int(account.max()) + 1
    traits = np.empty((N_HIDDEN, len(bank)), np.float32)
    for k in range(N_HIDDEN):
        trait = rng.standard_normal(len(bank), np.float32) * np.float32(0.8)
        trait += (rng.standard_normal(n_accounts, np.float32) * np.float32(0.5))[account]
        trait += rng.normal(0.0, 0.3, n_banks).astype(np.float32)[bank]
        trait += np.float32(rng.normal(0.0, 0.4)) * (progress - np.float32(0.5))
        traits[k] = trait
    return traits


def draw_column(
    traits: NDArray[np.float32], bank: NDArray[np.int64], rng: np.random.Generator
) -> Column:
    """Return one attribute; everything about it comes from ``rng``."""
    n_banks = int(bank.max()) + 1
    shape = _SHAPES[int(rng.choice(len(_SHAPES), p=_SHAPE_SHARES))]
    loading = np.float32(rng.uniform(0.0, 0.9))
    trait = traits[int(rng.integers(N_HIDDEN))]
    inner = rng.standard_normal(len(bank), np.float32) * np.sqrt(1 - loading**2)
    inner += loading * trait
    inner += rng.normal(0.0, 0.35, n_banks).astype(np.float32)[bank]
    is_absent = _absence(inner, bank, n_banks, rng)
    if shape == "text":
        values, seen = _categories(inner, is_absent, rng)
        return Column(values=values, seen=seen, is_absent=is_absent)
    numbers = _numbers(shape, inner, rng)
    numbers[is_absent] = np.nan
    inner[is_absent] = 0.0
    return Column(values=numbers, seen=inner, is_absent=is_absent)


def _absence(
    inner: NDArray[np.float32], bank: NDArray[np.int64], n_banks: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return where the attribute is missing: by chance, by bank, by its value, at whole banks."""
    is_rare = rng.random() < _MOSTLY_MISSING
    share = rng.uniform(0.6, 0.97) if is_rare else max(0.0, rng.uniform(-0.05, 0.25))
    log_odds = np.full(n_banks, np.log(share / (1 - share)) if share else -20.0)
    by_bank = 1.2 if rng.random() < 0.3 else 0.0
    log_odds += rng.normal(0.0, 1.0, n_banks) * by_bank
    log_odds[rng.random(n_banks) < (0.25 if rng.random() < 0.2 else 0.0)] = 20.0
    by_value = np.float32(rng.normal(0.0, 0.8) if rng.random() < 0.15 else 0.0)
    drawn = rng.logistic(size=len(bank)).astype(np.float32)
    missing: NDArray[np.bool_] = drawn < log_odds.astype(np.float32)[bank] + by_value * inner
    return missing


def _numbers(
    shape: Shape, inner: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    scale = np.float32(10.0 ** rng.uniform(-2.0, 4.0))
    width = np.float32(rng.uniform(0.8, 1.8))
    numbers: NDArray[np.float32]
    if shape == "heavy":
        numbers = np.exp(width * inner) * scale
    elif shape == "cubic":
        numbers = inner**3 * scale
    elif shape == "count":
        numbers = np.floor(np.exp(width * inner + np.float32(rng.uniform(0.0, 3.0))))
    elif shape == "ratio":
        numbers = 1 / (1 + np.exp(-width * inner))
    elif shape == "grade":
        steps = np.float32(rng.integers(2, 9))
        numbers = np.clip(np.rint(inner * width + steps / 2), 0, steps)
    else:
        numbers = inner * scale
    return numbers


def _categories(
    inner: NDArray[np.float32], is_absent: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Words, NDArray[np.float32]]:
    """Return 2 to 200 categories, the first ones frequent, and an effect of its own for each."""
    n_words = int(np.exp(rng.uniform(np.log(2), np.log(200.5))))
    shares = 1.0 / np.arange(1, n_words + 1) ** rng.uniform(0.3, 1.2)
    shares = rng.permutation(shares / shares.sum())
    deviation = max(float(inner.std()), 1e-6)
    edges = np.quantile(rng.normal(float(inner.mean()), deviation, 20_000), np.cumsum(shares)[:-1])
    codes = np.searchsorted(edges.astype(np.float32), inner).astype(np.int32)
    codes = rng.permutation(n_words).astype(np.int32)[codes]
    effect = rng.standard_normal(n_words).astype(np.float32)
    effect -= effect[codes].mean()
    effect /= max(float(effect[codes].std()), 1e-3)
    seen = effect[codes]
    seen[is_absent] = 0.0
    codes[is_absent] = ABSENT
    return Words(codes, tuple(f"c{i}" for i in range(n_words))), seen
