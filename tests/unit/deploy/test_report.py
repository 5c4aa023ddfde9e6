"""The report is one HTML page that loads nothing and has a row for every bank."""

import dataclasses
import re
import time
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest

from deploy import report as report_module
from deploy.figures import SYSTEMS, bank_figures, summary_figures
from deploy.report import write_report
from tests.unit.deploy.small_backtest import made_result

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects tags, attributes, and the cells of each table row; checks that tags are closed."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.rows = [], set(), [], []

    def handle_starttag(self, tag, attrs):
        """Note a tag."""
        self.tags.add(tag)
        self.attributes += attrs
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """Note a tag that closes itself."""
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        """Close the innermost tag, which must be this one."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Add to the cell."""
        if self.open and self.open[-1] in {"td", "th"}:
            self.rows[-1][-1] += data


def written(tmp_path, result):
    """Return the text of a result's report, its banks' figures and its summary."""
    banks = bank_figures(result)
    figures = summary_figures(result, banks)
    path = tmp_path / "folder" / "report.html"
    write_report(path, result, banks, figures)
    return path.read_text(encoding="utf-8"), banks, figures


def parsed(html):
    """Return the page; every tag in it is closed."""
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Return the report of a made-up result."""
    return written(tmp_path_factory.mktemp("report"), made_result())


def test_page_is_self_contained(report):
    """No address, script, image, frame, style sheet or font comes from elsewhere."""
    html, _, _ = report
    page = parsed(html)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"https?:|//[a-z]|@import|@font-face|src\s*=", html)
    for name, value in page.attributes:
        assert name not in {"src", "srcset", "data", "action"}
        assert not name.startswith("on")
        if name.endswith("href"):
            assert value.startswith("#")


def test_every_bank_has_a_row_with_its_figures(report):
    """Rows, frauds, precision of the four systems and what the alerts gave."""
    html, banks, _ = report
    rows = {row[0]: row for row in parsed(html).rows if row}
    for bank in banks:
        row = rows[bank.name]
        ap = [f"{bank.systems[name].average_precision:.3f}" for name in SYSTEMS]
        assert row[1:7] == [f"{bank.n:,}", f"{bank.n_frauds:,}", *ap]
        assert row[9] == f"{bank.alert_recall:.3f}"
        assert row[10] == f"{bank.alert_precision:.3f}"
        assert row[11] == f"{bank.alert_rate:.2%}"
        assert row[12] == f"{bank.saved:,.0f}"
        assert len(row) == len(rows["bank"])


def test_mean_row_and_tiles_are_the_summary(report):
    """The macro precision stands in the table and above it."""
    html, _, figures = report
    (mean,) = [row for row in parsed(html).rows if row and row[0] == "mean"]
    assert mean[3:7] == [f"{figures[f'{name}_macro_ap']:.3f}" for name in SYSTEMS]
    tiles = dict(re.findall(r"<b>([^<]*)</b><span>([^<]*)</span>", html))
    assert tiles[f"{figures['amalgamated_vs_pooled_worst_bank']:.3f}"].startswith("of pooled")
    assert f"{figures['cp_at_100']:.3f}" in tiles


def test_bases_are_dated_in_utc(report):
    """Day 20,003 since 1970 is 2024-10-07, plus five days 2024-10-12."""
    html, _, _ = report
    first, second = [row for row in parsed(html).rows if row and row[0] in {"1", "2"}]
    assert first == ["1", str(np.datetime64(20_003, "D")), "3", "1234"]
    assert second == ["2", str(np.datetime64(20_008, "D")), "8", "2345"]


def test_dates_do_not_depend_on_where_the_machine_stands(monkeypatch):
    """A minute after midnight in UTC is still the day before in New York."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert report_module._date(20_003 * 86_400_000 + 60_000) == str(np.datetime64(20_003, "D"))
    finally:
        monkeypatch.undo()
        time.tzset()


def test_names_from_the_file_are_escaped(tmp_path):
    """A bank's name comes from a column of the file and is not trusted."""
    name = "<b onload=x>&"
    html, _, _ = written(tmp_path, made_result(banks=(name, "south")))
    page = parsed(html)
    assert name in [row[0] for row in page.rows if row]
    assert "onload" not in dict(page.attributes)


def test_figures_that_do_not_exist_are_dashes(tmp_path):
    """A bank without a fraud, and nobody with an alert: never a zero that was not measured."""
    full = made_result()
    quiet = dataclasses.replace(
        full,
        is_fraud=full.is_fraud & (full.bank == 0),
        alert=np.zeros(len(full.bank), bool),
        releases=[],
        blends=[],
        reasons=Counter(),
    )
    html, banks, _ = written(tmp_path, quiet)
    rows = {row[0]: row for row in parsed(html).rows if row}
    assert rows[banks[0].name][9:11] == ["0.000", "-"]
    assert rows[banks[1].name][3:11] == ["-"] * 5 + ["0.000"] + ["-"] * 2
    assert rows["mean"][3:7] == ["-"] * 4


def test_same_result_gives_the_same_page(tmp_path, report):
    """No clock and no chance in it."""
    again, _, _ = written(tmp_path, made_result())
    assert again == report[0]
