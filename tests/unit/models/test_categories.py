"""Categories: one cell of the histogram's grid each, the same everywhere."""

import numpy as np
import xxhash

from models.categories import N_CATEGORY_CELLS, category_value, category_values
from models.histograms import N_CELLS, add_rows, empty_counts, lower_edges
from models.words import Words


def test_a_value_is_the_edge_of_the_cell_that_the_text_hashes_to() -> None:
    """By the formula; the zero cell and the negative ones stay free."""
    assert N_CATEGORY_CELLS == N_CELLS // 2
    edges = lower_edges()
    for text in ("web", "till", "", "Überweisung"):
        digest = xxhash.xxh64(b"channel\0" + text.encode()).intdigest()
        expected = edges[N_CELLS // 2 + 1 + digest % (N_CELLS // 2)]
        assert category_value("channel", text) == expected
        assert expected > 0


def test_values_are_these_for_ever() -> None:
    """Members of different versions must agree; computed once and written down."""
    assert category_value("channel", "web").item() == 0.0001811981201171875
    assert category_value("a001", "c7").item() == 0.005584716796875


def test_a_column_has_the_value_of_each_row_s_text() -> None:
    """NaN where absent, float32, words that no row has do no harm."""
    column = Words.of(["x", None, "y", "x"])
    values = category_values("a", column)
    x, y = category_value("a", "x"), category_value("a", "y")
    np.testing.assert_array_equal(values, np.array([x, np.nan, y, x], np.float32))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(category_values("a", column[1:2]), [np.nan])
    assert category_values("a", Words.of([])).shape == (0,)


def test_histograms_count_categories_apart() -> None:
    """200 words: each fraud and each other payment in the cell whose edge is the value."""
    words = [f"c{i}" for i in range(200)]
    rng = np.random.default_rng(1)
    codes = rng.integers(200, size=5_000).astype(np.int32)
    is_fraud = rng.random(5_000) < 0.1
    values = category_values("a001", Words(codes, tuple(words)))
    counts = empty_counts(1)
    add_rows(counts, values[:, None], is_fraud)
    edges = lower_edges()
    for y in (0, 1):
        expected = np.zeros(N_CELLS, np.int64)
        for code in codes[is_fraud == bool(y)].tolist():
            expected[np.flatnonzero(edges == category_value("a001", words[code]))[0]] += 1
        np.testing.assert_array_equal(counts[0, y], expected)


def test_few_categories_share_a_cell_and_attributes_differ() -> None:
    """200 of 4,864 cells: 4 pairs expected by chance, 15 would be one in thousands."""
    of_two = [{category_value(name, f"c{i}").item() for i in range(200)} for name in ("a", "b")]
    assert all(len(values) > 185 for values in of_two)
    same = [category_value("a", f"c{i}") == category_value("b", f"c{i}") for i in range(200)]
    assert sum(same) < 3
