"""The normal distribution against SciPy's."""

import numpy as np
from scipy.stats import norm

from models.normal import cdf, density, quantile

GRID = np.linspace(-9.0, 9.0, 20_001)


def test_the_share_below_is_scipys_and_never_falls() -> None:
    """To 1e-12 over the whole range."""
    got = cdf(GRID)
    assert np.abs(got - norm.cdf(GRID)).max() < 1e-12
    assert (np.diff(got) > -1e-12).all()
    assert (got >= 0.0).all()
    assert (got <= 1.0).all()


def test_shape_is_kept() -> None:
    """Of any array."""
    assert cdf(np.zeros((2, 3))).tolist() == [[0.5] * 3] * 2


def test_quantile_and_density_are_scipys() -> None:
    """With finite ends at 0 and 1."""
    p = np.linspace(0.001, 0.999, 999)
    assert np.abs(quantile(p) - norm.ppf(p)).max() < 1e-9
    assert quantile(np.array([0.0, 1.0])).tolist() == [-8.0, 8.0]
    assert np.abs(density(GRID) - norm.pdf(GRID)).max() < 1e-14
