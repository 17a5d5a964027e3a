"""No call reads the values of another gene: names that are no strings are refused wherever genes are looked up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import scgim

BAD = {
    "int": [7157, 4609, 1956, 672, 675, 207],
    "float with NaN": [7157.0, 4609.0, np.nan, 672.0, 675.0, 207.0],
    "symbols with NaN": ["TP53", "MYC", np.nan, "BRCA1", "BRCA2", "AKT1"],
    "missing category": pd.Categorical(["TP53", "MYC", None, "BRCA1", "BRCA2", "AKT1"]),
    "bytes": [b"a", b"b", b"c", b"d", b"e", b"f"],
    "blank": ["TP53", "MYC", "", "BRCA1", "BRCA2", "AKT1"],
}
REFUSED = "must be strings|have no name"


@pytest.fixture(params=BAD)
def spoiled(screen, request):
    """A screen, or its controls, whose names were set in place, where AnnData does not look."""

    def build(drug=None):
        adata = screen() if drug is None else screen()[screen().obs["drug"] == drug].copy()
        adata.var.index = pd.Index(BAD[request.param])
        return adata

    return build


def test_set_up_and_check_refuse(spoiled, setup_kwargs):
    spoiled = spoiled()
    with pytest.raises((TypeError, ValueError), match=REFUSED):
        scgim.setup_anndata(spoiled, **setup_kwargs)
    row = scgim.pp.check(spoiled, **setup_kwargs).set_index("check").loc["genes"]
    assert row["status"] == "FAIL"
    assert "var_names" in row["finding"]


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda model, of: model.predict(adata=of("DMSO"), as_="mean"), id="predict"),
        pytest.param(lambda model, of: model.do({model.summary_.genes[0]: 1.0}, adata=of("DMSO")), id="do"),
        pytest.param(lambda model, of: model.annotate(of()), id="annotate"),
    ],
)
def test_a_trained_model_refuses(spoiled, model, call):
    with pytest.raises((TypeError, ValueError), match=REFUSED):
        call(model, spoiled)


def test_load_refuses(spoiled, model, tmp_path):
    model.save(tmp_path / "m")
    with pytest.raises((TypeError, ValueError), match=REFUSED):
        scgim.GIM.load(tmp_path / "m", adata=spoiled())


def test_categories_are_names(screen, model):
    controls = screen()[screen().obs["drug"] == "DMSO"].copy()
    expected = model.predict(adata=controls.copy(), drug="drug-000", as_="mean").X
    controls.var.index = pd.CategoricalIndex(controls.var_names)
    np.testing.assert_array_equal(model.predict(adata=controls, drug="drug-000", as_="mean").X, expected)


def test_columns_of_a_readout_are_names(screen, setup_kwargs):
    adata = screen()
    adata.obsm["rest"] = pd.DataFrame(adata.X[:, :2], index=adata.obs_names, columns=[1, 2])
    with pytest.raises(TypeError, match=r"obsm\['rest'\]\.columns must be strings"):
        scgim.setup_anndata(adata, readout="rest", **setup_kwargs)


def test_identifiers_of_prior_knowledge_are_text(screen, setup_kwargs):
    adata = screen()
    adata.var_names = list(map(str, BAD["int"]))
    scgim.setup_anndata(adata, **setup_kwargs)
    prior = pd.DataFrame({"source": [7157.0, 1956.0], "target": [4609, 672], "kind": "required"})
    table = scgim.GIM(adata, prior_graph=prior, regulators=[7157, 1956.0]).settings_
    assert table["prior_graph"]["source"].tolist() == ["1956", "7157"]
    assert table["regulators"] == ["7157", "1956"]
    with pytest.raises(ValueError, match=r"prior_graph\['source'\] holds 'nan' in 1 of 2 rows"):
        scgim.GIM(adata, prior_graph=prior.assign(source=[7157, np.nan]))


def test_cells_without_controls_of_their_own_are_refused_in_evaluation(in_lines, fit):
    adata = in_lines(0.0)
    line, control = (adata.obs["line"] == "K562").to_numpy(), (adata.obs["drug"] == "DMSO").to_numpy()
    adata.obs["split"] = np.where(line, "test", "train")
    model = fit(adata, cell_line_key="line", split_key="split")
    with pytest.raises(ValueError, match=r"no training controls for line 'K562'"):
        model.evaluate(refit=False)
    assert control[line].any()
