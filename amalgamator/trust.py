"""Which members count, and how much: a function of what is held, so that a restart decides alike.

Evidence and statistics are judged apart, because a member may be wrong in one and right in the
other. Verdicts are remembered under the (key, seq) of what they were made of.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amalgamator.flags import count_flags, evidence_trust, evidence_weight, voices
from amalgamator.harm import Verdict, judge_statistics
from amalgamator.member_sums import MemberSummer
from amalgamator.policy import FoldConfig, TrustPolicy
from amalgamator.state import Pairs, matured_of_workers, of_part
from amalgamator.target import Target, is_same_target
from models.summary import ContributionKey

Seqs = tuple[tuple[ContributionKey, int], ...]
_NO_TARGETS: Mapping[int, Target] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberTrust:
    """What a member's contributions count for.

    Parameters
    ----------
    member
        Its name.
    evidence, statistics
        Factors in [0, 1], the registry's weight left out.
    evidence_ratio
        Found / expected frauds, see `amalgamator.flags`; 1 for a member that cannot be judged.
    harm
        See `amalgamator.harm.Verdict`.
    why
        Reasons for a factor below 1: ``flags``, ``volume`` and those of `amalgamator.harm`.
    """

    member: str
    evidence: float = 1.0
    statistics: float = 1.0
    evidence_ratio: float = 1.0
    harm: float = 0.0
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrustReport:
    """Every member that has contributed, sorted by name."""

    members: tuple[MemberTrust, ...] = ()

    def evidence_weights(self, config: FoldConfig) -> dict[str, float]:
        """Return the factor on each member's evidence, the registry's weight included."""
        return {m.member: m.evidence * config.weight_of(m.member) for m in self.members}

    def statistics_weights(self, config: FoldConfig) -> dict[str, float]:
        """Return the factor on each member's statistics and histograms, likewise."""
        return {m.member: m.statistics * config.weight_of(m.member) for m in self.members}

    def answer_weights(self, config: FoldConfig) -> dict[str, float]:
        """Return the factor on each member's answers: it must be right in both, where it is judged.

        Who publishes no statistics is judged by its evidence.
        """
        return {
            m.member: min(m.evidence, m.statistics) * config.weight_of(m.member)
            for m in self.members
        }

    def doubted(self) -> tuple[MemberTrust, ...]:
        """Return the members that do not count in full."""
        return tuple(one for one in self.members if min(one.evidence, one.statistics) < 1.0)


class Trust:
    """Judges members and remembers the last verdicts.

    Parameters
    ----------
    config
        Of the fold; without a policy everybody counts in full.
    """

    def __init__(self, config: FoldConfig) -> None:
        self._config = config
        self._sums = MemberSummer()
        self._evidence: tuple[Seqs, dict[str, float]] | None = None
        self._flood: tuple[tuple[Seqs, tuple[tuple[str, int], ...]], frozenset[str]] | None = None
        self._statistics: tuple[tuple[Seqs, bool, Target | None], dict[str, Verdict]] | None = None

    def judge(
        self, pairs: Pairs, *, exact: bool = False, known: Mapping[int, Target] = _NO_TARGETS
    ) -> TrustReport:
        """Return the report on sorted contributions.

        Parameters
        ----------
        pairs
            All that is held, members of registry weight 0 included; those are neither judged nor
            heard.
        exact
            See `amalgamator.harm.judge_statistics`.
        known
            By number, the bases on which older statistics count: they are judged as they count.
        """
        members = sorted({key.member for key, _ in pairs})
        policy = self._config.trust
        if policy is None:
            return TrustReport(tuple(MemberTrust(member=member) for member in members))
        heard = [pair for pair in pairs if self._config.weight_of(pair[0].member) > 0.0]
        ratios = self._evidence_ratios(of_part(heard, "evidence"), policy)
        matured = _matured(heard)
        used, target = _of_main_basis(of_part(heard, "statistics"), known)
        verdicts = self._verdicts(used, target, matured, policy=policy, exact=exact)
        flooding = self._flooding(of_part(heard, "evidence"), matured)
        return TrustReport(
            tuple(
                _member_trust(member, ratios, verdicts, flooding, policy=policy)
                for member in members
            )
        )

    def _evidence_ratios(self, evidence: Pairs, policy: TrustPolicy) -> dict[str, float]:
        newest = day_of_most(evidence)
        judged = [pair for pair in evidence if newest - policy.window_d <= pair[0].bucket < newest]
        seqs = _seqs(judged)
        if self._evidence is None or self._evidence[0] != seqs:
            members = sorted({key.member for key, _ in judged})
            said = voices(count_flags(judged, members, policy), policy)
            ratios = evidence_trust(said).tolist()
            self._evidence = (seqs, dict(zip(members, ratios, strict=True)))
        return self._evidence[1]

    def _flooding(self, evidence: Pairs, matured: Mapping[str, int]) -> frozenset[str]:
        settled = _settled(evidence)
        identity = (_seqs(settled), tuple(sorted(matured.items())))
        if self._flood is None or self._flood[0] != identity:
            self._flood = (identity, _flooding(settled, matured))
        return self._flood[1]

    def _verdicts(
        self,
        used: Pairs,
        target: Target | None,
        matured: Mapping[str, int],
        *,
        policy: TrustPolicy,
        exact: bool,
    ) -> dict[str, Verdict]:
        seqs, last = _seqs(used), self._statistics
        if last is not None and last[0][:2] == (seqs, exact) and is_same_target(target, last[0][2]):
            return last[1]
        sums = self._sums.sums(used, matured, self._config, target)
        verdicts = judge_statistics(sums, self._config, policy, exact=exact)
        self._statistics = ((seqs, exact, target), verdicts)
        return verdicts


def day_of_most(evidence: Pairs) -> int:
    """Return the newest day that half of the members have reached: one far ahead moves nothing."""
    newest: dict[str, int] = {}
    for key, _ in evidence:
        newest[key.member] = max(newest.get(key.member, 0), key.bucket)
    days = sorted(newest.values())
    return days[(len(days) - 1) // 2] if days else 0


def _seqs(pairs: Pairs) -> Seqs:
    return tuple((key, held.seq) for key, held in pairs)


def _member_trust(
    member: str,
    ratios: Mapping[str, float],
    verdicts: Mapping[str, Verdict],
    flooding: frozenset[str],
    *,
    policy: TrustPolicy,
) -> MemberTrust:
    ratio = ratios.get(member, 1.0)
    verdict = verdicts.get(member, Verdict(1.0, "", 0.0))
    evidence = evidence_weight(ratio, policy)
    why = [
        *(["flags"] if evidence < 1.0 else []),
        *(["volume"] if member in flooding else []),
        *([verdict.why] if verdict.why else []),
    ]
    return MemberTrust(
        member=member,
        evidence=0.0 if member in flooding else evidence,
        statistics=verdict.weight,
        evidence_ratio=ratio,
        harm=verdict.harm,
        why=tuple(why),
    )


def _matured(pairs: Pairs) -> dict[str, int]:
    matured: dict[str, int] = {}
    for (member, _), n in matured_of_workers(pairs).items():
        matured[member] = matured.get(member, 0) + n
    return matured


def _settled(evidence: Pairs) -> Pairs:
    """Return all but the two newest days of each member: histograms come less often."""
    newest: dict[str, int] = {}
    for key, _ in evidence:
        newest[key.member] = max(newest.get(key.member, 0), key.bucket)
    return [pair for pair in evidence if pair[0].bucket <= newest[pair[0].member] - 2]


def _flooding(settled: Pairs, matured: Mapping[str, int]) -> frozenset[str]:
    """Return members with more outcomes of one entity kind than transactions that matured."""
    by_kind: dict[str, NDArray[np.float64]] = {}
    for key, held in settled:
        arrays = held.contribution.arrays
        n = np.bincount(arrays["kind"], arrays["n"], 256)
        by_kind[key.member] = by_kind.get(key.member, np.zeros(256)) + n
    return frozenset(
        member
        for member, n in by_kind.items()
        if member in matured and not float(n.max()) <= 1.25 * matured[member] + 1_000
    )


def _of_main_basis(statistics: Pairs, known: Mapping[int, Target]) -> tuple[Pairs, Target | None]:
    """Return the statistics of the basis for which most members publish, the newer one of two.

    A member's basis is that of its newest bucket. Where the basis is known, so are those before it
    whose statistics count for it, and they are among what is returned.
    """
    shape_of = {
        key.member: (held.contribution.basis, len(held.contribution.arrays["gradient"]))
        for key, held in sorted(statistics, key=lambda pair: pair[0].bucket)
    }
    votes = list(shape_of.values())
    chosen = max(sorted(set(votes)), key=lambda shape: (votes.count(shape), shape), default=(0, 0))
    target = known.get(chosen[0])
    if target is not None and target.basis.n_weights == chosen[1]:
        return [pair for pair in statistics if target.takes(pair[1].contribution)], target
    return [
        (key, held)
        for key, held in statistics
        if (held.contribution.basis, len(held.contribution.arrays["gradient"])) == chosen
    ], None
