"""The frozen network against NumPy and torch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InvalidInputError
from models.families.network import check_parameters, forward, n_parameters, shapes


def drawn(n_inputs: int, seed: int):
    """Return a flat network and its six arrays."""
    rng = np.random.default_rng(seed)
    layers = [rng.normal(0, 0.3, shape).astype(np.float32) for shape in shapes(n_inputs)]
    return np.concatenate([one.reshape(-1) for one in layers]), layers


@given(n_inputs=st.integers(1, 70), seed=st.integers(0, 1_000))
@settings(max_examples=25)
def test_forward_is_torchs(n_inputs: int, seed: int) -> None:
    """Within 1e-5 of the size of the sums."""
    flat, (w1, b1, w2, b2, w3, b3) = drawn(n_inputs, seed)
    x = np.random.default_rng(seed + 1).uniform(-1, 1, (20, n_inputs)).astype(np.float32)
    x[x > 0.8] = 0.0
    net = torch.nn.Sequential(
        torch.nn.Linear(n_inputs, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 32),
        torch.nn.ReLU(),
        torch.nn.Linear(32, 1),
    )
    with torch.no_grad():
        for layer, matrix, bias in ((0, w1, b1), (2, w2, b2), (4, w3, b3)):
            net[layer].weight.copy_(torch.from_numpy(matrix.T.copy()))
            net[layer].bias.copy_(torch.from_numpy(bias))
        expected = net(torch.from_numpy(x))[:, 0].numpy()
    assert forward(flat, x) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_forward_is_the_formula() -> None:
    """Two rectified layers and a linear one, in float64."""
    flat, (w1, b1, w2, b2, w3, b3) = drawn(5, 3)
    x = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    first = np.maximum(x.astype(float) @ w1 + b1, 0)
    expected = (np.maximum(first @ w2 + b2, 0) @ w3 + b3)[:, 0]
    got = forward(flat, x)
    assert got.dtype == np.float32
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert np.array_equal(got[3:], forward(flat, x[3:]))  # a row by itself


def test_the_length_is_the_sum_of_the_layers() -> None:
    """64 x 64 + 64 + 64 x 32 + 32 + 32 + 1."""
    assert n_parameters(64) == 6_273
    assert len(drawn(64, 0)[0]) == 6_273


@pytest.mark.parametrize("place", [np.nan, np.inf, 2e4])
def test_a_foreign_network_is_checked(place: float) -> None:
    """Length, dtype, finite and bounded numbers."""
    flat = drawn(3, 0)[0]
    check_parameters(flat, 3)
    spoilt = flat.copy()
    spoilt[7] = place
    for bad in (spoilt, flat[:-1], flat.astype(np.float64)):
        with pytest.raises(InvalidInputError, match="network: expected"):
            check_parameters(bad, 3)
