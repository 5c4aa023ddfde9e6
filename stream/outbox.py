"""Summaries that are signed and numbered but perhaps not sent yet; pure, and part of the state.

A summary is put in here, and the state is stored, before it is sent. So after a crash the same
bytes go out again under the same number, which the amalgamator knows as a duplicate; a consortium
that is away costs a bank nothing but the newest version of each key in here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.codec import Context, encode_contribution
from models.envelope import open_envelope
from models.keys import Signer
from models.schema import Schema
from models.summary import Contribution, ContributionKey

_NO_HASH = b""
_UNSETTLED = -1


class Letter(NamedTuple):
    """A signed summary: the key that it replaces older ones of, its number, its bytes."""

    key: bytes
    seq: int
    raw: bytes


class Outbox:
    """Numbers, signs and keeps summaries until they are confirmed.

    Parameters
    ----------
    consortium, schema
        Name, and meaning of numbers.
    signer
        The bank's.
    now_ms
        Wall clock, for headers.

    Attributes
    ----------
    first_seq
        Number from which on the topic holds what this state knows: 0 usually; after a rebuild that
        of its first publication, -1 until then.
    """

    def __init__(
        self, consortium: str, schema: Schema, signer: Signer, now_ms: Callable[[], int]
    ) -> None:
        self._consortium = consortium
        self._schema = schema
        self._signer = signer
        self._now_ms = now_ms
        self._seq = 0
        self._prev_hash = _NO_HASH
        self._letters: dict[bytes, Letter] = {}
        self.first_seq = 0

    @property
    def is_anew(self) -> bool:
        """Whether what the topic holds is from before a rebuild."""
        return self.first_seq == _UNSETTLED

    def begin_anew(self) -> None:
        """Take note that the topic holds what this state does not know."""
        self.first_seq = _UNSETTLED

    def settle(self, seq: int) -> None:
        """Take note that nothing from before the rebuild counts once ``seq`` has arrived."""
        self.first_seq = seq

    @property
    def letters(self) -> tuple[Letter, ...]:
        """What is to be sent, by number."""
        return tuple(sorted(self._letters.values(), key=lambda letter: letter.seq))

    def put(self, contributions: Sequence[Contribution]) -> list[int]:
        """Give contributions numbers and signatures; each replaces what waits under its key."""
        seqs = []
        for contribution in contributions:
            self._seq += 1
            raw = self._encoded(contribution)
            key = _text(contribution.key)
            self._letters[key] = Letter(key, self._seq, raw)
            seqs.append(self._seq)
        return seqs

    def confirm(self, letter: Letter) -> None:
        """Forget a letter that arrived, unless a newer one took its place."""
        if self._letters.get(letter.key) == letter:
            del self._letters[letter.key]

    def take_up(self, seq: int) -> None:
        """Go on after ``seq``, the highest number that the topic holds (on a new disk)."""
        self._seq = max(self._seq, seq)

    def _encoded(self, contribution: Contribution) -> bytes:
        context = Context(
            consortium=self._consortium,
            seq=self._seq,
            prev_hash=self._prev_hash,
            schema_hash=self._schema.hash,
            created_ms=self._now_ms(),
        )
        raw = encode_contribution(contribution, context, self._signer)
        self._prev_hash = open_envelope(raw).hash
        return raw

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays."""
        out: dict[str, NDArray[np.generic]] = {
            "seq": np.array([self._seq], np.int64),
            "prev_hash": np.frombuffer(self._prev_hash, np.uint8),
            "first_seq": np.array([self.first_seq], np.int64),
        }
        for letter in self.letters:
            out[f"key/{letter.seq}"] = np.frombuffer(letter.key, np.uint8)
            out[f"raw/{letter.seq}"] = np.frombuffer(letter.raw, np.uint8)
        return out

    def versions(self) -> dict[str, int]:
        """Return of the arrays that never change, name -> number."""
        return {f"raw/{letter.seq}": letter.seq for letter in self._letters.values()}

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave."""
        self._seq = int(arrays["seq"][0])
        self._prev_hash = np.asarray(arrays["prev_hash"]).tobytes()
        self.first_seq = int(arrays["first_seq"][0]) if "first_seq" in arrays else 0
        seqs = sorted(int(name.partition("/")[2]) for name in arrays if name.startswith("key/"))
        letters = [
            Letter(
                np.asarray(arrays[f"key/{seq}"]).tobytes(),
                seq,
                np.asarray(arrays[f"raw/{seq}"]).tobytes(),
            )
            for seq in seqs
        ]
        self._letters = {letter.key: letter for letter in letters}


def _text(key: ContributionKey) -> bytes:
    return "|".join(str(part) for part in key).encode()
