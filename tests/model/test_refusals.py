"""Bad input is refused before training, with the value, the nearest right one and the fix."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scgim


def put(column, value, rows=slice(0, 3)):
    def spoil(adata):
        values = adata.obs[column].astype(object).to_numpy().copy()
        values[rows] = value
        adata.obs[column] = values

    return spoil


def treated(value):
    def spoil(adata):
        adata.obs["dose"] = adata.obs["dose"].astype(object)
        adata.obs.loc[adata.obs_names[(adata.obs["drug"] != "DMSO").to_numpy()][:2], "dose"] = value

    return spoil


def at(value, scale=None):
    def spoil(adata):
        if scale == "counts":
            adata.X = np.abs(np.round(adata.X * 10)) + 1
        if scale == "lognorm":
            adata.X = np.abs(adata.X)
        adata.X[7, 2] = value

    return spoil


def features(change):
    def spoil(adata):
        adata.uns["drug_features"] = change(adata.uns["drug_features"])

    return spoil


def two_lines(adata):
    adata.obs["line"] = np.where(np.arange(adata.n_obs) % 2, "A549", "K562")
    adata.obs.loc[(adata.obs["drug"] == "DMSO") & (adata.obs["line"] == "K562"), "drug"] = "drug-000"
    adata.obs.loc[adata.obs["dose"].isna() & (adata.obs["drug"] != "DMSO"), "dose"] = 0.5


def leaky(adata):
    adata.obs["split"] = np.where(np.arange(adata.n_obs) % 2, "train", "test")


TABLE = [
    ("drug column", None, {"drug_key": "drgu"}, KeyError, "obs has no column 'drgu'.*'drug'"),
    ("control case", None, {"control": "dmso"}, ValueError, "No cell equals control='dmso'.*'DMSO'"),
    ("nan drug", put("drug", np.nan), {}, ValueError, r"obs\['drug'\] is missing for 3 of .*notna\(\)"),
    ("types", put("drug", 1, slice(0, 1)), {}, None, None),
    ("all controls", lambda a: a.obs.__setitem__("drug", "DMSO"), {}, ValueError, "All cells are controls"),
    ("unit missing", None, {"dose_unit": None}, ValueError, "dose_unit is missing"),
    ("dose missing", None, {"dose_key": None}, ValueError, "dose_key is missing"),
    ("dose text", treated("10 uM"), {}, ValueError, "'10 uM'.*no number|holds '10 uM'"),
    ("dose zero", treated(0.0), {}, ValueError, "positive and finite"),
    ("dose negative", treated(-1.0), {}, ValueError, "-1"),
    ("dose infinite", treated(np.inf), {}, ValueError, "inf"),
    ("dose nan", treated(np.nan), {}, ValueError, "positive and finite|missing"),
    ("unknown scale", None, {"scale": "lognormal"}, ValueError, "scale='lognormal'.*'lognorm'"),
    ("unknown layer", None, {"layer": "count"}, KeyError, r"layers\['count'\]"),
    ("fractional counts", at(0.693, "counts"), {"scale": "counts"}, ValueError, "not integers.*0.693.*lognorm"),
    ("negative counts", at(-3, "counts"), {"scale": "counts"}, ValueError, "negative"),
    (
        "integers as lognorm",
        lambda a: setattr(a, "X", np.round(np.abs(a.X) * 9)),
        {"scale": "lognorm"},
        ValueError,
        "counts",
    ),
    ("large lognorm", at(25.3, "lognorm"), {"scale": "lognorm"}, ValueError, "25.3"),
    ("negative lognorm", at(-0.5, "lognorm"), {"scale": "lognorm"}, ValueError, "negative.*continuous"),
    ("nan value", at(np.nan), {}, ValueError, "nan in cell"),
    ("infinite value", at(np.inf), {}, ValueError, "inf in cell"),
    ("duplicate gene", lambda a: setattr(a, "var_names", ["x", "x", *a.var_names[2:]]), {}, ValueError, "'x'"),
    ("constant gene", lambda a: a.X.__setitem__((slice(None), 1), 2.0), {}, ValueError, "constant in all cells"),
    ("no X", lambda a: setattr(a, "X", None), {}, ValueError, "X is None"),
    ("features key", None, {"features_key": "drug_feature"}, KeyError, "drug_features"),
    ("features type", features(lambda t: t.to_numpy()), {}, TypeError, "ndarray"),
    ("features short", features(lambda t: t.iloc[1:]), {}, ValueError, "'drug-000'"),
    ("features twice", features(lambda t: pd.concat([t, t.iloc[:1]])), {}, ValueError, "more than once"),
    ("features columns", features(lambda t: t.set_axis(range(t.shape[1]), axis=1)), {}, TypeError, "must be strings"),
    ("features nan", features(lambda t: t.mask(t > 0)), {}, ValueError, "not finite"),
    ("line without control", two_lines, {"cell_line_key": "line"}, ValueError, "line='K562'.*cannot be separated"),
    ("leak", leaky, {"split_key": "split"}, ValueError, "Leak: condition"),
    ("split values", lambda a: a.obs.__setitem__("split", "valid"), {"split_key": "split"}, ValueError, "'valid'"),
    ("sizes", lambda a: a.obs.__setitem__("n", 0.0), {"size_factor_key": "n"}, ValueError, "scale='counts'"),
]


@pytest.mark.parametrize(
    ("spoil", "options", "error", "message"), [pytest.param(*row[1:], id=row[0]) for row in TABLE if row[3] is not None]
)
def test_set_up_refuses(screen, setup_kwargs, spoil, options, error, message):
    adata = screen()
    if spoil is not None:
        spoil(adata)
    with pytest.raises(error, match=message):
        scgim.setup_anndata(adata, **(setup_kwargs | options))


def test_one_bad_count_among_many_is_found(setup_kwargs, screen):
    adata = screen(n_cells=100)
    adata.X = np.round(np.abs(adata.X) * 10) + 1
    adata.X[-1, -1] += 0.5
    with pytest.raises(ValueError, match="not integers"):
        scgim.setup_anndata(adata, **(setup_kwargs | {"scale": "counts"}))


def test_doses_in_two_units_are_doubted(screen, setup_kwargs):
    adata = screen()
    adata.obs["dose"] = np.where(adata.obs["dose"] == 2, 2e6, adata.obs["dose"])
    with pytest.warns(UserWarning, match="Doses range from 0.5 to 2e"):
        scgim.setup_anndata(adata, **setup_kwargs)


@pytest.mark.parametrize(
    ("smiles", "message"),
    [("not a smiles", "drug-000"), (["CCO", "CCN"], "drug-000.*'CCO'|'CCN'")],
    ids=["unparseable", "two"],
)
def test_bad_smiles_name_the_drug(screen, setup_kwargs, smiles, message):
    adata = screen(doses=(1.0,))
    adata.obs["smiles"] = ["C" * (1 + int(name[-3:])) if name != "DMSO" else "" for name in adata.obs["drug"]]
    own = np.flatnonzero(adata.obs["drug"] == "drug-000")
    column = adata.obs["smiles"].to_numpy(object)
    column[own] = np.resize(np.array(smiles, dtype=object), len(own))
    adata.obs["smiles"] = column
    options = {k: v for k, v in setup_kwargs.items() if k != "features_key"}
    with pytest.raises(ValueError, match=message):
        scgim.setup_anndata(adata, **options, smiles_key="smiles")


def test_a_view_is_refused_and_nothing_but_two_identifiers_is_written(screen, setup_kwargs):
    adata = screen()
    with pytest.raises(ValueError, match=r"view.*copy\(\)"):
        scgim.setup_anndata(adata[:-1], **setup_kwargs)
    before, x = adata.copy(), adata.X
    scgim.setup_anndata(adata, **setup_kwargs)
    assert adata.X is x
    np.testing.assert_array_equal(adata.X, before.X)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    pd.testing.assert_frame_equal(adata.var, before.var)
    assert set(adata.uns) - set(before.uns) == {"_scvi_uuid", "_scvi_manager_uuid"}


@pytest.mark.parametrize(
    "form",
    [sp.csr_matrix, sp.csc_matrix, lambda x: x.astype(np.float64), "layer", "backed", "backed sparse"],
    ids=["csr", "csc", "float64", "layer", "backed", "backed sparse"],
)
def test_every_form_of_the_matrix_gives_the_same_statistics(screen, setup_kwargs, form, tmp_path, model):
    adata = screen()
    if form == "layer":
        adata.layers["values"], adata.X = adata.X.copy(), np.zeros_like(adata.X)
        setup_kwargs["layer"] = "values"
    elif isinstance(form, str):
        adata.X = sp.csr_matrix(adata.X) if "sparse" in form else adata.X
        adata.write_h5ad(tmp_path / "x.h5ad")
        adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    else:
        adata.X = form(adata.X)
    scgim.setup_anndata(adata, **setup_kwargs)
    other = scgim.GIM(adata, structure="none")
    other.train(max_epochs=5, enable_progress_bar=False)
    for name in ("n", "mean", "scatter"):
        np.testing.assert_array_equal(
            getattr(other.summary_.statistics, name), getattr(model.summary_.statistics, name)
        )


def test_integer_counts_train_and_come_back_on_the_log_scale(screen, setup_kwargs):
    adata = screen(observation="counts", depth=20.0)
    adata.X = adata.X.astype(np.int32)
    scgim.setup_anndata(adata, **(setup_kwargs | {"scale": "counts", "size_factor_key": "n_counts"}))
    model = scgim.GIM(adata)
    model.train(max_epochs=10, enable_progress_bar=False)
    mean = model.predict(drug=model.drugs[0], as_="mean")
    control = adata[(adata.obs["drug"] == "DMSO").to_numpy()]
    expected = np.log1p(1e4 * control.X.toarray() / control.obs["n_counts"].to_numpy()[:, None]).mean(0)
    np.testing.assert_allclose(mean.layers["control"][0], expected, rtol=1e-5)


def test_a_gene_constant_in_controls_only_is_scaled_by_its_contexts(screen, setup_kwargs):
    adata = screen()
    adata.X[(adata.obs["drug"] == "DMSO").to_numpy(), 0] = 1.0
    scgim.setup_anndata(adata, **setup_kwargs)
    model = scgim.GIM(adata)
    model.train(max_epochs=10, enable_progress_bar=False)
    assert np.isfinite(model.predict(as_="mean").X).all()


def test_a_gene_that_varies_only_between_contexts_is_named(screen, setup_kwargs):
    adata = screen()
    adata.X[:, 0] = (adata.obs["drug"] == "drug-000").to_numpy()
    scgim.setup_anndata(adata, **setup_kwargs)
    with pytest.raises(ValueError, match=f"do not vary within any condition.*'{adata.var_names[0]}'"):
        scgim.GIM(adata).train(enable_progress_bar=False)


def test_set_up_of_a_copy_leaves_the_original_usable(screen, setup_kwargs):
    adata = screen()
    scgim.setup_anndata(adata, **setup_kwargs)
    copy = adata.copy()
    scgim.setup_anndata(copy, **setup_kwargs)
    assert scgim.GIM(adata).adata is adata
    assert scgim.GIM(copy).adata is copy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mechanism": "linaer"}, "mechanism='linaer'.*'linear'"),
        ({"intervention": "hrad"}, "intervention='hrad'.*'hard'"),
        ({"dose_response": "hil"}, "dose_response='hil'.*'hill'"),
        ({"generator": "hil"}, "generator='hil'.*'hill'"),
        ({"structure": "serach"}, "structure='serach'.*'search'"),
    ],
)
def test_unknown_options_name_the_nearest(screen, setup_kwargs, options, message):
    adata = screen()
    scgim.setup_anndata(adata, **setup_kwargs)
    with pytest.raises(ValueError, match=message):
        scgim.GIM(adata, **options)


def test_hill_without_features_is_refused(screen, setup_kwargs):
    adata = screen()
    scgim.setup_anndata(adata, **(setup_kwargs | {"features_key": None}))
    with pytest.raises(ValueError, match="needs drug features"):
        scgim.GIM(adata, generator="hill")


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"drug": "drug-00"}, KeyError, "'drug-00' is unknown.*'drug-00"),
        ({"drug": "DMSO"}, ValueError, "is the control"),
        ({"drug": ("drug-000", "drug-001"), "dose": 1.0}, ValueError, r"No dose was given for 'drug-000 \+ drug-001'"),
        ({"drug": ["drug-000", "drug-000"]}, ValueError, "more than once"),
        ({"drug": []}, ValueError, "No drug"),
        ({"drug": 3.0}, TypeError, "A drug is a name.*3.0"),
        ({"drug": "drug-000", "dose": -1}, ValueError, "not negative"),
        ({"drug": "drug-000", "dose": [1.0, 1.0]}, ValueError, "more than once"),
        ({"drug": "new", "smiles": "CCO"}, ValueError, "do not come from SMILES"),
        ({"drug": "drug-000", "as_": "cell"}, ValueError, "as_='cell'.*'cells'"),
        ({"drug": "drug-000", "n_cells": 0}, ValueError, "at least 1"),
        ({"drug": "drug-000", "targets": "mode"}, ValueError, "targets='mode'"),
    ],
)
def test_predict_refuses(model, asked, error, message):
    asked = {"drug": asked["drug"], **asked}
    with pytest.raises(error, match=message):
        model.predict(**asked)


def test_features_are_matched_by_name(model):
    names = list(model.drug_table_.frame.columns)
    new = pd.DataFrame(np.eye(len(names))[:1], index=["new"], columns=names)
    pred = model.predict(drug="new", features=new, dose=1.0, as_="mean")
    turned = model.predict(drug="new", features=new[names[::-1]], dose=1.0, as_="mean")
    np.testing.assert_array_equal(pred.X, turned.X)
    with pytest.raises(KeyError, match="lacks 1 of the model's"):
        model.predict(drug="new", features=new[names[1:]])
    with pytest.raises(ValueError, match="other features than in training"):
        model.predict(drug="drug-000", features=new.rename({"new": "drug-000"}) + 1)


def test_control_cells_are_matched_by_gene_name(model, screen):
    adata = screen()
    control = adata[(adata.obs["drug"] == "DMSO").to_numpy()]  # a view, which is only read
    straight = model.predict(control, drug="drug-000", as_="delta")
    turned = model.predict(control[:, ::-1], drug="drug-000", as_="delta")
    np.testing.assert_allclose(straight.X, turned.X, rtol=1e-5)
    assert list(straight.var_names) == list(adata.var_names)
    with pytest.raises(ValueError, match=r"predict needs control cells, but \d+ of"):
        model.predict(adata, drug="drug-000")
    with pytest.raises(ValueError, match="Genes do not match the model"):
        model.predict(control[:, :-2].copy(), drug="drug-000")


def test_training_that_does_not_fit_in_memory_is_refused_before_the_cells_are_read(screen, setup_kwargs, monkeypatch):
    adata = screen()
    scgim.setup_anndata(adata, **setup_kwargs)
    model = scgim.GIM(adata, generator="hill")
    monkeypatch.setattr("scgim._memory.available_memory", lambda: 1e6)
    monkeypatch.setattr("scgim.data._matrix.CellMatrix.statistics", None)  # not called
    words = (
        r"training \(700 cells, 6 genes, 30 conditions\) need .* MB of memory and 1\.0 MB are available: choose fewer"
    )
    with pytest.raises(MemoryError, match=words):
        model.train(max_epochs=6, enable_progress_bar=False)
    monkeypatch.undo()
    model.train(max_epochs=6, enable_progress_bar=False)
    assert model.is_trained_
