"""The suite: figures from made-up runs, and small consortia in which banks really lie."""

from io import StringIO

import pytest
from rich.console import Console

from deploy import attack_suite
from deploy.attack_suite import (
    Outcome,
    Run,
    Suite,
    SuiteConfig,
    liars_of,
    run_suite,
    simulated_suite,
    suite_figures,
    suite_table,
)
from models.errors import InvalidInputError

BANKS = ("bank-1", "bank-2", "bank-3")


def made_run(precisions, *, liars=(), doubted=(0, 0, 0)):
    """Return a run of three banks, alone at .5, .4 and .25."""
    return Run(
        average_precision=dict(zip(BANKS, precisions, strict=True)),
        alone=dict(zip(BANKS, (0.5, 0.4, 0.25), strict=True)),
        liars=liars,
        weights=dict.fromkeys(BANKS, (1.0, 1.0)) | dict.fromkeys(liars, (0.0, 0.5)),
        why=dict.fromkeys(BANKS, ()) | dict.fromkeys(liars, ("flags", "norm")),
        doubted_days=dict(zip(BANKS, doubted, strict=True)),
        n_days=10,
    )


CLEAN = made_run((0.8, 0.6, 0.7))
LIED = {"liars": ("bank-2",)}
SUITE = Suite(
    clean=CLEAN,
    defended=made_run((0.8, 0.6, 0.658)),
    outcomes=(
        Outcome(
            name="hide",
            clean=CLEAN,
            undefended=made_run((0.4, 0.1, 0.2), **LIED),
            defended=made_run((0.75, 0.1, 0.6), doubted=(2, 9, 1), **LIED),
        ),
    ),
)


def test_figures_are_means_of_the_honest_banks():
    """Against clean, and the worst one against itself alone."""
    assert suite_figures(SUITE) == pytest.approx(
        {
            "clean_average_precision": 0.7,
            "clean_defended_average_precision": 0.686,
            "defence_cost": 0.02,
            "clean_doubted_days": 0.0,
            "hide_alone": 0.375,
            "hide_undefended": 0.3,
            "hide_defended": 0.675,
            "hide_of_clean": 0.9,
            "hide_worst_vs_local": 1.5,
            "hide_false_days": 3.0,
        }
    )


def test_the_table_says_what_a_liar_counts_for_and_why():
    """Weights of evidence / statistics, reasons, and days on which an honest bank was doubted."""
    console = Console(width=160, record=True, file=StringIO())
    console.print(suite_table(SUITE))
    row = next(line for line in console.export_text().splitlines() if "hide" in line)
    words = ["hide", "0.375", "0.750", "0.300", "0.675", "0.900", "1.500", "0/0.5", "flags", "norm"]
    assert row.split() == [*words, "3/20"]


def test_an_unknown_attack_is_refused(tmp_path):
    """With the names of all."""
    with pytest.raises(InvalidInputError, match="two-hide"):
        SuiteConfig(file=tmp_path, mapping=tmp_path, attacks=("bribe",))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return the suite on 18 simulated days, and its data."""
    path = tmp_path_factory.mktemp("suite") / "payments.parquet"
    config = simulated_suite((), path, seed=1, n_days=18)
    return config, attack_suite._read(config)


def test_the_second_largest_bank_lies_first(small):
    """Shares of 40, 25, 15, 12 and 8 %."""
    _, data = small
    assert liars_of(data, 2) == ("bank-2", "bank-3")
    assert liars_of(data, 0) == ()


def test_entity_kinds_that_the_file_lacks_are_refused(small):
    """By name."""
    config, _ = small
    with pytest.raises(InvalidInputError, match="got face"):
        attack_suite._read(attack_suite.replace(config, entity_kinds=("face",)))


@pytest.mark.slow
def test_every_attack_leaves_the_honest_banks_nearly_what_they_had(small):
    """Defended; undefended, the worst ones take away a tenth or more."""
    config, _ = small
    suite = run_suite(
        attack_suite.replace(config, attacks=tuple(attack_suite.ATTACKS)), lambda text: None
    )
    assert suite.defended.macro(list(suite.defended.alone)) >= 0.99 * suite.clean.macro(
        list(suite.clean.alone)
    )
    for one in suite.outcomes:
        clean, defended = one.clean.macro(one.honest), one.defended.macro(one.honest)
        # So few days leave little to learn from once up to 40 % of the data are left out.
        assert defended >= (0.88 if len(one.defended.liars) == 1 else 0.65) * clean, one.name
        assert one.false_days == 0, one.name
    by_name = {one.name: one for one in suite.outcomes}
    for name in ("label-flip", "count-flip", "bend", "two-label-flip", "two-flood"):
        one = by_name[name]
        assert one.undefended.macro(one.honest) < 0.9 * one.clean.macro(one.honest), name
