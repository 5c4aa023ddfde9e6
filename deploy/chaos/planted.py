"""``python -m deploy.chaos.planted BUG --settings FILE``: a worker with a bug that must be found.

The product has no switch for it: the worker's own entrance is run with one piece replaced.
"""

import sys
from collections.abc import Callable, Mapping

from models.matured import Matured
from stream import __main__ as worker
from stream import pipeline_state, take_up
from stream.manifest import Partition
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.pipeline_state import State
from stream.sequencer import Sequencer


def offsets_first() -> None:
    """Store the offsets of what was read, before the state is that of what was read.

    What a worker holds back until its order is known is skipped after a kill, unanswered.
    """

    def read_so_far(sequencer: Sequencer) -> dict[Partition, int]:
        return {place: offset + 1 for place, offset in sequencer._seen.items()}  # noqa: SLF001  # a bug may look anywhere

    setattr(Sequencer, "positions", read_so_far)  # noqa: B010  # mypy forbids it plainly


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
