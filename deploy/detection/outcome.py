"""What one run of the evaluation gave, as a file: figures, curves and notes, never a row."""

from pathlib import Path

import msgspec


class BankOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One bank over the rows that are evaluated.

    Parameters
    ----------
    name, n, n_frauds
        Over the evaluated rows.
    ap
        System (``own``, ``merged``, ``blend``, ``lightgbm``, ...) -> average precision.
    ap_by_week
        System -> average precision of each week, None where it has no fraud.
    curve
        System -> (recall, precision) pairs, at most 200, recall ascending.
    reasons
        How often a transform was a reason towards fraud in an alert, the most frequent first.
    """

    name: str
    n: int
    n_frauds: int
    ap: dict[str, float]
    ap_by_week: dict[str, list[float | None]] = {}
    curve: dict[str, list[tuple[float, float]]] = {}
    reasons: list[tuple[str, int]] = []


class WeightNote(msgspec.Struct, frozen=True, kw_only=True):
    """How a bank weighed its experts, or the consortium a member, from a day (since 1970) on."""

    day: int
    bank: str
    weights: dict[str, float]


class DriftNote(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm of a bank's drift watch."""

    day: int
    bank: str
    kind: str
    subject: str
    detector: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Parameters
    ----------
    run
        Name of the plan, e.g. ``amalgamated`` or ``one_poisoner``.
    data
        Name of the data and split, e.g. ``handbook-7``.
    weeks
        First day of each week of ``ap_by_week``, days since 1970.
    blends, trust
        Weights over time: of experts at a bank, of members in the merge.
    bases
        (day, number, weights, trees) of each basis that came into force.
    cold
        For the cold join: (days since joining, average precision of the cold bank, of the same bank
        warm), by week.
    subjects
        Banks that the run is about: who lies, joins late, is away, pays in another currency.
    figures
        What else was measured: ``cold_settled`` and ``warm_settled``, average precision of the bank
        that joined, and of the same bank warm, from three weeks after it joined.
    """

    run: str
    data: str
    banks: list[BankOutcome]
    seconds: float
    weeks: list[int] = []
    blends: list[WeightNote] = []
    trust: list[WeightNote] = []
    drift: list[DriftNote] = []
    bases: list[tuple[int, int, int, int]] = []
    cold: list[tuple[float, float | None, float | None]] = []
    release_id: str = ""
    subjects: list[str] = []
    figures: dict[str, float] = {}


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Write an outcome as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(outcome))


def read_outcome(path: Path) -> Outcome:
    """Return what `write_outcome` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Outcome)
