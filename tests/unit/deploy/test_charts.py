"""Plots are inline SVG in the page's own colours, the same bytes for the same result."""

import dataclasses
import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest

from deploy import chart_style, charts
from deploy.charts import blend_weights, reasons_chart, recall_curves, weekly_precision
from deploy.feature_words import feature_words
from deploy.run_results import BlendNote
from tests.unit.deploy.small_backtest import DAY_MS, made_result
from tests.unit.deploy.test_figures import plain_ap

PLOTS = (recall_curves, weekly_precision, blend_weights, reasons_chart)


@pytest.fixture(scope="module")
def result():
    """Return a result of two banks over 20 days."""
    return made_result()


@pytest.fixture(scope="module")
def svgs(result):
    """Return its four plots."""
    return [plot(result) for plot in PLOTS]


def texts(svg):
    """Return the texts of a plot; it parses as XML."""
    root = ElementTree.fromstring(svg.replace("xlink:href", "href"))  # noqa: S314  # our own
    return ["".join(node.itertext()).strip() for node in root.iter("text")]


def test_plots_load_nothing_and_name_no_address(svgs):
    """Neither links nor scripts nor outside references."""
    for svg in svgs:
        assert svg.startswith("<svg ")
        for word in ("http", "://", "<script", "src=", "<image", "@import", "<metadata"):
            assert word not in svg
        assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', svg))
        assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", svg))


def test_each_plot_says_what_it_shows(svgs):
    """To a reader who hears the page."""
    labels = [re.findall(r'role="img" aria-label="([^"]+)"', svg) for svg in svgs]
    assert all(len(found) == 1 for found in labels)
    assert len({found[0] for found in labels}) == len(PLOTS)


def test_ids_of_one_page_are_distinct_and_their_uses_resolve(svgs):
    """All four plots stand in one document."""
    ids = [one for svg in svgs for one in re.findall(r' id="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))
    uses = [one for svg in svgs for one in re.findall(r'(?:href="#|url\(#)([^")]+)', svg)]
    assert uses
    assert set(uses) <= set(ids)


def test_colours_are_the_pages_variables(svgs):
    """So that one plot serves light, dark and paper; no stand-in colour is left."""
    for svg in svgs:
        assert not [colour for colour in chart_style._CSS if colour in svg]
        assert set(re.findall(r"var\(--([a-z]+)\)", svg)) <= {
            "ink", "frame", "shade", "local", "amalgamated", "pooled",
        }  # fmt: skip
        assert "var(--ink)" in svg


def test_same_result_gives_the_same_bytes(result, svgs):
    """A report made again is the same file."""
    assert [plot(result) for plot in PLOTS] == svgs


def test_recall_plot_has_a_panel_for_each_bank(result):
    """Whether they are one or five."""
    for banks in (("solo",), ("a1", "b2", "c3", "d4", "e5")):
        shown = texts(recall_curves(made_result(banks=banks)))
        assert [text for text in shown if text in banks] == list(banks)


def test_weeks_are_the_mean_precision_of_the_banks_that_had_a_fraud(result):
    """By the formula; day 20 belongs to no whole week and is left out."""
    quiet = dataclasses.replace(
        result,
        is_fraud=result.is_fraud & ~((result.bank == 1) & (result.event_ms < 20_007 * DAY_MS)),
    )
    middle, found = charts._weeks(quiet, "merged")
    assert middle.tolist() == [20_003.5, 20_010.5]
    week = (quiet.event_ms // DAY_MS - 20_000) // 7
    for i in range(2):
        each = [
            plain_ap(quiet.is_fraud[rows], quiet.merged[rows])
            for rows in ((week == i) & (quiet.bank == bank) for bank in range(2))
            if quiet.is_fraud[rows].any()
        ]
        assert len(each) == i + 1
        assert found[i] == pytest.approx(np.mean(each), rel=1e-12)


def test_week_without_a_fraud_is_a_gap(result):
    """Not a zero."""
    none = dataclasses.replace(result, is_fraud=np.zeros(len(result.bank), bool))
    assert np.isnan(charts._weeks(none, "local")[1]).all()


def test_reasons_are_in_words_and_the_most_frequent_only(result):
    """Two of three, by how often they spoke."""
    counted = Counter({"log_amount": 2, "terminal.f_7d": 9, "gap_d": 5})
    shown = texts(reasons_chart(dataclasses.replace(result, reasons=counted), n=2))
    assert feature_words("terminal.f_7d") in shown
    assert feature_words("gap_d") in shown
    assert feature_words("log_amount") not in shown


def test_bank_names_and_reasons_cannot_break_the_page(result):
    """A name with signs of HTML is shown as it is."""
    shown = texts(recall_curves(dataclasses.replace(result, banks=("<b>&", "south"))))
    assert "<b>&" in shown


def test_a_bank_without_fraud_has_an_empty_panel(result):
    """The other bank's curves and the legend are still there."""
    quiet = dataclasses.replace(result, is_fraud=result.is_fraud & (result.bank == 0))
    shown = texts(recall_curves(quiet))
    for text in (*result.banks, "alone", "amalgamated", "pooled"):
        assert text in shown


def a_note(day, bank, **weights):
    """Return a note of a bank's weights by the names of its experts."""
    return BlendNote(
        day_ms=(20_000 + day) * DAY_MS,
        bank=bank,
        experts=tuple(weights),
        weights=tuple(weights.values()),
    )


def test_weights_are_found_by_the_names_of_the_experts(result):
    """Banks run different models, in different places of their blends."""
    notes = [
        a_note(0, 0, own=0.5, merged=0.5),
        a_note(1, 0, own=0.4, merged=0.3, river=0.3),
        a_note(0, 1, own=0.1, merged=0.2, lightgbm=0.3, river=0.4),
    ]
    mixed = dataclasses.replace(result, blends=notes)
    days, weights = charts._weights_of(mixed, 0, "own")
    assert (days.tolist(), weights.tolist()) == ([20_000, 20_001], [0.5, 0.4])
    days, weights = charts._weights_of(mixed, 0, "river")
    assert (days.tolist(), weights.tolist()) == ([20_001], [0.3])
    assert charts._weights_of(mixed, 1, "river")[1].tolist() == [0.4]
    assert len(charts._weights_of(mixed, 0, "lightgbm")[0]) == 0
    shown = texts(blend_weights(mixed))
    for words in ("own scorecard", "merged scorecard", "lightgbm", "river"):
        assert shown.count(words) == 1
    assert "lightgbm" not in texts(blend_weights(result))


def test_a_result_without_anything_to_show_still_has_plots(result):
    """No fraud, no alert, no release, no blend, no evaluated row."""
    n = len(result.bank)
    bare = dataclasses.replace(
        result,
        is_fraud=np.zeros(n, bool),
        alert=np.zeros(n, bool),
        evaluated=np.zeros(n, bool),
        releases=[],
        blends=[],
        reasons=Counter(),
    )
    for plot in (weekly_precision, blend_weights, reasons_chart):
        assert plot(bare).startswith("<svg ")
