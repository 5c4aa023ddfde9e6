"""Runs in processes of their own: outcomes as files, done ones skipped, failures told."""

from dataclasses import replace
from multiprocessing import Value

import numpy as np
import pytest
from rich.progress import Progress

from deploy.bank_rows import read_bank_rows
from deploy.detection import __main__ as command
from deploy.detection import execute as execution
from deploy.detection.execute import Job, execute
from deploy.detection.kept_rows import kept_rows
from deploy.detection.outcome import Outcome, read_outcome, write_outcome
from deploy.detection.plans import DetectionRun, RowSource, scale_runs, usual_runs
from deploy.detection.runner import Failure, is_done, run_job, run_jobs
from deploy.runs import BankPlan, ConsortiumRun, RunPlan
from models.errors import InvalidInputError
from models.evaluation import average_precision
from tests.unit.deploy.small_backtest import DAY_MS, MAPPING, write_small

pytestmark = pytest.mark.slow

USUAL = BankPlan()
PLAN = RunPlan(label_delay_s=2 * 86_400.0, cadence_s=86_400.0)
PREFIX = "small_"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return a file of two banks and twelve days, of which the last four are evaluated."""
    file = write_small(tmp_path_factory.mktemp("detection") / "small.parquet", n_days=12)
    return RowSource(name="small", file=file, mapping=MAPPING)


def jobs_of(source, folder):
    """Return the four usual runs with short delays."""
    return [
        Job(source=source, folder=folder, run=replace(run, plan=replace(PLAN, usual=USUAL)))
        for run in usual_runs(PREFIX)
    ]


@pytest.fixture(scope="module")
def data(source):
    """Return its rows."""
    return read_bank_rows(source.file, source.mapping)


@pytest.fixture(scope="module")
def by_hand(data):
    """Return what the base run's plan gives."""
    return ConsortiumRun(PLAN, data).run()


@pytest.fixture(scope="module")
def done(source, tmp_path_factory):
    """Return the folder in which the base run and the yardsticks lie, and all jobs."""
    folder = tmp_path_factory.mktemp("outcomes")
    jobs = jobs_of(source, folder)
    for job in jobs:
        write_outcome(job.path, execute(job, lambda _: None))
    return folder, jobs


def run_quietly(jobs, *, again=False, n_processes=1):
    """Run jobs; return failures and what was said."""
    said = []
    with Progress(disable=True) as progress:
        failures = run_jobs(jobs, progress, said.append, n_processes=n_processes, again=again)
    return failures, said


def test_an_outcome_is_that_of_the_same_consortium_run_by_hand(data, by_hand, done):
    """Average precision of each bank and expert over the last third of the days."""
    outcome, result = read_outcome(done[1][0].path), by_hand
    day = data.batch.event_time_ms // DAY_MS
    for i, bank in enumerate(outcome.banks):
        rows = (data.bank == i) & (day > day.max() - 4)
        assert bank.n == int(rows.sum())
        for system in ("own", "merged", "blend"):
            scores = getattr(result, system)[rows]
            scores = np.where(np.isnan(scores), -4.5, scores)
            assert bank.ap[system] == average_precision(data.is_fraud[rows], scores)
    assert outcome.release_id == result.release_id
    assert outcome.bases
    assert {note.bank for note in outcome.trust} == set(data.names)
    assert sum(n for bank in outcome.banks for _, n in bank.reasons) == result.reasons.total()


def test_kept_rows_are_those_that_were_scored(data, by_hand, done):
    """The amount is in the right row, own evidence differs from shared, scores are the blend's."""
    folder, jobs = done
    kept = kept_rows(folder, jobs[0].run.name)
    assert np.allclose(kept.features[:, 0], np.log1p(data.batch.amount), rtol=1e-6)
    everything = np.arange(len(data.batch))
    own, shared = kept.own_rows(everything), kept.shared_rows(everything)
    is_other = (~((own == shared) | (np.isnan(own) & np.isnan(shared)))).any(axis=0)
    assert is_other.any()
    assert not is_other[:20].any()  # of accounts
    assert not is_other[-1]  # the attribute
    assert np.array_equal(kept.blend, by_hand.blend)


def test_yardsticks_learn_from_all_banks_or_from_one(done):
    """They differ, and both are of the rows of the base run."""
    base, _, pooled, local = (read_outcome(job.path) for job in done[1])
    for i, bank in enumerate(base.banks):
        for one in (pooled, local):
            assert (one.banks[i].n, one.banks[i].n_frauds) == (bank.n, bank.n_frauds)
            assert one.banks[i].ap["lightgbm"] > bank.n_frauds / bank.n
        assert pooled.banks[i].ap != local.banks[i].ap


def test_a_bank_that_joins_cold_is_held_against_the_base_run(source, data, done):
    """The warm figure of its first week is that of the same rows in the base run."""
    folder, jobs = done
    joins_ms = int(data.batch.event_time_ms.max() // DAY_MS - 3) * DAY_MS
    plan = replace(PLAN, banks={"bank-2": BankPlan(joins_ms=joins_ms)})
    run = DetectionRun(name="cold", plan=plan, subjects=("bank-2",), needs=jobs[0].run.name)
    outcome = execute(Job(source=source, run=run, folder=folder), lambda _: None)
    ((week, cold, warm),) = outcome.cold
    rows = (data.bank == 1) & (data.batch.event_time_ms >= joins_ms)
    blend = kept_rows(folder, jobs[0].run.name).blend
    assert week == 0.0
    assert warm == average_precision(data.is_fraud[rows], blend[rows])
    assert cold == outcome.banks[1].ap["blend"]
    assert cold != warm
    assert outcome.figures == {}


def test_an_unknown_unit_and_a_factor_reach_the_bank(data):
    """Amounts times a factor change the scores; the amounts of the other bank stay."""
    seen = {}

    def note(pipeline, rows):
        seen.setdefault(pipeline.config.member, []).append(
            (rows, pipeline.log.features[-len(rows) :, 0].copy())
        )

    plan = replace(PLAN, banks={"bank-2": BankPlan(amount_factor=11.3, is_unit_known=False)})
    run = ConsortiumRun(plan, data, on_taken=note)
    assert not run.pipelines["bank-2"].units.is_aligned
    run.run()
    for name, factor in (("bank-1", 1.0), ("bank-2", 11.3)):
        for rows, log_amount in seen[name][:20]:
            expected = np.log1p(data.batch.amount[rows] * factor)
            assert np.allclose(log_amount, expected, rtol=1e-6)


def test_scores_of_families_are_by_name(data):
    """The bank that runs one has scores by it, the other has none."""
    spec = "lightgbm {min_n = 500, min_frauds = 10, n_trees = 5}"
    result = ConsortiumRun(replace(PLAN, banks={"bank-1": BankPlan(families=(spec,))}), data).run()
    assert list(result.families) == ["lightgbm"]
    assert np.isfinite(result.families["lightgbm"][data.bank == 0]).any()
    assert np.isnan(result.families["lightgbm"][data.bank == 1]).all()


def test_what_is_done_is_not_done_again(done):
    """No process is started, and no file is touched."""
    folder, jobs = done
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    failures, said = run_quietly(jobs)
    assert failures == []
    assert said == ["4 of 4 runs are done already"]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_run_that_keeps_rows_is_not_done_without_them(done, tmp_path):
    """Others would need them."""
    base = replace(done[1][0], folder=tmp_path)
    write_outcome(base.path, Outcome(run="x", data="small", banks=[], seconds=0.0))
    assert not is_done(base)


def test_runs_go_on_in_processes_beside_one_that_fails(source, tmp_path):
    """The outcome is there; the failure says why; who needs the failed run is left out."""
    good = Job(source=source, folder=tmp_path, run=DetectionRun(name="good", plan=PLAN))
    missing = replace(source, file=tmp_path / "nowhere.parquet")
    bad = Job(
        source=missing,
        folder=tmp_path,
        run=DetectionRun(name="bad", plan=PLAN, keeps_rows=True),
    )
    after = Job(
        source=source,
        folder=tmp_path,
        run=DetectionRun(name="after", kind="pooled_lightgbm", plan=PLAN, needs="bad"),
    )
    failures, said = run_quietly([after, good, bad], n_processes=2)
    why = {failure.job.run.name: failure.why for failure in failures}
    assert why.keys() == {"bad", "after"}
    assert "nowhere.parquet" in why["bad"]
    assert why["after"] == "needs bad, which has no outcome"
    assert read_outcome(good.path).run == "good"
    assert read_outcome(good.path).seconds > 0.0
    assert sum("failed" in line for line in said) == 2
    assert sum("small good" in line for line in said) == 1


def test_an_unexpected_failure_says_where_and_not_what(source, tmp_path, monkeypatch):
    """Its message could hold a value of a record."""

    def broken(_):
        account = "A" + "0000017"  # the line itself may be told
        raise KeyError(account)

    job = Job(source=source, folder=tmp_path, run=DetectionRun(name="broken", plan=PLAN))
    monkeypatch.setitem(execution._KINDS, "consortium", broken)
    with pytest.raises(SystemExit) as stopped:
        run_job(job, Value("d", 0.0))
    text = (tmp_path / "broken.failed").read_text(encoding="utf-8")
    assert stopped.value.code == 1
    assert text.startswith("KeyError at")
    assert "in broken" in text
    assert "A0000017" not in text
    assert not job.path.exists()


def test_again_leaves_nothing_old_behind_a_failure(source, tmp_path, monkeypatch):
    """An old outcome would pass for a new one."""
    job = Job(
        source=replace(source, file=tmp_path / "gone.parquet"),
        folder=tmp_path,
        run=DetectionRun(name="old", plan=PLAN),
    )
    write_outcome(job.path, Outcome(run="old", data="small", banks=[], seconds=0.0))
    monkeypatch.setattr(
        "deploy.detection.runner._Runner._start", lambda self, _: self._waiting.clear()
    )
    run_quietly([job], again=True)
    assert not job.path.exists()


def test_command_gives_figures_and_page_of_outcomes_and_tells_failures(
    source, done, tmp_path, monkeypatch
):
    """All is done here; one failure makes the exit code 1."""
    folder, jobs = done
    work = tmp_path / "work"
    work.mkdir()
    (work / "small").symlink_to(folder)
    results = tmp_path / "detection.json"
    arguments = [str(source.file), "--mapping", str(MAPPING), "--work", str(work)]
    report = tmp_path / "detection.html"
    written = ["--results", str(results), "--report", str(report)]
    assert command.main([*arguments, *written]) == 0
    assert "data:image" in (page := report.read_text(encoding="utf-8")) or "<svg" in page
    text = results.read_text(encoding="utf-8")
    assert "small_worst_bank_vs_best_local" in text
    monkeypatch.setattr(command, "run_jobs", lambda *_, **__: [Failure(jobs[0], "no memory")])
    with command.console.capture() as shown:
        assert command.main(arguments) == 1
    assert "small small_all_scorecard failed: no memory" in shown.get()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected FILE with --mapping"),
        (["x.csv"], "expected --mapping"),
        (["--handbook", "x.parquet", "--only", "mixd"], "--only: expected some of"),
        (["--handbook", "x.parquet", "--processes", "0"], "--processes: expected 1 or more"),
    ],
)
def test_command_refuses_what_it_cannot_run(arguments, message):
    """With a message and the exit code 1."""
    with command.console.capture() as shown:
        assert command.main(arguments) == 1
    assert message in shown.get()


def test_chosen_runs_bring_those_that_they_need():
    """And nothing else."""
    source = RowSource(name="x", file=MAPPING, mapping=MAPPING)
    runs = (*usual_runs(), *scale_runs("bank-1", ""))
    jobs = [Job(source=source, run=run, folder=MAPPING.parent) for run in runs]
    chosen = [job.run.name for job in command.chosen(jobs, ["local_lightgbm"])]
    assert chosen == ["all_scorecard", "local_lightgbm"]
    assert [job.run for job in command.chosen(jobs, [])] == list(usual_runs())
    assert [job.run.name for job in command.chosen(jobs, ["scales_aligned"])] == ["scales_aligned"]
    with pytest.raises(InvalidInputError, match="got nothing_such"):
        command.chosen(jobs, ["nothing_such"])
