"""Which faults befall which process, and when; drawn from a seed, so that a run can be repeated."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.errors import InvalidInputError

Kind = Literal["kill", "kill_at_start", "terminate", "pause", "double", "hand_over", "rebalance"]
BROKER = "broker"
AMALGAMATOR = "amalgamator"
BANK = "bank"

_WEIGHTS: dict[tuple[Kind, str], float] = {
    ("kill", BANK): 26.0,
    ("kill_at_start", BANK): 16.0,
    ("terminate", BANK): 8.0,
    ("pause", BANK): 10.0,
    ("hand_over", BANK): 6.0,
    ("rebalance", BANK): 8.0,
    ("kill", AMALGAMATOR): 10.0,
    ("kill_at_start", AMALGAMATOR): 5.0,
    ("terminate", AMALGAMATOR): 4.0,
    ("pause", AMALGAMATOR): 5.0,
    ("double", AMALGAMATOR): 4.0,
    ("hand_over", AMALGAMATOR): 4.0,
    ("kill", BROKER): 5.0,
    ("pause", BROKER): 3.0,
}
SORTS = {f"{kind}-{sort}": (kind, sort) for kind, sort in _WEIGHTS}
"""Name -> what befalls which sort of process."""
_LENGTH_S: dict[Kind, tuple[float, float]] = {
    "kill": (0.0, 2.0),  # until it is started again
    "kill_at_start": (0.0, 4.0),  # from its start to the second kill
    "terminate": (0.0, 0.0),
    "pause": (1.0, 15.0),
    "double": (2.0, 12.0),
    "hand_over": (2.0, 12.0),
    "rebalance": (1.0, 8.0),
}
_WAIT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Parameters
    ----------
    number
        From 1 on.
    kind
        ``kill``: kill -9, started again ``length_s`` later. ``kill_at_start``: the same, started at
        once and killed again ``length_s`` into its start. ``terminate``: SIGTERM, and started
        again. ``pause``: SIGSTOP for ``length_s``. ``double``: a second one runs beside it for
        ``length_s``; ``hand_over``: and then the first one is killed, if it has not ended by
        itself, and the second stays; a bank's second has a disk of its own, empty or left long ago.
        ``rebalance``: a stranger joins the bank's consumer group, gets partitions, and leaves.
    target
        ``broker``, ``amalgamator`` or a bank.
    at
        Share of the stream that must have been learnt, in [0, 1).
    wait_s
        How long after that.
    length_s
        See ``kind``.
    """

    number: int
    kind: Kind
    target: str
    at: float
    wait_s: float
    length_s: float


def plan_faults(
    n: int, banks: Sequence[str], rng: np.random.Generator, *, only: Sequence[str] = ()
) -> list[Fault]:
    """Return ``n`` faults in the order in which they happen.

    Where ``n`` allows, every kind befalls every sort of process at least once; the others are drawn
    by weight. Moments are spread over the stream, one in each of ``n`` equal pieces.

    Parameters
    ----------
    n
        How many, >= 0.
    banks
        Their names.
    rng
        What decides.
    only
        Sorts of faults, each of `SORTS`; all of them where it is empty.

    Raises
    ------
    InvalidInputError
        If one of these is not as it should be.
    """
    if not (n >= 0 and banks):
        raise InvalidInputError(f"faults: expected 0 or more and a bank, got {n} and {banks}")
    if not set(only) <= set(SORTS):
        raise InvalidInputError(f"faults: expected some of {', '.join(SORTS)}, got {only}")
    known = [SORTS[name] for name in only or SORTS]
    shares = np.array([_WEIGHTS[one] for one in known])
    drawn = rng.choice(len(known), size=max(n - len(known), 0), p=shares / shares.sum())
    order = rng.permutation(np.concatenate([np.arange(len(known))[:n], drawn]))
    moments = (np.arange(n) + rng.random(n)) / max(n, 1)
    faults = []
    for i, which in enumerate(order.astype(int).tolist()):
        kind, sort = known[which]
        target = banks[int(rng.integers(len(banks)))] if sort == BANK else sort
        faults.append(
            Fault(
                number=i + 1,
                kind=kind,
                target=target,
                at=float(moments[i]),
                wait_s=float(rng.uniform(0.0, _WAIT_S)),
                length_s=float(rng.uniform(*_LENGTH_S[kind])),
            )
        )
    return faults
