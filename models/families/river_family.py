"""Any river classifier as the bank's own: it learns one row at a time.

river sees a row as a dict of levels by feature position: the bin of the basis as a number from -1
to 1; what is absent is left out. To bound cost it learns every fraud and one legitimate row in
``every``, by a hash of the transaction. That raises the odds of fraud by the factor ``every``, so
its log is taken off the log-odds; for a calibrated model that is exact, by Bayes' rule.

No pickle: state is the log of the rows that were learnt since the model began, and loading learns
them again. river's classifiers are deterministic given a seed, so the copy is exact. The log is
bounded, because every ``renew_d`` days, or when it has grown to ``log_n`` rows, the model begins
anew from the last ``renew_n`` learnable rows that are retained, on the basis then asked for.
"""

import importlib
import inspect
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river.base import Classifier

from models.basis import Basis
from models.errors import InvalidInputError, SettingsError
from models.families.base import Grower, Retained, checked_value, demand, read_options
from models.families.grown_trees import Leaf, Node, as_proposal, bounded, from_river
from models.families.ordinals import ABSENT, Binning, ordinals
from models.matured import Matured
from models.toml_table import near_miss
from models.tree_checks import TreeLimits
from models.trees import TreeList

P_MIN = 1e-6  # probabilities are kept this far from 0 and 1
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True, kw_only=True)
class RiverOptions:
    """Which classifier, and how it is fed.

    Parameters
    ----------
    model
        Dotted name below ``river.``, e.g. ``river.forest.ARFClassifier``.
    parameters
        Of its constructor; ``seed`` is given where it takes one.
    every
        One legitimate row in so many is learnt, >= 1.
    renew_d
        Days after which the model begins anew, >= 1.
    renew_n
        Learnable retained rows that a new model begins with, the last ones, >= 1.
    log_n
        Rows in the log at the end of a day that make the model begin anew, > ``renew_n``.
    min_n, min_frauds
        Matured transactions and frauds before it begins.
    """

    model: str
    parameters: dict[str, Any] = field(default_factory=dict)
    every: int = 10
    renew_d: int = 30
    renew_n: int = 20_000
    log_n: int = 100_000
    min_n: int = 1_000
    min_frauds: int = 10

    def __post_init__(self) -> None:
        for name in ("every", "renew_d", "renew_n", "min_n", "min_frauds"):
            demand(getattr(self, name) >= 1, name, "1 or more")
        demand(self.log_n > self.renew_n, "log_n", "more than renew_n")


def make(options: Mapping[str, object], *, seed: int) -> "RiverFamily":
    """Return the untrained family; see `models.families.registry.make_family`."""
    return RiverFamily(read_options(RiverOptions, options, family="river"), seed=seed)


def _classifier(name: str) -> type[Classifier]:
    """Return the class that a dotted name means."""
    expected = "expected the dotted name of a river classifier, as river.forest.ARFClassifier"
    where, _, last = name.rpartition(".")
    if not (where == "river" or where.startswith("river.")):
        raise SettingsError(f"family 'river': model: {expected}, got {name!r}")
    try:
        module = importlib.import_module(where)
    except ImportError as error:
        raise SettingsError(f"family 'river': model: {expected}, got {name!r}") from error
    found = getattr(module, last, None)
    if not isinstance(found, type):
        hint = near_miss(last, getattr(module, "__all__", ()))
        raise SettingsError(f"family 'river': model: {expected}, got {name!r}{hint}")
    if not issubclass(found, Classifier) or inspect.isabstract(found):
        raise SettingsError(f"family 'river': model: expected a classifier, got {name!r}")
    return found


def build_classifier(name: str, parameters: Mapping[str, object], seed: int) -> Classifier:
    """Return a river classifier that has learnt nothing.

    Another one is made to learn two rows first, because river finds out late what it cannot use.

    Raises
    ------
    SettingsError
        If the name is no classifier's or a parameter is unknown, missing or of another kind.
    """
    kind = _classifier(name)
    known = inspect.signature(kind).parameters
    for key, value in parameters.items():
        if key not in known:
            raise SettingsError(
                f"family 'river': parameters of {name}: expected one of {', '.join(known)}, "
                f"got {key!r}{near_miss(key, known)}"
            )
        default = known[key].default
        if isinstance(default, bool | int | float | str):
            checked_value(value, type(default), name=f"family 'river': parameters: {key}")
    given = {"seed": seed, **parameters} if "seed" in known else dict(parameters)
    try:
        tried = kind(**given)
        for y in (False, True):
            tried.learn_one({0: 0.5, 1: -0.5}, y)
            tried.predict_proba_one({1: 0.5})
        return kind(**given)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise SettingsError(
            f"family 'river': parameters of {name}: expected what it can learn with: {error}"
        ) from error


def levels(binning: Binning) -> list[NDArray[np.float64]]:
    """Return of each feature what river is shown for its bins, ascending from -1 to 1."""
    return [np.linspace(-1.0, 1.0, n + 1) if n else np.zeros(1) for n in binning.n_edges.tolist()]


class _Log:
    """Learnt rows in the order of learning; an array that grows by doubling."""

    def __init__(self, n_features: int) -> None:
        self._found = np.empty((256, n_features), np.uint8)
        self._is_fraud = np.empty(256, bool)
        self.n = 0

    @property
    def found(self) -> NDArray[np.uint8]:
        """Ordinals of the rows, shape (n, n_features), a view."""
        return self._found[: self.n]

    @property
    def is_fraud(self) -> NDArray[np.bool_]:
        """Outcomes of the rows, shape (n,), a view."""
        return self._is_fraud[: self.n]

    def add(self, found: NDArray[np.uint8], is_fraud: NDArray[np.bool_]) -> None:
        """Append rows."""
        end = self.n + len(found)
        if end > len(self._found):
            size = max(end, 2 * len(self._found))
            for name in ("_found", "_is_fraud"):
                old = getattr(self, name)
                new = np.empty((size, *old.shape[1:]), old.dtype)
                new[: self.n] = old[: self.n]
                setattr(self, name, new)
        self._found[self.n : end], self._is_fraud[self.n : end] = found, is_fraud
        self.n = end


class RiverFamily:
    """A bank's river classifier; see `models.families.base.Family`.

    Parameters
    ----------
    options
        Which one, and how it is fed.
    seed
        Given to the classifier where it takes one.
    """

    name = "river"

    def __init__(self, options: RiverOptions, *, seed: int) -> None:
        self._options = options
        self._seed = seed
        self._asked: Binning | None = None
        self._day = -1
        self._begin(None)

    def _begin(self, binning: Binning | None) -> None:
        self._fitted = binning
        self._model = build_classifier(self._options.model, self._options.parameters, self._seed)
        self._levels = [] if binning is None else [each.tolist() for each in levels(binning)]
        self._log = _Log(0 if binning is None else binning.n_features)

    def _dicts(self, found: NDArray[np.uint8]) -> list[dict[Hashable, float]]:
        shown = list(enumerate(self._levels))
        return [
            {j: level[o - 1] for (j, level), o in zip(shown, row, strict=True) if o != ABSENT}
            for row in found.tolist()
        ]

    @property
    def began_day(self) -> int:
        """Return the day of the last new beginning."""
        return self._day

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return log-odds, NaN before it has begun; the prior is corrected for thinning."""
        if self._fitted is None:
            return np.full(len(rows), np.nan)
        p = np.array(
            [
                self._model.predict_proba_one(x).get(True, 0.0)
                for x in self._dicts(ordinals(self._fitted, rows))
            ],
            np.float64,
        )
        p = np.clip(np.nan_to_num(p, nan=0.5), P_MIN, 1.0 - P_MIN)
        return np.log(p) - np.log1p(-p) - math.log(self._options.every)

    def _is_learnt(self, matured: Matured) -> NDArray[np.bool_]:
        """Return all frauds and one legitimate row in ``every``, the same on every run."""
        mixed = (matured.hashes * _MIX) >> np.uint64(32)
        learnt: NDArray[np.bool_] = matured.is_fraud | (mixed % np.uint64(self._options.every) == 0)
        return learnt

    def learn(self, matured: Matured) -> None:
        """Learn from outcomes, in order."""
        if self._fitted is not None:
            rows = matured.take(np.flatnonzero(self._is_learnt(matured)))
            self._learn(ordinals(self._fitted, rows.features), rows.is_fraud)

    def _learn(self, found: NDArray[np.uint8], is_fraud: NDArray[np.bool_]) -> None:
        for x, y in zip(self._dicts(found), is_fraud.tolist(), strict=True):
            self._model.learn_one(x, y)
        self._log.add(found, is_fraud)

    def install(self, basis: Basis) -> None:
        """Begin on this basis when the model next begins anew."""
        self._asked = Binning.of(basis)

    def is_due(self, day: int) -> bool:
        """Return whether there is no model, or an old one, or one that has learnt much."""
        options = self._options
        is_old = day >= self._day + options.renew_d or self._log.n >= options.log_n
        return self._asked is not None and (self._fitted is None or is_old)

    def end_day(self, day: int, retained: Retained) -> None:
        """Begin, or begin anew, where it is time and enough has matured."""
        options = self._options
        if self._asked is None or not self.is_due(day):
            return
        matured = retained()
        frauds = int(matured.is_fraud.sum())
        if not (len(matured) >= options.min_n and options.min_frauds <= frauds < len(matured)):
            return
        rows = matured.take(np.flatnonzero(self._is_learnt(matured))[-options.renew_n :])
        self._begin(self._asked)
        self._day = day
        self._learn(ordinals(self._asked, rows.features), rows.is_fraud)

    def _roots(self) -> list[Any]:
        """Return the roots of the model's trees, none where it has no trees."""
        members = list(self._model) if hasattr(self._model, "__iter__") else [self._model]
        return [each._root for each in members if hasattr(each, "_root")]  # noqa: SLF001  # river has no other way

    def propose(self, basis: Basis, *, n_trees: int, day: int) -> Grower | None:
        """Return what gives the trees that the model has by now, if they are of the basis' bins."""
        fitted = self._fitted
        if fitted is None or not np.array_equal(fitted.edges, basis.edges):
            return None
        cut: list[Node | Leaf] = []
        for root in self._roots()[:n_trees]:
            try:
                tree = from_river(root, fitted, levels(fitted))
            except InvalidInputError:  # a split that is not numeric: this tree is not proposed
                continue
            cut.append(bounded(tree, max_leaves=16, max_depth=6))
        return partial(_counted, cut) if cut else None

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views): the log, of which the model follows."""
        out: dict[str, NDArray[np.generic]] = {"day": np.array([self._day], np.int64)}
        if self._asked is not None:
            out |= self._asked.arrays("asked")
        if self._fitted is not None:
            out |= self._fitted.arrays("fitted")
            out |= {"log/found": self._log.found, "log/is_fraud": self._log.is_fraud}
        return out

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave: learn the log again."""
        self._day = int(arrays["day"][0])
        self._asked = Binning.load("asked", arrays)
        self._begin(Binning.load("fitted", arrays))
        if self._fitted is not None:
            found = np.array(arrays["log/found"], np.uint8)
            self._learn(found, np.array(arrays["log/is_fraud"], bool))


def _counted(cut: Sequence[Node | Leaf], matured: Matured) -> TreeList | None:
    """Return trees with the rows and accounts of their leaves; None without accounts."""
    if matured.accounts is None:
        return None
    least = TreeLimits().min_accounts
    return as_proposal(cut, matured.features, matured.accounts, min_accounts=least)
