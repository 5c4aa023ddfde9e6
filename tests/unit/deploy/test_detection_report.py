"""The report of the evaluation: figures against their bounds, sections by what outcomes hold."""

import re
from itertools import combinations
from pathlib import Path

import msgspec
import numpy as np
import pytest

import deploy
from deploy.chart_style import COLOURS
from deploy.detection.outcome import Outcome
from deploy.detection.report_bounds import BOUNDS, judged
from deploy.detection.report_choice import main_runs, prepared
from deploy.detection.report_page import write_report
from deploy.detection.report_texts import TEXTS
from deploy.feature_words import feature_words
from models.errors import InvalidInputError
from tests.unit.deploy.made_outcomes import FIRST_DAY, made_evaluation, made_outcome
from tests.unit.deploy.test_report import Page, parsed

HELD = {
    "all_scorecard_macro": (">=", 0.99),
    "all_scorecard_worst_bank": (">=", 0.985),
    "mixed_worst_bank": (">=", 0.985),
    "amalgamated_macro": (">=", 1.003),
    "amalgamated_vs_pooled_lightgbm": (">=", 1.0),
    "paces_macro": (">=", 0.985),
    "probe_only_macro": (">=", 0.94),
    "currency_loss_recovered": (">=", 0.9),
    "cold_bank_day21": (">=", 0.95),
    "one_poisoner_honest": (">=", 0.96),
    "two_poisoners_worst_vs_local": (">=", 1.0),
    "defence_cost": ("<=", 0.01),
    "foreign_worst_bank_vs_best_local": (">=", 1.0),
    "foreign_gap_closed": (">=", 0.8),
}
FIGURES = {
    "all_scorecard_macro": 0.995,
    "all_scorecard_macro_worst": 0.98996,
    "amalgamated_macro": 1.003,
    "defence_cost": 0.004,
    "defence_cost_worst": 0.02,
    "away_macro": 0.9712,
}
SIGNS = {"met": "✓", "not met": "✗", "not measured": "–"}
LOOK = Path(deploy.__path__[0]) / "templates" / "look.css.j2"


def written(tmp_path, outcomes, figures=FIGURES):
    """Return the text of a report."""
    path = tmp_path / "folder" / "detection.html"
    write_report(outcomes, figures, path)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def outcomes():
    """Return outcomes for every section."""
    return made_evaluation()


@pytest.fixture(scope="module")
def html(tmp_path_factory, outcomes):
    """Return their report."""
    return written(tmp_path_factory.mktemp("report"), outcomes)


class DeepPage(Page):
    """A page whose cells' texts are those of what stands in them too."""

    def handle_data(self, data):
        """Add to the cell that is open."""
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def rows_of(html):
    """Return the rows of all tables, the white space of their cells made single."""
    page = DeepPage()
    page.feed(html)
    return [[" ".join(cell.split()) for cell in row] for row in page.rows if row]


def figure_row(html, name):
    """Return the row of a figure: limit, value, worst split."""
    (row,) = [row for row in rows_of(html) if len(row) == 4 and row[0].endswith(f".{name}")]
    return row[1:]


def headings(html):
    """Return the texts of the second headings."""
    return re.findall(r"<h2[^>]*>([^<]*)</h2>", html)


def test_every_figure_stands_there_with_its_bound(html):
    """Whether measured or not."""
    assert [bound.name for bound in BOUNDS] == list(HELD)
    for name, (sign, limit) in HELD.items():
        shown = figure_row(html, name)[0]
        assert shown == f"{'≥' if sign == '>=' else '≤'} {limit:.3f}"


def test_met_and_not_met_are_told_by_sign_and_word(html):
    """On the limit is met; the worst split is judged by itself."""
    assert figure_row(html, "all_scorecard_macro")[1:] == ["0.995 ✓ met", "0.98996 ✗ not met"]
    assert figure_row(html, "amalgamated_macro")[1:] == ["1.003 ✓ met", "– not measured"]
    assert figure_row(html, "defence_cost")[1:] == ["0.004 ✓ met", "0.020 ✗ not met"]
    assert figure_row(html, "paces_macro")[1:] == ["– not measured", "– not measured"]
    assert "Of 14 figures: 3 met, 0 not met, 11 not measured" in html
    assert "on the worst split: 0 met, 2 not met, 12 not measured" in html


@pytest.mark.parametrize("bound", BOUNDS, ids=[bound.name for bound in BOUNDS])
def test_a_figure_beside_its_limit_is_judged_exactly(bound):
    """Rounding neither helps nor harms, and the digits shown say the same as the word."""
    better = 1.0 if HELD[bound.name][0] == ">=" else -1.0
    for step, met in ((0.0, True), (better * 4e-5, True), (-better * 4e-5, False)):
        found = judged(bound, bound.limit + step)
        assert found.word == ("met" if met else "not met")
        assert found.sign == SIGNS[found.word]
        assert ((float(found.number) - bound.limit) * better >= 0) is met


def test_a_figure_without_a_bound_is_still_shown(html):
    """A newer figure is not lost."""
    assert "away_macro 0.9712" in html


def test_a_figure_that_is_not_finite_is_refused(tmp_path):
    """It would be neither met nor not met."""
    with pytest.raises(InvalidInputError, match="paces_macro: expected a finite number"):
        written(tmp_path, [], {"paces_macro": float("nan")})


def test_all_sections_are_there_and_none_is_called_missing(html):
    """The made-up evaluation has something for each."""
    assert headings(html)[1:-1] == [text.title for text in TEXTS.values()]
    assert "Left out" not in html


def test_missing_parts_are_named_in_one_line_and_left_out(tmp_path):
    """One run with banks alone."""
    html = written(tmp_path, [made_outcome()])
    present = ("banks", "curves", "weeks", "reasons")
    (line,) = re.findall(r"Left out: ([^<\n]*)", html)
    for anchor, text in TEXTS.items():
        assert (text.title in headings(html)) is (anchor in present)
        assert (f"{text.title} (wants {text.wants})" in line) is (anchor not in present)


def test_without_outcomes_the_figures_are_still_shown(tmp_path):
    """And every section is named as left out."""
    html = written(tmp_path, [])
    assert headings(html) == ["Figures and what they are held to"]
    assert html.count("(wants ") == len(TEXTS)
    assert figure_row(html, "amalgamated_macro")[1] == "1.003 ✓ met"


def test_page_is_self_contained(html):
    """No address, script, image, frame, style sheet or font comes from elsewhere."""
    page = parsed(html)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"http|//[a-z]|@import|@font-face|src\s*=|<image", html)
    for name, value in page.attributes:
        assert name not in {"src", "srcset", "data", "action"}
        assert not name.startswith("on")
        if name.endswith("href"):
            assert value.startswith("#")


def test_ids_are_unique_and_their_uses_resolve(html):
    """Dozens of plots, anchors and labels stand in one document."""
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(re.findall('role="img"', html)) > 20
    assert len(ids) == len(set(ids))
    uses = re.findall(r'(?:href="#|url\(#|labelledby=")([^")]+)', html)
    assert set(uses) <= set(ids)


def test_every_plot_has_a_text_of_its_own(html):
    """For who hears the page; keys are silent, for their words stand beside them."""
    labels = re.findall(r'<svg role="img" aria-label="([^"]+)"', html)
    assert len(labels) == html.count('role="img"')
    assert len(labels) == html.count("<figure>")
    assert len(set(labels)) > 0.9 * len(labels)  # weights of one bank in two runs may be the same
    for svg in re.findall(r"<svg ([^>]*)>", html):
        assert "aria-label=" in svg or 'aria-hidden="true"' in svg


def test_tables_have_headers_for_columns_and_rows(html):
    """Of every row the first cell is a header, and rows are as wide as their head."""
    for table in re.findall(r"<table.*?</table>", html, re.DOTALL):
        head, *rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
        n = head.count('scope="col"')
        assert n == head.count("<th")
        for row in rows:
            assert row.count("<th") == 1
            assert 'scope="row' in row
            assert row.count("<td") + 1 == n or f'colspan="{n}"' in row


def test_names_are_escaped_everywhere(tmp_path):
    """A bank, run, data set, expert or reason called like a tag is shown as it is."""
    names = ("<b>", "south", '<i onload="x">&')
    outcomes = [
        msgspec.structs.replace(one, run=one.run.replace("mixed", "<u>"), data=f"{one.data}<s>")
        for one in made_evaluation(names)
    ]
    html = written(tmp_path, outcomes[:6])
    page = parsed(html)
    assert not page.tags & {"u", "s"}
    assert "onload" not in dict(page.attributes)
    assert not re.search(r"<b>(south|</)|<b></|<b>\s*<", html)
    firsts = [row[0] for row in rows_of(html)]
    assert firsts.count("<b>") >= 3
    assert '<i onload="x">&' in firsts


def test_same_outcomes_give_the_same_bytes(tmp_path, html):
    """No clock and no chance in it."""
    assert written(tmp_path, made_evaluation()) == html


def test_bank_rows_hold_the_outcomes_average_precision(html, outcomes):
    """Systems by the report's names, the run of its own among them, and the ratio to pooled."""
    lightgbm = {bank.name: bank.ap["lightgbm"] for bank in outcomes[3].banks}
    heads = [row for row in rows_of(html) if row[0] == "bank" and "AP alone" in row]
    assert heads[0][3:] == [
        "AP alone", "AP own LightGBM", "AP merged", "AP amalgamated", "AP pooled",
        "AP LightGBM pooled", "amalgamated / pooled",
    ]  # fmt: skip
    for bank in outcomes[0].banks:
        ap = bank.ap
        wanted = [ap[name] for name in ("own", "lightgbm", "merged", "blend", "pooled")]
        wanted += [lightgbm[bank.name], ap["blend"] / ap["pooled"]]
        row = [bank.name, f"{bank.n:,}", f"{bank.n_frauds:,}", *(f"{ap:.3f}" for ap in wanted)]
        assert row in rows_of(html)


def test_mean_row_is_the_mean_of_the_banks(html, outcomes):
    """Of each split and system."""
    for outcome in outcomes[:2]:
        mean = np.mean([bank.ap["blend"] for bank in outcome.banks])
        over = mean / np.mean([bank.ap["pooled"] for bank in outcome.banks])
        rows = [row for row in rows_of(html) if row[0] == "mean"]
        assert [f"{mean:.3f}", f"{over:.3f}"] in [[row[6], row[-1]] for row in rows]


def test_a_mean_without_one_bank_is_no_mean(tmp_path):
    """A bank without a fraud has no average precision; the others' mean would not compare."""
    full = made_outcome()
    quiet = msgspec.structs.replace(full.banks[1], ap={}, ap_by_week={}, curve={}, n_frauds=0)
    html = written(tmp_path, [msgspec.structs.replace(full, banks=[full.banks[0], quiet])])
    (mean,) = [row for row in rows_of(html) if row[0] == "mean"]
    assert set(mean[3:]) == {"–"}


def test_attacks_are_told_of_the_honest_banks_alone(html, outcomes):
    """The liar's own average precision is nobody's concern."""
    clean, defended, undefended = outcomes[4:7]

    def honest(outcome, system="blend"):
        return [bank.ap[system] for bank in outcome.banks[:-1]]

    ratio = min(np.array(honest(defended)) / honest(defended, "own"))
    wanted = [
        np.mean(honest(clean)),
        np.mean(honest(undefended)),
        np.mean(honest(defended)),
        np.mean(honest(defended)) / np.mean(honest(clean)),
        np.mean(honest(defended, "own")),
        ratio,
    ]
    (row,) = [row for row in rows_of(html) if row[0] == "one poisoner (west)"]
    assert row[1:] == [f"{value:.3f}" for value in wanted]
    (calm,) = [row for row in rows_of(html) if row[0] == "nobody"]
    undefended, defended = (
        np.mean([bank.ap["blend"] for bank in one.banks]) for one in (clean, outcomes[-1])
    )
    wanted = [undefended, undefended, defended, defended / undefended]
    assert calm[1:5] == [f"{value:.3f}" for value in wanted]


def test_runs_are_held_against_pooled(html, outcomes):
    """Mean of the banks, and the worst bank; a run without pooled has no share."""
    for outcome in (outcomes[1], outcomes[-1]):
        ours = np.array([bank.ap["blend"] for bank in outcome.banks])
        pooled = np.array([bank.ap["pooled"] for bank in outcome.banks])
        wanted = [ours.mean() / pooled.mean(), (ours / pooled).min()]
        (row,) = [row for row in rows_of(html) if row[:2] == [outcome.run, outcome.data]]
        assert row[5:7] == [f"{value:.3f}" for value in wanted]
    (row,) = [row for row in rows_of(html) if row[0] == "cold"]
    assert row[7] == "2.0"  # 123 seconds, in minutes
    (row,) = [row for row in rows_of(html) if row[0] == "clean_undefended"]
    assert row[5:7] == ["–", "–"]


def test_reasons_are_in_words_by_their_count(html, outcomes):
    """Over the banks, rules of several features and attributes too."""
    codes = [code for code, _ in outcomes[0].banks[0].reasons]
    counts = {code: sum(dict(b.reasons)[code] for b in outcomes[0].banks) for code in codes}
    for code in codes:
        rows = [row for row in rows_of(html) if row[0] == feature_words(code)]
        assert f"{counts[code]:,}" in [row[1] for row in rows]
        assert f"{counts[code] / sum(counts.values()):.1%}" in [row[2] for row in rows]


def test_alarms_are_counted_by_bank_and_kind(html, outcomes):
    """And told by what they were about."""
    for bank in outcomes[0].banks:
        notes = [note for note in outcomes[0].drift if note.bank == bank.name]
        counts = [sum(note.kind == kind for note in notes) for kind in ("calibration", "feature")]
        rows = [row for row in rows_of(html) if row[:3] == [bank.name, *map(str, counts)]]
        assert len(rows) == 1
        for note in notes:
            words = feature_words(note.subject)
            assert note.kind != "feature" or words in rows[0][3] or rows[0][3].count(";") == 2


def test_the_same_system_has_the_same_colour_everywhere(html):
    """In every legend, be it of curves, weeks or weights."""
    found = re.findall(r"stroke: var\(--([a-z0-9-]+)\)[^/]*/></svg>([^<]*)</li>", html)
    words = {"own scorecard": "alone", "merged scorecard": "merged", "joined cold": "amalgamated"}
    colours = {}
    for look, name in found:
        colours.setdefault(words.get(name, name), set()).add(look)
    assert all(len(looks) == 1 for looks in colours.values())
    assert colours["alone"] == {"local"}
    assert colours["LightGBM pooled"] == {"pooled-lightgbm"}
    assert colours["mlp"] != colours["river"]


def test_two_outcomes_of_one_run_and_data_are_refused(tmp_path):
    """Else one of them would be shown by chance."""
    with pytest.raises(InvalidInputError, match="expected one of amalgamated on handbook-7"):
        written(tmp_path, [made_outcome(), made_outcome(seed=2)])


def test_weeks_must_fit_their_figures(tmp_path):
    """Else a curve would stand at wrong dates."""
    wrong = msgspec.structs.replace(made_outcome(), weeks=[FIRST_DAY])
    with pytest.raises(InvalidInputError, match="of 1 weeks, got 4"):
        written(tmp_path, [wrong])


def test_main_run_is_never_one_of_attack_or_comparison():
    """Amalgamated before all_scorecard; else the first of what is left."""
    named = [made_outcome(run, seed=k) for k, run in enumerate(("pooled", "one_poisoner", "mixed"))]
    assert [one.run for one in main_runs(prepared(named))] == ["mixed"]
    named += [made_outcome("all_scorecard"), made_outcome(), made_outcome(data="handbook-99")]
    found = [(one.run, one.data) for one in main_runs(prepared(named))]
    assert found == [("amalgamated", "handbook-7"), ("amalgamated", "handbook-99")]
    foreign = made_outcome("foreign_all_scorecard", "foreign-1")
    assert main_runs([*named, foreign], foreign=True) == [foreign]


def test_bare_outcomes_do_no_harm(tmp_path):
    """No banks; a bank with nothing; weights without experts; a week or a join without a fraud."""
    bare = Outcome(run="x", data="y", banks=[], seconds=0.0)
    nothing = made_outcome(data="z", systems={"blend": 0.5}, n_weeks=1, cold=[(0.0, None, None)])
    weeks = [msgspec.structs.replace(b, ap_by_week={"blend": [None]}) for b in nothing.banks]
    blends = [{"day": FIRST_DAY, "bank": "north", "weights": {}}]
    nothing = msgspec.convert(
        msgspec.to_builtins(msgspec.structs.replace(nothing, banks=weeks)) | {"blends": blends},
        Outcome,
    )
    assert "A bank that joins cold" in headings(written(tmp_path, [bare, nothing]))


def _lab(rgb):
    """Return CIE L*a*b* (D65) of linear RGB."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def _linear(colour):
    v = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


# Machado, Oliveira & Fernandes (2009), severity 1
VISION = {
    "all": np.eye(3).tolist(),
    "no red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "no green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "no blue": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("theme", [0, 1, 2], ids=["light", "dark", "print"])
def test_systems_are_told_apart_by_the_colour_blind(vision, theme):
    """20 apart in CIE 1976, ten times what is just seen, in all themes; and 3:1 to the paper."""
    css = LOOK.read_text(encoding="utf-8").split(":root")[theme + 1]
    systems = [name for name in COLOURS if not name.startswith("other")]
    found = {name: re.findall(rf"--{name}: (#\w{{6}})", css)[0] for name in systems}
    seen = {k: _lab(np.array(VISION[vision]) @ _linear(v)) for k, v in found.items()}
    for one, other in combinations(systems, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 20, (one, other)
    light = np.array([0.2126, 0.7152, 0.0722])
    paper = light @ _linear(["#ffffff", "#14191d", "#ffffff"][theme])
    for colour in found.values():
        both = sorted([paper, light @ _linear(colour)])
        assert (both[1] + 0.05) / (both[0] + 0.05) >= 3
