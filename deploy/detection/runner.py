"""Runs in processes of their own, a few at a time; what is done is not done again.

Every process reads the file by itself. A run that fails leaves a message beside where its outcome
would be, and the others go on.
"""

import contextlib
import multiprocessing
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from rich.progress import Progress, TaskID

from deploy.detection.execute import Job, execute
from deploy.detection.kept_rows import are_kept
from deploy.detection.outcome import write_outcome
from models.errors import AmalgamError

_POLL_S = 0.5
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Failure:
    """A run without an outcome, and why."""

    job: Job
    why: str


@dataclass(frozen=True, slots=True)
class _Running:
    job: Job
    process: BaseProcess
    share: "Synchronized[float]"
    task: TaskID


def is_done(job: Job) -> bool:
    """Return whether its outcome, and the rows that it keeps, are there."""
    has_rows = not job.run.keeps_rows or are_kept(job.folder, job.run.name)
    return job.path.exists() and has_rows


def run_jobs(
    jobs: Sequence[Job], progress: Progress, say: Say, *, n_processes: int, again: bool
) -> list[Failure]:
    """Run what is not done yet; return what failed, or could not begin.

    Parameters
    ----------
    jobs
        Those that others need come along with them.
    progress
        Gets a bar for each run.
    say
        Called with a line on each run that ends.
    n_processes
        At once, >= 1.
    again
        Whether runs that are done are run again.
    """
    return _Runner(jobs, progress, say, again=again).run(n_processes)


class _Runner:
    def __init__(self, jobs: Sequence[Job], progress: Progress, say: Say, *, again: bool) -> None:
        self._waiting = [job for job in jobs if again or not is_done(job)]
        self._n = len(self._waiting)
        self._running: list[_Running] = []
        self._failures: list[Failure] = []
        self._progress, self._say = progress, say
        self._n_ended = 0
        if len(jobs) > self._n:
            say(f"{len(jobs) - self._n} of {len(jobs)} runs are done already")
        for job in self._waiting:
            _forget(job)

    def run(self, n_processes: int) -> list[Failure]:
        try:
            while self._waiting or self._running:
                self._start(n_processes)
                wait([one.process.sentinel for one in self._running], timeout=_POLL_S)
                self._look()
        finally:
            for one in self._running:
                one.process.kill()
                one.process.join()
        return self._failures

    def _start(self, n_processes: int) -> None:
        for job in list(self._waiting):
            need = self._need(job)
            if need == "failed":
                self._waiting.remove(job)
                self._end(job, f"needs {job.run.needs}, which has no outcome")
            elif need == "there" and len(self._running) < n_processes:
                self._waiting.remove(job)
                self._running.append(self._started(job))

    def _need(self, job: Job) -> str:
        """Return ``there``, ``coming`` or ``failed`` for the run that a job needs."""
        if not job.run.needs:
            return "there"
        unfinished = [*self._waiting, *(one.job for one in self._running)]
        if any(_is_of(other, job) for other in unfinished):
            return "coming"
        return "there" if are_kept(job.folder, job.run.needs) else "failed"

    def _started(self, job: Job) -> _Running:
        context = multiprocessing.get_context("spawn")
        share = context.Value("d", 0.0)
        process = context.Process(target=run_job, args=(job, share))
        process.start()
        return _Running(job, process, share, self._progress.add_task(_title(job), total=1.0))

    def _look(self) -> None:
        for one in list(self._running):
            self._progress.update(one.task, completed=one.share.value)
            if one.process.exitcode is not None:
                self._running.remove(one)
                self._progress.remove_task(one.task)
                self._end(one.job, _why(one.job, one.process.exitcode))

    def _end(self, job: Job, why: str) -> None:
        self._n_ended += 1
        place = f"{self._n_ended} of {self._n}"
        if why:
            self._failures.append(Failure(job, why))
            self._say(f"{place}: {_title(job)} failed: {why}")
        else:
            self._say(f"{place}: {_title(job)}")


def _is_of(other: Job, job: Job) -> bool:
    return other.folder == job.folder and other.run.name == job.run.needs


def _title(job: Job) -> str:
    return f"{job.source.name} {job.run.name}"


def _failed_path(job: Job) -> Path:
    return job.path.with_suffix(".failed")


def _forget(job: Job) -> None:
    """Remove what an earlier run left, so that nothing old passes for new."""
    for path in (job.path, _failed_path(job)):
        path.unlink(missing_ok=True)
    if job.run.keeps_rows:
        for path in job.folder.glob(f"{job.run.name}.*.npy"):
            path.unlink()


def _why(job: Job, exitcode: int) -> str:
    """Return why a run has no outcome; empty if it has."""
    if exitcode == 0 and is_done(job):
        return ""
    with contextlib.suppress(OSError):
        return _failed_path(job).read_text(encoding="utf-8").strip()
    return f"ended with code {exitcode}, expected 0; -9 is most often a lack of memory"


def run_job(job: Job, share: "Synchronized[float]") -> None:
    """Run in this process; 1 write the outcome beside its place, 2 move it there.

    A failure is written down in its stead, and the process ends with code 1. What is written of an
    unexpected one is where it happened, not its message, which could hold a value.
    """

    def note(done: float) -> None:
        share.value = done

    try:
        outcome = execute(job, note)
        beside = job.path.with_suffix(".part")
        write_outcome(beside, outcome)
        beside.replace(job.path)
    except AmalgamError as error:
        _write_failure(job, str(error))
    except Exception as error:  # noqa: BLE001  # told to the process that waits
        places = "".join(traceback.format_tb(error.__traceback__)[-3:])
        _write_failure(job, f"{type(error).__name__} at\n{places}")


def _write_failure(job: Job, text: str) -> None:
    path = _failed_path(job)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    sys.exit(1)
