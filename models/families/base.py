"""What every model family of a bank's own answers to, and how its options are read."""

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.errors import SettingsError
from models.families.mlp_parameters import MlpSummary
from models.matured import Matured
from models.toml_table import near_miss
from models.trees import TreeList

Retained = Callable[[], Matured]
Grower = Callable[[Matured], TreeList | None]
"""Grows trees on rows that are held, with accounts and the consortium's log-odds; in any thread."""
Options = TypeVar("Options")


class Family(Protocol):
    """A bank's own learner beside the scorecard; it is refitted, or learns online.

    Every bit of its state follows from the seed and from the calls, in order: two that were told
    the same score the same. It starts untrained and scores NaN until there is enough to learn from.

    Attributes
    ----------
    name
        Of the family, fit for a metric label.
    began_day
        UTC day at whose start the model in force was fitted or begun, -1 before there is one; what
        came before that day was scored by another.
    """

    name: str

    @property
    def began_day(self) -> int:
        """Return it."""

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return log-odds of fraud of shape (n,), NaN before it is trained.

        Parameters
        ----------
        rows
            float32 of shape (n, n_features), NaN is absent.
        """

    def learn(self, matured: Matured) -> None:
        """Take outcomes in; families that are refitted ignore them."""

    def is_due(self, day: int) -> bool:
        """Return whether it is time to refit at a day's end; then `end_day` looks at the rows.

        A refit begins anew: one of the same options and seed to which the basis is installed would
        be the same after it.
        """

    def end_day(self, day: int, retained: Retained) -> None:
        """Refit where it is time to.

        Parameters
        ----------
        day
            UTC days of event time since 1970; called once a day, ascending.
        retained
            Gives the matured rows that are still held (up to 90 days), oldest first; costly, so
            it is called only when needed.
        """

    def install(self, basis: Basis) -> None:
        """Bin rows by this basis from the next refit on; a fitted model keeps its own till then."""

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the whole state as named arrays (views)."""

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave."""

    def propose(self, basis: Basis, *, n_trees: int, day: int) -> Grower | None:
        """Return what grows trees for the consortium's basis, None from families without trees.

        What it needs of the model it has by then.

        Parameters
        ----------
        basis
            The consortium's in force; thresholds are its edges.
        n_trees
            At most.
        day
            UTC day of event time.
        """


class SharedNet(Protocol):
    """A net that a bank trains for its consortium, beside its own."""

    def learn(self, matured: Matured) -> None:
        """Take outcomes in."""

    def install(self, basis: Basis, merged: MlpSummary | None) -> None:
        """Take in what a release brings: the basis in force, and the mean of the members' nets."""

    def is_due(self) -> bool:
        """Return whether `end_day` would look at the rows: another basis is in force."""

    def end_day(self, retained: Retained) -> None:
        """Start where enough has matured, or go on through the bins of another basis."""

    def contribution(self) -> MlpSummary | None:
        """Return what is published, None before it has begun."""

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the whole state as named arrays (views)."""

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave."""


def read_options(kind: type[Options], given: Mapping[str, object], *, family: str) -> Options:
    """Return a frozen dataclass of options made of a table's keys.

    Parameters
    ----------
    kind
        The dataclass; its fields are int, float, bool, str or dict and may have defaults.
    given
        Keys and values, as TOML has them; a whole number may stand for a float.
    family
        For messages.

    Raises
    ------
    SettingsError
        If a key is unknown or missing, or a value is of another kind or out of range.
    """
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise SettingsError(
                f"family {family!r}: expected one of {', '.join(known)}, "
                f"got {key!r}{near_miss(key, known)}"
            )
        values[key] = checked_value(value, hints[key], name=f"family {family!r}: {key}")
    try:
        return kind(**values)
    except TypeError as error:
        raise SettingsError(f"family {family!r}: expected all of its keys: {error}") from error


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def checked_value(value: object, kind: object, *, name: str) -> object:
    """Return a value of the asked kind; a whole number may stand for a float.

    Raises
    ------
    SettingsError
        If it is of another kind.
    """
    if isinstance(kind, types.GenericAlias):
        kind = typing.get_origin(kind)
    if kind is float and type(value) is int:
        return float(value)
    if not (isinstance(kind, type) and type(value) is kind):
        word = _WORDS.get(kind, "a table") if isinstance(kind, type) else "another kind"
        raise SettingsError(f"{name}: expected {word}, got {value!r}")
    return value


def demand(holds: bool, name: str, expectation: str) -> None:
    """Refuse an option that is out of range.

    Raises
    ------
    SettingsError
        If it does not hold.
    """
    if not holds:
        raise SettingsError(f"{name}: expected {expectation}")
