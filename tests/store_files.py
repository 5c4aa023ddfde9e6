"""What is behind a store, for tests that damage it."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from stream.manifest import page_digest, unseal
from stream.store import LAYOUT, StateStore


def change_page(path: Path, array: str, index: int, byte: int = 0) -> None:
    """Change one bit of a page in use."""
    store = StateStore(path, is_read_only=True)
    sealed = store.sealed()
    assert sealed is not None
    layout = unseal(sealed).arrays[array]
    size_bytes = min(layout.page_bytes, layout.size_bytes - index * layout.page_bytes)
    which = np.array([index], np.int64), np.array([layout.slots[index]], np.uint8)
    at = int(store._pages._placed(array, *which, size_bytes)[0]) + byte
    store.close()
    with (path / "pages").open("r+b") as file:
        file.seek(at)
        (held,) = file.read(1)
        file.seek(at)
        file.write(bytes([held ^ 1]))


def change_manifest(path: Path, change: Callable[[bytes], bytes], layout: int = LAYOUT) -> None:
    """Put another manifest in the place of the one that is there, in a file that is sound."""
    file = path / "manifest"
    _, _, body = msgspec.msgpack.decode(file.read_bytes())
    segments, manifest = msgspec.msgpack.decode(body)
    body = msgspec.msgpack.encode([segments, change(manifest)])
    file.write_bytes(msgspec.msgpack.encode([layout, page_digest(body), body]))


def with_fields(**changes: object) -> Callable[[bytes], bytes]:
    """Return what changes fields of the seal of a manifest."""
    return lambda sealed: msgspec.msgpack.encode(msgspec.msgpack.decode(sealed) | changes)
