"""The consortium's agreement on meaning: which entity kinds exist, which features follow."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError
from models.mapping import AttributeType

ACCOUNT_FEATURES = (
    "log_amount",
    "weekend",
    "night",
    "n_1d",
    "n_7d",
    "n_30d",
    "ratio_30d",
    "z_30d",
    "log_mean_30d",
    "mean_1d_30d",
    "mean_7d_30d",
    "frauds_7d",
    "frauds_30d",
    "robust_ratio",
    "spikes_3d",
    "spikes_10d",
    "spike_age",
    "fraud_age",
    "first_fraud_age",
    "gap_d",
)
ENTITY_FEATURES = (
    "n_7d",
    "n_30d",
    "f_1d",
    "f_7d",
    "f_30d",
    "risk_1d",
    "risk_7d",
    "risk_30d",
    "fraud_age",
    "legit_age",
    "last_label_is_fraud",
    "episode_age",
)
ACCOUNT_CROSSES = (
    ("log_amount", "ratio_30d"),
    ("ratio_30d", "mean_7d_30d"),
    ("frauds_7d", "ratio_30d"),
    ("z_30d", "log_mean_30d"),
    ("mean_7d_30d", "frauds_30d"),
    ("ratio_30d", "frauds_30d"),
    ("robust_ratio", "spikes_10d"),
    ("robust_ratio", "spikes_3d"),
    ("robust_ratio", "fraud_age"),
    ("fraud_age", "first_fraud_age"),
    ("spikes_10d", "frauds_30d"),
    ("robust_ratio", "log_amount"),
    ("spikes_3d", "spike_age"),
)
ENTITY_CROSSES = (
    ("f_7d", "risk_7d"),
    ("f_30d", "risk_30d"),
    ("f_7d", "n_7d"),
    ("f_30d", "f_7d"),
    ("f_1d", "f_7d"),
    ("fraud_age", "legit_age"),
    ("episode_age", "f_30d"),
    ("episode_age", "legit_age"),
    ("episode_age", "fraud_age"),
    ("last_label_is_fraud", "f_7d"),
)
ENTITY_AMOUNT_CROSS = ("f_7d", "log_amount")
ATTRIBUTE = "attribute"
"""Before the dot in the name of an attribute's feature."""
MAX_ATTRIBUTES = 1_024
_ATTRIBUTE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class AttributeSpec:
    """An attribute that the members agreed on: its name in every mapping, and what it is.

    Parameters
    ----------
    name
        1 to 64 ASCII letters, digits, ``_``, ``.`` and ``-``.
    type
        ``number``, or ``text`` for one of several categories.

    Raises
    ------
    InvalidInputError
        If name or type is another.
    """

    name: str
    type: AttributeType

    def __post_init__(self) -> None:
        if not _ATTRIBUTE_NAME.fullmatch(self.name):
            raise InvalidInputError(
                "attributes: expected names of 1 to 64 ASCII letters, digits, '_', '.' and '-', "
                f"got {self.name!r}"
            )
        if self.type not in ("number", "text"):
            raise InvalidInputError(
                f"attributes.{self.name}: expected 'number' or 'text', got {self.type!r}"
            )

    @property
    def feature(self) -> str:
        """Name of its feature."""
        return f"{ATTRIBUTE}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What every member's numbers mean; members and amalgamator must hold the same.

    Parameters
    ----------
    entity_kinds
        Kinds whose evidence is shared, e.g. ``("terminal", "merchant")``; at most 16.
    attributes
        What else a payment may say of itself; at most 1,024.

    Raises
    ------
    InvalidInputError
        If a kind repeats, is empty or there are more than 16; if an attribute repeats or there
        are more than 1,024; if there are attributes and a kind ``attribute``.
    """

    entity_kinds: tuple[str, ...]
    attributes: tuple[AttributeSpec, ...] = ()

    def __post_init__(self) -> None:
        kinds = self.entity_kinds
        if len(set(kinds)) != len(kinds) or not all(kinds) or len(kinds) > 16:
            raise InvalidInputError(
                f"entity_kinds: expected at most 16 distinct names, got {kinds!r}"
            )
        names = {spec.name for spec in self.attributes}
        if len(names) != len(self.attributes) or len(names) > MAX_ATTRIBUTES:
            raise InvalidInputError(
                f"attributes: expected at most {MAX_ATTRIBUTES} distinct names, "
                f"got {len(self.attributes)} of which {len(names)} are distinct"
            )
        if names and ATTRIBUTE in kinds:
            raise InvalidInputError(
                f"entity_kinds: expected no kind {ATTRIBUTE!r} beside attributes, got one"
            )

    @property
    def n_attributes(self) -> int:
        """How many columns the attributes are, the last ones of a row."""
        return len(self.attributes)

    @property
    def n_features(self) -> int:
        """How many columns a row has."""
        n_of_entities = len(self.entity_kinds) * len(ENTITY_FEATURES)
        return len(ACCOUNT_FEATURES) + n_of_entities + self.n_attributes

    @property
    def is_category(self) -> NDArray[np.bool_]:
        """Bool of shape (n_features,): True where values are `models.categories`, not amounts."""
        is_text = [spec.type == "text" for spec in self.attributes]
        return np.array([False] * (self.n_features - self.n_attributes) + is_text, np.bool_)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names in column order: the account's, ``kind.feature``, ``attribute.name``."""
        of_entities = tuple(
            f"{kind}.{feature}" for kind in self.entity_kinds for feature in ENTITY_FEATURES
        )
        return ACCOUNT_FEATURES + of_entities + tuple(spec.feature for spec in self.attributes)

    @property
    def crosses(self) -> tuple[tuple[str, str], ...]:
        """Pairs of feature names whose coarse bins are crossed."""
        of_entities = tuple(
            (f"{kind}.{left}", f"{kind}.{right}")
            for kind in self.entity_kinds
            for left, right in ENTITY_CROSSES
        )
        with_amount = tuple(
            (f"{kind}.{ENTITY_AMOUNT_CROSS[0]}", ENTITY_AMOUNT_CROSS[1])
            for kind in self.entity_kinds
        )
        return ACCOUNT_CROSSES + of_entities + with_amount

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that change when any meaning changes."""
        names = (*self.feature_names, *(f"{a}*{b}" for a, b in self.crosses))
        types = (f"{spec.feature}={spec.type}" for spec in self.attributes)
        text = "\n".join(("schema-1", *names, *types))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def attribute_specs(types: Mapping[str, object]) -> tuple[AttributeSpec, ...]:
    """Return the attributes of a table ``NAME = "number"`` or ``"text"``, by name.

    Sorted, so that two files that list them in another order agree.

    Raises
    ------
    InvalidInputError
        As `AttributeSpec`; the message names the attribute.
    """
    return tuple(AttributeSpec(name, types[name]) for name in sorted(types))  # type: ignore[arg-type]  # checked there


def attribute_lines(attributes: Iterable[AttributeSpec]) -> list[str]:
    """Return the lines of a TOML table that `attribute_specs` reads, none without attributes."""
    lines = [f'"{spec.name}" = "{spec.type}"' for spec in attributes]
    return ["", "[attributes]", *lines] if lines else []
