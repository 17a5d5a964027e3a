from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scgim.statistics import SufficientStatistics, accumulate

FIELDS = ("n", "mean", "scatter", "squares")


def cells(seed: int = 0, *, sizes: tuple[int, ...] = (1, 40, 7, 90), d: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Correlated genes, conditions of unequal size with means of their own, in random order."""
    rng = np.random.default_rng(seed)
    code = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return rng.normal(size=(len(code), d)) @ rng.normal(size=(d, d)) + 3 * rng.normal(size=(len(sizes), d))[code], code


def reduce(x: np.ndarray, code: np.ndarray, cuts: list[int] | None = None) -> SufficientStatistics:
    cuts = sorted(cuts or [])
    chunks = zip(np.split(x, cuts), np.split(code, cuts), strict=True)
    return accumulate(chunks, n_conditions=int(code.max()) + 1, n_genes=x.shape[1])


def assert_close(a: SufficientStatistics, b: SufficientStatistics, rtol: float = 1e-10) -> None:
    for name in FIELDS:
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol, 1e-9, err_msg=name)


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_numpy_cov(seed):
    x, code = cells(seed)
    s = reduce(x, code)
    own = [x[code == k] for k in range(4)]
    scatter = [np.cov(c.T, bias=True) * len(c) for c in own]
    np.testing.assert_array_equal(s.n, np.bincount(code))
    np.testing.assert_allclose(s.mean, [c.mean(0) for c in own])
    np.testing.assert_allclose(s.scatter, sum(scatter), atol=1e-10)
    np.testing.assert_allclose(s.squares, [np.diag(c) for c in scatter], atol=1e-10)
    np.testing.assert_allclose(s.squares.sum(0), np.diag(s.scatter))
    assert s.n_cells == len(x)
    np.testing.assert_array_equal(s.scatter, s.scatter.T)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, 138), max_size=8), order=st.randoms(use_true_random=False))
def test_neither_chunks_nor_the_order_of_cells_matter(cuts, order):
    x, code = cells()
    rows = list(range(len(x)))
    order.shuffle(rows)
    assert_close(reduce(x[rows], code[rows], cuts), reduce(x, code))


def test_empty_chunks_are_skipped_wherever_they_stand():
    x, code = cells()
    empty = (np.empty((0, 4)), np.empty(0, dtype=int))
    s = accumulate([empty, (x[:5], code[:5]), empty, (x[5:], code[5:]), empty], n_conditions=4, n_genes=4)
    assert_close(s, reduce(x, code, [5]), 0)


def test_chunks_may_come_from_a_generator_and_are_left_alone():
    x, code = cells()
    before = x.copy(), code.copy()
    s = accumulate(((x[i : i + 9], code[i : i + 9]) for i in range(0, len(x), 9)), n_conditions=4, n_genes=4)
    assert_close(s, reduce(x, code))
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(code, before[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint8])
def test_any_number_type_is_summed_in_float64(dtype):
    x, code = cells()
    x = np.abs(x).round().astype(dtype)
    s = reduce(x, code, [50])
    assert_close(s, reduce(x.astype(float), code))
    assert {getattr(s, name).dtype for name in FIELDS} == {np.dtype(float)}


@pytest.mark.parametrize("offset", [1e6, -1e6, 1e9])
def test_a_large_offset_costs_no_precision(offset):
    x, code = cells()
    x = x.round(3)
    shifted = x + offset
    x = shifted - offset  # exactly what is left of the cells behind the offset
    s, plain = reduce(shifted, code, [1, 30]), reduce(x, code)
    np.testing.assert_allclose(s.scatter, plain.scatter, rtol=1e-9)
    np.testing.assert_allclose(s.squares, plain.squares, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(s.mean - offset, plain.mean, atol=1e-12 * abs(offset))


@pytest.mark.parametrize("seed", range(10))
def test_cells_that_agree_have_no_negative_squares(seed):
    x, code = cells(seed)
    value = np.random.default_rng(seed).normal(size=(4, 4)) * [1e-3, 1, 1e3, 0]
    s = reduce(value[code], code, [17])
    assert (s.squares >= 0).all()
    assert (s.squares <= 1e-12 * s.n[:, None] * (value**2).max(0)).all()


@pytest.mark.parametrize(
    ("codes", "named"),
    [
        pytest.param([0, 0, 2], r"\[1\]", id="middle"),
        pytest.param([1, 1, 1], r"\[0, 2\]", id="two"),
        pytest.param([], r"\[0, 1, 2\]", id="no-cells"),
    ],
)
def test_contexts_without_cells_are_named(codes, named):
    code = np.array(codes, dtype=int)
    with pytest.raises(ValueError, match=rf"without a cell: {named}"):
        accumulate([(np.ones((len(code), 2)), code)], n_conditions=3, n_genes=2)


def test_no_chunks_at_all():
    with pytest.raises(ValueError, match="without a cell"):
        accumulate([], n_conditions=1, n_genes=2)


@pytest.mark.parametrize("per_context", [False, True])
def test_standardizing_the_statistics_is_standardizing_the_cells(per_context):
    x, code = cells()
    rng = np.random.default_rng(1)
    center, scale = rng.normal(size=(4, 4) if per_context else 4), rng.uniform(0.2, 5, size=4)
    row = center[code] if per_context else center
    assert_close(reduce(x, code).standardize(center, scale), reduce((x - row) / scale, code))


def test_standardizing_composes_and_its_identity_changes_nothing():
    x, code = cells()
    s, (a, b), (c, d) = reduce(x, code), (1.5, np.full(4, 2.0)), (-0.5, np.full(4, 0.1))
    assert_close(s.standardize(np.zeros(4), np.ones(4)), s, 0)
    once = s.standardize(a, b).standardize(c, d)
    assert_close(once, s.standardize(a + b * c, b * d))


def test_merging_keeps_the_scatter_within_the_old_contexts():
    x, code = cells()
    label = np.array([0, 1, 0, 1])
    s, merged = reduce(x, code), reduce(x, code).merge(label)
    other = reduce(x, label[code])
    np.testing.assert_allclose(merged.n, other.n)
    np.testing.assert_allclose(merged.mean, other.mean)
    np.testing.assert_array_equal(merged.scatter, s.scatter)
    np.testing.assert_allclose(merged.squares.sum(0), np.diag(s.scatter))


def test_merging_contexts_of_equal_mean_is_reducing_them_together():
    x, code = cells()
    s = reduce(x, code)
    x, label = x - s.mean[code], np.array([0, 0, 1, 0])
    assert_close(s.standardize(s.mean, np.ones(4)).merge(label), reduce(x, label[code]))


def test_merging_by_distinct_labels_only_reorders():
    x, code = cells()
    s, label = reduce(x, code), np.array([2, 0, 3, 1])
    assert_close(s.merge(label), reduce(x, label[code]))
    assert_close(s.merge(np.arange(4)), s, 0)
