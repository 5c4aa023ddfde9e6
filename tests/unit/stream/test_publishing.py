"""A summary that is written while decisions are made is the summary of the instant it was begun."""

import numpy as np

from models.release import Release
from stream.outbox import Outbox
from stream.pipeline import Pipeline
from stream.pipeline_state import dump
from stream.publishing import Publisher
from stream.swap import Swap
from tests.consortium import signer_of
from tests.unit.stream.small_bank import (
    Event,
    Exchange,
    Trace,
    a_config,
    a_log,
    bits,
    consortium_releases,
    feed,
    payments,
    same_contributions,
)

BATCH, LABELS = payments(0)
LOG = a_log(BATCH, LABELS)
RELEASES = consortium_releases()


def days() -> list[tuple[int, list[Event], list[Event]]]:
    """Return each epoch, and what happens on the day after it before and after noon."""
    places = [i for i, event in enumerate(LOG) if isinstance(event, Exchange)]
    out = []
    for at, after in zip(places, [*places[1:], len(LOG)], strict=True):
        noon = (at + 1 + after) // 2
        epoch = LOG[at].epoch  # type: ignore[union-attr]  # an exchange
        out.append((epoch, LOG[at + 1 : noon], LOG[noon:after]))
    return out


def a_publisher(pipeline: Pipeline) -> Publisher:
    outbox = Outbox("test", pipeline.config.schema, signer_of("north"), lambda: 0)
    return Publisher(pipeline, outbox, None, worker="0")  # type: ignore[arg-type]  # not begun anew


def swapped(pipeline: Pipeline, release: Release) -> Swap:
    """Return what a release changes, found out before."""
    swap = pipeline.swap_of(release)
    swap.find_out()
    return swap


def test_what_is_learnt_meanwhile_is_published_the_next_time() -> None:
    """Epoch by epoch, with a release after each; contributions, scores and state to the bit."""
    at_once, beside = Pipeline(a_config()), Pipeline(a_config())
    traces = Trace(), Trace()
    first = next(i for i, event in enumerate(LOG) if isinstance(event, Exchange))
    for pipeline, trace in zip((at_once, beside), traces, strict=True):
        feed(pipeline, BATCH, LOG[:first], trace=trace)
    publisher, n_outcomes = a_publisher(beside), 0
    for epoch, before, after in days():
        for pipeline, trace in zip((at_once, beside), traces, strict=True):
            feed(pipeline, BATCH, before, trace=trace)
        expected = at_once.contributions(epoch)
        draft = publisher.draft(epoch)
        for pipeline, trace in zip((at_once, beside), traces, strict=True):
            feed(pipeline, BATCH, after, trace=trace)
        sealed = publisher.seal(draft)
        publisher.settle(sealed)
        at_once.published(sealed.seqs)
        assert same_contributions(sealed.written.contributions, expected)
        n_outcomes += sum(len(new.all()) for _, new in draft.outcomes.values())
        release = RELEASES.get(epoch)
        if release is not None:
            at_once.install(release)
            beside.install(release, swapped(beside, release))
    assert n_outcomes
    assert bits(traces[0].scores) == bits(traces[1].scores)
    found, wanted = dump(beside).arrays, dump(at_once).arrays
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert np.ascontiguousarray(array).tobytes() == np.ascontiguousarray(found[name]).tobytes()
