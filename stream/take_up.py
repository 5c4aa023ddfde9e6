"""A worker's start: from a new disk, or from where the last checkpoint left off."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.outbox import Outbox
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.pipeline_state import State, restore
from stream.store import Partition, StateStore


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
    """

    pipeline: Pipeline
    outbox: Outbox
    offsets: Mapping[Partition, int]
    awaited: int | None


def take_up(store: StateStore, config: PipelineConfig, outbox: Outbox) -> Taken:
    """Return what a store holds; ``outbox`` is filled from it.

    Raises
    ------
    StateError
        If the state is of another version, member or schema, or damaged.
    """
    held = store.load()
    if held is None:
        return Taken(pipeline=Pipeline(config), outbox=outbox, offsets={}, awaited=None)
    outbox.load(
        {k.removeprefix("outbox/"): v for k, v in held.arrays.items() if k.startswith("outbox/")}
    )
    return Taken(
        pipeline=restore(config, State(held.arrays, held.meta)),
        outbox=outbox,
        offsets=held.offsets,
        awaited=next(iter(np.asarray(held.arrays["awaited"]).tolist()), None),
    )


def shell_arrays(outbox: Outbox, awaited: int | None) -> dict[str, NDArray[np.generic]]:
    """Return what is stored beside the pipeline's arrays, for `take_up`."""
    arrays = {f"outbox/{name}": array for name, array in outbox.arrays().items()}
    return {**arrays, "awaited": np.array([] if awaited is None else [awaited], np.int64)}
