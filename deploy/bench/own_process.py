"""A measurement in a process of its own, and how much memory a process has in use; Linux."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from models.errors import UnavailableError

T = TypeVar("T")
_SELF = Path("/proc/self")
_RESET_PEAK = "5"  # see proc_pid_clear_refs(5)


def in_own_process(work: Callable[..., dict[str, float]], *arguments: object) -> dict[str, float]:
    """Return the figures of a function of a module, called in a new process that then ends.

    Nothing that was measured before is in its memory, and nothing of it stays in ours.

    Raises
    ------
    UnavailableError
        If the process ends without figures; it has said why.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(sender, work, arguments))
    process.start()
    sender.close()  # the process has its own: where that ends, so does our wait
    try:
        figures: dict[str, float] = receiver.recv()
    except EOFError as error:
        process.join()
        raise UnavailableError(
            f"{work.__name__}{arguments}: the process ended with code {process.exitcode}; "
            "-9 is most often a lack of memory"
        ) from error
    finally:
        process.kill()
        process.join()
        receiver.close()
    return figures


def _tell(
    sender: Connection, work: Callable[..., dict[str, float]], arguments: tuple[object, ...]
) -> None:
    sender.send(work(*arguments))


def resident_bytes() -> int:
    """Return the memory of this process that lies in the machine's, now."""
    pages = int((_SELF / "statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def with_peak_growth(work: Callable[[], T]) -> tuple[T, int]:
    """Return what a function returns, and how far resident memory rose above that before it.

    Memory that was let go before, and that the process has kept to use it again, is not counted.
    """
    (_SELF / "clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    before = resident_bytes()
    result = work()
    lines = (_SELF / "status").read_text(encoding="ascii").splitlines()
    peak_kb = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return result, max(peak_kb * 1_024 - before, 0)
