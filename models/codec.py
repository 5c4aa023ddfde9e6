"""Contributions as signed bytes and back, with the table of what each part may hold; pure.

Encoding is lossless: a contribution that was sent and one that was handed over in the same process
fold to the same bits.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from models.basis import MAX_WEIGHTS
from models.copula import THINNING as MOMENTS_THINNING
from models.copula import check_moments
from models.entity_risk import cell_keys
from models.envelope import ArrayHeader, ContributionHeader, Kind, seal
from models.errors import InvalidInputError, InvalidTreesError, QuarantinedError
from models.families.mlp_parameters import check_net
from models.histograms import N_CELLS
from models.keys import Signer
from models.packed import diagonal_places
from models.probes import MAX_PROBES, check_answers
from models.schema import Schema
from models.summary import Contribution, ContributionKey, Part, proposed_trees

MAX_ELEMENTS = 2**26
MAX_COUNT = 2**24
CURVATURE_TOLERANCE = 1e-4
PART_NAMES: tuple[Part, ...] = get_args(Part)
HOURS_A_DAY = 24

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class ArrayRule:
    """Name, little-endian dtype and shape of one registered array; None in a shape: any length."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


CELLS_RULES = (
    ArrayRule("name", "|u1", (None, 16)),
    ArrayRule("kind", "|u1", (None,)),
    ArrayRule("hour", "|u1", (None,)),
    ArrayRule("n", "<f4", (None,)),
    ArrayRule("f", "<f4", (None,)),
    ArrayRule("first_fraud_ms", "<i8", (None,)),
    ArrayRule("last_fraud_ms", "<i8", (None,)),
    ArrayRule("last_legit_ms", "<i8", (None,)),
)
RULES: Mapping[str, tuple[ArrayRule, ...]] = {
    "histograms": (
        ArrayRule("feature", "<i2", (None,)),
        ArrayRule("is_fraud", "|u1", (None,)),
        ArrayRule("cell", "<i2", (None,)),
        ArrayRule("count", "<u4", (None,)),
    ),
    "statistics": (
        ArrayRule("curvature", "<f4", (None,)),
        ArrayRule("gradient", "<f8", (None,)),
    ),
    "moments": (
        ArrayRule("n", "<i8", (2,)),
        ArrayRule("sums", "<i8", (2, None)),
        ArrayRule("products", "<i8", (2, None)),
    ),
    "trees": (
        ArrayRule("n_nodes", "<i4", (None,)),
        ArrayRule("gain", "<f4", (None,)),
        ArrayRule("feature", "<i2", (None,)),
        ArrayRule("threshold", "<f4", (None,)),
        ArrayRule("absent_left", "|u1", (None,)),
        ArrayRule("left", "<i2", (None,)),
        ArrayRule("right", "<i2", (None,)),
        ArrayRule("leaf_n", "<u4", (None,)),
        ArrayRule("leaf_accounts", "<u4", (None,)),
        ArrayRule("period", "<i4", (1,)),
    ),
    "evidence": CELLS_RULES,
    "answers": (ArrayRule("logit", "<f4", (None,)),),
    "net": (ArrayRule("flat", "<f4", (None,)),),
    "epoch": (
        ArrayRule("watermark_ms", "<i8", (1,)),
        ArrayRule("n_contributions", "<i8", (1,)),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What an envelope's header says beyond the contribution; fields as in `ContributionHeader`."""

    consortium: str
    seq: int
    prev_hash: bytes
    schema_hash: str
    created_ms: int
    pseudonym_generation: int = 0
    epsilon_spent: float = 0.0
    base_release: str = ""


def encode_contribution(contribution: Contribution, context: Context, signer: Signer) -> bytes:
    """Return the signed envelope of a contribution; its ``hash`` is the next one's ``prev_hash``.

    Raises
    ------
    InvalidInputError
        If an array is not registered for the part or has another dtype or shape.
    """
    rules = RULES[contribution.key.part]
    arrays, body = pack_arrays(contribution.arrays, rules)
    header = ContributionHeader(
        consortium=context.consortium,
        member=contribution.key.member,
        worker=contribution.key.worker,
        key_id=signer.key_id,
        seq=context.seq,
        prev_hash=context.prev_hash,
        epoch=contribution.epoch,
        schema_hash=context.schema_hash,
        pseudonym_generation=context.pseudonym_generation,
        created_ms=context.created_ms,
        n=contribution.n,
        epsilon_spent=context.epsilon_spent,
        base_release=context.base_release,
        part=contribution.key.part,
        bucket=contribution.key.bucket,
        basis=contribution.basis,
        arrays=arrays,
        body_sha256=hashlib.sha256(body).digest(),
    )
    return seal(Kind.CONTRIBUTION, header, body, signer)


def decode_contribution(
    header: ContributionHeader, body: memoryview, schema: Schema
) -> Contribution:
    """Return the contribution of a verified envelope after checking parts, numbers and ranges.

    Raises
    ------
    QuarantinedError
        Reasons ``part``, ``shape``, ``trailing_bytes``, ``finite``, ``range``.
    """
    if header.part not in RULES:
        raise QuarantinedError("part", f"expected one of {', '.join(RULES)}")
    part = cast(Part, header.part)
    check_layout(header.arrays, RULES[part], len(body))
    arrays = unpack_arrays(header.arrays, body)
    check_finite(arrays)
    check_ranges(part, arrays, header, schema)
    return Contribution(
        key=ContributionKey(header.member, header.worker, part, header.bucket),
        epoch=header.epoch,
        basis=header.basis,
        n=header.n,
        arrays=arrays,
    )


def pack_arrays(
    arrays: Arrays, rules: Sequence[ArrayRule]
) -> tuple[tuple[ArrayHeader, ...], bytes]:
    """Return the headers and the body of arrays, in the order of their rules."""
    if set(arrays) != {rule.name for rule in rules}:
        raise InvalidInputError(
            f"arrays: expected {', '.join(rule.name for rule in rules)}, got {', '.join(arrays)}"
        )
    headers, pieces, offset = [], [], 0
    for rule in rules:
        array = arrays[rule.name]
        little = array.dtype.newbyteorder("<")
        if little != np.dtype(rule.dtype) or not fits(array.shape, rule.shape):
            raise InvalidInputError(
                f"{rule.name}: expected {rule.dtype} of shape {rule.shape}, "
                f"got {array.dtype} of shape {array.shape}"
            )
        headers.append(ArrayHeader(rule.name, rule.dtype, array.shape, offset))
        pieces.append(np.ascontiguousarray(array, dtype=rule.dtype).tobytes())
        offset += len(pieces[-1])
    return tuple(headers), b"".join(pieces)


def fits(shape: Sequence[int], rule: Sequence[int | None]) -> bool:
    """Return whether a shape follows a rule in which None stands for any length."""
    return len(shape) == len(rule) and all(
        wanted is None or length == wanted for length, wanted in zip(shape, rule, strict=True)
    )


def check_layout(
    headers: Sequence[ArrayHeader], rules: Sequence[ArrayRule], body_bytes: int
) -> None:
    """Check names, dtypes, shapes and offsets against the rules and the body, before any copy.

    Raises
    ------
    QuarantinedError
        Reasons ``part``, ``shape``, ``trailing_bytes``.
    """
    if [header.name for header in headers] != [rule.name for rule in rules]:
        raise QuarantinedError("part", f"expected {', '.join(rule.name for rule in rules)}")
    offset = 0
    for header, rule in zip(headers, rules, strict=True):
        if header.dtype != rule.dtype:
            raise QuarantinedError("part", f"{rule.name}: expected {rule.dtype}")
        in_bounds = all(0 <= length <= MAX_ELEMENTS for length in header.shape)
        if not (fits(header.shape, rule.shape) and in_bounds and header.offset == offset):
            raise QuarantinedError("shape", f"{rule.name}: expected shape {rule.shape}, no gap")
        offset += prod(header.shape) * np.dtype(rule.dtype).itemsize
        if offset > body_bytes:
            raise QuarantinedError("shape", f"{rule.name}: does not fit the body")
    if offset != body_bytes:
        raise QuarantinedError("trailing_bytes", f"expected {offset} bytes, got {body_bytes}")


def unpack_arrays(
    headers: Sequence[ArrayHeader], body: memoryview
) -> dict[str, NDArray[np.generic]]:
    """Return read-only copies of the arrays of a checked layout."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for header in headers:
        flat = np.frombuffer(body, header.dtype, prod(header.shape), header.offset)
        array = flat.reshape(header.shape).copy()
        array.flags.writeable = False
        arrays[header.name] = array
    return arrays


def check_finite(arrays: Arrays) -> None:
    """Raise `QuarantinedError` with reason ``finite`` if a number is NaN or infinite."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
            raise QuarantinedError("finite", f"{name}: expected finite numbers")


def check_ranges(part: Part, arrays: Arrays, header: ContributionHeader, schema: Schema) -> None:
    """Raise `QuarantinedError` with reason ``range`` or ``shape`` for impossible numbers."""
    _demand(0.0 <= header.epsilon_spent < np.inf, "epsilon_spent: expected in [0, inf)")
    _CHECKS[part](arrays, header, schema)


def check_cells(arrays: Arrays, n_kinds: int) -> None:
    """Check cells of evidence, a member's or a release's; raise with reason ``shape``/``range``."""
    _check_equal_lengths(arrays)
    n, f = arrays["n"], arrays["f"]
    first, last, legit = (
        arrays[name] for name in ("first_fraud_ms", "last_fraud_ms", "last_legit_ms")
    )
    _demand(bool(np.all(arrays["kind"] < n_kinds)), f"kind: expected less than {n_kinds}")
    _demand(bool(np.all(arrays["hour"] < HOURS_A_DAY)), "hour: expected 0..23")
    _demand(
        bool(np.all((f >= 0) & (f <= n) & (n <= MAX_COUNT))),
        f"n, f: expected 0 <= f <= n <= {MAX_COUNT}",
    )
    _demand(
        bool(np.all((first >= -1) & (first <= last) & ((first == -1) == (last == -1)))),
        "first_fraud_ms, last_fraud_ms: expected both -1, or ascending",
    )
    _demand(bool(np.all((f == 0) | (last >= 0))), "last_fraud_ms: expected where f > 0")
    _demand(bool(np.all(legit >= -1)), "last_legit_ms: expected -1 or later")
    _demand(_is_ascending(cell_keys(arrays)), "cells: expected (name, kind, hour) to ascend")


def _is_ascending(keys: Sequence[NDArray[np.uint64]]) -> bool:
    """Return whether rows ascend strictly, compared by the first key, then the second, ..."""
    greater = np.zeros(max(len(keys[0]) - 1, 0), bool)
    equal = ~greater
    for key in keys:
        greater |= equal & (key[1:] > key[:-1])
        equal &= key[1:] == key[:-1]
    return bool(greater.all())


def _check_histograms(arrays: Arrays, header: ContributionHeader, schema: Schema) -> None:
    _check_equal_lengths(arrays)
    _demand(header.bucket == 0 and header.basis == 0, "bucket, basis: expected 0")
    feature, is_fraud, cell = arrays["feature"], arrays["is_fraud"], arrays["cell"]
    n_features = len(schema.feature_names)
    _demand(
        bool(np.all((feature >= 0) & (feature < n_features))),
        f"feature: expected 0..{n_features - 1}",
    )
    _demand(bool(np.all(is_fraud <= 1)), "is_fraud: expected 0 or 1")
    _demand(bool(np.all((cell >= 0) & (cell < N_CELLS))), f"cell: expected 0..{N_CELLS - 1}")
    place = (feature.astype(np.uint64) * np.uint64(2) + is_fraud) * np.uint64(N_CELLS)
    _demand(_is_ascending([place + cell.astype(np.uint64)]), "cells: expected to ascend")


def _check_statistics(arrays: Arrays, header: ContributionHeader, schema: Schema) -> None:
    del schema
    packed, n_weights = arrays["curvature"], len(arrays["gradient"])
    if not 1 <= n_weights <= MAX_WEIGHTS or len(packed) != n_weights * (n_weights + 1) // 2:
        raise QuarantinedError("shape", "curvature: expected w (w + 1) / 2 numbers, w of gradient")
    _demand(header.basis >= 1, "basis: expected at least 1")
    starts = diagonal_places(n_weights)
    diagonal = packed[starts].astype(np.float64) * (1.0 + CURVATURE_TOLERANCE)
    _demand(bool(np.all(diagonal >= 0)), "curvature: expected a diagonal >= 0")
    for i, start in enumerate(starts):
        row = packed[start : start + n_weights - i]
        bound = np.minimum(diagonal[i], diagonal[i:])
        if not bool(np.all((row >= 0) & (row <= bound))):
            raise QuarantinedError("range", "curvature: expected 0 <= a_ij <= min(a_ii, a_jj)")


def _check_moments(arrays: Arrays, header: ContributionHeader, schema: Schema) -> None:
    _demand(header.bucket == 0 and header.basis >= 1, "expected bucket 0 and basis at least 1")
    check_moments(arrays, schema.n_features)
    bounds = np.array([MOMENTS_THINNING * header.n, header.n])
    _demand(bool(np.all(arrays["n"] <= bounds)), "n: expected no more rows than have matured")


def _check_trees(arrays: Arrays, header: ContributionHeader, schema: Schema) -> None:
    _demand(header.bucket == 0 and header.basis >= 1, "expected bucket 0 and basis at least 1")
    try:
        trees, period = proposed_trees(arrays)
    except InvalidTreesError as error:
        raise QuarantinedError(f"trees_{error.reason}", error.detail) from error
    _demand(period >= 0, "period: expected at least 0")
    n_features = len(schema.feature_names)
    if not bool(np.all((trees.feature >= 0) & (trees.feature < n_features))):
        raise QuarantinedError("trees_unknown_feature", f"expected positions below {n_features}")


def _check_evidence(arrays: Arrays, header: ContributionHeader, schema: Schema) -> None:
    _demand(header.basis == 0, "basis: expected 0")
    check_cells(arrays, len(schema.entity_kinds))


def _check_answers(arrays: Arrays, header: ContributionHeader, schema: Schema) -> None:
    del schema
    _demand(header.bucket == 0 and header.basis >= 1, "expected bucket 0 and a set of probes")
    n_probes = len(arrays["logit"])
    if not 1 <= n_probes <= MAX_PROBES:
        raise QuarantinedError("shape", f"logit: expected 1 to {MAX_PROBES} numbers")
    check_answers(arrays, n_probes)


def _check_net(arrays: Arrays, header: ContributionHeader, schema: Schema) -> None:
    _demand(header.bucket == 0 and header.basis >= 1, "expected bucket 0 and basis at least 1")
    _demand(header.n >= 1, "n: expected at least one row")
    check_net(arrays["flat"], schema.n_features)


def _check_epoch(arrays: Arrays, header: ContributionHeader, schema: Schema) -> None:
    del schema
    _demand(header.bucket == 0 and header.basis == 0, "bucket, basis: expected 0")
    _demand(bool(arrays["n_contributions"][0] >= 0), "n_contributions: expected at least 0")


def _check_equal_lengths(arrays: Arrays) -> None:
    if len({len(array) for array in arrays.values()}) != 1:
        raise QuarantinedError("shape", "expected arrays of equal length")


def _demand(holds: bool, expectation: str) -> None:
    if not holds:
        raise QuarantinedError("range", expectation)


_CHECKS: Mapping[Part, Callable[[Arrays, ContributionHeader, Schema], None]] = {
    "histograms": _check_histograms,
    "statistics": _check_statistics,
    "moments": _check_moments,
    "trees": _check_trees,
    "evidence": _check_evidence,
    "answers": _check_answers,
    "net": _check_net,
    "epoch": _check_epoch,
}
