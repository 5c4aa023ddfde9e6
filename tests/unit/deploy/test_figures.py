"""Figures of a back-test are those of the textbook formulas, written out in plain NumPy."""

import dataclasses

import numpy as np
import pytest
from rich.console import Console

from deploy.figures import (
    REVIEW_COST,
    SYSTEMS,
    bank_figures,
    figures_table,
    summary_figures,
)
from tests.unit.deploy.small_backtest import DAY_MS, made_result


def plain_ap(fraud, scores):
    """Return the sum of precision times gain in recall over distinct thresholds."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = scores >= threshold
        recall = (fraud & chosen).sum() / fraud.sum()
        total += (recall - before) * (fraud & chosen).sum() / chosen.sum()
        before = recall
    return total


def plain_auc(fraud, scores):
    """Return the share of pairs ranked right, ties counting half."""
    one, other = scores[fraud][:, None], scores[~fraud][None, :]
    return ((one > other) + (one == other) / 2).mean()


def plain_recall(fraud, scores, rate):
    """Return the share of frauds in the top n * rate rows, of a tie in proportion."""
    left, found = rate * len(scores), 0.0
    for threshold in sorted(set(scores), reverse=True):
        tie = scores == threshold
        share = min(left / tie.sum(), 1.0)
        found += share * (fraud & tie).sum()
        left -= share * tie.sum()
    return found / fraud.sum()


def plain_cards(result, scores, chosen, k):
    """Return hits among the k most suspicious cards of a day, meaned over the evaluated days."""
    day = result.event_ms // DAY_MS
    first, last = day[result.evaluated].min(), day[result.evaluated].max()
    delay, found, gone = int(result.config.label_delay_d), [], set()
    for today in range(first, last + 1):
        fold = today - (today - first) % 7
        if today == fold:
            gone = set()
        known = chosen & result.is_fraud & (day >= fold - delay - 7) & (day < today - delay)
        gone |= set(result.account[known].tolist())
        rows = [i for i in np.flatnonzero(chosen & (day == today)) if result.account[i] not in gone]
        if not (chosen & (day == today)).any():
            continue
        best = {}
        for i in rows:
            best[result.account[i]] = max(best.get(result.account[i], -np.inf), scores[i])
        top = sorted(best, key=lambda card: (-best[card], card))[:k]
        hits = {result.account[i] for i in rows if result.is_fraud[i]} & set(top)
        gone |= hits
        found.append(len(hits) / k)
    return np.mean(found)


@pytest.fixture(scope="module")
def result():
    """Return a result of two banks."""
    return made_result()


@pytest.fixture(scope="module")
def banks(result):
    """Return its banks' figures."""
    return bank_figures(result)


@pytest.fixture(scope="module")
def figures(result, banks):
    """Return its summary."""
    return summary_figures(result, banks)


def of_bank(result, i):
    """Return the evaluated rows of a bank."""
    return (result.bank == i) & result.evaluated


def test_precision_auc_and_recall_are_those_of_the_evaluated_rows(result, banks):
    """Of each system at each bank, against the formulas."""
    for i, bank in enumerate(banks):
        rows = of_bank(result, i)
        fraud = result.is_fraud[rows]
        for name, found in bank.systems.items():
            scores = getattr(result, name)[rows]
            assert found.average_precision == pytest.approx(plain_ap(fraud, scores), rel=1e-12)
            assert found.roc_auc == pytest.approx(plain_auc(fraud, scores), rel=1e-12)
            assert found.recall == pytest.approx(plain_recall(fraud, scores, 0.05), rel=1e-12)


def test_alerts_are_counted_and_paid_for(result, banks):
    """Rate, precision, recall, and the frauds' amounts less the review of every alert."""
    for i, bank in enumerate(banks):
        rows = of_bank(result, i)
        fraud, alert, amount = result.is_fraud[rows], result.alert[rows], result.amount[rows]
        assert (bank.n, bank.n_frauds) == (rows.sum(), fraud.sum())
        assert bank.alert_rate == alert.mean()
        assert bank.alert_precision == fraud[alert].mean()
        assert bank.alert_recall == alert[fraud].mean()
        saved = amount[fraud & alert].sum() - REVIEW_COST * alert.sum()
        assert bank.saved == pytest.approx(saved, rel=1e-12)


def test_cards_of_a_bank_are_its_share_of_a_hundred(result, banks):
    """Card precision is the handbook's on the bank's rows, those before the dates included."""
    for i, bank in enumerate(banks):
        k = round(100 * of_bank(result, i).sum() / result.evaluated.sum())
        assert bank.k == k
        for name, found in bank.systems.items():
            expected = plain_cards(result, getattr(result, name), result.bank == i, k)
            assert found.cp_at_k == pytest.approx(expected, rel=1e-12)
    assert sum(bank.k for bank in banks) == 100


def test_few_cards_are_ranked_by_their_highest_score():
    """With three cards of each bank a day the order decides who is found."""
    result = made_result(900, seed=6, banks=tuple("abcdefghijklmnopqrstuvwxyzABCDEFG"))
    found = bank_figures(result)
    assert {bank.k for bank in found} <= {2, 3, 4}
    for i, bank in enumerate(found):
        expected = plain_cards(result, result.merged, result.bank == i, bank.k)
        assert bank.systems["merged"].cp_at_k == pytest.approx(expected, rel=1e-12)


def test_macro_figures_are_plain_means_of_the_banks(result, banks, figures):
    """A small bank counts as much as a large one."""
    for name in SYSTEMS:
        scores = getattr(result, name)
        each = [plain_ap(result.is_fraud[of_bank(result, i)], scores[of_bank(result, i)])
                for i in range(2)]  # fmt: skip
        assert figures[f"{name}_macro_ap"] == pytest.approx(np.mean(each), rel=1e-12)
        for bank, expected in zip(banks, each, strict=True):
            assert figures[f"{bank.name}_{name}_ap"] == pytest.approx(expected, rel=1e-12)
    assert figures["alert_rate_macro"] == np.mean([bank.alert_rate for bank in banks])
    assert figures["alert_recall_macro"] == np.mean([bank.alert_recall for bank in banks])


def test_worst_bank_is_the_lowest_ratio_to_pooled(figures, result):
    """Not the ratio of the means."""
    ratios = [
        figures[f"{bank}_amalgamated_ap"] / figures[f"{bank}_pooled_ap"] for bank in result.banks
    ]
    assert figures["amalgamated_vs_pooled_worst_bank"] == pytest.approx(min(ratios), rel=1e-12)


def test_card_precision_at_100_is_that_of_all_banks_together(result, figures):
    """Of the amalgamated scores without a prefix, of the others with theirs."""
    everyone = np.ones(len(result.bank), bool)
    for name in SYSTEMS:
        key = "cp_at_100" if name == "amalgamated" else f"{name}_cp_at_100"
        expected = plain_cards(result, getattr(result, name), everyone, 100)
        assert figures[key] == pytest.approx(expected, rel=1e-12)


def test_sizes_and_costs_are_figures_too(result, figures):
    """Rows of the file and of the evaluation, as numbers; time and memory as measured."""
    assert figures["n_transactions"] == len(result.bank)
    assert figures["n_evaluated"] == result.evaluated.sum()
    timed = dataclasses.replace(result, seconds=12.5, peak_memory_mb=99.0)
    found = summary_figures(timed, bank_figures(timed))
    assert (found["seconds"], found["peak_memory_mb"]) == (12.5, 99.0)
    assert all(isinstance(value, float) and np.isfinite(value) for value in found.values())


def test_a_bank_without_fraud_has_no_figure_and_no_mean(result):
    """A mean over the other banks would be another figure under the same name."""
    quiet = dataclasses.replace(result, is_fraud=result.is_fraud & (result.bank == 0))
    banks = bank_figures(quiet)
    systems = banks[1].systems["amalgamated"]
    assert (systems.average_precision, systems.roc_auc, systems.recall) == (None, None, None)
    assert banks[1].alert_recall is None
    assert banks[1].alert_precision == 0.0
    figures = summary_figures(quiet, banks)
    for name in ("amalgamated_macro_ap", "amalgamated_vs_pooled_worst_bank", "alert_recall_macro",
                 f"{quiet.banks[1]}_pooled_ap"):  # fmt: skip
        assert name not in figures
    assert f"{quiet.banks[0]}_pooled_ap" in figures


def test_nothing_evaluated_gives_no_precision(result):
    """Neither a bank's nor the summary's; counts are zero."""
    empty = dataclasses.replace(result, evaluated=np.zeros(len(result.bank), bool))
    banks = bank_figures(empty)
    assert [(bank.n, bank.alert_rate, bank.k) for bank in banks] == [(0, 0.0, 1)] * 2
    figures = summary_figures(empty, banks)
    assert "cp_at_100" not in figures
    assert figures["n_evaluated"] == 0.0


def test_no_alert_means_no_precision_and_nothing_spent(result):
    """Precision does not exist, recall is zero."""
    silent = dataclasses.replace(result, alert=np.zeros(len(result.bank), bool))
    for bank in bank_figures(silent):
        assert (bank.alert_precision, bank.alert_recall, bank.saved) == (None, 0.0, 0.0)


def test_table_has_a_row_for_each_bank_and_fits_80_columns(result, banks):
    """With the three precisions by three digits, and their means."""
    console = Console(width=80)
    with console.capture() as capture:
        console.print(figures_table(banks))
    lines = [one.strip() for one in capture.get().splitlines()]
    assert max(map(len, capture.get().splitlines())) <= 80
    for bank in banks:
        (line,) = [one for one in lines if one.startswith(bank.name)]
        wanted = [f"{bank.systems[name].average_precision:.3f}"
                  for name in ("local", "amalgamated", "pooled")]  # fmt: skip
        assert line.split()[1:6] == [str(bank.n), str(bank.n_frauds), *wanted]
    (mean,) = [one for one in lines if one.startswith("mean")]
    assert (
        mean.split()[1] == f"{np.mean([b.systems['local'].average_precision for b in banks]):.3f}"
    )


def test_table_writes_a_dash_where_there_is_no_figure(result):
    """Never a zero."""
    quiet = dataclasses.replace(result, is_fraud=np.zeros(len(result.bank), bool))
    console = Console(width=80)
    with console.capture() as capture:
        console.print(figures_table(bank_figures(quiet)))
    (line,) = [one for one in capture.get().splitlines() if one.strip().startswith("north")]
    assert line.split()[2:7] == ["0", "-", "-", "-", "-"]
