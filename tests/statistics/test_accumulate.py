"""The pass in float32, and conditions' own scatters."""

from __future__ import annotations

import numpy as np
import pytest

from scgim.statistics import SufficientStatistics, accumulate, combine
from scgim.statistics import _accumulator as accumulator

SIZES = (1, 2, 300, 40, 700, 25)


def reduce(x: np.ndarray, code: np.ndarray, *, pieces: int = 5, **options: object) -> SufficientStatistics:
    chunks = zip(np.array_split(x, pieces), np.array_split(code, pieces), strict=True)
    return accumulate(chunks, n_conditions=int(code.max()) + 1, n_genes=x.shape[1], **options)


def without_own(s: SufficientStatistics) -> SufficientStatistics:
    return SufficientStatistics(s.n, s.mean, s.scatter, s.squares)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 1e-6)], ids=["float64", "float32"])
@pytest.mark.parametrize(
    ("apart", "offset"),
    [
        pytest.param(3, 0, id="near"),
        pytest.param(1000, 0, id="far apart"),
        pytest.param(3, 1e6, id="far from zero"),
        pytest.param(1000, -1e6, id="both"),
    ],
)
@pytest.mark.parametrize("given", [np.float32, np.float64])
def test_agrees_with_the_definition_wherever_contexts_lie(
    cells, brute, assert_close, given, apart, offset, dtype, rtol, own
):
    x, code = cells(sizes=SIZES, d=7, apart=apart)
    x = (x + offset).astype(given)
    expected = brute(x, code)
    assert_close(reduce(x, code, dtype=dtype, own=own), expected if own else without_own(expected), rtol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_context_that_drifts_along_the_file_costs_no_precision(brute, assert_close, dtype):
    # the first cell of condition 0 is far from all others, and condition 1 moves 1e4 sd from chunk to chunk
    rng = np.random.default_rng(0)
    x, code = rng.normal(size=(4000, 5)), np.resize([0, 1], 4000)
    x[0] += 1e5
    x[1::2] += np.linspace(0, 1e5, 2000)[:, None]
    expected = brute(x.astype(np.float32), code)
    s = reduce(x.astype(np.float32), code, pieces=10, dtype=dtype, own=True)
    assert_close(s, expected, 1e-6 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("own", [False, True])
def test_the_order_of_chunks_changes_nothing(cells, assert_close, own):
    x, code = cells(sizes=SIZES, d=6)
    expected = reduce(x, code, own=own)
    parts = np.array_split(np.arange(len(x)), 23)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(23)
        chunks = [(x[parts[i]], code[parts[i]]) for i in order]
        assert_close(accumulate(chunks, n_conditions=len(SIZES), n_genes=6, own=own), expected, 1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_own_scatters_sum_to_the_pooled_one(cells, assert_close, dtype):
    x, code = cells(sizes=SIZES, d=6, apart=50)
    s = reduce(x, code, own=True, dtype=dtype)
    np.testing.assert_array_equal(s.own.sum(0), s.scatter)
    np.testing.assert_allclose(np.diagonal(s.own, axis1=1, axis2=2), s.squares, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(s.own, s.own.transpose(0, 2, 1))
    assert s.own.dtype == np.float64
    assert_close(without_own(s), reduce(x, code, dtype=dtype), 1e-6 if dtype == np.float32 else 1e-12)


def test_large_chunks_are_cut(cells, assert_close, monkeypatch):
    x, code = cells(sizes=SIZES, d=6)
    expected = reduce(x, code, pieces=1)
    monkeypatch.setattr(accumulator, "BLOCK", 100)
    assert_close(reduce(x, code, pieces=1), expected, 1e-12)


@pytest.mark.parametrize(
    "layout", [np.asfortranarray, lambda x: np.repeat(x, 2, 1)[:, ::2]], ids=["fortran", "strided"]
)
def test_any_layout_even_if_it_cannot_be_written(cells, assert_close, layout):
    x, code = cells()
    other = layout(x)
    other.flags.writeable = False
    assert_close(reduce(other, code), reduce(x, code), 1e-14)


@pytest.mark.parametrize(("rows", "columns"), [(10, 3), (9, 4), (10, 5)])
def test_chunks_of_another_shape_are_refused(rows, columns):
    with pytest.raises(ValueError, match=rf"\({rows}, {columns}\) with 10 conditions, for 4 columns"):
        accumulate([(np.ones((rows, columns)), np.zeros(10, int))], n_conditions=1, n_genes=4)


def test_many_contexts():
    rng = np.random.default_rng(0)
    x, code = rng.normal(size=(2000, 3)), rng.permutation(np.repeat(np.arange(1000), 2))
    s = reduce(x, code)
    np.testing.assert_allclose(s.squares, [x[code == k].var(0) * 2 for k in range(1000)], atol=1e-12)


# ---- combine -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("parts", [1, 2, 5, 9])
def test_combining_is_accumulating_all(cells, assert_close, parts, own):
    x, code = cells(sizes=(20, 40, 90, 30), d=5)
    code[: 2 * parts] = np.resize(np.arange(4), 2 * parts)
    # every part has every condition, and some conditions only one cell there
    lot = np.concatenate(
        [np.arange(parts).repeat(4), np.random.default_rng(0).integers(parts, size=len(x) - 4 * parts)]
    )
    code[: 4 * parts] = np.tile(np.arange(4), parts)
    some = [accumulate([(x[lot == i], code[lot == i])], n_conditions=4, n_genes=5, own=own) for i in range(parts)]
    assert_close(combine(some), reduce(x, code, own=own), 1e-12)


def test_contexts_may_be_absent_in_some_parts(cells, assert_close):
    x, code = cells()
    s = reduce(x, code, own=True)
    parts = []
    for chosen in ([0, 2], [1], [3]):
        own = s.own.copy()
        own[np.setdiff1d(np.arange(4), chosen)] = np.nan
        n, squares, mean = (np.full_like(a, np.nan) for a in (s.n, s.squares, s.mean))
        n[:] = 0
        for new, old in ((n, s.n), (squares, s.squares), (mean, s.mean)):
            new[chosen] = old[chosen]
        parts.append(SufficientStatistics(n, mean, s.own[chosen].sum(0), squares, own))
    assert_close(combine(parts), s, 1e-14)
    with pytest.raises(ValueError, match=r"without a cell: \[1\]"):
        combine([parts[0], parts[2]])


def test_parts_must_match(cells):
    x, code = cells()
    with pytest.raises(ValueError, match=r"\[\(4, 3\), \(4, 4\)\]"):
        combine([reduce(x, code), reduce(x[:, :3], code)])
    with pytest.raises(ValueError, match="got shapes \\[\\]"):
        combine([])


# ---- the methods keep own scatters -------------------------------------------------------------------------------------------


def test_standardizing_own_scatters_is_standardizing_the_cells(cells, assert_close):
    x, code = cells()
    center, scale = np.arange(16.0).reshape(4, 4), np.array([0.1, 1, 5, 2])
    assert_close(
        reduce(x, code, own=True).standardize(center, scale), reduce((x - center[code]) / scale, code, own=True)
    )


def test_merging_own_scatters_keeps_the_scatter_within_the_old_contexts(cells, assert_close):
    x, code = cells()
    s, label = reduce(x, code, own=True), np.array([0, 1, 0, 1])
    merged = s.merge(label)
    np.testing.assert_allclose(merged.own, [s.own[[0, 2]].sum(0), s.own[[1, 3]].sum(0)])
    np.testing.assert_allclose(merged.own.sum(0), merged.scatter)
    assert_close(s.merge(np.arange(4)), s, 0.0 + 1e-15)
    # of conditions with one mean, that is all there is
    x = x - s.mean[code]
    assert_close(reduce(x, code, own=True).merge(label), reduce(x, label[code], own=True))


@pytest.mark.parametrize("columns", [[2, 0, 3], [True, False, True, True], [1]], ids=str)
def test_taking_columns_is_reducing_those(cells, assert_close, columns):
    x, code = cells()
    assert_close(reduce(x, code, own=True).take(np.array(columns)), reduce(x[:, columns], code, own=True), 1e-12)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-11), (np.float32, 1e-5)], ids=["float64", "float32"])
def test_leaves_have_the_scatter_of_the_definition(cells, brute, assert_close, dtype, rtol, own):
    x, code = cells(sizes=SIZES, d=9, apart=50)
    d = 3
    s, whole = reduce(x, code, dtype=dtype, own=own, leaves=9 - d), brute(x, code)
    expected = whole.take(np.arange(d))
    assert_close(s, expected if own else without_own(expected), rtol)
    np.testing.assert_allclose(s.leaves.mean, whole.mean[:, d:], rtol=1e-9)
    np.testing.assert_allclose(s.leaves.squares, whole.squares[:, d:], rtol=rtol)
    size = np.sqrt(np.outer(np.diag(whole.scatter)[:d], np.diag(whole.scatter)[d:]))
    np.testing.assert_allclose(s.leaves.cross / size, whole.scatter[:d, d:] / size, atol=rtol)


def test_leaves_change_nothing_of_the_other_columns(cells):
    x, code = cells(sizes=SIZES, d=6)
    alone, beside = reduce(x[:, :4], code), reduce(x, code, leaves=2)
    for name in ("n", "mean", "scatter", "squares"):
        np.testing.assert_allclose(getattr(beside, name), getattr(alone, name), rtol=1e-12, atol=1e-12)
