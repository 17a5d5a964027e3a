"""Control cells that users bring to predict: matched by gene name, and refused where they are not what they should be."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

pytestmark = pytest.mark.usefixtures("generator_alone")

GENES = 40


@pytest.fixture(scope="session")
def wide(screen, fit):
    """40 genes without a graph: no gene depends on another."""
    return fit(screen(n_genes=GENES), gim={"structure": "none"})


@pytest.fixture(scope="session")
def chain(screen, fit):
    """40 genes with a graph, and the genes that others depend on."""
    model = fit(screen(n_genes=GENES))
    return model, sorted(set(model.get_graph()["source"]))


def controls(adata: ad.AnnData) -> ad.AnnData:
    return adata[(adata.obs["drug"] == "DMSO").to_numpy()].copy()


def test_training_controls_given_back_change_nothing(model, screen):
    for as_ in ("cells", "delta", "mean"):
        own = model.predict(drug="drug-001", dose=1.0, as_=as_)
        given = model.predict(controls(screen()), drug="drug-001", dose=1.0, as_=as_)
        np.testing.assert_allclose(given.X, own.X, atol=1e-5)
        np.testing.assert_allclose(given.layers["control"], own.layers["control"], atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda a: a[:, ::-1], id="view in another order"),
        pytest.param(lambda a: a[:, np.random.default_rng(0).permutation(a.n_vars)].copy(), id="another order"),
        pytest.param(lambda a: ad.AnnData(sp.csc_matrix(a.X), obs=a.obs, var=a.var), id="sparse"),
        pytest.param(lambda a: ad.AnnData(a.X, obs=a.obs[[]], var=a.var), id="no drug column"),
        pytest.param(lambda a: ad.concat([a, a.copy()[:, :0]], axis=1), id="concatenated"),
        pytest.param(
            lambda a: ad.AnnData(
                np.c_[a.X, np.full(a.n_obs, np.nan)], obs=a.obs, var=pd.DataFrame(index=[*a.var_names, "other"])
            ),
            id="a gene more",
        ),
    ],
)
def test_what_matters_is_the_values_of_the_genes(model, screen, change):
    adata = controls(screen())
    expected = model.predict(adata, drug="drug-001", dose=1.0)
    pred = model.predict(change(adata), drug="drug-001", dose=1.0)
    assert list(pred.var_names) == list(expected.var_names)
    np.testing.assert_array_equal(pred.X, expected.X)


@pytest.mark.parametrize("sparse", [False, True])
def test_backed_control_cells(model, screen, tmp_path, sparse):
    adata = controls(screen())
    expected = model.predict(adata, drug="drug-001", dose=1.0)
    adata.X = sp.csr_matrix(adata.X) if sparse else adata.X
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    for data in (backed, backed[:50], backed[np.arange(0, 100, 2)]):
        rows = adata.obs_names.isin(data.obs_names)
        np.testing.assert_array_equal(model.predict(data, drug="drug-001", dose=1.0).X, expected.X[rows])
    backed.file.close()


def test_the_cells_are_not_touched(model, screen):
    adata = controls(screen())
    adata.X.flags.writeable = False
    view = adata[:40]
    model.predict(view, drug="drug-001")
    assert view.is_view
    assert not set(adata.uns) & {"_scvi_uuid", "_scvi_manager_uuid"}


def test_a_cell_alone_is_predicted_as_among_others(model, screen):
    """Its noise is its own, and a linear model moves it by the same, whoever else is there."""
    adata = controls(screen())
    among = model.predict(adata, drug="drug-001", dose=1.0)
    alone = model.predict(adata[7:8], drug="drug-001", dose=1.0)
    np.testing.assert_allclose(alone.X[0], among.X[7], atol=1e-5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda a: None, r"600 of 700 rows have obs\['drug'\] != 'DMSO'.*adata\[adata.obs", id="treated"),
        pytest.param(lambda a: a.obs.__setitem__("drug", "dmso"), "700 of 700 rows", id="another case"),
        pytest.param(lambda a: a.obs.__setitem__("drug", np.nan), "missing for 700 of 700", id="missing"),
    ],
)
def test_treated_cells_are_counted(model, screen, spoil, message):
    adata = screen()
    spoil(adata)
    with pytest.raises(ValueError, match=message):
        model.predict(adata, drug="drug-001")


def test_a_control_that_is_a_number(screen, fit):
    adata = screen()
    adata.obs["drug"] = [int(name[-3:]) + 1 if name != "DMSO" else 0 for name in adata.obs["drug"]]
    model = fit(adata, control=0, features_key=None)
    control = adata[adata.obs["drug"] == 0]
    assert model.predict(control, drug="1", dose=1.0).n_obs == control.n_obs


@pytest.mark.parametrize("thing", [pd.DataFrame({"drug": ["DMSO"]}), "drug-001", ["drug-001"]])
def test_other_things_than_an_anndata(model, thing):
    with pytest.raises(TypeError, match=r"must be an AnnData of control cells, not a .*drug="):
        model.predict(thing)


def test_no_cells(model, screen):
    with pytest.raises(ValueError, match="holds no cells"):
        model.predict(screen()[:0], drug="drug-001")


# ---- genes -----------------------------------------------------------------------------------------------------------------


def test_a_few_missing_leaves_take_the_training_mean(wide, screen):
    adata = controls(screen(n_genes=GENES))
    missing = adata.var_names[[3, 17]]
    kept = adata[:, ~adata.var_names.isin(missing)]
    with pytest.warns(
        UserWarning, match="2 genes are missing and take the training control mean: 'G0003', 'G0017'"
    ) as caught:
        pred = wide.predict(kept, drug="drug-001", dose=1.0)
    assert caught[0].filename == __file__
    np.testing.assert_allclose(
        pred[:, missing].layers["control"], np.tile(adata[:, missing].X.mean(0), (100, 1)), rtol=1e-5
    )
    rest = kept.var_names
    full = wide.predict(adata, drug="drug-001", dose=1.0)
    np.testing.assert_array_equal(pred[:, rest].X, full[:, rest].X)
    np.testing.assert_allclose(
        (pred.X - pred.layers["control"])[:, [3, 17]], (full.X - full.layers["control"])[:, [3, 17]], atol=1e-5
    )


def test_more_than_a_few_are_refused(wide, screen):
    adata = controls(screen(n_genes=GENES))
    with pytest.raises(
        ValueError, match=r"37 of 40 found; missing 'G0000', 'G0001', 'G0002' \(nearest to 'G0000': 'G00"
    ):
        wide.predict(adata[:, 3:], drug="drug-001")
    adata.var_names = [f"ENSG{i}" for i in range(GENES)]
    with pytest.raises(ValueError, match=r"0 of 40 found.*by name, never by position"):
        wide.predict(adata, drug="drug-001")


def test_a_gene_that_others_depend_on_may_not_be_missing(chain, screen):
    model, parents = chain
    adata = controls(screen(n_genes=GENES))
    with pytest.raises(ValueError, match=f"39 of 40 found; missing '{parents[0]}'"):
        model.predict(adata[:, adata.var_names != parents[0]], drug="drug-001")


def test_genes_that_occur_twice(model, screen):
    adata = controls(screen())
    adata = ad.AnnData(np.c_[adata.X, adata.X[:, :1]])
    adata.var_names = [*model.summary_.genes, "G0000"]
    with pytest.raises(ValueError, match="1 gene names occur more than once: 'G0000'"):
        model.predict(adata, drug="drug-001")


# ---- scale -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def scaled(screen, fit):
    """Models of one screen on each scale that can be told from values, and its control cells there."""
    adata = screen(observation="counts", depth=20.0)
    logs = adata.copy()
    logs.X = np.log1p(1e3 * adata.X.toarray() / adata.obs["n_counts"].to_numpy()[:, None])
    counted = fit(adata, scale="counts", size_factor_key="n_counts")
    return {"counts": (counted, controls(adata)), "lognorm": (fit(logs, scale="lognorm"), controls(logs))}


@pytest.mark.parametrize(
    ("scale", "change", "message"),
    [
        pytest.param("counts", np.log1p, "scale='counts' was declared, but in X .* not integers", id="logarithms"),
        pytest.param("counts", lambda x: x - 1, "negative", id="negative counts"),
        pytest.param("lognorm", lambda x: np.round(9 * x), "all values are integers.*scale='counts'", id="counts"),
        pytest.param("lognorm", lambda x: x - x.mean(0), "negative.*looks scaled", id="scaled"),
        pytest.param("lognorm", lambda x: np.expm1(x) + 21, "Take the logarithm first", id="not logarithms"),
        pytest.param("lognorm", lambda x: x * np.nan, "X holds nan in cell 'cell", id="nan"),
    ],
)
def test_the_scale_is_the_models(scaled, scale, change, message):
    model, cells = scaled[scale]
    assert model.predict(cells, drug="drug-001", as_="mean").n_obs
    cells = cells.copy()
    cells.X = change(np.asarray(cells.X.todense() if sp.issparse(cells.X) else cells.X))
    with pytest.raises(ValueError, match=message):
        model.predict(cells, drug="drug-001")


def test_sizes_are_asked_for_and_checked(scaled):
    model, cells = scaled["counts"]
    with pytest.raises(KeyError, match="obs has no column 'n_counts'"):
        model.predict(ad.AnnData(cells.X, obs=cells.obs[["drug"]], var=cells.var), drug="drug-001")
    bad = cells.copy()
    bad.obs["n_counts"] = 0
    with pytest.raises(ValueError, match=r"obs\['n_counts'\] holds '0'"):
        model.predict(bad, drug="drug-001")


def test_a_silent_cell_is_no_count(scaled):
    model, cells = scaled["lognorm"]
    silent = cells[:1].copy()
    silent.X = np.zeros_like(silent.X)
    assert model.predict(silent, drug="drug-001", dose=1.0).n_obs == 1


def test_the_layer_is_the_models(screen, fit):
    adata = screen()
    adata.layers["values"] = adata.X
    adata.X = None
    model, cells = fit(adata, layer="values"), controls(adata)
    assert model.predict(cells, drug="drug-001", as_="mean").n_obs
    cells.layers["value"] = cells.layers.pop("values")
    with pytest.raises(KeyError, match=r"layers\['values'\] does not exist. Nearest: 'value'"):
        model.predict(cells, drug="drug-001")


def test_extra_genes_do_not_change_the_sizes_of_cells(screen, fit):
    """Without `size_factor_key` sizes are sums over the model's genes, whatever else was measured."""
    adata = screen(observation="counts", depth=20.0)
    with pytest.warns(UserWarning, match="row sums over only"):
        model = fit(adata, scale="counts")
    cells = controls(adata)
    rest = np.random.default_rng(0).poisson(50, (cells.n_obs, 9)).astype(np.float32)
    var = pd.DataFrame(index=[*cells.var_names, *(f"H{i}" for i in range(9))])
    more = ad.AnnData(sp.hstack([cells.X, rest], format="csr"), obs=cells.obs, var=var)
    pair = (model.predict(data, drug="drug-001", dose=1.0).X for data in (cells, more))
    np.testing.assert_array_equal(*pair)


# ---- lines -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def lines(in_lines, fit):
    adata = in_lines(2.0)
    return fit(adata, train={"max_epochs": None}, cell_line_key="line", batch_key="plate"), controls(adata)


def test_lines_are_those_of_the_cells(lines):
    model, cells = lines
    pred = model.predict(cells, drug="drug-001", dose=1.0, as_="delta")
    assert pred.obs["cell_line"].tolist() == ["A549", "K562"]
    only = model.predict(cells[cells.obs["line"] == "K562"], drug="drug-001", dose=1.0)
    assert set(only.obs["cell_line"]) == {"K562"}
    assert set(only.obs["source_cell"]) == set(cells.obs_names[cells.obs["line"] == "K562"])


def test_an_unseen_line_is_its_own_context(lines):
    model, cells = lines
    other = cells.copy()
    other.obs["line"] = "HeLa"
    other.X = other.X + 10
    pred = model.predict(other, drug="drug-001", dose=1.0, as_="mean")
    np.testing.assert_allclose(pred.layers["control"][0], other.X.mean(0), rtol=1e-4)
    own = model.predict(drug="drug-001", dose=1.0, as_="delta")
    # what the known lines have in common, which is nearly all
    change = (pred.X - pred.layers["control"])[0]
    assert (own.X.min(0) - 0.05 < change).all()
    assert (change < own.X.max(0) + 0.05).all()
    assert np.abs(change).max() > 0.5


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        pytest.param(lambda a: a.obs.__delitem__("line"), KeyError, "obs has no column 'line'", id="no column"),
        pytest.param(lambda a: a.obs.__setitem__("line", np.nan), ValueError, "missing for 100 of 100", id="missing"),
    ],
)
def test_a_model_of_lines_asks_for_the_line(lines, spoil, error, message):
    model, cells = lines
    cells = cells.copy()
    spoil(cells)
    with pytest.raises(error, match=message):
        model.predict(cells, drug="drug-001")
