"""The fields of a JSON record that a mapping reads, decoded without building the others.

Only what is read is looked at: what stands elsewhere in a record must be JSON, and no more.
"""

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import Annotated, Any, cast

import msgspec

from models.errors import DecodeError
from models.fields import MAX_TEXT_CHARS

MAX_RECORD_BYTES = 1 << 18
Faults = dict[int, tuple[str, str]]
"""Row -> reason, detail; the first fault of a row stays."""
Path = tuple[str, ...]
Texts = Mapping[Path, bool]
"""Fields that are texts, and whether a record must have one."""
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_CHARS)]
_NO_TEXTS: Texts = MappingProxyType({})
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError)


class Shape:
    """The fields below one object of a record, as a type that msgspec fills.

    Parameters
    ----------
    paths
        Of the fields, from this object inwards.
    at
        Path of this object.
    texts
        Fields that the type takes as texts alone, of a length that is good for an identifier.
    """

    def __init__(self, paths: Iterable[Path], at: Path = (), texts: Texts = _NO_TEXTS) -> None:
        below: dict[str, list[Path]] = {}
        for path in paths:
            below.setdefault(path[0], []).extend([path[1:]] if path[1:] else [])
        self.at = at
        self.names = {key: f"f{i}" for i, key in enumerate(below)}
        self.inner = {
            key: Shape(inwards, (*at, key), texts) for key, inwards in below.items() if inwards
        }
        fields = [self._field(key, name, texts) for key, name in self.names.items()]
        rename = {name: key for key, name in self.names.items()}
        self.type = msgspec.defstruct("Fields", fields, rename=rename, gc=False, kw_only=True)
        self.is_needed = any(len(field) == 2 for field in fields)
        self.empty = cast("msgspec.Struct", None if self.is_needed else self.type())

    def _field(self, key: str, name: str, texts: Texts) -> tuple[str, Any] | tuple[str, Any, Any]:
        """Return a field's name, type and, where a record may lack it, what stands for it."""
        kind: Any = Any
        if key in self.inner:
            kind, is_needed = self.inner[key].type, self.inner[key].is_needed
        else:
            is_needed = texts.get((*self.at, key), False)
            kind = _Text if (*self.at, key) in texts else Any
        return (name, kind) if is_needed else (name, kind | None, None)

    def of(self, record: Mapping[str, object], row: int, faults: Faults) -> msgspec.Struct:
        """Return the fields of a record that has something else where an object should be."""
        values = {}
        for key, name in self.names.items():
            value = record.get(key)
            if key in self.inner and value is not None:
                inner = self.inner[key]
                if type(value) is dict:
                    value = inner.of(value, row, faults)
                else:
                    detail = f"{'.'.join(inner.at)}: expected an object"
                    faults.setdefault(row, ("wrong_type", detail))
                    value = None
            values[name] = value
        return self.type(**values)


class RecordColumns:
    """The columns of a chunk of records.

    Parameters
    ----------
    shape
        Of the records.
    records
        Of its type.
    are_checked
        Whether what should be texts is known to be so.
    """

    def __init__(
        self, shape: Shape, records: list[msgspec.Struct], *, are_checked: bool = False
    ) -> None:
        self.are_checked = are_checked
        self._shape = shape
        self._records = records
        self._inner: dict[str, RecordColumns] = {}

    def __len__(self) -> int:
        return len(self._records)

    def column(self, path: Path) -> list[object]:
        """Return what stands at a path of the shape, None where nothing does."""
        if len(path) > 1:
            return self._below(path[0]).column(path[1:])
        return list(map(attrgetter(self._shape.names[path[0]]), self._records))

    def _below(self, key: str) -> "RecordColumns":
        if key not in self._inner:
            shape = self._shape.inner[key]
            found = cast("list[msgspec.Struct | None]", self.column((key,)))
            if None in found:
                found = [shape.empty if each is None else each for each in found]
            self._inner[key] = RecordColumns(shape, cast("list[msgspec.Struct]", found))
        return self._inner[key]


class RecordReader:
    """Reads chunks of records.

    Parameters
    ----------
    paths
        Of the fields that are read.
    texts
        Those that should be texts. Where all records of a chunk have them so, none is looked at
        once more.
    """

    def __init__(self, paths: Iterable[Path], texts: Texts = _NO_TEXTS) -> None:
        paths = list(paths)
        self._shape = Shape(paths)
        self._checked_shape = Shape(paths, texts=texts) if texts else None
        if self._checked_shape is not None:
            self._checking = msgspec.json.Decoder(self._checked_shape.type)
        self._typed = msgspec.json.Decoder(self._shape.type)
        self._untyped = msgspec.json.Decoder()

    def read(self, values: Sequence[bytes | None], faults: Faults) -> RecordColumns:
        """Return the columns; a record that cannot be read is noted, and has no fields."""
        if self._checked_shape is not None:
            records = self._all_by(self._checking, values)
            if records is not None:
                return RecordColumns(self._checked_shape, records, are_checked=True)
        records = self._all_by(self._typed, values)
        if records is None:  # one by one, to tell which and why
            records = [self._record(value, row, faults) for row, value in enumerate(values)]
        return RecordColumns(self._shape, records)

    def _all_by(
        self, decoder: "msgspec.json.Decoder[Any]", values: Sequence[bytes | None]
    ) -> list[msgspec.Struct] | None:
        """Return all records, None where one is not as it should be."""
        try:
            if max(map(len, values), default=0) <= MAX_RECORD_BYTES:  # type: ignore[arg-type]  # None is a TypeError
                return list(map(decoder.decode, values))  # type: ignore[arg-type]  # likewise
        except _UNREADABLE:
            pass
        return None

    def _record(self, value: bytes | None, row: int, faults: Faults) -> msgspec.Struct:
        try:
            checked = _checked(value)
            try:
                return self._typed.decode(checked)
            except _UNREADABLE:
                return self._shape.of(self._object(checked), row, faults)
        except DecodeError as error:
            faults[row] = (error.reason, error.detail)
            return self._shape.empty

    def _object(self, value: bytes) -> dict[str, object]:
        try:
            record = self._untyped.decode(value)
        except msgspec.ValidationError as error:
            raise DecodeError("too_large", "expected numbers within float64") from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError("malformed_json", "expected JSON in UTF-8") from error
        if type(record) is not dict:
            raise DecodeError("not_an_object", "expected a JSON object")
        return record


def _checked(value: bytes | None) -> bytes:
    if value is None:
        raise DecodeError("not_an_object", "expected a JSON object, got a record without value")
    if len(value) > MAX_RECORD_BYTES:
        raise DecodeError("too_large", f"expected at most {MAX_RECORD_BYTES} bytes")
    return value
