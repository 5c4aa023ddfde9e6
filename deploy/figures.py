"""What a back-test's scores are worth: figures per bank and for the consortium, and a table."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from deploy.backtest import BacktestResult
from models.evaluation import (
    CardProtocol,
    average_precision,
    card_precision_at_k,
    money_saved,
    recall_at_alert_rate,
    roc_auc,
)

SYSTEMS: Mapping[str, str] = {
    "local": "alone",
    "merged": "merged",
    "amalgamated": "amalgamated",
    "pooled": "pooled",
}
_HEADINGS = {"local": "alone", "amalgamated": "amalg.", "pooled": "pooled"}
REVIEW_COST = 5.0
"""Major units of the reference currency that the review of one alert is taken to cost."""
_CARDS = 100
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemFigures:
    """One system at one bank; None where there is nothing to measure."""

    average_precision: float | None
    roc_auc: float | None
    recall: float | None
    cp_at_k: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BankFigures:
    """One bank.

    Parameters
    ----------
    name, n, n_frauds
        Over the evaluated rows.
    k
        Cards a day behind ``cp_at_k``: the bank's share of 100.
    systems
        System -> figures; recall is at the alert budget.
    alert_rate, alert_precision, alert_recall, saved
        Of the alerts that were really given.
    """

    name: str
    n: int
    n_frauds: int
    k: int
    systems: Mapping[str, SystemFigures]
    alert_rate: float
    alert_precision: float | None
    alert_recall: float | None
    saved: float


def bank_figures(result: BacktestResult) -> list[BankFigures]:
    """Return the figures of each bank."""
    return [_bank(result, i) for i in range(len(result.banks))]


def _bank(result: BacktestResult, i: int) -> BankFigures:
    of_bank = result.bank == i
    rows = np.flatnonzero(of_bank & result.evaluated)
    fraud, alert = result.is_fraud[rows], result.alert[rows]
    share = len(rows) / max(int(np.count_nonzero(result.evaluated)), 1)
    k = max(round(_CARDS * share), 1)
    hits = int(np.count_nonzero(fraud & alert))
    n_alerts, n_frauds = int(np.count_nonzero(alert)), int(np.count_nonzero(fraud))
    return BankFigures(
        name=result.banks[i],
        n=len(rows),
        n_frauds=n_frauds,
        k=k,
        systems={name: _system(result, name, of_bank, rows, k) for name in SYSTEMS},
        alert_rate=n_alerts / max(len(rows), 1),
        alert_precision=hits / n_alerts if n_alerts else None,
        alert_recall=hits / n_frauds if n_frauds else None,
        saved=money_saved(result.amount[rows], fraud, alert, REVIEW_COST).saved,
    )


def _system(
    result: BacktestResult, name: str, of_bank: NDArray[np.bool_], rows: NDArray[np.int64], k: int
) -> SystemFigures:
    scores: NDArray[np.float64] = getattr(result, name)
    fraud = result.is_fraud[rows]
    return SystemFigures(
        average_precision=average_precision(fraud, scores[rows]),
        roc_auc=roc_auc(fraud, scores[rows]),
        recall=recall_at_alert_rate(fraud, scores[rows], result.config.alert_rate),
        cp_at_k=_cards(result, scores, of_bank, k),
    )


def _cards(
    result: BacktestResult, scores: NDArray[np.float64], chosen: NDArray[np.bool_], k: int
) -> float | None:
    if not result.evaluated.any():
        return None
    start_ms = int(result.event_ms[result.evaluated].min()) // _DAY_MS * _DAY_MS
    end_ms = int(result.event_ms[result.evaluated].max())
    rows = np.flatnonzero(chosen & (result.event_ms <= end_ms))
    return card_precision_at_k(
        result.is_fraud[rows],
        scores[rows],
        result.event_ms[rows],
        result.account[rows],
        start_ms=start_ms,
        protocol=CardProtocol(k=k, delay_d=round(result.config.label_delay_d)),
    )


def summary_figures(result: BacktestResult, banks: list[BankFigures]) -> dict[str, float]:
    """Return the figures that are held to, by name."""
    everyone = np.ones(len(result.bank), np.bool_)
    found: dict[str, float | None] = {
        f"{name}_macro_ap": _mean([bank.systems[name].average_precision for bank in banks])
        for name in SYSTEMS
    }
    ratios = [_ratio(bank) for bank in banks]
    known = [ratio for ratio in ratios if ratio is not None]
    found["amalgamated_vs_pooled_worst_bank"] = min(known) if len(known) == len(banks) else None
    for name in SYSTEMS:
        key = "cp_at_100" if name == "amalgamated" else f"{name}_cp_at_100"
        found[key] = _cards(result, getattr(result, name), everyone, _CARDS)
    for bank in banks:
        for name, system in bank.systems.items():
            found[f"{bank.name}_{name}_ap"] = system.average_precision
    found["alert_rate_macro"] = _mean([bank.alert_rate for bank in banks])
    found["alert_recall_macro"] = _mean([bank.alert_recall for bank in banks])
    found["n_transactions"] = float(len(result.bank))
    found["n_evaluated"] = float(np.count_nonzero(result.evaluated))
    found["seconds"] = result.seconds
    found["peak_memory_mb"] = result.peak_memory_mb
    return {name: value for name, value in found.items() if value is not None}


def _ratio(bank: BankFigures) -> float | None:
    ours = bank.systems["amalgamated"].average_precision
    pooled = bank.systems["pooled"].average_precision
    return None if ours is None or not pooled else ours / pooled


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def figures_table(banks: list[BankFigures]) -> Table:
    """Return the console table, 80 columns wide: per bank AP of each system and the rest."""
    table = Table(
        title="average precision per bank, and what amalgamated scores give",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("bank")
    for name in ("rows", "frauds", *_HEADINGS.values(), "AUC", "CP@k", "recall", "alerts"):
        table.add_column(name, justify="right", no_wrap=True)
    for bank in banks:
        ours = bank.systems["amalgamated"]
        table.add_row(
            bank.name,
            f"{bank.n:,}",
            f"{bank.n_frauds:,}",
            *(_three(bank.systems[name].average_precision) for name in _HEADINGS),
            _three(ours.roc_auc),
            _three(ours.cp_at_k),
            _three(bank.alert_recall),
            f"{bank.alert_rate:.2%}",
        )
    means = [_mean([b.systems[name].average_precision for b in banks]) for name in _HEADINGS]
    table.add_section()
    table.add_row("mean", "", "", *(_three(mean) for mean in means), "", "", "", "")
    ks = ", ".join(f"{bank.name} {bank.k}" for bank in banks)
    table.caption = f"k, the bank's share of 100 cards a day: {ks}"
    table.caption_justify = "left"
    return table


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
