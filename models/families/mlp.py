"""A small net (torch) that learns online, with replay of past frauds; its parameters merge.

Rows are taken in minibatches of fixed size, in order, so that learning does not depend on how the
stream was cut. To each come frauds drawn from a bounded buffer. They raise the share of frauds that
the net sees; the log of the factor by which they raised the odds is taken off the bias wherever
parameters are read. torch runs on one thread; scores are computed without torch.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.basis import Basis
from models.errors import IncompatibleSummaryError
from models.families.base import Grower, Retained, demand, read_options
from models.families.mlp_parameters import (
    N_FIRST,
    N_SECOND,
    NOTHING,
    MlpScorer,
    MlpSummary,
    inputs,
    layers,
    level_table,
    n_parameters,
)
from models.families.network import MAX_WEIGHT
from models.families.ordinals import Binning, ordinals
from models.matured import Matured

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpOptions:
    """How the net learns.

    Parameters
    ----------
    batch_n
        Rows of a minibatch, >= 1.
    replay_n
        Past frauds that are added to each, >= 0.
    buffer_n
        Past frauds that are held, the newest, >= 1.
    learning_rate
        Adam's.
    epochs
        Passes over the retained rows at the start on a basis, >= 1.
    min_n, min_frauds
        Matured transactions and frauds before it starts.
    """

    batch_n: int = 256
    replay_n: int = 32
    buffer_n: int = 2_000
    learning_rate: float = 0.001
    epochs: int = 3
    min_n: int = 3_000
    min_frauds: int = 30

    def __post_init__(self) -> None:
        for name in ("batch_n", "buffer_n", "epochs", "min_n", "min_frauds"):
            demand(getattr(self, name) >= 1, name, "1 or more")
        demand(0 <= self.replay_n <= 4_096, "replay_n", "0 to 4096")
        demand(0.0 < self.learning_rate <= 1.0, "learning_rate", "a number in (0, 1]")


def make(options: Mapping[str, object], *, seed: int) -> "MlpFamily":
    """Return the untrained family; see `models.families.registry.make_family`."""
    return MlpFamily(read_options(MlpOptions, options, family="mlp"), seed=seed)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread, so that its sums have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Net:
    """Flat parameters, Adam's moments and a generator: what one basis' training consists of."""

    def __init__(self, n_features: int, rate: float, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        flat = torch.zeros(n_parameters(n_features))
        w1, _, w2, _, w3, _ = layers(flat.numpy(), n_features)
        for weights, n_in in ((w1, 2 * n_features), (w2, N_FIRST), (w3, N_SECOND)):
            drawn = torch.randn(weights.shape, generator=self.generator).numpy()
            weights[...] = drawn * np.float32(np.sqrt(2.0 / max(n_in, 1)))
        self._n_features = n_features
        self.flat = torch.nn.Parameter(flat)
        self.adam = torch.optim.Adam([self.flat], lr=rate)

    def step(self, x: NDArray[np.float32], y: NDArray[np.bool_]) -> None:
        """Move down the gradient of the mean log-loss of one minibatch."""
        shapes = [part.shape for part in layers(self.flat.detach().numpy(), self._n_features)]
        parts = torch.split(self.flat, [int(np.prod(shape)) for shape in shapes])
        w1, b1, w2, b2, w3, b3 = (p.reshape(s) for p, s in zip(parts, shapes, strict=True))
        hidden = torch.relu(torch.relu(torch.from_numpy(x) @ w1 + b1) @ w2 + b2)
        target = torch.from_numpy(y.astype(np.float32))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(hidden @ w3 + b3, target)
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.adam.step()

    def draw(self, n: int, below: int) -> NDArray[np.int64]:
        """Return n whole numbers below a bound."""
        drawn: NDArray[np.int64] = torch.randint(below, (n,), generator=self.generator).numpy()
        return drawn

    def shuffled(self, n: int) -> NDArray[np.int64]:
        """Return 0..n-1 in a drawn order."""
        order: NDArray[np.int64] = torch.randperm(n, generator=self.generator).numpy()
        return order

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        state = self.adam.state.get(self.flat, {})
        out = {f"adam/{key}": np.atleast_1d(value.numpy()) for key, value in state.items()}
        return out | {
            "flat": self.flat.detach().numpy(),
            "generator": self.generator.get_state().numpy(),
        }

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave."""
        with torch.no_grad():
            self.flat.copy_(torch.from_numpy(np.array(arrays["flat"], np.float32)))
        self.generator.set_state(torch.from_numpy(np.array(arrays["generator"], np.uint8)))
        self.adam.state.clear()
        if "adam/step" in arrays:
            self.adam.state[self.flat] = {
                "step": torch.tensor(float(arrays["adam/step"][0])),
                "exp_avg": torch.from_numpy(np.array(arrays["adam/exp_avg"], np.float32)),
                "exp_avg_sq": torch.from_numpy(np.array(arrays["adam/exp_avg_sq"], np.float32)),
            }


class MlpFamily:
    """A bank's net; see `models.families.base.Family`.

    A new basis starts a new net, on the retained rows.

    Parameters
    ----------
    options
        How it learns.
    seed
        Of initial weights, order and replay.
    """

    name = "mlp"

    def __init__(self, options: MlpOptions, *, seed: int) -> None:
        self._options = options
        self._seed = seed
        self._asked: Binning | None = None
        self._day = -1
        self._clear(None)

    def _clear(self, fitted: Binning | None) -> None:
        n_features = 0 if fitted is None else fitted.n_features
        self._fitted = fitted
        self._net = _Net(n_features, self._options.learning_rate, self._seed)
        self._pending = np.empty((0, n_features), np.uint8)
        self._pending_is_fraud = np.empty(0, bool)
        self._frauds = np.empty((0, n_features), np.uint8)
        self._levels = np.empty((0, 0), np.float32) if fitted is None else level_table(fitted)
        self._scorer: MlpScorer | None = None
        self._n = 0  # rows taken
        self._shown = np.zeros(2, np.int64)  # frauds shown to the net: of its rows, replayed

    @property
    def began_day(self) -> int:
        """Return the day of the last start on a basis."""
        return self._day

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return log-odds, NaN before it has learnt."""
        if self._fitted is None:
            return np.full(len(rows), np.nan)
        if self._scorer is None:
            self._scorer = MlpScorer(self.contribution(), self._fitted)
        return self._scorer.score(rows)

    def install(self, basis: Basis) -> None:
        """Start anew on this basis at the end of the day."""
        self._asked = Binning.of(basis)

    def is_due(self, day: int) -> bool:
        """Return whether another basis was asked for than the net's."""
        asked = self._asked
        return asked is not None and (self._fitted is None or self._fitted.number != asked.number)

    def end_day(self, day: int, retained: Retained) -> None:
        """Start on the basis that was asked for where enough has matured."""
        if self._asked is None or not self.is_due(day):
            return
        matured = retained()
        if self.is_enough(matured):
            self.begin(self._asked, matured)
            self._day = day

    def is_enough(self, matured: Matured) -> bool:
        """Return whether rows and frauds suffice to start."""
        options, frauds = self._options, int(matured.is_fraud.sum())
        return len(matured) >= options.min_n and options.min_frauds <= frauds < len(matured)

    def begin(self, binning: Binning, matured: Matured, first: Floats | None = None) -> None:
        """Start a net and pass over rows several times.

        Parameters
        ----------
        binning
            Through which it sees rows.
        matured
            The rows.
        first
            Parameters to start from, as of a `MlpSummary`; None: drawn from the seed.
        """
        self._clear(binning)
        if first is not None:
            self._set(first)
        found = ordinals(binning, matured.features)
        for _ in range(self._options.epochs):
            order = self._net.shuffled(len(found))
            self._take(found[order], matured.is_fraud[order])
        self._n = len(found)
        self._frauds = found[matured.is_fraud][-self._options.buffer_n :]

    def _set(self, flat: Floats) -> None:
        """Put parameters of a `MlpSummary` in; Adam's moments stay."""
        given = flat.copy()
        given[-1] += self._raised()
        with torch.no_grad():
            self._net.flat.copy_(torch.from_numpy(given))
        self._scorer = None

    def forget(self) -> None:
        """Be untrained again."""
        self._clear(None)

    @property
    def is_sound(self) -> bool:
        """Whether its parameters are such as may be published."""
        flat = self._net.flat.detach().numpy()
        return bool(np.all(np.abs(flat) <= MAX_WEIGHT - 100.0))  # room for the bias' correction

    @property
    def fitted(self) -> int:
        """Number of the basis that the net reads, 0 before it has begun."""
        return 0 if self._fitted is None else self._fitted.number

    def learn(self, matured: Matured) -> None:
        """Learn from outcomes, as soon as a minibatch is full."""
        if self._fitted is not None:
            self._take(ordinals(self._fitted, matured.features), matured.is_fraud)
            self._n += len(matured)

    def _take(self, found: NDArray[np.uint8], is_fraud: NDArray[np.bool_]) -> None:
        rows = np.concatenate([self._pending, found])
        outcomes = np.concatenate([self._pending_is_fraud, is_fraud])
        n = self._options.batch_n
        full = len(rows) // n * n
        with _one_thread():
            for at in range(0, full, n):
                self._step(rows[at : at + n], outcomes[at : at + n])
        self._pending, self._pending_is_fraud = rows[full:].copy(), outcomes[full:].copy()

    def _step(self, rows: NDArray[np.uint8], is_fraud: NDArray[np.bool_]) -> None:
        n_replayed = self._options.replay_n if len(self._frauds) else 0
        replayed = self._frauds[self._net.draw(n_replayed, max(len(self._frauds), 1))]
        x = inputs(self._levels, np.concatenate([rows, replayed]))
        self._net.step(x, np.concatenate([is_fraud, np.ones(n_replayed, bool)]))
        self._shown += np.array([int(is_fraud.sum()), n_replayed])
        self._frauds = np.concatenate([self._frauds, rows[is_fraud]])[-self._options.buffer_n :]
        self._scorer = None

    def _raised(self) -> np.float32:
        """Return the log of the factor by which replay raised the odds of fraud."""
        frauds, replayed = self._shown.tolist()
        return np.float32(np.log((frauds + replayed + 0.5) / (frauds + 0.5)))

    def contribution(self) -> MlpSummary:
        """Return rows learnt and parameters, the bias corrected for replay."""
        if self._fitted is None:
            return NOTHING
        flat = self._net.flat.detach().numpy().copy()
        flat[-1] -= self._raised()
        return MlpSummary(
            n=self._n, basis=self._fitted.number, n_features=self._fitted.n_features, flat=flat
        )

    def adopt(self, merged: MlpSummary) -> None:
        """Go on from merged parameters; Adam's moments stay.

        Raises
        ------
        IncompatibleSummaryError
            If they were learnt on another basis than the one that this net reads.
        """
        own = self.contribution()
        if own.n == 0 or (own.basis, own.n_features) != (merged.basis, merged.n_features):
            raise IncompatibleSummaryError(
                f"expected a net of basis {own.basis} with {own.n_features} features, "
                f"got basis {merged.basis} with {merged.n_features}"
            )
        self._set(merged.flat)

    def propose(self, basis: Basis, *, n_trees: int, day: int) -> Grower | None:
        """Return None: a net has no trees."""

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        out: dict[str, NDArray[np.generic]] = {
            "day": np.array([self._day], np.int64),
            "n": np.array([self._n], np.int64),
            "shown": self._shown,
        }
        if self._asked is not None:
            out |= self._asked.arrays("asked")
        if self._fitted is not None:
            out |= self._fitted.arrays("fitted") | self._net.arrays()
            out |= {"pending": self._pending, "pending_is_fraud": self._pending_is_fraud}
            out["frauds"] = self._frauds
        return out

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave."""
        self._asked = Binning.load("asked", arrays)
        self._clear(Binning.load("fitted", arrays))
        self._day = int(arrays["day"][0])
        self._n = int(arrays["n"][0])
        self._shown = np.array(arrays["shown"], np.int64)
        if self._fitted is not None:
            self._net.load(arrays)
            self._pending = np.array(arrays["pending"], np.uint8)
            self._pending_is_fraud = np.array(arrays["pending_is_fraud"], bool)
            self._frauds = np.array(arrays["frauds"], np.uint8)
