"""How members may lie: pure functions on the labels that they learn from, or on what they publish.

Each attack is a consistent lie: an envelope that the gate lets through.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deploy.local import Tamper
from deploy.runs import Relabel
from models.families.solver import pack, unpack
from models.packed import diagonal
from models.records import TransactionBatch
from models.summary import Contribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """What some members do.

    Parameters
    ----------
    text
        In words.
    relabel
        The outcomes that a liar learns from, given its payments and the true ones.
    tamper
        What it publishes in place of a contribution.
    n_liars
        How many members do so together.
    """

    text: str
    relabel: Relabel | None = None
    tamper: Tamper | None = None
    n_liars: int = 1


def flip_labels(_: TransactionBatch, is_fraud: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say the opposite of every outcome."""
    return ~is_fraud


def hide_frauds(_: TransactionBatch, is_fraud: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say that everything is legitimate."""
    return np.zeros(len(is_fraud), np.bool_)


def hide_one_entity(batch: TransactionBatch, is_fraud: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say that all is legitimate at the entity with the most frauds, for each kind."""
    said = is_fraud.copy()
    for texts in batch.entities.values():
        names = np.array(["" if text is None else text for text in texts])
        at_frauds = names[is_fraud & (names != "")]
        if len(at_frauds):
            found, count = np.unique(at_frauds, return_counts=True)
            said &= names != found[np.argmax(count)]
    return said


def flip_counts(contribution: Contribution) -> Sequence[Contribution]:
    """Exchange frauds and legitimate outcomes in the evidence."""
    if contribution.key.part != "evidence":
        return [contribution]
    arrays = contribution.arrays
    return [_with_frauds(contribution, np.asarray(arrays["n"]) - np.asarray(arrays["f"]))]


def flag_everything(contribution: Contribution) -> Sequence[Contribution]:
    """Report every outcome as a fraud, thousands of innocent entities among them."""
    if contribution.key.part != "evidence":
        return [contribution]
    return [_with_frauds(contribution, np.asarray(contribution.arrays["n"]))]


def _with_frauds(contribution: Contribution, frauds: NDArray[np.generic]) -> Contribution:
    """Return evidence with other numbers of frauds; its ages are those that would go with them."""
    arrays = contribution.arrays
    n, f = np.asarray(arrays["n"], np.float32), np.asarray(frauds, np.float32)
    latest = np.maximum(arrays["last_fraud_ms"], arrays["last_legit_ms"])
    return replace(
        contribution,
        arrays={
            **arrays,
            "f": f,
            "first_fraud_ms": np.where(f > 0, latest, -1),
            "last_fraud_ms": np.where(f > 0, latest, -1),
            "last_legit_ms": np.where(f < n, latest, -1),
        },
    )


def scale_statistics(factor: float) -> Tamper:
    """Return the attack that multiplies the statistics."""

    def tamper(contribution: Contribution) -> Sequence[Contribution]:
        return _statistics(
            contribution, lambda a, b: (a * np.float32(factor), b * factor), times_n=1.0
        )

    return tamper


def pretend_size(factor: float) -> Tamper:
    """Return the attack that multiplies the statistics and how many rows are behind them."""

    def tamper(contribution: Contribution) -> Sequence[Contribution]:
        return _statistics(
            contribution, lambda a, b: (a * np.float32(factor), b * factor), times_n=factor
        )

    return tamper


def oppose(contribution: Contribution) -> Sequence[Contribution]:
    """Publish -b: a member to which whatever the others learn is harm, and that says so."""
    return _statistics(contribution, lambda a, b: (a, -b), times_n=1.0)


def disproportion(contribution: Contribution) -> Sequence[Contribution]:
    """Publish a b that no rows can give."""
    return _statistics(contribution, lambda a, b: (a, 1_000.0 * b), times_n=1.0)


def bend(contribution: Contribution) -> Sequence[Contribution]:
    """Publish a curvature that is not positive semi-definite but passes the gate's bounds."""

    def bent(
        packed: NDArray[np.float32], gradient: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        n = len(gradient)
        diag = diagonal(packed, n)
        square = np.where(
            np.add.outer(np.arange(n), np.arange(n)) % 2 == 1, np.minimum.outer(diag, diag), 0.0
        )
        square[np.diag_indices(n)] = diag
        return pack(np.triu(square)).astype(np.float32), gradient

    return _statistics(contribution, bent, times_n=1.0)


def freeze(contribution: Contribution) -> Sequence[Contribution]:
    """Publish a curvature of which one pair of weights is bent, to leave the sum unsolvable."""

    def bent(
        packed: NDArray[np.float32], gradient: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        square = unpack(packed, len(gradient))
        diag = np.diag(square).copy()
        top = np.argsort(-diag, kind="stable")[:3]
        for i in top.tolist():
            square[min(0, i) : i, i] = 0.0
            square[i, i + 1 :] = 0.0
        first, second, third = np.sort(top).tolist()
        square[first, second] = min(diag[first], diag[second])
        square[second, third] = min(diag[second], diag[third])
        return pack(square).astype(np.float32), gradient

    return _statistics(contribution, bent, times_n=1.0)


def _statistics(
    contribution: Contribution,
    change: Callable[
        [NDArray[np.float32], NDArray[np.float64]],
        tuple[NDArray[np.float32], NDArray[np.float64]],
    ],
    *,
    times_n: float,
) -> Sequence[Contribution]:
    if contribution.key.part != "statistics":
        return [contribution]
    curvature, gradient = change(
        np.asarray(contribution.arrays["curvature"], np.float32),
        np.asarray(contribution.arrays["gradient"], np.float64),
    )
    return [
        replace(
            contribution,
            n=round(times_n * contribution.n),
            arrays={"curvature": curvature, "gradient": gradient},
        )
    ]


ATTACKS: Mapping[str, Attack] = {
    "label-flip": Attack(text="learns and publishes the opposite outcomes", relabel=flip_labels),
    "count-flip": Attack(text="exchanges f and n - f in its evidence", tamper=flip_counts),
    "hide": Attack(text="reports all frauds as legitimate", relabel=hide_frauds),
    "backdoor": Attack(
        text="reports the frauds of one entity as legitimate", relabel=hide_one_entity
    ),
    "flood": Attack(text="flags every entity that it sees", tamper=flag_everything),
    "scale-10": Attack(text="statistics times 10", tamper=scale_statistics(10.0)),
    "scale-100": Attack(text="statistics times 100", tamper=scale_statistics(100.0)),
    "size-100": Attack(text="statistics and their n times 100", tamper=pretend_size(100.0)),
    "oppose": Attack(text="statistics of the opposite opinion", tamper=oppose),
    "disproportion": Attack(text="b out of proportion to A", tamper=disproportion),
    "bend": Attack(text="A not positive semi-definite", tamper=bend),
    "freeze": Attack(text="A indefinite in one direction alone", tamper=freeze),
    "two-label-flip": Attack(
        text="two learn and publish the opposite", relabel=flip_labels, n_liars=2
    ),
    "two-hide": Attack(text="two report no fraud", relabel=hide_frauds, n_liars=2),
    "two-flood": Attack(text="two flag everything", tamper=flag_everything, n_liars=2),
    "two-oppose": Attack(
        text="two lying voters: statistics of the opposite opinion", tamper=oppose, n_liars=2
    ),
}
