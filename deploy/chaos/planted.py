"""``python -m deploy.chaos.planted BUG --settings FILE``: a worker with a bug that must be found.

The product has no switch for it: the worker's own entrance is run with one piece replaced.
"""

import sys
import time
from collections.abc import Callable, Mapping

import msgspec

from models.matured import Matured
from stream import __main__ as worker
from stream import manifest, pipeline_state, store, take_up
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.pipeline_state import State

_WINDOW_S = 1.0


class OffsetsFirstStore(store.StateStore):
    """Stores the offsets before the state that they belong to."""

    def write(self, snapshot: manifest.Snapshot) -> None:
        """Put the new offsets beside the old state, and the new state there a little later."""
        before = self._manifest()
        if before is not None:
            new = manifest.unseal(snapshot.manifest)
            mixed = msgspec.structs.replace(before, offsets=new.offsets)
            self.take(manifest.seal(mixed))
            time.sleep(_WINDOW_S)
        super().write(snapshot)


def offsets_first() -> None:
    """Let a kill between two writes lose what was read in between."""
    setattr(worker, "StateStore", OffsetsFirstStore)  # noqa: B010  # mypy forbids it plainly


def doubled() -> None:
    """Let a worker that goes on from a state learn the first outcomes that fall due once more."""
    restore = pipeline_state.restore

    def restore_forgetful(config: PipelineConfig, state: State) -> Pipeline:
        pipeline = restore(config, state)
        learn = pipeline.panel.learn

        def learn_twice(own: Matured, shared: Matured, shareable: Matured) -> None:
            setattr(pipeline.panel, "learn", learn)  # noqa: B010  # mypy forbids it plainly
            learn(own, shared, shareable)
            learn(own, shared, shareable)

        setattr(pipeline.panel, "learn", learn_twice)  # noqa: B010  # mypy forbids it plainly
        return pipeline

    setattr(take_up, "restore", restore_forgetful)  # noqa: B010  # mypy forbids it plainly


BUGS: Mapping[str, Callable[[], None]] = {"offsets-first": offsets_first, "doubled": doubled}


def main() -> int:
    """Plant the bug that the first argument names, and run the worker."""
    BUGS[sys.argv.pop(1)]()
    return worker.main()


if __name__ == "__main__":
    sys.exit(main())
