"""The plans are of the right banks, fit for the pipelines, and each run differs as it says."""

import pytest

from deploy.attacks import flip_labels
from deploy.detection.plans import BASE, DAY_MS, scale_runs, split_runs, usual_runs
from deploy.runs import pipeline_config
from models.errors import InvalidInputError
from models.families.registry import make_family
from models.schema import Schema, attribute_specs

BANKS = ("north", "south", "east", "west", "centre")
FIRST_MS = 20_000 * DAY_MS
RUNS = {run.name: run for run in split_runs(BANKS, FIRST_MS)}


def test_each_run_has_a_name_of_its_own():
    """Outcomes are files by name; all the runs that figures are made of are there."""
    assert len(RUNS) == len(split_runs(BANKS, FIRST_MS))
    assert RUNS.keys() == {
        "pooled",
        "pooled_lightgbm",
        "all_scorecard",
        "amalgamated",
        "mixed",
        "paces",
        "probe_only",
        "cold",
        "away",
        "drift_watched",
        "currency_unaligned",
        "currency_aligned",
        "clean_undefended",
        "one_poisoner",
        "one_poisoner_undefended",
        "two_poisoners",
    }


@pytest.mark.parametrize("run", [*RUNS.values(), *usual_runs("x_")])
def test_a_plan_names_known_banks_and_families_that_can_be_made(run):
    """Its subjects are those that it treats apart, and what it needs is kept by another run."""
    assert set(run.plan.banks) <= set(BANKS)
    assert set(run.subjects) <= set(run.plan.banks)
    for bank in BANKS:
        config = pipeline_config(run.plan, bank, Schema(entity_kinds=("terminal",)))
        for spec in config.families:
            make_family(spec, seed=0)
    if run.needs:
        keeping = {one.name for one in (*RUNS.values(), *usual_runs("x_")) if one.keeps_rows}
        assert run.needs in keeping


def test_mixed_gives_each_bank_another_list():
    """Boosting, a net, the scorecard alone, and two of river's."""
    lists = [RUNS["mixed"].plan.of(bank).families for bank in BANKS]
    assert len(set(lists)) == 5
    assert () in lists


def test_paces_are_one_to_seven_days():
    """In the order of size."""
    days = [RUNS["paces"].plan.of(bank).statistics_s / 86_400.0 for bank in BANKS]
    assert days == [1.0, 1.0, 2.0, 3.0, 7.0]


def test_the_smallest_bank_joins_on_the_first_day_evaluated():
    """It is held against the base run."""
    cold = RUNS["cold"]
    assert cold.subjects == ("centre",)
    assert cold.plan.of("centre").joins_ms == FIRST_MS
    assert cold.plan.of("west").joins_ms is None
    assert cold.needs == BASE


def test_a_bank_is_away_for_two_weeks_within_the_window():
    """From two weeks after its start."""
    since_ms, until_ms = RUNS["away"].plan.of(RUNS["away"].subjects[0]).away_ms
    assert since_ms == FIRST_MS + 14 * DAY_MS
    assert until_ms - since_ms == 14 * DAY_MS


def test_the_third_bank_pays_in_another_currency():
    """The same factor, told and not told."""
    for name, is_known in (("currency_unaligned", True), ("currency_aligned", False)):
        plan = RUNS[name].plan.of("east")
        assert (plan.amount_factor, plan.is_unit_known) == (11.3, is_known)
        assert pipeline_config(RUNS[name].plan, "east", Schema(entity_kinds=())).is_unit_known is (
            is_known
        )


@pytest.mark.parametrize(
    ("name", "liars", "is_defended"),
    [
        ("clean_undefended", (), False),
        ("one_poisoner", ("south",), True),
        ("one_poisoner_undefended", ("south",), False),
        ("two_poisoners", ("south", "east"), True),
    ],
)
def test_liars_learn_the_opposite(name, liars, is_defended):
    """The rest is honest."""
    run = RUNS[name]
    assert run.subjects == liars
    assert (run.plan.trust is not None) is is_defended
    for bank in BANKS:
        assert run.plan.of(bank).relabel is (flip_labels if bank in liars else None)


def test_two_banks_are_too_few_for_a_split():
    """There would be no third."""
    with pytest.raises(InvalidInputError, match="at least 3 banks, got 2"):
        split_runs(("a", "b"), 0)


def test_scales_are_another_s_where_they_are_named():
    """One bank's, known by nobody or told to be unknown."""
    unaligned, aligned = scale_runs("b", "foreign_")
    schema = Schema(entity_kinds=(), attributes=attribute_specs({"x": "number", "y": "text"}))
    for run, unknown in ((unaligned, frozenset()), (aligned, {"x"})):
        assert run.name.startswith("foreign_scales_")
        assert run.is_named
        assert run.subjects == ("b",)
        assert run.plan.banks["b"].has_own_scales
        assert pipeline_config(run.plan, "b", schema).unknown_scales == unknown
        assert pipeline_config(run.plan, "a", schema).unknown_scales == frozenset()


def test_any_data_set_gets_four_runs():
    """Their names say of which."""
    names = [run.name for run in usual_runs("foreign_")]
    assert names == [
        "foreign_all_scorecard",
        "foreign_amalgamated",
        "foreign_pooled_lightgbm",
        "foreign_local_lightgbm",
    ]
