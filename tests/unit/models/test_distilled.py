"""The frozen student: its inputs and its scores."""

import numpy as np
import pytest

from models.basis import Basis
from models.errors import InvalidInputError
from models.families.distilled import Distilled, inputs
from models.families.network import forward, n_parameters

BASIS = Basis(
    number=1,
    schema_hash="0" * 16,
    edges=np.array([0.0, 1.0, 5.0], np.float32),
    n_edges=np.array([2, 1, 0], np.int32),
    coarse_edges=np.empty(0, np.float32),
    n_coarse_edges=np.zeros(3, np.int32),
    crosses=np.empty((0, 2), np.int32),
    selected=np.arange(len(np.array([2, 1, 0], np.int32)), dtype=np.int32),
    n_categories=np.zeros(len(np.array([2, 1, 0], np.int32)), np.int32),
)
NAN = float("nan")


def test_inputs_are_bins_from_minus_one_to_one_and_what_is_absent() -> None:
    """Three bins, two bins, one bin; absent is 0 with its flag up."""
    rows = np.array([[-3, 4, 9], [0.5, 6, NAN], [2, NAN, 1], [NAN, NAN, NAN]], np.float32)
    expected = [
        [-1, -1, -1, 0, 0, 0],
        [0, 1, 0, 0, 0, 1],
        [1, 0, -1, 0, 1, 0],
        [0, 0, 0, 1, 1, 1],
    ]
    assert inputs(BASIS, rows).tolist() == expected


def test_scores_are_the_networks_within_bounds() -> None:
    """The same over blocks as row by row; clipped to +-30."""
    rng = np.random.default_rng(0)
    flat = rng.normal(0, 2.0, n_parameters(6)).astype(np.float32)
    rows = rng.normal(2, 3, (60_000, 3)).astype(np.float32)
    got = Distilled(BASIS, flat).score(rows)
    expected = np.clip(forward(flat, inputs(BASIS, rows)), -30, 30)
    assert np.array_equal(got, expected)
    assert np.abs(got).max() == 30.0


def test_a_network_of_other_features_is_refused() -> None:
    """By its length."""
    with pytest.raises(InvalidInputError, match="network: expected"):
        Distilled(BASIS, np.zeros(n_parameters(4), np.float32))
