"""A worker's start: from a new disk, or from where the last checkpoint left off."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import StateError
from models.named_arrays import under
from stream.anew import Anew
from stream.manifest import Partition
from stream.outbox import Outbox
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.pipeline_state import State, restore
from stream.store import Checkpoint

_OUTBOX, _AWAITED, _TOPICS = "outbox/", "awaited", "topics"
SHELL = (_OUTBOX, _AWAITED, _TOPICS)
"""How the names of arrays beside the pipeline's begin, see `shell_arrays`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Taken:
    """What a worker goes on with.

    Parameters
    ----------
    pipeline
        New or restored.
    outbox
        Summaries that were not confirmed.
    offsets
        Next offset of each partition; none on a new disk.
    awaited
        The epoch whose release a replay was waiting for, None for none.
    anew
        What a rebuild left, until a checkpoint is stored; None usually.
    topic_ids
        Topic -> id, of the topics that the offsets belong to; none on a new disk, or where an
        older worker stored it.
    """

    pipeline: Pipeline
    outbox: Outbox
    offsets: Mapping[Partition, int]
    awaited: int | None
    anew: Anew | None = None
    topic_ids: Mapping[str, str] = field(default_factory=dict)


def take_up(
    held: Checkpoint | None, config: PipelineConfig, outbox: Outbox, *, anew: Anew | None = None
) -> Taken:
    """Return what a store held; ``outbox`` is filled from it.

    Parameters
    ----------
    held
        What was read, None on a new disk.
    config
        Of its pipeline.
    outbox
        New.
    anew
        What a rebuild left; counts only on a new disk.

    Raises
    ------
    StateError
        If the state is of another version, member or schema.
    """
    if held is None:
        if anew is not None:
            outbox.begin_anew()
        offsets = dict.fromkeys((anew and anew.places) or (), 0)
        new = Pipeline(config)
        return Taken(pipeline=new, outbox=outbox, offsets=offsets, awaited=None, anew=anew)
    if _AWAITED not in held.arrays:
        raise StateError(f"state: expected an array {_AWAITED!r}, found none")
    try:
        outbox.load(under(_OUTBOX, held.arrays))
    except (KeyError, ValueError, IndexError) as error:
        raise StateError("state: part 'outbox': expected other arrays") from error
    text = np.asarray(held.arrays.get(_TOPICS, _none())).tobytes()
    try:
        topic_ids = msgspec.json.decode(text, type=dict[str, str]) if text else {}
    except msgspec.MsgspecError as error:
        raise StateError(f"state: array {_TOPICS!r}: expected names and ids") from error
    return Taken(
        pipeline=restore(config, State(held.arrays, held.meta)),
        outbox=outbox,
        offsets=held.offsets,
        awaited=next(iter(np.asarray(held.arrays[_AWAITED]).tolist()), None),
        topic_ids=topic_ids,
    )


def shell_arrays(
    outbox: Outbox, awaited: int | None, topic_ids: Mapping[str, str]
) -> dict[str, NDArray[np.generic]]:
    """Return what is stored beside the pipeline's arrays, for `take_up`."""
    arrays = {f"{_OUTBOX}{name}": array for name, array in outbox.arrays().items()}
    text = msgspec.json.encode(dict(sorted(topic_ids.items())))
    return {
        **arrays,
        _AWAITED: np.array([] if awaited is None else [awaited], np.int64),
        _TOPICS: np.frombuffer(text, np.uint8) if topic_ids else _none(),
    }


def shell_versions(outbox: Outbox) -> dict[str, int]:
    """Return of those of `shell_arrays` that never change, name -> number."""
    return {f"{_OUTBOX}{name}": number for name, number in outbox.versions().items()}


def _none() -> NDArray[np.uint8]:
    return np.empty(0, np.uint8)
