"""The amalgamator without its surroundings: envelopes or contributions in, releases out.

The service and the in-process consortium make the same calls in the same order and get the same
bits; nothing here knows a broker, a clock or a key file.
"""

from dataclasses import replace

from amalgamator.fold import Folder
from amalgamator.gate import Accepted, Gate, GateLimits, Refused, Seen
from amalgamator.policy import FoldConfig
from amalgamator.registry import Registry
from amalgamator.state import FoldState, Held
from amalgamator.trust import TrustReport
from models.release import Release
from models.release_hashes import seal_release
from models.summary import Contribution, ContributionKey


class Amalgamator:
    """Gate, newest contribution per key, and fold.

    Parameters
    ----------
    registry
        Members; their ``weight`` is the weight of their sums.
    config
        Of the fold; its weights are replaced by the registry's.
    limits
        Of the gate.
    lockstep
        True: every closed epoch gives a release of contributions up to that epoch. False: a
        release comes only when its content differs from the last one's.
    previous
        The last release that was published, if this is a restart.
    """

    def __init__(
        self,
        registry: Registry,
        config: FoldConfig,
        *,
        limits: GateLimits | None = None,
        lockstep: bool = False,
        previous: Release | None = None,
    ) -> None:
        self._config = config
        self._limits = limits if limits is not None else GateLimits()
        self._lockstep = lockstep
        self._newest: dict[ContributionKey, Held] = {}
        self._seen = Seen()
        self.registry = registry
        self.previous: Release | None = None
        self.set_registry(registry)
        if previous is not None:
            self.resume(previous)

    @property
    def state(self) -> FoldState:
        """The newest contribution of each key, as of now."""
        return FoldState(dict(self._newest))

    @property
    def trust(self) -> TrustReport:
        """What each member counted for in the last fold, and why."""
        return self._folder.report

    def set_registry(self, registry: Registry) -> None:
        """Take another registry; members that are gone or expelled leave nothing behind."""
        active = {member.name: member.weight for member in registry.active()}
        gone = frozenset({key.member for key in self._newest} - active.keys())
        self._newest = {k: held for k, held in self._newest.items() if k.member not in gone}
        self._seen.forget(gone)
        self._config = replace(self._config, weights=active)
        self._folder = Folder(self._config)
        self._gate = Gate(registry, self._config.schema, self._limits)
        self.registry = registry

    def resume(self, previous: Release) -> None:
        """Go on after this release: the next one is numbered after it."""
        self.previous = previous
        former = (scorer.basis for scorer in previous.former)
        bases = (*former, previous.basis, previous.next_basis)
        self._seen.bases = {basis.number: basis for basis in bases if basis}
        probes = previous.probes
        self._seen.n_probes = {} if probes is None else {probes.number: len(probes.rows)}

    def receive(self, raw: bytes, now_ms: int) -> Accepted | Refused:
        """Check an envelope and hold its contribution if it is the newest of its key."""
        outcome = self._gate.check(raw, self._seen, now_ms)
        if isinstance(outcome, Accepted):
            key = outcome.contribution.key
            self._seen.record(key, outcome.seq, outcome.hash)
            self.accept(outcome.contribution, outcome.seq)
        return outcome

    def accept(self, contribution: Contribution, seq: int) -> None:
        """Hold a contribution that needs no gate, from this very process."""
        held = self._newest.get(contribution.key)
        if held is None or held.seq < seq:
            self._newest[contribution.key] = Held(contribution, seq)

    def due_epoch(self) -> int | None:
        """Return the epoch that can be closed now, None if there is nothing to close.

        In lockstep: the latest that all registered workers have closed, once. Live: the highest
        that any contribution named so far.
        """
        state = FoldState(self._newest)
        last = None if self.previous is None else self.previous.epoch
        if not self._lockstep:
            epoch = state.newest_epoch()
            return epoch if epoch is None or last is None else max(epoch, last)
        epoch = state.closed_epoch(self.registry.workers())
        return epoch if epoch is not None and (last is None or epoch > last) else None

    def close_epoch(self, epoch: int, now_ms: int = 0) -> Release | None:
        """Fold what is held; return the release, None if nothing changed (live mode only)."""
        state = FoldState(self._newest)
        if self._lockstep:
            state = state.until(epoch)
        release = self._folder.fold(state, epoch, self.previous, now_ms)
        if not self._lockstep and self._is_unchanged(release):
            return None
        self.resume(release)
        return release

    def refold(self) -> Release | None:
        """Fold again for the last release's epoch: same log, same ``release_id``."""
        if self.previous is None:
            return None
        state = FoldState(self._newest)
        if self._lockstep:
            state = state.until(self.previous.epoch)
        return self._folder.fold(state, self.previous.epoch, self.previous, 0)

    def _is_unchanged(self, release: Release) -> bool:
        previous = self.previous
        if previous is None:
            return not release.sources
        as_before = seal_release(replace(release, epoch=previous.epoch), self._folder.digests)
        return as_before.release_id == previous.release_id
