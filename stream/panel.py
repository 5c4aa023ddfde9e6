"""A bank's experts: its own scorecard, the consortium's, and its own families of models."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.families.base import Family, SharedNet
from models.features.accounts import DAY_MS
from models.histograms import to_cells
from models.matured import Matured, MaturedRows
from models.named_arrays import under
from models.release import Release
from models.schema import Schema
from models.summary import Part
from stream.experts import LearningPolicy, SharedExpert
from stream.nets import MergedNetExpert
from stream.own_expert import OwnExpert
from stream.probing import Answerer, Roles, StudentExpert
from stream.proposals import ProposalPolicy, Proposer
from stream.touched import TouchedPages

Arrays = Mapping[str, NDArray[np.generic]]


class Piece(NamedTuple):
    """What a contribution holds beside who sends it and when; what gives its arrays may be slow."""

    part: Part
    bucket: int
    basis: int
    n: int
    arrays: Callable[[], Arrays]

    @classmethod
    def of(cls, part: Part, bucket: int, basis: int, n: int, arrays: Arrays) -> Self:
        """Return one whose arrays are there; they must not change any more."""
        return cls(part, bucket, basis, n, lambda: arrays)


class _Part(Protocol):
    """A piece of the panel that can be stored."""

    def arrays(self) -> dict[str, NDArray[np.generic]]: ...

    def load(self, arrays: Arrays) -> None: ...


class Panel:
    """Scores by every expert, and teaches them.

    Parameters
    ----------
    schema, policy
        The consortium's.
    families
        The bank's own models beside the scorecards.
    proposing
        When and how many trees are proposed.
    roles
        Whether the scorecards run, probes are answered, personal weights, a student and a merged
        net may come.
    net
        What the bank trains for its consortium, None for nothing.

    Attributes
    ----------
    names
        The experts, in the order of the columns of scores: ``own``, ``merged``, the families, then
        ``personal`` in a consortium that uses personal weights, ``student`` in one that uses
        probes, and ``mlp_merged`` in one that merges nets.
    of_consortium
        bool of shape (n_experts,): the experts that come from the consortium.
    cold
        bool of shape (n_experts,): those on which a cold bank relies; the merged net, which in a
        young consortium is worth less than the scorecard, waits until it can be weighed.
    """

    def __init__(
        self,
        schema: Schema,
        policy: LearningPolicy,
        families: Sequence[Family],
        proposing: ProposalPolicy,
        roles: Roles = Roles(),
        net: SharedNet | None = None,
    ) -> None:
        self._schema, self._policy, self._roles = schema, policy, roles
        self.own = OwnExpert(schema, policy)
        self.shared = SharedExpert(schema, policy, learns_statistics=roles.runs_scorecard)
        self.student = StudentExpert()
        self.merged_net = MergedNetExpert()
        self.net = net
        self.answerer = Answerer(is_on=roles.answers_probes)
        self.families = tuple(families)
        self._taken_ms: dict[int, int] = {}
        self.proposer = Proposer(families, proposing)
        own_names = ("own", "merged", *(family.name for family in families))
        personal = () if roles.personal is None else ("personal",)
        self.names = (*own_names, *personal, *self._frozen())
        self.of_consortium = np.array(
            [i == 1 or i >= len(own_names) for i in range(len(self.names))]
        )
        self.cold = self.of_consortium & (np.array(self.names) != "mlp_merged")

    @property
    def runs_scorecard(self) -> bool:
        """Whether the scorecards run."""
        return self._roles.runs_scorecard

    def _frozen(self) -> dict[str, StudentExpert | MergedNetExpert]:
        """Return by name the consortium's experts beside its scorecards."""
        held: dict[str, StudentExpert | MergedNetExpert] = {}
        if self._roles.has_student:
            held["student"] = self.student
        if self._roles.has_net:
            held["mlp_merged"] = self.merged_net
        return held

    def score(self, own: NDArray[np.float32], shared: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return log-odds of shape (n, n_experts), NaN where an expert has none.

        Parameters
        ----------
        own, shared
            float32 of shape (n, n_features): rows with own evidence alone, and with all.
        """
        quick = self._quick(own, shared)
        families = [family.score(shared) for family in self.families]
        return np.column_stack([*quick[:2], *families, *quick[2:]])

    def rescore(
        self,
        own: NDArray[np.float32],
        shared: NDArray[np.float32],
        logged: NDArray[np.float32],
        arrival_ms: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Return scores of logged rows under what is in force now, as `score` does.

        What the model in force of a family scored itself stays as it was, also where the model has
        learnt since: families are slow, and what they learn online moves few scores far.

        Parameters
        ----------
        own, shared
            float32 of shape (n, n_features).
        logged
            float32 of shape (n, n_experts): scores when the rows came.
        arrival_ms
            int64 of shape (n,): when that was, ascending.
        """
        scores = logged.astype(np.float64)
        quick = self._quick(own, shared)
        n_families = len(self.families)
        for column, found in enumerate(quick):
            scores[:, column if column < 2 else column + n_families] = found
        for i, family in enumerate(self.families):
            column, in_force_ms = 2 + i, max(family.began_day * DAY_MS, self._taken_ms.get(i, 0))
            n = int(np.searchsorted(arrival_ms, in_force_ms))
            if n:
                scores[:n, column] = family.score(shared[:n])
        return scores

    def _quick(
        self, own: NDArray[np.float32], shared: NDArray[np.float32]
    ) -> list[NDArray[np.float64]]:
        """Return the scores of all experts but the families, in order."""
        mine = merged = personal = np.full(len(own), np.nan)
        if self.runs_scorecard:
            mine = self.own.score(own)
            merged, personal = self.shared.score_both(shared)
        of_member = [] if self._roles.personal is None else [personal]
        frozen = [expert.score(shared) for expert in self._frozen().values()]
        return [mine, merged, *of_member, *frozen]

    def learn(self, own: Matured, shared: Matured, shareable: Matured) -> None:
        """Add outcomes.

        Parameters
        ----------
        own, shared
            The rows with own evidence alone, and with all.
        shareable
            Those of ``shared`` that the consortium may learn from.
        """
        if self.runs_scorecard:
            self.own.learn(own)
        self.shared.learn(shareable)
        if self.net is not None:
            self.net.learn(shareable)
        for family in self.families:
            family.learn(shared)

    def replace_family(self, i: int, family: Family, now_ms: int) -> None:
        """Have another one in a family's place, which has scored no row that came up to now."""
        self._taken_ms[i] = now_ms + 1
        self.families = (*self.families[:i], family, *self.families[i + 1 :])
        self.proposer.families = self.families

    def realign(
        self, retained: MaturedRows, families: Sequence[Family], net: SharedNet | None = None
    ) -> None:
        """Begin anew in another unit of amounts; the consortium's scorer stays.

        Parameters
        ----------
        retained
            The matured rows still held, as the own expert sees them, in the new unit.
        families, net
            Untrained, in the place of the old ones.
        """
        self.net = net
        self.own = OwnExpert(self._schema, self._policy)
        if self.runs_scorecard:
            for block in retained.blocks():
                self.own.learn(block)
        self.shared.restart()
        self.families = tuple(families)
        self.proposer.families = self.families
        if self.shared.basis is not None:
            for family in self.families:
                family.install(self.shared.basis)
            if net is not None:
                net.install(self.shared.basis, self.merged_net.summary)

    def install(
        self,
        release: Release,
        retained: Callable[[], MaturedRows],
        encoded: tuple[SharedExpert, Matured] | None = None,
    ) -> bool:
        """Swap a release in; return whether rows are encoded for another basis.

        Parameters
        ----------
        release
            To be in force.
        retained
            Gives the matured rows still held, as the consortium may learn from them.
        encoded
            What `SharedExpert.take_over` takes, where that was made before.
        """
        collecting = release.asked_basis
        is_new = self.shared.needs_rows(collecting)
        before = self.shared.basis
        self.shared.install(
            release.basis,
            release.weights,
            collecting,
            retained() if is_new and encoded is None else None,
            personal=self._personal(release),
        )
        if is_new and encoded is not None:
            self.shared.take_over(*encoded)
        basis = release.basis
        if basis is not None and not basis.is_same(before):
            for family in self.families:
                family.install(basis)
        if basis is not None and self.net is not None:
            self.net.install(basis, None if release.net is None else release.net.summary)
        self.answerer.install(release.probes)
        return is_new

    def _personal(self, release: Release) -> NDArray[np.float64] | None:
        member = self._roles.personal
        if member is None or release.personal is None:
            return None
        return release.personal.of(member)

    def install_frozen(self, release: Release) -> bool:
        """Swap a release's student and merged net in; return whether one is another."""
        is_student = self._roles.has_student and self.student.install(release.student)
        is_net = self._roles.has_net and self.merged_net.install(release.net)
        return is_student or is_net

    def answers(
        self,
        blend: Callable[[NDArray[np.float64]], NDArray[np.float64]],
        in_own: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    ) -> list[Piece]:
        """Return the answers to probes that are not answered yet, by the bank's own experts.

        Parameters
        ----------
        blend
            Scores of all experts -> log-odds; the consortium's own are not asked, lest it hear its
            echo.
        in_own
            Rows of the consortium -> as the own scorecard may see them.
        """

        def score(rows: NDArray[np.float32]) -> NDArray[np.float64]:
            scores = self.score(in_own(rows), rows)
            scores[:, self.of_consortium] = np.nan
            return np.where(np.isnan(scores).all(axis=1), np.nan, blend(scores))

        given = self.answerer.answer(score)
        if given is None:
            return []
        number, logit = given
        return [Piece.of("answers", 0, number, self.shared.n, {"logit": logit})]

    def pieces(self, now_ms: int) -> list[Piece]:
        """Return what changed of all but evidence, cumulative."""
        basis = 0 if self.shared.collecting is None else self.shared.collecting.number
        pieces = [
            Piece("statistics", bucket, basis, n, arrays)
            for bucket, (n, arrays) in self.shared.contributions(now_ms).items()
        ]
        moments = self.shared.moments.settled()
        if moments is not None and moments.n.any():
            held = {name: array.copy() for name, array in moments.arrays().items()}
            pieces.append(Piece.of("moments", 0, basis, self.shared.n, held))
        pieces.append(Piece.of("histograms", 0, 0, self.shared.n, to_cells(self.shared.counts)))
        net = None if self.net is None else self.net.contribution()
        if net is not None:
            pieces.append(Piece.of("net", 0, net.basis, net.n, {"flat": net.flat}))
        trees = self.proposer.take()
        if trees is not None:
            pieces.append(Piece.of("trees", 0, self.proposer.basis, self.shared.n, trees))
        return pieces

    def scorers(self) -> dict[int, tuple[Basis, NDArray[np.float64]]]:
        """Return the scorecards that alerts may be explained by, by position in ``names``."""
        if not self.runs_scorecard:
            return {}
        held: dict[int, OwnExpert | SharedExpert] = {0: self.own, 1: self.shared}
        return {
            i: (expert.basis, expert.weights)
            for i, expert in held.items()
            if expert.basis is not None and expert.weights is not None
        }

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        return {
            f"{part}/{name}": array
            for part, holder in self._parts().items()
            for name, array in holder.arrays().items()
        }

    def touched(self) -> dict[str, TouchedPages]:
        """Return of large arrays: name -> pages that may have changed since they were copied."""
        return {
            f"{part}/{name}": pages
            for part, expert in (("own", self.own), ("shared", self.shared))
            for name, pages in expert.touched().items()
        }

    def load(self, arrays: Arrays) -> None:
        """Replace the state by what `arrays` gave."""
        for part, holder in self._parts().items():
            holder.load(under(f"{part}/", arrays))

    def _parts(self) -> dict[str, _Part]:
        parts: dict[str, _Part] = {f"family/{family.name}": family for family in self.families}
        parts |= {"own": self.own, "shared": self.shared, "proposer": self.proposer}
        parts |= self._frozen()
        if self.net is not None:
            parts["net"] = self.net
        if self._roles.answers_probes:
            parts["answerer"] = self.answerer
        return parts
