from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from scgim.statistics import row_blocks

X = np.random.default_rng(0).poisson(1, (97, 5)).astype(np.float32)
ROWS = {
    "all": np.arange(97),
    "none": np.arange(0),
    "one": np.array([96]),
    "scattered": np.array([0, 3, 4, 5, 50, 51, 96]),
    "run": np.arange(20, 60),
}


def backed(x, path):
    """The matrix as anndata gives it of a file."""
    ad.AnnData(x).write_h5ad(path / "x.h5ad")
    return ad.read_h5ad(path / "x.h5ad", backed="r").X


def lazy(x, path):
    array = pytest.importorskip("dask.array")
    if not sp.issparse(x):
        return array.from_array(x, chunks=(30, 5))
    blocks = [array.from_array(x[i : i + 30], chunks=(-1, -1), asarray=False) for i in range(0, 97, 30)]
    return array.concatenate(blocks)


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("form", [np.asarray, np.asfortranarray, sp.csr_matrix, sp.csc_array], ids=lambda f: f.__name__)
@pytest.mark.parametrize("place", [lambda x, path: x, backed, lazy], ids=["memory", "backed", "dask"])
@pytest.mark.parametrize("step", [1, 10, 97, 1000])
def test_chosen_rows_come_once_and_in_order(tmp_path, place, form, rows, step):
    matrix = place(form(X), tmp_path)
    blocks = [(own, x.compute() if hasattr(x, "compute") else x) for own, x in row_blocks(matrix, rows, step)]
    np.testing.assert_array_equal(np.concatenate([own for own, _ in blocks] or [[]]), rows)
    for own, x in blocks:
        assert 0 < len(own) <= max(step, 30)
        np.testing.assert_array_equal(x.toarray() if sp.issparse(x) else x, X[own])


def test_what_is_not_needed_is_not_read(tmp_path):
    class Spy:
        shape = (100, 5)

        def __init__(self) -> None:
            self.read = []

        def __getitem__(self, block: slice) -> np.ndarray:
            self.read.append((block.start, block.stop))
            return np.zeros((block.stop - block.start, 5))

    spy = Spy()
    list(row_blocks(spy, np.array([3, 7, 45, 99]), 10))
    assert spy.read == [(3, 8), (45, 46), (99, 100)]


def test_a_dataset_of_hdf5_itself(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        matrix = file.create_dataset("x", data=X, chunks=(7, 2), compression="gzip")
        np.testing.assert_array_equal(np.concatenate([x for _, x in row_blocks(matrix, ROWS["all"], 10)]), X)


def test_dask_columns_are_joined():
    array = pytest.importorskip("dask.array")
    blocks = list(row_blocks(array.from_array(X, chunks=(30, 2)), ROWS["all"], 10))
    np.testing.assert_array_equal(np.concatenate([x.compute() for _, x in blocks]), X)


def test_dask_blocks_of_unknown_size_are_refused():
    array = pytest.importorskip("dask.array")
    matrix = array.from_array(X, chunks=(30, 5))
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        list(row_blocks(matrix[matrix[:, 0] > 0], ROWS["all"], 10))
