"""The undisturbed run: the same consortium in this process, never stored, restored or repeated."""

from pathlib import Path

from amalgamator.core import Amalgamator
from amalgamator.gate import GateLimits
from amalgamator.registry import parse_registry
from amalgamator.settings import fold_config
from amalgamator.settings import read_settings as read_amalgamator
from deploy.chaos.outcome import BankOutcome, Outcome, Said, say
from deploy.chaos.small_world import CADENCE_MS, World
from deploy.consortium_files import ConsortiumFiles
from deploy.local import LocalConsortium
from models.errors import UnavailableError
from stream.answering import decisions_of
from stream.pipeline import Pipeline
from stream.pipeline_state import dump
from stream.scored import Scored
from stream.settings import pipeline_config, read_membership, read_settings


def amalgamator_of(files: ConsortiumFiles) -> Amalgamator:
    """Return the amalgamator of a consortium's files, in lockstep, new."""
    settings = read_amalgamator(None, files.amalgamator)
    text = Path(settings.registry_file).read_text(encoding="utf-8")
    membership = read_membership(read_settings(next(iter(files.settings.values())), {}))
    config = fold_config(settings, membership.schema)
    limits = GateLimits(clock_tolerance_ms=None)  # as the service in lockstep
    return Amalgamator(parse_registry(text), config, limits=limits, lockstep=True)


def run_undisturbed(world: World, files: ConsortiumFiles) -> Outcome:
    """Run all banks and the amalgamator to the end of their streams."""
    pipelines = {}
    for bank, path in files.settings.items():
        settings = read_settings(path, {})
        config = pipeline_config(settings, read_membership(settings), world.mappings[bank])
        pipelines[bank] = Pipeline(config)
    amalgamator = amalgamator_of(files)
    decisions: dict[str, Said] = {bank: {} for bank in pipelines}
    alerts: dict[str, Said] = {bank: {} for bank in pipelines}

    def keep(bank: str, rows: slice, scored: Scored) -> None:
        batch = world.streams[bank].transactions.rows(rows)
        for decision in decisions_of(batch, scored):
            say(decisions[bank], decision)
        for alert in scored.alerts:
            say(alerts[bank], alert)

    consortium = LocalConsortium(pipelines, amalgamator, cadence_ms=CADENCE_MS)
    consortium.run(world.streams, on_scored=keep)
    last, held = amalgamator.previous, amalgamator.state.newest
    again = amalgamator.refold()
    if last is None or again is None or last.weights is None:
        raise UnavailableError("expected a merged scorecard in the undisturbed run; add days")
    banks = {}
    for bank, pipeline in pipelines.items():
        state = dump(pipeline)
        banks[bank] = BankOutcome(
            decisions=decisions[bank],
            alerts=alerts[bank],
            arrays=state.arrays,
            meta=state.meta,
            seq=max(one.seq for key, one in held.items() if key.member == bank),
        )
    return Outcome(
        banks=banks,
        release=(last.number, last.release_id),
        refolded=again.release_id,
        held=held,
    )
