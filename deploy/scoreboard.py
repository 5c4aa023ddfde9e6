"""How well each bank does, alone and amalgamated, while the decisions come in; pure."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from models.evaluation import average_precision
from models.records import Alert, Decision

_LATEST = 6


@dataclass(slots=True)
class BankBoard:
    """One bank's tallies.

    Attributes
    ----------
    frauds
        Ids of its fraudulent transactions, known to the demonstration alone.
    n_scored, n_alerts, n_frauds_alerted
        Tallies of all decisions.
    release
        Number of the newest release that scored.
    """

    frauds: frozenset[str]
    n_scored: int = 0
    n_alerts: int = 0
    n_frauds_alerted: int = 0
    release: int = 0
    _own: list[float] = field(default_factory=list)
    _blend: list[float] = field(default_factory=list)
    _fraud: list[bool] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def add(self, decision: Decision) -> None:
        """Count a decision, once; a row enters the precision once both experts have a score."""
        if decision.transaction_id in self._seen:
            return
        self._seen.add(decision.transaction_id)
        is_fraud = decision.transaction_id in self.frauds
        self.n_scored += 1
        self.n_alerts += decision.alert
        self.n_frauds_alerted += decision.alert and is_fraud
        self.release = max(self.release, int(decision.release))
        experts = decision.expert_scores
        if "own" in experts and "merged" in experts:
            self._own.append(experts["own"])
            self._blend.append(decision.y_score)
            self._fraud.append(is_fraud)

    @property
    def n_compared(self) -> int:
        """Rows behind both average precisions."""
        return len(self._fraud)

    def precision(self) -> tuple[float | None, float | None]:
        """Return average precision alone and amalgamated, over the same rows."""
        fraud = np.array(self._fraud, np.bool_)
        alone = average_precision(fraud, np.array(self._own))
        return alone, average_precision(fraud, np.array(self._blend))


class Scoreboard:
    """All banks' tallies and the latest alerts.

    Parameters
    ----------
    frauds
        Bank -> ids of its fraudulent transactions.
    """

    def __init__(self, frauds: Mapping[str, frozenset[str]]) -> None:
        self.banks = {bank: BankBoard(ids) for bank, ids in sorted(frauds.items())}
        self.latest: deque[tuple[str, Alert]] = deque(maxlen=_LATEST)
        self.n_releases = 0
        self._alerts: set[str] = set()

    def add_decision(self, bank: str, decision: Decision) -> None:
        """Count a decision."""
        self.banks[bank].add(decision)

    def add_alert(self, bank: str, alert: Alert) -> None:
        """Show an alert, once."""
        if alert.alert_id not in self._alerts:
            self._alerts.add(alert.alert_id)
            self.latest.append((bank, alert))

    @property
    def n_scored(self) -> int:
        """Transactions answered in all."""
        return sum(bank.n_scored for bank in self.banks.values())

    def macro(self) -> tuple[float | None, float | None]:
        """Return the banks' mean average precision, alone and amalgamated, once all have one."""
        pairs = [bank.precision() for bank in self.banks.values()]
        alone = [pair[0] for pair in pairs if pair[0] is not None]
        together = [pair[1] for pair in pairs if pair[1] is not None]
        if len(alone) < len(pairs) or len(together) < len(pairs):
            return None, None
        return float(np.mean(alone)), float(np.mean(together))
