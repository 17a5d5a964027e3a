"""Where the cells are reduced makes no difference."""

from __future__ import annotations

import builtins
import sys

import numpy as np
import pytest
import scipy.sparse as sp

from scgim.statistics import accumulate, accumulate_dask
from scgim.statistics._accumulator import Accumulator

SIZES = {"n_conditions": 4, "n_genes": 5}


def chunked(x, code, rows=11):
    return [(x[i : i + rows], code[i : i + rows]) for i in range(0, len(x), rows)]


def lazily(chunks, form=np.asarray):
    delayed = pytest.importorskip("dask").delayed
    return [(delayed(form(x)), code) for x, code in chunks]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix], ids=["dense", "sparse"])
@pytest.mark.parametrize("sort", [False, True], ids=["mixed", "sorted"])
def test_threads_agree_with_memory(cells, assert_close, own, form, sort):
    x, code = cells(d=5)
    order = np.argsort(code) if sort else np.arange(len(code))
    chunks = chunked(x[order] + 1e3, code[order])
    assert_close(accumulate_dask(lazily(chunks, form), **SIZES, own=own), accumulate(chunks, **SIZES, own=own), 1e-12)


def test_leaves_agree_with_memory(cells):
    x, code = cells(d=5)
    chunks = chunked(x + 1e3, code)
    lazy, eager = (
        accumulate_dask(lazily(chunks), **SIZES, leaves=2).leaves,
        accumulate(chunks, **SIZES, leaves=2).leaves,
    )
    for name in ("mean", "squares", "cross"):
        np.testing.assert_allclose(getattr(lazy, name), getattr(eager, name), rtol=1e-10, atol=1e-10)


def test_float32(cells, assert_close):
    x, code = cells(d=5, apart=1000)
    chunks = chunked(x.astype(np.float32), code)
    assert_close(accumulate_dask(lazily(chunks), **SIZES, dtype=np.float32), accumulate(chunks, **SIZES), 1e-6)


def test_what_travels_is_of_the_contexts_in_a_chunk():
    part = Accumulator.of(np.ones((3, 5)), np.array([7, 900, 7]), own=True, dtype=np.float64)
    np.testing.assert_array_equal(part.condition, [7, 900])
    assert part.mean.shape == (2, 5)
    assert part.own.shape == (2, 5, 5)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        pytest.param([0, 1, 3], r"without a cell: \[2\]", id="missing"),
        pytest.param([], r"without a cell: \[0, 1, 2, 3\]", id="none"),
        pytest.param([0, 1, 2, 3, 4], r"conditions \[4\], of 4", id="too many"),
        pytest.param([-1, 0, 1, 2, 3], r"conditions \[-1\], of 4", id="negative"),
    ],
)
def test_contexts_without_cells_are_named(codes, message):
    code = np.array(codes, dtype=int)
    with pytest.raises(ValueError, match=message):
        accumulate_dask(lazily([(np.ones((len(code), 5)), code)]), **SIZES)


def test_other_columns_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 3\), for 5 columns"):
        accumulate_dask(lazily([(np.ones((4, 3)), np.arange(4))]), **SIZES)


def test_without_dask_the_error_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **options):
        if name.split(".")[0] == "dask":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.delitem(sys.modules, "dask", raising=False)
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r"pip install 'scgim\[dask\]'"):
        accumulate_dask([], **SIZES)


def test_two_processes_agree_with_memory(cells, assert_close):
    distributed = pytest.importorskip("distributed")
    x, code = cells(sizes=(100, 400, 70, 900), d=5)
    chunks = chunked(x, code, 90)
    with (
        distributed.LocalCluster(2, processes=True, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
    ):
        spread = accumulate_dask(lazily(chunks), **SIZES, own=True)
    assert_close(spread, accumulate(chunks, **SIZES, own=True), 1e-10)
