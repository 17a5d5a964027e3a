"""Every way to keep the same cells gives the same model; every value is looked at."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scgim
from scgim.data import _matrix
from scgim.data._matrix import CellMatrix
from scgim.statistics import accumulate, expand

FORMS = {
    "dense": np.asarray,
    "fortran": np.asfortranarray,
    "csr": sp.csr_matrix,
    "csc": sp.csc_matrix,
    "csr array": sp.csr_array,
    "float64": lambda x: x.astype(np.float64),
}


def fitted(adata: ad.AnnData, **options: object):
    scgim.setup_anndata(adata, **options)
    model = scgim.GIM(adata, structure="none")
    model.train(max_epochs=4, enable_progress_bar=False)
    return model.summary_


def assert_same(one, other) -> None:
    assert list(one.genes) == list(other.genes)
    assert one.data_hash == other.data_hash
    for name in ("n", "mean", "scatter", "squares"):
        np.testing.assert_array_equal(getattr(one.statistics, name), getattr(other.statistics, name))
    for name in ("scale", "group_mean", "group_size"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.controls != other.controls).nnz == 0


@pytest.fixture(params=["continuous", "counts"])
def kept(request, screen, setup_kwargs):
    """A screen, its set-up, and what a model learns of it in its plainest form."""
    options = {"observation": "counts", "depth": 20.0} if request.param == "counts" else {}
    adata = screen(**options)
    adata.X = np.asarray(adata.X.todense() if sp.issparse(adata.X) else adata.X)
    if request.param == "counts":
        setup_kwargs |= {"scale": "counts", "size_factor_key": "n_counts"}
    return adata, setup_kwargs, fitted(adata.copy(), **setup_kwargs)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", ["X", "layer", "h5ad"])
def test_no_way_of_keeping_cells_matters(kept, monkeypatch, tmp_path, place, form):
    monkeypatch.setattr(_matrix, "CHUNK", 128)
    adata, setup, expected = kept
    expected = fitted(adata.copy(), **setup)
    adata.X = FORMS[form](adata.X)
    if place == "layer":
        adata.layers["values"] = adata.X
        adata.X = None
        setup["layer"] = "values"
    if place == "h5ad":
        adata.write_h5ad(tmp_path / "x.h5ad")
        adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    before = adata.X if place == "X" else None
    assert_same(fitted(adata, **setup), expected)
    if place == "X":
        assert adata.X is before
    if place == "h5ad":
        assert adata.isbacked
        adata.file.close()


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, np.uint16, np.float32, np.float64])
def test_counts_of_any_type_are_the_same_counts(screen, setup_kwargs, dtype):
    setup_kwargs |= {"scale": "counts", "size_factor_key": "n_counts"}
    adata = screen(observation="counts", depth=20.0)
    adata.X = adata.X.minimum(255).tocsr()
    expected = fitted(adata.copy(), **setup_kwargs)
    adata.X = adata.X.astype(dtype)
    assert_same(fitted(adata, **setup_kwargs), expected)


def test_chunks_and_the_order_of_genes_change_nothing(kept, monkeypatch):
    adata, setup, expected = kept
    assert_same(fitted(adata[:, ::-1].copy(), **setup), expected)
    monkeypatch.setattr(_matrix, "ENTRIES", 7 * adata.n_vars)
    other = fitted(adata, **setup)
    for name in ("mean", "scatter", "squares"):
        np.testing.assert_allclose(
            getattr(other.statistics, name), getattr(expected.statistics, name), rtol=1e-10, atol=1e-10
        )


def test_nothing_of_the_matrix_is_written(kept):
    adata, setup, _ = kept
    adata.X.flags.writeable = False
    fitted(adata, **setup)


def test_sizes_are_row_sums_over_the_models_genes():
    rng = np.random.default_rng(0)
    x = rng.poisson(3, (10, 5)) + 1
    adata = ad.AnnData(x.astype(np.float32), var=pd.DataFrame(index=list("edcba")))
    cells = CellMatrix(adata, np.array(["a", "b", "d"]), layer=None, scale="counts")
    ((_, values),) = cells
    own = x[:, [4, 3, 1]]
    np.testing.assert_allclose(values, np.log1p(1e4 * own / own.sum(1, keepdims=True)), rtol=1e-14)


# ---- chunks ----------------------------------------------------------------------------------------------------------------


def reader(x, **options: object) -> CellMatrix:
    adata = ad.AnnData(x, var=pd.DataFrame(index=[f"g{j}" for j in range(x.shape[1])]))
    genes = adata.var_names[options.pop("columns", slice(None))].to_numpy(str)
    return CellMatrix(adata, genes, **({"layer": None, "scale": "continuous"} | options))


@pytest.mark.parametrize(
    ("given", "scale", "exact"),
    [
        pytest.param(np.float32, "continuous", True, id="float32"),
        pytest.param(np.float64, "continuous", False, id="float64"),
        pytest.param(np.uint16, "continuous", True, id="uint16"),
        pytest.param(np.int64, "continuous", False, id="int64"),
        pytest.param(np.int64, "counts", True, id="logarithms of counts"),
    ],
)
def test_float32_is_given_where_it_loses_nothing(given, scale, exact):
    x = (np.random.default_rng(0).poisson(5, (300, 7)) + 1).astype(given)
    cells = reader(x, scale=scale)
    (small,), (large,) = ([x for _, x in cells.chunks(dtype)] for dtype in (np.float32, np.float64))
    assert small.dtype == (np.float32 if exact else np.float64)
    assert large.dtype == np.float64
    np.testing.assert_allclose(small, large, rtol=2e-7)


def test_chunks_of_what_is_there_are_views_and_others_are_not():
    x = np.random.default_rng(0).normal(size=(300, 7)).astype(np.float32)
    ((_, chunk),) = reader(x).chunks(np.float32)
    assert np.shares_memory(chunk, x)
    ((_, chunk),) = reader(x, columns=[3, 1]).chunks(np.float32)
    np.testing.assert_array_equal(chunk, x[:, [3, 1]])


@pytest.mark.parametrize("columns", [slice(None), [3, 0, 2]], ids=["all", "some"])
@pytest.mark.parametrize("rows", [slice(None), slice(5, 60), slice(3, None, 3)], ids=["all", "run", "thirds"])
@pytest.mark.parametrize("own", [False, True])
def test_statistics_are_those_of_the_cells(monkeypatch, columns, rows, own):
    monkeypatch.setattr(_matrix, "CHUNK", 16)
    rng = np.random.default_rng(0)
    x, code = rng.normal(size=(100, 5)), np.resize([0, 1, 2], 100)
    cells = reader(x, columns=columns).subset(np.arange(100)[rows])
    code[rows] = rng.integers(2, size=len(code[rows]))
    found = cells.statistics(code, n_conditions=2, own=own)
    expected = accumulate([(x[rows][:, columns], code[rows])], n_conditions=2, n_genes=found.mean.shape[1], own=own)
    for name in ("n", "mean", "scatter", "squares", *(["own"] if own else [])):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-12)


def shifted(x: np.ndarray, code: np.ndarray) -> np.ndarray:
    return expand(x - code[:, None])


def test_statistics_of_what_is_made_of_the_cells():
    x, code = np.random.default_rng(0).normal(size=(100, 3)), np.resize([0, 1], 100)
    found = reader(x).statistics(code, n_conditions=2, n_columns=12, transform=shifted)
    np.testing.assert_allclose(found.mean[1], shifted(x, code)[1::2].mean(0), atol=1e-14)


# ---- dask ------------------------------------------------------------------------------------------------------------------


def lazy(x, rows: int = 70):
    array = pytest.importorskip("dask.array")
    if not sp.issparse(x):
        return array.from_array(x, chunks=(rows, -1))
    blocks = [array.from_array(x[i : i + rows], chunks=(-1, -1), asarray=False) for i in range(0, x.shape[0], rows)]
    return array.concatenate(blocks)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix], ids=["dense", "sparse"])
def test_a_dask_matrix_gives_the_same_model(kept, form):
    adata, setup, expected = kept
    adata.X = lazy(form(adata.X))
    found = fitted(adata, **setup)
    for name in ("n", "mean", "scatter", "squares"):
        one, other = getattr(found.statistics, name), getattr(expected.statistics, name)
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-10)
    assert (found.controls != expected.controls).nnz == 0


@pytest.mark.parametrize("transform", [None, shifted])
def test_a_dask_matrix_is_reduced_on_the_workers(transform):
    x, code = np.random.default_rng(0).normal(size=(500, 3)), np.resize([0, 1], 500)
    options = {"n_conditions": 2, "n_columns": None if transform is None else 12, "transform": transform, "own": True}
    expected = reader(x).subset(np.arange(40, 480)).statistics(code, **options)
    found = reader(lazy(x)).subset(np.arange(40, 480)).statistics(code, **options)
    for name in ("n", "mean", "scatter", "squares", "own"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("value", "message"), [(0.5, "0.2 % of the values"), (-1, "1 values are"), (np.nan, "nan in cell '377'")]
)
def test_one_bad_value_of_a_dask_matrix_is_found(value, message):
    x = np.ones((500, 1)) + np.arange(500)[:, None]
    x[377] = value
    with pytest.raises(ValueError, match=message):
        reader(lazy(x), scale="counts").check()


# ---- one bad value -------------------------------------------------------------------------------------------------------


def counts(n: int = 20_000) -> ad.AnnData:
    """1e5 counts of 5 genes, half of the cells of a drug."""
    obs = pd.DataFrame({"drug": np.resize(["DMSO", "x"], n)}, index=[f"cell {i}" for i in range(n)])
    x = np.random.default_rng(0).poisson(4, (n, 5)) + 1.0
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=list("abcde")))


COUNTS = {"drug_key": "drug", "control": "DMSO", "scale": "counts", "size_factor_key": None}


@pytest.mark.parametrize("where", [0, _matrix.CHUNK - 1, _matrix.CHUNK, 19_999])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(
            0.693, r"0.001 % of the values are not integers \(e.g. 0.693\).*scale='lognorm'.*layer=", id="log"
        ),
        pytest.param(-1.0, r"1 values are negative \(smallest -1\).*scale='continuous'", id="negative"),
        pytest.param(np.nan, "X holds nan in cell 'cell {}'", id="nan"),
        pytest.param(np.inf, "X holds inf in cell 'cell {}'", id="inf"),
    ],
)
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix], ids=["dense", "sparse"])
def test_one_bad_value_among_100_000_is_found(where, value, message, form):
    adata = counts()
    adata.X[where, where % 5] = value
    adata.X = form(adata.X)
    with pytest.raises(ValueError, match=message.format(where)):
        scgim.setup_anndata(adata, **COUNTS)


def test_a_cell_without_counts_is_named_unless_sizes_are_given():
    adata = counts(1000)
    adata.X[777] = 0
    with pytest.raises(ValueError, match=r"Cell 'cell 777' has no counts at all in X.*filter_cells"):
        scgim.setup_anndata(adata, **COUNTS)
    adata.obs["total"] = 100
    scgim.setup_anndata(adata, **(COUNTS | {"size_factor_key": "total"}))


def test_small_panels_are_warned_of_at_the_callers_line():
    with pytest.warns(UserWarning, match=r"row sums over only 5 genes.*size_factor_key=") as caught:
        scgim.setup_anndata(counts(100), **COUNTS)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        pytest.param(lambda n: np.r_[0.0, np.ones(n - 1)], r"obs\['total'\] holds '0.0'", id="zero"),
        pytest.param(lambda n: np.r_[-3, np.ones(n - 1, int)], "holds '-3'", id="negative"),
        pytest.param(lambda n: np.r_[np.inf, np.ones(n - 1)], "holds 'inf'", id="infinite"),
        pytest.param(lambda n: np.r_[np.nan, np.ones(n - 1)], "missing for 1 of 100", id="missing"),
        pytest.param(lambda n: ["many"] * n, "holds 'many'", id="text"),
    ],
)
def test_bad_sizes(sizes, message):
    adata = counts(100)
    adata.obs["total"] = sizes(100)
    with pytest.raises(ValueError, match=message):
        scgim.setup_anndata(adata, **(COUNTS | {"size_factor_key": "total"}))


@pytest.mark.parametrize("dtype", ["category", "Int64", object, str, np.int16, np.float32])
def test_sizes_of_any_type(dtype):
    adata = counts(100)
    adata.obs["total"] = pd.Series(np.arange(100) + 20, adata.obs_names).astype(dtype)
    cells = CellMatrix(adata, adata.var_names.to_numpy(str), layer=None, scale="counts", size_factor_key="total")
    np.testing.assert_array_equal(cells.size, np.arange(100) + 20)


@pytest.mark.parametrize(
    ("spoil", "options", "error", "message"),
    [
        pytest.param(
            lambda a: a.layers.__setitem__("counts", a.X), {"layer": "count"}, KeyError, "Nearest: 'counts'", id="layer"
        ),
        pytest.param(None, {"layer": "counts"}, KeyError, "There are no layers", id="no layers"),
        pytest.param(
            lambda a: (a.layers.__setitem__("raw", a.X), setattr(a, "X", None)),
            {},
            ValueError,
            "X is None.*layer=, e.g. layer='raw'",
            id="no X",
        ),
        pytest.param(lambda a: setattr(a, "X", a.X.astype(complex)), {}, TypeError, "complex128.*real", id="complex"),
        pytest.param(
            lambda a: setattr(a, "var_names", list("aabbb")),
            {},
            ValueError,
            "2 gene names occur more than once: 'a', 'b'.*sum or drop.*var_names_make_unique",
            id="duplicates",
        ),
        pytest.param(
            lambda a: a.X.__setitem__((slice(None), [1, 3]), 7),
            {},
            ValueError,
            "2 genes are constant in all cells: 'b', 'd'.*Drop",
            id="constant",
        ),
        pytest.param(None, {"scale": "Counts"}, ValueError, "scale='Counts'.*Did you mean 'counts'", id="scale"),
        pytest.param(
            None, {"scale": "lognorm", "size_factor_key": "n"}, ValueError, "goes with scale='counts'", id="sizes"
        ),
        pytest.param(None, {"size_factor_key": "n"}, KeyError, "obs has no column 'n'", id="size column"),
        pytest.param(None, {"scale": "lognorm"}, ValueError, "all values are integers.*scale='counts'", id="integers"),
        pytest.param(
            lambda a: a.X.__iadd__(0.5),
            {"scale": "lognorm"},
            ValueError,
            r"the largest value is .*Take the logarithm first",
            id="not logarithms",
        ),
    ],
)
def test_bad_matrices(spoil, options, error, message):
    adata = counts(100)
    adata.X[3, 3] = 30
    if spoil is not None:
        spoil(adata)
    with pytest.raises(error, match=message):
        scgim.setup_anndata(adata, **(COUNTS | options))


def test_zeros_alone_are_no_counts():
    adata = ad.AnnData(np.zeros((2, 3)))
    assert CellMatrix(adata, adata.var_names.to_numpy(str), layer=None, scale="lognorm").check().all()


@pytest.mark.parametrize("n", [(0, 5), (5, 0)])
def test_empty(n):
    obs = pd.DataFrame({"drug": ["DMSO"] * n[0]}, index=map(str, range(n[0])))
    with pytest.raises(ValueError, match=f"{n[0]} cells x {n[1]} genes"):
        scgim.setup_anndata(ad.AnnData(np.zeros(n), obs=obs), **COUNTS)


# ---- genes that hardly vary --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 3.7, 1e6 / 7, -1e-3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_gene_constant_in_controls_is_scaled_by_the_other_contexts(screen, setup_kwargs, value, dtype):
    adata = screen()
    adata.X = adata.X.astype(dtype)
    control = (adata.obs["drug"] == "DMSO").to_numpy()
    adata.X[:, 0] += value
    adata.X[control, 0] = value
    groups = adata.obs[~control].groupby(["drug", "dose"], observed=True).indices.values()
    x = adata[~control].X[:, 0].astype(np.float64)
    squares = sum(((x[rows] - x[rows].mean()) ** 2).sum() for rows in groups)
    found = fitted(adata, **setup_kwargs)
    np.testing.assert_allclose(found.scale[0], np.sqrt(squares / len(adata)), rtol=1e-6)


@pytest.mark.parametrize("value", [0.3, 1e5 / 7])
def test_a_gene_that_varies_between_contexts_only_is_named(screen, setup_kwargs, value):
    adata = screen()
    adata.X = adata.X.astype(np.float64)
    adata.X[:, 2] = value * (1 + adata.obs["drug"].cat.codes)
    scgim.setup_anndata(adata, **setup_kwargs)
    with pytest.raises(ValueError, match=f"1 genes do not vary within any condition, e.g. '{adata.var_names[2]}'"):
        scgim.GIM(adata).train(enable_progress_bar=False)
