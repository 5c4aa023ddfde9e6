"""Asking members that run no scorecard: probes drawn from the twin, answers taught to a student.

A set of probes is drawn once the twin knows enough frauds, and another every few weeks; its number
is the day of event time on which that happened. A day later a student is taught by whoever has
answered, and again when another answer comes or a member stops counting. Between that, probes and
student are those of the release before: like the basis they follow from what is held and from the
last release.

`amalgamator.distil`, and torch with it, is loaded only where a consortium uses probes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any, NamedTuple

import msgspec
import numpy as np

from amalgamator.moments import merged_moments
from amalgamator.policy import FoldConfig, ProbePolicy
from amalgamator.scorer import Scorer, ScorerFold
from amalgamator.state import Pairs, matured_of_workers, of_part
from amalgamator.trust import day_of_most
from models.basis import Basis
from models.copula import Moments
from models.errors import SettingsError
from models.probes import draw_probes, feature_groups
from models.release import ProbeSet, Release, Student, StudentNetwork
from models.summary import ContributionKey
from models.twin import build_twin


class Asked(NamedTuple):
    """What a release says of probes."""

    probes: ProbeSet | None
    student: Student | None


NOTHING = Asked(None, None)


def _library() -> Any:
    try:
        return import_module("amalgamator.distil")
    except ModuleNotFoundError as error:
        raise SettingsError(f"probes: expected {error.name} to be installed") from error


class ProbeFold:
    """Draws probes and teaches students.

    Parameters
    ----------
    config
        Of the fold; without a policy of probes there is nothing to do.

    Raises
    ------
    SettingsError
        If probes are used where torch is not installed.
    """

    def __init__(self, config: FoldConfig) -> None:
        self._config = config
        self._distil: Any = _library() if config.probes else None

    def fold(
        self,
        pairs: Pairs,
        previous: Release | None,
        scorer: Scorer,
        *,
        sums: ScorerFold,
        weights: Mapping[str, float],
    ) -> Asked:
        """Return probes and student of sorted contributions, given the release before.

        Parameters
        ----------
        pairs, previous
            What is held, and the last release.
        scorer
            Of the release that is being made.
        sums
            Merges histograms.
        weights
            Member -> factor on its answers.
        """
        policy, bases = self._config.probes, (scorer.basis, scorer.next_basis)
        if policy is None:
            return NOTHING
        asked = NOTHING if previous is None else Asked(previous.probes, previous.student)
        counted = [pair for pair in pairs if weights.get(pair[0].member, 0.0) > 0.0]
        day = day_of_most(of_part(counted, "evidence"))
        known = [basis for basis in bases if basis is not None]
        if day < 1 or not known:
            return asked
        if asked.probes is None or day >= asked.probes.number + policy.renew_d:
            if sums.matured(counted)[1] < policy.min_frauds:
                return asked
            return asked._replace(probes=self._drawn(counted, known, day, sums, policy))
        if day >= asked.probes.number + policy.grace_d:
            return asked._replace(student=self._student(counted, asked, known[0], weights))
        return asked

    def _drawn(
        self, pairs: Pairs, bases: list[Basis], day: int, sums: ScorerFold, policy: ProbePolicy
    ) -> ProbeSet:
        """Return a new set; moments are those of the basis that more rows were counted for."""
        config = replace(self._config, weights={})  # who does not count is left out already
        found = [(merged_moments(pairs, basis, config), basis) for basis in bases]
        moments, basis = max(
            ((m or Moments.empty(b.n_features), b) for m, b in found),
            key=lambda one: int(one[0].n.sum()),
        )
        twin = build_twin(sums.merged_counts(pairs), moments, basis)
        groups = feature_groups(self._config.schema)
        rows = draw_probes(twin, policy.n, policy.seed + day, groups=groups)
        return ProbeSet(number=day, rows=rows)

    def _student(
        self, pairs: Pairs, asked: Asked, basis: Basis, weights: Mapping[str, float]
    ) -> Student | None:
        """Return the student of the answers that are held, the last one if it learnt just those."""
        policy, probes = self._config.probes, asked.probes
        if policy is None or probes is None:
            return asked.student
        answers = _answers_to(pairs, probes)
        digest = _digest(answers)
        last = asked.student
        is_of_set = last is not None and last.network.number == probes.number
        if last is not None and is_of_set and np.array_equal(last.network.answers, digest):
            return last
        n = matured_of_workers(pairs)
        shares = {
            _name(key): weights[key.member]
            * min(held.contribution.n, n.get((key.member, key.worker), 0))
            for key, held in answers
        }
        if not sum(shares.values()) > 0.0:
            return last
        flat = self._distil.distil(
            basis,
            probes.rows,
            {_name(key): held.contribution.arrays["logit"] for key, held in answers},
            shares,
            self._distil.DistilPolicy(epochs=policy.epochs, seed=policy.seed),
        )
        network = StudentNetwork(number=probes.number, answers=digest, parameters=flat)
        return Student(basis, network)


def _answers_to(pairs: Pairs, probes: ProbeSet) -> Pairs:
    return [
        (key, held)
        for key, held in of_part(pairs, "answers")
        if held.contribution.basis == probes.number
        and len(held.contribution.arrays["logit"]) == len(probes.rows)
    ]


def _digest(answers: Pairs) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Return what identifies answers: whose, and under which seq."""
    named = [(key.member, key.worker, held.seq) for key, held in answers]
    return np.frombuffer(hashlib.sha256(msgspec.msgpack.encode(named)).digest(), np.uint8)


def _name(key: ContributionKey) -> str:
    return f"{key.member}/{key.worker}"
