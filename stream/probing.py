"""A bank and the consortium's probes: its own answers, and the student as an expert."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.families.distilled import Distilled
from models.probes import answer
from models.release import ProbeSet, Student, StudentNetwork
from stream.expert_arrays import load_scorer, scorer_arrays

Arrays = Mapping[str, NDArray[np.generic]]


class Roles(NamedTuple):
    """What a bank does beside learning for itself.

    Parameters
    ----------
    runs_scorecard
        Whether it learns and scores by scorecards, its own and the consortium's.
    answers_probes
        Whether it answers the consortium's probes.
    has_student
        Whether its consortium uses probes, so that releases may bring a student.
    personal
        In a consortium that uses personal weights, the member whose a release may bring.
    has_net
        Whether its consortium merges nets, so that releases may bring one.
    """

    runs_scorecard: bool = True
    answers_probes: bool = False
    has_student: bool = False
    personal: str | None = None
    has_net: bool = False


class StudentExpert:
    """The consortium's distilled expert: frozen, as the last release brought it."""

    def __init__(self) -> None:
        self._student: Student | None = None
        self._scorer: Distilled | None = None

    def install(self, student: Student | None) -> bool:
        """Swap a student in; return whether it is another. None leaves the old one in force."""
        if student is None:
            return False
        last, is_same = self._student, False
        if last is not None and last.basis.number == student.basis.number:
            is_same = last.network.is_same(student.network)
        if is_same:
            return False
        self._student = student
        self._scorer = Distilled(student.basis, student.network.parameters)
        return True

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return log-odds, NaN before there is a student."""
        return np.full(len(rows), np.nan) if self._scorer is None else self._scorer.score(rows)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        if self._student is None:
            return {}
        basis, network = self._student
        return (
            {f"network/{name}": array for name, array in network.arrays().items()}
            | {"network/number": np.array([network.number], np.int64)}
            | scorer_arrays("basis", basis, None)
        )

    def load(self, arrays: Arrays) -> None:
        """Replace the state by what `arrays` gave."""
        self._student = self._scorer = None
        basis, _ = load_scorer("basis", arrays)
        if basis is not None:
            network = StudentNetwork(
                number=int(arrays["network/number"][0]),
                answers=np.array(arrays["network/answers"], np.uint8),
                parameters=np.array(arrays["network/parameters"], np.float32),
            )
            self.install(Student(basis, network))


class Answerer:
    """Answers each set of probes once, as soon as the bank has an opinion of its own.

    Parameters
    ----------
    is_on
        Whether anything is answered.
    """

    def __init__(self, *, is_on: bool) -> None:
        self._is_on = is_on
        self._answered = 0
        self._asked: ProbeSet | None = None

    def install(self, probes: ProbeSet | None) -> None:
        """Take a release's probes in; those that were answered are passed over."""
        if self._is_on and probes is not None and probes.number > self._answered:
            self._asked = probes

    def answer(
        self, score: Callable[[NDArray[np.float32]], NDArray[np.float64]]
    ) -> tuple[int, NDArray[np.float32]] | None:
        """Return the number of the set and its log-odds; None without a set or an opinion.

        Parameters
        ----------
        score
            The blend of the bank's own experts: rows -> log-odds, NaN where none has any.
        """
        asked = self._asked
        if asked is None or bool(np.isnan(score(asked.rows[:1])).any()):
            return None
        logit = answer(score, asked.rows)
        self._asked, self._answered = None, asked.number
        return asked.number, logit

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        out: dict[str, NDArray[np.generic]] = {"answered": np.array([self._answered], np.int64)}
        if self._asked is not None:
            out |= {
                "rows": self._asked.rows,
                "number": np.array([self._asked.number], np.int64),
            }
        return out

    def load(self, arrays: Arrays) -> None:
        """Replace the state by what `arrays` gave."""
        self._answered = int(arrays["answered"][0])
        self._asked = None
        if "rows" in arrays:
            rows = np.array(arrays["rows"], np.float32)
            self._asked = ProbeSet(number=int(arrays["number"][0]), rows=rows)
