"""Every figure of the evaluation, from outcomes written by hand."""

import pytest

from deploy.detection.figures import detection_figures
from deploy.detection.outcome import BankOutcome, Outcome

BANKS = ("a", "b", "c", "d")


def outcome(run, *, data="s1", subjects=(), figures=None, frauds=(5, 5, 5, 5), **systems):
    """Return an outcome of four banks; each system has one average precision per bank."""
    banks = [
        BankOutcome(
            name=name,
            n=100,
            n_frauds=frauds[i],
            ap={system: aps[i] for system, aps in systems.items() if aps[i] is not None},
        )
        for i, name in enumerate(BANKS)
    ]
    return Outcome(
        run=run,
        data=data,
        banks=banks,
        seconds=1.0,
        subjects=list(subjects),
        figures=figures or {},
    )


POOLED = outcome("pooled", pooled=(0.8, 0.6, 0.5, 0.1))  # macro .5


def of_split(*outcomes):
    """Return the figures of one split."""
    return detection_figures(outcomes, splits=["s1"], sources=[])


@pytest.mark.parametrize(
    ("run", "figure"),
    [
        ("all_scorecard", "all_scorecard_macro"),
        ("amalgamated", "amalgamated_macro"),
        ("paces", "paces_macro"),
        ("probe_only", "probe_only_macro"),
    ],
)
def test_macro_is_the_ratio_of_the_means_over_banks(run, figure):
    """(.4 + .6 + .5 + .3) / 4 = .45, over .5; not the mean of the banks' ratios."""
    found = of_split(POOLED, outcome(run, blend=(0.4, 0.6, 0.5, 0.3))).values
    assert found[figure] == pytest.approx(0.45 / 0.5)
    assert found[f"{figure}_worst"] == pytest.approx(0.45 / 0.5)


@pytest.mark.parametrize(
    ("run", "figure"),
    [("all_scorecard", "all_scorecard_worst_bank"), ("mixed", "mixed_worst_bank")],
)
def test_worst_bank_is_the_least_of_the_banks_ratios(run, figure):
    """.4/.8 = .5, .6/.6 = 1, .45/.5 = .9, .3/.1 = 3."""
    found = of_split(POOLED, outcome(run, blend=(0.4, 0.6, 0.45, 0.3))).values
    assert found[figure] == pytest.approx(0.5)


def test_amalgamated_is_held_against_lightgbm_on_pooled_rows():
    """(.6 + .6 + .6 + .2) / (.5 + .5 + .5 + .1) = 2 / 1.6."""
    found = of_split(
        outcome("amalgamated", blend=(0.6, 0.6, 0.6, 0.2)),
        outcome("pooled_lightgbm", lightgbm=(0.5, 0.5, 0.5, 0.1)),
    ).values
    assert found["amalgamated_vs_pooled_lightgbm"] == pytest.approx(2.0 / 1.6)


@pytest.mark.parametrize(
    ("run", "system", "figure"),
    [
        ("all_scorecard", "own", "alone_ap"),
        ("pooled", "pooled", "pooled_ap"),
        ("pooled_lightgbm", "lightgbm", "pooled_lightgbm_ap"),
        ("amalgamated", "blend", "amalgamated_ap"),
    ],
)
def test_average_precisions_stand_beside_their_ratios(run, system, figure):
    """(.4 + .6 + .5 + .3) / 4 = .45."""
    found = of_split(outcome(run, **{system: (0.4, 0.6, 0.5, 0.3)})).values
    assert found[figure] == pytest.approx(0.45)


def currency(known, unaligned, aligned):
    """Return the figures when bank c pays in another currency; the others' figures are far off."""
    return of_split(
        outcome("all_scorecard", blend=(0.9, 0.9, known, 0.9)),
        outcome("currency_unaligned", subjects=["c"], blend=(0.1, 0.2, unaligned, 0.3)),
        outcome("currency_aligned", subjects=["c"], blend=(0.5, 0.4, aligned, 0.6)),
    )


def test_recovered_is_what_alignment_gives_back_of_the_loss_at_that_bank():
    """Known .77, unaligned .71, aligned .76: .05 of .06."""
    found = currency(0.77, 0.71, 0.76).values
    assert found["currency_loss_recovered"] == pytest.approx(0.05 / 0.06)


def test_recovered_by_all_is_the_same_of_the_mean_over_all_banks():
    """Known .9 + .9 + .77 + .9, unaligned .1 + .2 + .71 + .3, aligned .5 + .4 + .76 + .6."""
    found = currency(0.77, 0.71, 0.76).values
    assert found["currency_loss_recovered_by_all"] == pytest.approx(0.95 / 2.16)


def test_nothing_is_recovered_where_nothing_was_lost():
    """A share of no loss is not a number: it is left out, and says so."""
    found = currency(0.71, 0.71, 0.76)
    assert "currency_loss_recovered" not in found.values
    assert "cost nothing" in found.left_out["currency_loss_recovered"]


def test_cold_bank_is_held_against_itself_warm():
    """.66 / .75."""
    found = of_split(outcome("cold", figures={"cold_settled": 0.66, "warm_settled": 0.75})).values
    assert found["cold_bank_day21"] == pytest.approx(0.88)


def test_a_cold_bank_without_three_weeks_has_no_figure():
    """The window was too short."""
    found = of_split(outcome("cold"))
    assert "cold_bank_day21" not in found.values
    assert "three weeks" in found.left_out["cold_bank_day21"]


def test_honest_banks_are_held_against_the_clean_undefended_run():
    """Without b: (.4 + .3 + .2) / (.5 + .3 + .2); b lies and has fallen far."""
    found = of_split(
        outcome("one_poisoner", subjects=["b"], blend=(0.4, 0.01, 0.3, 0.2)),
        outcome("clean_undefended", blend=(0.5, 0.6, 0.3, 0.2)),
    ).values
    assert found["one_poisoner_honest"] == pytest.approx(0.9 / 1.0)


def test_two_poisoners_leave_each_honest_bank_beside_its_own_scorecard():
    """a: .8 / .5 = 1.6, d: .19 / .2 = .95; the liars b and c do not count."""
    found = of_split(
        outcome(
            "two_poisoners",
            subjects=["b", "c"],
            blend=(0.8, 0.1, 0.1, 0.19),
            own=(0.5, 0.9, 0.9, 0.2),
        )
    ).values
    assert found["two_poisoners_worst_vs_local"] == pytest.approx(0.95)


def test_defence_costs_what_a_clean_run_loses_by_it():
    """Clean 2.0 / 4, defended 1.9 / 4: five in a hundred."""
    found = of_split(
        outcome("all_scorecard", blend=(0.5, 0.5, 0.5, 0.4)),
        outcome("clean_undefended", blend=(0.5, 0.5, 0.5, 0.5)),
    ).values
    assert found["defence_cost"] == pytest.approx(1.0 - 1.9 / 2.0)


def test_figures_are_means_over_splits_and_the_worst_split():
    """Ratios .9 and .7: mean .8, worst .7; of a cost .05 and .15 the worst is the higher."""
    outcomes = []
    for data, macro, clean in (("s1", 0.9, 0.9 / 0.95), ("s2", 0.7, 0.7 / 0.85)):
        outcomes += [
            outcome("pooled", data=data, pooled=(1.0,) * 4),
            outcome("all_scorecard", data=data, blend=(macro,) * 4),
            outcome("clean_undefended", data=data, blend=(clean,) * 4),
        ]
    found = detection_figures(outcomes, splits=["s1", "s2"], sources=[]).values
    assert found["all_scorecard_macro"] == pytest.approx(0.8)
    assert found["all_scorecard_macro_worst"] == pytest.approx(0.7)
    assert found["defence_cost"] == pytest.approx(0.1)
    assert found["defence_cost_worst"] == pytest.approx(0.15)


def test_a_run_that_misses_on_one_split_leaves_its_figures_out():
    """A mean over fewer splits would be another figure."""
    outcomes = [outcome("pooled", data=data, pooled=(0.5,) * 4) for data in ("s1", "s2")] + [
        outcome("paces", data="s1", blend=(0.5,) * 4)
    ]
    found = detection_figures(outcomes, splits=["s1", "s2"], sources=[])
    assert found.values.keys() == {"pooled_ap", "pooled_ap_worst"}
    assert found.left_out["paces_macro"] == "s2: no outcome of paces"
    assert found.left_out["mixed_worst_bank"] == (
        "s1: no outcome of mixed; s2: no outcome of mixed"
    )


def test_runs_over_other_rows_are_not_compared():
    """One run took in a fraud more."""
    found = of_split(POOLED, outcome("paces", blend=(0.5,) * 4, frauds=(5, 5, 6, 5)))
    assert "same rows at c" in found.left_out["paces_macro"]


def test_a_bank_without_frauds_does_not_count():
    """Of three banks: (.4 + .6 + .5) / (.8 + .6 + .6)."""
    frauds = (5, 5, 5, 0)
    found = of_split(
        outcome("pooled", pooled=(0.8, 0.6, 0.6, None), frauds=frauds),
        outcome("paces", blend=(0.4, 0.6, 0.5, None), frauds=frauds),
    ).values
    assert found["paces_macro"] == pytest.approx(1.5 / 2.0)


def foreign(pooled=(0.7, 0.7, 0.7, 0.7)):
    """Return the figures of another source; the best alone are .5, .5, .4 and .2, mean .4."""
    return detection_figures(
        [
            outcome(
                "foreign_amalgamated",
                data="foreign",
                blend=(0.6, 0.6, 0.5, 0.18),
                own=(0.5, 0.3, 0.4, 0.1),
            ),
            outcome("foreign_local_lightgbm", data="foreign", lightgbm=(0.4, 0.5, 0.3, 0.2)),
            outcome("foreign_pooled_lightgbm", data="foreign", lightgbm=pooled),
        ],
        splits=[],
        sources=["foreign"],
    )


def test_worst_bank_is_held_against_the_best_that_it_does_alone():
    """.6/.5, .6/.5, .5/.4, .18/.2 = .9."""
    assert foreign().values["foreign_worst_bank_vs_best_local"] == pytest.approx(0.9)


def test_a_bank_whose_scorecard_never_began_has_its_lightgbm_alone():
    """Bank d: .18 / .2, the others .9 / .5."""
    found = detection_figures(
        [
            outcome(
                "foreign_amalgamated",
                data="foreign",
                blend=(0.9, 0.9, 0.9, 0.18),
                own=(0.5, 0.5, 0.5, None),
            ),
            outcome("foreign_local_lightgbm", data="foreign", lightgbm=(0.4, 0.4, None, 0.2)),
        ],
        splits=[],
        sources=["foreign"],
    )
    assert found.values["foreign_worst_bank_vs_best_local"] == pytest.approx(0.9)
    assert found.left_out["foreign_gap_closed"] == "foreign: no outcome of foreign_pooled_lightgbm"


def test_gap_closed_is_the_way_from_alone_to_pooled():
    """Alone .4, together .47, pooled .7: .07 / .3."""
    assert foreign().values["foreign_gap_closed"] == pytest.approx(0.07 / 0.3)


def scales(*, is_aligned):
    """Return the figures when bank c writes in scales of its own; half of them without its run."""
    runs = [
        outcome("foreign_all_scorecard", data="foreign", blend=(0.9, 0.9, 0.5, 0.9)),
        outcome("foreign_scales_unaligned", data="foreign", subjects=["c"], blend=(0, 0, 0.4, 0)),
        outcome("foreign_scales_aligned", data="foreign", subjects=["c"], blend=(0, 0, 0.46, 0)),
    ]
    return detection_figures(runs[: 2 + is_aligned], splits=[], sources=["foreign"])


def test_what_scales_cost_is_told_where_it_was_asked_for():
    """.06 of .1; nobody misses it otherwise."""
    name = "foreign_scale_loss_recovered"
    assert scales(is_aligned=True).values[name] == pytest.approx(0.6)
    without = scales(is_aligned=False)
    assert name not in without.values
    assert name not in without.left_out


def test_there_is_no_gap_where_pooled_data_gain_nothing():
    """Pooled LightGBM .3 is below .4 alone."""
    found = foreign(pooled=(0.3, 0.3, 0.3, 0.3))
    assert "foreign_gap_closed" not in found.values
    assert found.left_out["foreign_gap_closed"] == "foreign: pooled data gain nothing"
