"""Distils members' answers into one student: a small network that every member can run.

The only place of the amalgamator that needs torch; it is loaded where a consortium uses probes
and nowhere else. One thread, seeded, deterministic algorithms; what leaves is a flat float32
array of numbers that float16 holds, see `models.families.network`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from models.basis import Basis
from models.errors import InvalidInputError
from models.families.distilled import inputs
from models.families.network import HIDDEN
from models.probes import pooled_answers


@dataclass(frozen=True, slots=True, kw_only=True)
class DistilPolicy:
    """How a student is trained.

    Parameters
    ----------
    epochs, batch
        Passes over the probes, and probes of a step, >= 1.
    peak_rate
        Highest learning rate, > 0; it rises, then falls to nothing.
    decay
        Pull of the weights towards 0, >= 0.
    seed
        Of the first weights and of the order, >= 0.
    """

    epochs: int = 40
    batch: int = 256
    peak_rate: float = 4e-3
    decay: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        is_possible = self.epochs >= 1 and self.batch >= 1 and self.seed >= 0
        if not (is_possible and self.peak_rate > 0.0 and self.decay >= 0.0):
            raise InvalidInputError(
                "distil: expected epochs, batch >= 1, peak_rate > 0, decay, seed >= 0"
            )


def distil(
    basis: Basis,
    probes: NDArray[np.float32],
    answers: Mapping[str, NDArray[np.float32]],
    weights: Mapping[str, float],
    policy: DistilPolicy = DistilPolicy(),
) -> NDArray[np.float32]:
    """Return the student of the members' answers.

    Parameters
    ----------
    basis
        Whose bins are the student's inputs.
    probes
        float32 of shape (n_probes, n_features).
    answers
        Member -> log-odds, float32 of shape (n_probes,).
    weights
        Member -> its matured transactions times its trust.
    policy
        Steps, rates, seed.

    Returns
    -------
    ndarray of shape (n_parameters(2 * n_features),), float32
        For `models.families.distilled.Distilled`; every number is one that float16 holds.
    """
    target = pooled_answers(answers, weights)
    if len(target) != len(probes):
        raise InvalidInputError(f"answers: expected {len(probes)}, got {len(target)}")
    return fit(inputs(basis, probes), target, policy)


def fit(
    x: NDArray[np.float32], target: NDArray[np.float64], policy: DistilPolicy = DistilPolicy()
) -> NDArray[np.float32]:
    """Return the flat network that gives ``target`` for the rows of ``x`` by least squares.

    Parameters
    ----------
    x
        float32 of shape (n, n_inputs).
    target
        float64 of shape (n,): log-odds; scaled for training, and the last layer back.
    policy
        Steps, rates, seed.
    """
    n_threads, was_strict = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
    )
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        centre, spread = float(np.mean(target)), float(np.std(target)) or 1.0
        layers = _trained(x, ((target - centre) / spread).astype(np.float32), policy)
    finally:
        torch.set_num_threads(n_threads)
        torch.use_deterministic_algorithms(was_strict)
    matrix, bias = layers[-1]
    layers[-1] = (matrix * np.float32(spread), bias * np.float32(spread) + np.float32(centre))
    flat = np.concatenate([part.reshape(-1) for layer in layers for part in layer])
    return flat.astype(np.float16).astype(np.float32)


def _trained(
    x: NDArray[np.float32], target: NDArray[np.float32], policy: DistilPolicy
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return (matrix inputs x units, biases) of each layer."""
    generator = torch.Generator().manual_seed(policy.seed)
    layers = _first_layers((x.shape[1], *HIDDEN, 1), generator)
    parameters = [part for layer in layers for part in layer]
    n_steps = policy.epochs * -(-len(x) // policy.batch)
    adam = torch.optim.AdamW(parameters, lr=policy.peak_rate, weight_decay=policy.decay)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, policy.peak_rate, total_steps=n_steps)
    rows, wanted = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(target)
    for _ in range(policy.epochs):
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x), policy.batch):
            chosen = order[start : start + policy.batch]
            adam.zero_grad()
            loss = torch.mean((forward(layers, rows[chosen]) - wanted[chosen]) ** 2)
            loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
            adam.step()
            rate.step()
    return [(a.detach().numpy().copy(), b.detach().numpy().copy()) for a, b in layers]


Layers = list[tuple[torch.Tensor, torch.Tensor]]


def _first_layers(widths: tuple[int, ...], generator: torch.Generator) -> Layers:
    """Return layers drawn uniformly within 1 / sqrt(inputs), as torch's own do by default."""
    layers = []
    for a, b in pairwise(widths):
        parts = [
            (torch.rand(shape, generator=generator) * 2 - 1) / a**0.5 for shape in ((a, b), (b,))
        ]
        layers.append((parts[0].requires_grad_(), parts[1].requires_grad_()))
    return layers


def forward(layers: Layers, x: torch.Tensor) -> torch.Tensor:
    """Return the network's output; what `models.families.network.forward` does without torch."""
    for matrix, bias in layers[:-1]:
        x = torch.relu(x @ matrix + bias)
    matrix, bias = layers[-1]
    return (x @ matrix + bias)[:, 0]
