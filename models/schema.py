"""The consortium's agreement on meaning: which entity kinds exist, which features follow."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What every member's numbers mean; members and amalgamator must hold the same.

    Parameters
    ----------
    entity_kinds
        Kinds whose evidence is shared, e.g. ``("terminal", "merchant")``; at most 16.

    Raises
    ------
    InvalidInputError
        If a kind repeats, is empty or there are more than 16.
    """

    entity_kinds: tuple[str, ...]
    attributes: tuple[str, ...] = ()

    @property
    def is_category(self) -> NDArray[np.bool_]:
        """Which features are categories."""
        return np.zeros(len(self.feature_names), np.bool_)

    def __post_init__(self) -> None:
        kinds = self.entity_kinds
        if len(set(kinds)) != len(kinds) or not all(kinds) or len(kinds) > 16:
            raise InvalidInputError(
                f"entity_kinds: expected at most 16 distinct names, got {kinds!r}"
            )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names in column order: the account's, then ``kind.feature`` for each kind."""
        return ACCOUNT_FEATURES + tuple(
            f"{kind}.{feature}" for kind in self.entity_kinds for feature in ENTITY_FEATURES
        )

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
        text = "\n".join(("schema-1", *self.feature_names, *(f"{a}*{b}" for a, b in self.crosses)))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
