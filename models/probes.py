"""Probes: synthetic transactions that every member scores, and the answers that come back.

The questions are drawn from the digital twin, so nobody's record is among them; an answer is one
log-odds a probe, which says what a member's model has learnt and nothing of how it is made.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError, QuarantinedError
from models.families.scorecard import MAX_LOGIT
from models.schema import Schema
from models.twin import Twin

MAX_PROBES = 65_536
_FRAUD_SHARES = (0.3, 0.7)
_MOST_SWAPPED = 0.6
_GROUP_SHARE = 0.4
Arrays = Mapping[str, NDArray[Any]]


def feature_groups(schema: Schema) -> NDArray[np.int64]:
    """Return which group each feature is of: 0 the account's, then one for each entity kind.

    Parameters
    ----------
    schema
        Names the features.
    """
    kinds = {kind: 1 + i for i, kind in enumerate(schema.entity_kinds)}
    of_features = [name.rpartition(".")[0] for name in schema.feature_names]
    return np.array([kinds.get(kind, 0) for kind in of_features], np.int64)


def draw_probes(twin: Twin, n: int, seed: int, *, groups: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return n synthetic transactions, the same for the same twin and seed.

    Each is drawn from the twin, 3 of 10 like a fraud, and takes some features from a second one, 7
    of 10 like a fraud: each group of entity features as a whole in 4 of 10 probes, and each feature
    by itself at a share that differs from probe to probe, .6 u^2 for a uniform u. So probes
    cover what lies between and around the classes, where a student must not guess.

    Parameters
    ----------
    twin
        Of the merged summaries.
    n
        From 1 to ``MAX_PROBES``.
    seed
        Of `numpy.random.default_rng`, >= 0; one set of probes has one seed.
    groups
        Result of `feature_groups`, shape (n_features,).

    Returns
    -------
    ndarray of shape (n, n_features), float32
        NaN is absent.

    Raises
    ------
    InvalidInputError
        If n is out of range or the groups are not the twin's features'.
    """
    if not 1 <= n <= MAX_PROBES:
        raise InvalidInputError(f"probes: expected 1 to {MAX_PROBES}, got {n}")
    if groups.shape != (twin.n_features,):
        raise InvalidInputError(f"groups: expected {twin.n_features}, got {groups.shape}")
    rng = np.random.default_rng(seed)
    first = twin.sample(n, rng, _FRAUD_SHARES[0]).rows
    second = twin.sample(n, rng, _FRAUD_SHARES[1]).rows
    takes = rng.random(first.shape) < _MOST_SWAPPED * rng.random((n, 1)) ** 2
    for group in range(1, int(groups.max(initial=0)) + 1):
        takes |= (rng.random((n, 1)) < _GROUP_SHARE) & (groups == group)
    return np.where(takes, second, first)


def answer(
    score: Callable[[NDArray[np.float32]], NDArray[np.floating]], probes: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return a member's log-odds of each probe, within +-30.

    Parameters
    ----------
    score
        The member's own blend: rows -> log-odds.
    probes
        float32 of shape (n, n_features).

    Raises
    ------
    InvalidInputError
        If the scorer gives another number of log-odds, or NaN: it is not trained yet.
    """
    logit = np.asarray(score(probes), np.float64)
    if logit.shape != (len(probes),) or bool(np.isnan(logit).any()):
        raise InvalidInputError(f"answers: expected {len(probes)} numbers, got {logit.shape}")
    return np.clip(logit, -MAX_LOGIT, MAX_LOGIT).astype(np.float32)


def check_answers(arrays: Arrays, n_probes: int) -> None:
    """Check a foreign ``answers`` part whose dtype has been checked.

    Parameters
    ----------
    arrays
        ``logit``: float32 of shape (n_probes,).
    n_probes
        Of the set of probes that the part's number names.

    Raises
    ------
    QuarantinedError
        Reason ``shape`` or ``range``.
    """
    logit = arrays["logit"]
    if logit.shape != (n_probes,):
        raise QuarantinedError("shape", f"logit: expected {n_probes} numbers")
    if not bool(np.all(np.abs(logit) <= MAX_LOGIT)):
        raise QuarantinedError("range", f"logit: expected within +-{MAX_LOGIT:g}")


def check_probes(probes: NDArray[np.float32], n_features: int) -> None:
    """Check the probes of a release.

    Raises
    ------
    InvalidInputError
        If they are not up to ``MAX_PROBES`` float32 rows of ``n_features`` columns, or infinite.
    """
    is_shaped = probes.ndim == 2 and probes.shape[1] == n_features
    if probes.dtype != np.float32 or not is_shaped or not 1 <= len(probes) <= MAX_PROBES:
        raise InvalidInputError(
            f"probes: expected float32 of shape (1..{MAX_PROBES}, {n_features}), "
            f"got {probes.dtype} of shape {probes.shape}"
        )
    if bool(np.isinf(probes).any()):
        raise InvalidInputError("probes: expected finite numbers or NaN")


def pooled_answers(
    answers: Mapping[str, NDArray[np.float32]], weights: Mapping[str, float]
) -> NDArray[np.float64]:
    """Return the weighted mean log-odds of each probe, summed over members in sorted order.

    Parameters
    ----------
    answers
        Member -> float32 of shape (n_probes,).
    weights
        Member -> its matured transactions times its trust, >= 0; missing is 0.

    Raises
    ------
    InvalidInputError
        If no answer has a weight above 0, or they differ in length.
    """
    named = [(answers[name], weights.get(name, 0.0)) for name in sorted(answers)]
    if not all(weight >= 0.0 for _, weight in named) or not sum(w for _, w in named) > 0.0:
        raise InvalidInputError("answers: expected weights >= 0, at least one above 0")
    if len({len(logit) for logit, _ in named}) != 1:
        raise InvalidInputError("answers: expected one length")
    total, weight_sum = np.zeros(len(named[0][0])), 0.0
    for logit, weight in named:
        total += weight * logit.astype(np.float64)
        weight_sum += weight
    return total / weight_sum
