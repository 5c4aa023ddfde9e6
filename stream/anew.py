"""A worker that begins anew: where it reads from, and what it takes back of what it published.

Without a state of its own a worker goes on from the offsets that its consumer group committed, and
what it once published stays in the consortium's sums. After a rebuild it is to read everything
again, so a marker beside the store says so. Outcomes that are learnt again may fall into other days
and buckets than before, or may be gone from the stream; a key that is not published again would
count them twice, or for ever. So the first publication takes such keys back.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.codec import RULES
from models.envelope import ContributionHeader, decode_header, open_envelope
from models.errors import DecodeError, QuarantinedError, StateError
from models.fragments import FragmentRecord, Reassembler
from models.summary import Contribution, ContributionKey
from stream.manifest import Partition
from stream.store import STORE, held

COUNTED = ("evidence", "histograms", "moments", "statistics")
"""Parts that are sums over transactions; the others are opinions, the newest of which counts."""
_VARIES = ("evidence", "histograms")
_MARKER = "anew.json"


class Anew(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a rebuild leaves for the next start.

    Parameters
    ----------
    places
        Partitions to read from their first record: those that the old state had read. None where
        it could not say: all that are assigned first.
    """

    places: tuple[Partition, ...] | None


def leave_marker(state_dir: Path, anew: Anew) -> None:
    """Tell the next start in this directory to begin anew."""
    whole = state_dir / f"{_MARKER}.part"
    whole.write_bytes(msgspec.json.encode(anew))
    whole.replace(state_dir / _MARKER)


def read_marker(state_dir: Path) -> Anew | None:
    """Return what a rebuild left, None if there was none.

    Raises
    ------
    StateError
        If it is not what a rebuild leaves.
    """
    path = state_dir / _MARKER
    try:
        return msgspec.json.decode(path.read_bytes(), type=Anew)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise StateError(f"{path}: expected what a rebuild leaves") from error


def clear_marker(state_dir: Path) -> None:
    """Forget the marker: the first checkpoint says everything."""
    (state_dir / _MARKER).unlink(missing_ok=True)


def first_places(
    anew: Anew, offsets: Mapping[Partition, int], assigned: frozenset[Partition]
) -> dict[Partition, int]:
    """Return where to read from after a rebuild; partitions of other workers are not ours.

    Parameters
    ----------
    anew
        What the rebuild left.
    offsets
        By the new state: none at first, then what it has read.
    assigned
        To this worker.
    """
    known = offsets or (dict.fromkeys(assigned, 0) if anew.places is None else {})
    return {place: at for place, at in known.items() if at > 0 or place in assigned}


def set_aside(state_dir: Path, name: str, anew: Anew | None) -> Path:
    """Leave a marker and move the store to ``name`` beside it; return where it is now.

    Without a marker the next start restores the state from the worker's changelog.

    Workers are kept away meanwhile, so none opens the store halfway.

    Raises
    ------
    StateHeldError
        If a worker has the store open.
    StateError
        If something of that name is there already.
    """
    store, target = state_dir / STORE, state_dir / name
    if target.exists():
        raise StateError(f"{target}: expected nothing of that name, found something")
    with held(store):
        if anew is None:
            clear_marker(state_dir)
        else:
            leave_marker(state_dir, anew)
        store.rename(target)
    return target


@dataclass(slots=True)
class Published:
    """What a member's topic holds: the newest header of each key.

    Attributes
    ----------
    headers
        Key -> header of the contribution with the highest number.
    """

    headers: dict[ContributionKey, ContributionHeader] = field(default_factory=dict)
    _reassembler: Reassembler = field(default_factory=Reassembler)

    def add(self, record: FragmentRecord) -> None:
        """Take a record of the topic, in the topic's order; what is no contribution is skipped."""
        try:
            raw = self._reassembler.add(record)
            if raw is None:
                return
            header = decode_header(open_envelope(raw), ContributionHeader)
        except (DecodeError, QuarantinedError):
            return
        if header.part in COUNTED:
            key = ContributionKey(header.member, header.worker, header.part, header.bucket)  # type: ignore[arg-type]  # one of COUNTED
            held = self.headers.get(key)
            if held is None or held.seq < header.seq:
                self.headers[key] = header

    def retractions(
        self, worker: str, replaced: Iterable[ContributionKey], epoch: int
    ) -> list[Contribution]:
        """Return empty contributions for the worker's keys that are not replaced, by key."""
        kept = set(replaced)
        return [
            Contribution(key=key, epoch=epoch, basis=header.basis, n=0, arrays=_nothing(header))
            for key, header in sorted(self.headers.items())
            if key.worker == worker and key not in kept and header.n > 0
        ]


def _nothing(header: ContributionHeader) -> Mapping[str, NDArray[np.generic]]:
    """Return the arrays of the same part with nothing in them."""
    shapes: dict[str, Sequence[int]] = {array.name: array.shape for array in header.arrays}
    first = 0 if header.part in _VARIES else None
    return {
        rule.name: np.zeros(
            shapes[rule.name] if first is None else (first, *shapes[rule.name][1:]), rule.dtype
        )
        for rule in RULES[header.part]
    }
