"""A pipeline's whole state as named arrays, and back; what a checkpoint stores."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import StateError
from models.named_arrays import under
from models.release import Age
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.touched import TouchedPages

VERSION = 11


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Everything a pipeline knows.

    Parameters
    ----------
    arrays
        Name -> array; views of the running pipeline, to be stored before it goes on.
    meta
        msgpack: version, consortium schema, member, experts, scalars.
    touched
        Of large tables: array -> its pages that may have changed since they were copied; the
        pipeline's own.
    versions
        Of arrays that seldom change: array -> number that is another whenever the array is.
    """

    arrays: Mapping[str, NDArray[np.generic]]
    meta: bytes
    touched: Mapping[str, TouchedPages] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)


class _Part(Protocol):
    """A piece of the pipeline that can be stored."""

    def arrays(self) -> dict[str, NDArray[np.generic]]: ...

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None: ...


def _parts(pipeline: Pipeline) -> dict[str, _Part]:
    watch: dict[str, _Part] = {"drift": pipeline.drift} if pipeline.drift else {}
    return watch | {
        "units": pipeline.units,
        "scales": pipeline.scales,
        "accounts": pipeline.accounts,
        "entities": pipeline.entities,
        "log": pipeline.log,
        "labels": pipeline.labels,
        "panel": pipeline.panel,
        "judge": pipeline.judge,
    }


def _touched(pipeline: Pipeline) -> dict[str, TouchedPages]:
    tables = {
        "accounts": pipeline.accounts.touched(),
        "entities": pipeline.entities.touched(),
        "log": pipeline.log.touched(),
        "panel": pipeline.panel.touched(),
    }
    return {
        f"{part}/{name}": pages for part, held in tables.items() for name, pages in held.items()
    }


class _Meta(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    version: int
    schema: str
    member: str
    worker: str
    experts: tuple[str, ...]
    watermark_ms: int
    newest_ms: dict[int, int]
    tick_ms: int
    release_number: int
    statistics_due_ms: int
    first_pending: int
    workers: int = 1
    release_epoch: int = -1


def dump(pipeline: Pipeline) -> State:
    """Return the state of a pipeline between two batches, after `Pipeline.published`."""
    config = pipeline.config
    arrays = {
        f"{part}/{name}": array
        for part, holder in _parts(pipeline).items()
        for name, array in holder.arrays().items()
    }
    meta = _Meta(
        version=VERSION,
        schema=config.schema.hash,
        member=config.member,
        worker=config.worker,
        experts=pipeline.panel.names,
        watermark_ms=pipeline.watermark_ms,
        newest_ms=pipeline.newest_ms,
        tick_ms=pipeline.tick_ms,
        release_number=pipeline.release_age.number,
        statistics_due_ms=pipeline.summaries.due_ms,
        first_pending=pipeline.log.first_pending,
        workers=config.workers,
        release_epoch=pipeline.release_age.epoch,
    )
    versions = {f"entities/{name}": n for name, n in pipeline.entities.versions().items()}
    return State(arrays, msgspec.msgpack.encode(meta), _touched(pipeline), versions)


def restore(config: PipelineConfig, state: State) -> Pipeline:
    """Return a pipeline that goes on where `dump` left off.

    Raises
    ------
    StateError
        If the state is of another version, member, schema, split or other families, or incomplete.
    """
    try:
        meta = msgspec.msgpack.decode(state.meta, type=_Meta)
    except msgspec.MsgspecError as error:
        raise StateError(f"state: expected version {VERSION}, got something else") from error
    expected = (VERSION, config.schema.hash, config.member, config.worker)
    found = (meta.version, meta.schema, meta.member, meta.worker)
    if found != expected:
        raise StateError(
            f"state: expected (version, schema, member, worker) {expected}, got {found}"
        )
    if meta.workers != config.workers:
        raise StateError(
            f"state: expected one of {config.workers} workers, got one of {meta.workers}: its "
            "accounts would be other workers'; set `workers` back, or rebuild the states of all"
        )
    pipeline = Pipeline(config)
    if meta.experts != pipeline.panel.names:
        raise StateError(
            f"state: expected the experts {', '.join(pipeline.panel.names)}, got those of other "
            f"families: {', '.join(meta.experts)}"
        )
    try:
        for part, holder in _parts(pipeline).items():
            held = under(f"{part}/", state.arrays)
            if held or part != "drift":  # a watch that was switched on since begins anew
                holder.load(held)
    except KeyError as error:
        raise StateError(f"state: expected an array {error}, found none") from error
    except (ValueError, IndexError, TypeError, msgspec.MsgspecError) as error:
        raise StateError(
            f"state: part {part!r}: expected arrays of other shapes or types"
        ) from error
    pipeline.watermark_ms = meta.watermark_ms
    pipeline.newest_ms = meta.newest_ms
    pipeline.tick_ms = meta.tick_ms
    pipeline.release_age = Age(meta.release_epoch, meta.release_number)
    pipeline.summaries.due_ms = meta.statistics_due_ms
    pipeline.log.first_pending = meta.first_pending
    for expert, (basis, weights) in pipeline.panel.scorers().items():
        pipeline.judge.restore_scorer(expert, basis, weights)
    return pipeline
