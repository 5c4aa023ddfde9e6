"""Parts of a release as arrays with their rules, and back; pure."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.codec import (
    CELLS_RULES,
    ArrayRule,
    check_cells,
    check_finite,
    check_layout,
    pack_arrays,
    unpack_arrays,
)
from models.entity_risk import EvidenceCells
from models.envelope import ReleasePartHeader
from models.errors import InvalidInputError, QuarantinedError
from models.families.distilled import n_inputs
from models.families.mlp_parameters import MlpSummary, check_net
from models.families.network import check_parameters
from models.probes import check_probes
from models.release import FormerWeights, ProbeSet, StudentNetwork
from models.schema import Schema

Arrays = Mapping[str, NDArray[Any]]

BASIS_RULES = (
    ArrayRule("edges", "<f4", (None,)),
    ArrayRule("n_edges", "<i4", (None,)),
    ArrayRule("coarse_edges", "<f4", (None,)),
    ArrayRule("n_coarse_edges", "<i4", (None,)),
    ArrayRule("cuts", "<f4", (None,)),
    ArrayRule("n_cuts", "<i4", (None,)),
    ArrayRule("ranks", "<f4", (None,)),
    ArrayRule("selected", "<i4", (None,)),
    ArrayRule("crosses", "<i4", (None, 2)),
    ArrayRule("category_cells", "<i2", (None,)),
    ArrayRule("category_logits", "<f4", (None,)),
    ArrayRule("n_categories", "<i4", (None,)),
    ArrayRule("tree_n_nodes", "<i4", (None,)),
    ArrayRule("tree_feature", "<i2", (None,)),
    ArrayRule("tree_threshold", "<f4", (None,)),
    ArrayRule("tree_absent_left", "|u1", (None,)),
    ArrayRule("tree_left", "<i2", (None,)),
    ArrayRule("tree_right", "<i2", (None,)),
    ArrayRule("made_from", "<i4", (2,)),
)
PART_RULES: Mapping[str, tuple[ArrayRule, ...]] = {
    "basis": BASIS_RULES,
    "weights": (ArrayRule("weights", "<f8", (None,)),),
    "personal": (ArrayRule("weights", "<f8", (None, None)),),
    "former": (ArrayRule("weights", "<f8", (None,)),),
    "evidence": CELLS_RULES,
    "probes": (ArrayRule("rows", "<f4", (None, None)),),
    "student": (ArrayRule("answers", "|u1", (32,)), ArrayRule("parameters", "<f4", (None,))),
    "net": (ArrayRule("about", "<i8", (3,)), ArrayRule("flat", "<f4", (None,))),
}

Part = (
    Basis
    | EvidenceCells
    | ProbeSet
    | StudentNetwork
    | FormerWeights
    | MlpSummary
    | NDArray[np.float64]
)
PartT = TypeVar(
    "PartT",
    Basis,
    EvidenceCells,
    ProbeSet,
    StudentNetwork,
    FormerWeights,
    MlpSummary,
    NDArray[np.float64],
)


def typed_part(
    parts: Mapping[str, Part], address: str | None, part_type: type[PartT]
) -> PartT | None:
    """Return the part at an address, None for no address.

    Raises
    ------
    QuarantinedError
        Reason ``part``, if it is of another type.
    """
    if address is None:
        return None
    part = parts[address]
    if not isinstance(part, part_type):
        raise QuarantinedError("part", f"expected a {part_type.__name__} at its place")
    return part


def pack_part(
    part: Part, *, name: str, number: int, consortium: str, key_id: str
) -> tuple[ReleasePartHeader, bytes]:
    """Return the header and the body of a part."""
    schema_hash = part.schema_hash if isinstance(part, Basis) else ""
    headers, body = pack_arrays(_arrays_of(part), PART_RULES[name])
    header = ReleasePartHeader(
        consortium=consortium,
        key_id=key_id,
        part=name,
        number=number,
        schema_hash=schema_hash,
        arrays=headers,
        body_sha256=hashlib.sha256(body).digest(),
    )
    return header, body


def _arrays_of(part: Part) -> dict[str, NDArray[np.generic]]:
    return {"weights": part} if isinstance(part, np.ndarray) else part.arrays()


def unpack_part(header: ReleasePartHeader, body: memoryview, schema: Schema) -> Part:
    """Return the part of a verified envelope after checking its arrays.

    Raises
    ------
    QuarantinedError
        Reasons ``part``, ``shape``, ``trailing_bytes``, ``finite``, ``range``, ``schema``.
    """
    rules = PART_RULES.get(header.part)
    if rules is None:
        raise QuarantinedError("part", f"expected one of {', '.join(PART_RULES)}")
    check_layout(header.arrays, rules, len(body))
    arrays = unpack_arrays(header.arrays, body)
    if header.part != "probes":  # in which NaN is absent
        check_finite(arrays)
    return _UNPACK[header.part](header, arrays, schema)


def _unpack_evidence(header: ReleasePartHeader, arrays: Arrays, schema: Schema) -> EvidenceCells:
    del header
    check_cells(arrays, len(schema.entity_kinds))
    return EvidenceCells(**arrays)


def _unpack_weights(
    header: ReleasePartHeader, arrays: Arrays, schema: Schema
) -> NDArray[np.float64]:
    del header, schema
    return arrays["weights"].astype(np.float64, copy=False)


def _unpack_former(header: ReleasePartHeader, arrays: Arrays, schema: Schema) -> FormerWeights:
    del schema
    weights = arrays["weights"].astype(np.float64, copy=False)
    return FormerWeights(number=header.number, weights=weights)


def _unpack_probes(header: ReleasePartHeader, arrays: Arrays, schema: Schema) -> ProbeSet:
    try:
        check_probes(arrays["rows"], schema.n_features)
        return ProbeSet(number=header.number, rows=arrays["rows"])
    except InvalidInputError as error:
        raise QuarantinedError("range", "expected probes of the schema's features") from error


def _unpack_student(header: ReleasePartHeader, arrays: Arrays, schema: Schema) -> StudentNetwork:
    try:
        check_parameters(arrays["parameters"], n_inputs(schema.n_features))
    except InvalidInputError as error:
        raise QuarantinedError("range", "expected a network on the schema's features") from error
    return StudentNetwork(number=header.number, **arrays)


def _unpack_net(header: ReleasePartHeader, arrays: Arrays, schema: Schema) -> MlpSummary:
    n, basis, n_features = arrays["about"].tolist()
    if not (n >= 1 and basis == header.number and n_features == schema.n_features):
        raise QuarantinedError("range", "expected a net of the schema's features and its basis")
    check_net(arrays["flat"], n_features)
    return MlpSummary.load(arrays)


def _unpack_basis(header: ReleasePartHeader, arrays: Arrays, schema: Schema) -> Basis:
    if header.schema_hash != schema.hash or len(arrays["n_edges"]) != len(schema.feature_names):
        raise QuarantinedError("schema", f"expected a basis of schema {schema.hash}")
    try:
        return Basis.from_arrays(header.number, header.schema_hash, arrays)
    except InvalidInputError as error:
        raise QuarantinedError("range", "expected a basis with ascending edges") from error


_UNPACK: Mapping[str, Callable[[ReleasePartHeader, Arrays, Schema], Part]] = {
    "basis": _unpack_basis,
    "weights": _unpack_weights,
    "personal": _unpack_weights,
    "former": _unpack_former,
    "evidence": _unpack_evidence,
    "probes": _unpack_probes,
    "student": _unpack_student,
    "net": _unpack_net,
}
