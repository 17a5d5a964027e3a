"""Doses that differ by rounding are one condition, and names that look the same are pointed out and never parted by a split."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

import scgim
from scgim.tl._folds import deal

if TYPE_CHECKING:
    from anndata import AnnData

ROUNDED = r"differ by rounding and are taken for one dose.*\.replace\("


def in_other_precision(adata: AnnData, offset: int = 0) -> AnnData:
    """The screen with doses that went through single precision in every second cell."""
    dose = adata.obs["dose"].to_numpy(np.float64) / 5
    rows = np.arange(adata.n_obs) % 2 == offset
    adata.obs["dose"] = np.where(rows, dose.astype(np.float32).astype(np.float64), dose)
    return adata


@pytest.fixture(scope="module")
def trained(screen, fit):
    with pytest.warns(UserWarning, match=ROUNDED):
        return fit(in_other_precision(screen()))


# ---- doses -------------------------------------------------------------------------------------------------------------


def test_set_up_and_check_say_it_and_count_each_dose_once(screen, setup_kwargs, trained):
    row = scgim.pp.check(in_other_precision(screen()), **setup_kwargs).set_index("check").loc["doses"]
    assert row["status"] == "WARN"
    assert "differ by rounding" in row["finding"]
    assert ".replace(" in row["fix"]
    assert trained.summary_.design.known_doses == [0.1, 0.2, 0.4]
    assert len(trained.summary_.design.drug) == 30


def test_the_rounding_changes_no_result(screen, fit, trained, assert_same_bits):
    adata = screen()
    adata.obs["dose"] = adata.obs["dose"].to_numpy(np.float64) / 5
    assert_same_bits(fit(adata), trained)


@pytest.mark.parametrize(
    "dose", [0.2, np.float32(0.2), float(np.float32(0.2)), [np.float32(0.2)], 1 / 5 + 1e-16], ids=str
)
def test_a_dose_in_any_precision_is_the_measured_dose(trained, dose):
    assert set(trained.rank_targets(drug="drug-001", dose=dose)["evidence"]) == {"data"}
    assert len(trained.rank_targets(drug="drug-001", dose=dose, evidence="data")) == 6
    expected = trained.predict(drug="drug-001", dose=0.2, as_="mean")
    found = trained.predict(drug="drug-001", dose=dose, as_="mean")
    np.testing.assert_array_equal(found.X, expected.X)
    assert found.obs["evidence"].tolist() == ["data"]


def test_a_dose_is_asked_once(trained):
    with pytest.raises(ValueError, match="more than once"):
        trained.predict(drug="drug-001", dose=[0.2, np.float32(0.2)])
    with pytest.raises(ValueError, match="Doses must be numbers"):
        trained.predict(drug="drug-001", dose=10**400)


def test_annotation_of_data_in_another_precision(screen, trained):
    one, two = (in_other_precision(screen(), offset) for offset in (0, 1))
    three = screen()
    three.obs["dose"] = (three.obs["dose"] / 5).astype(np.float32)
    for adata in (one, two, three):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            trained.annotate(adata)
        np.testing.assert_array_equal(adata.obsm["scgim_shift"], one.obsm["scgim_shift"])
        assert np.isfinite(adata.obsm["scgim_shift"]).all()


def test_evaluation_recognizes_a_trained_dose_in_another_precision(screen, fit, tmp_path):
    adata = screen()
    adata.obs["dose"] = adata.obs["dose"] / 5
    adata.obs["split"] = np.where(adata.obs["drug"] == "drug-002", "test", "train")
    fit(adata.copy(), split_key="split").save(tmp_path / "model")
    adata.obs["dose"] = adata.obs["dose"].astype(np.float32).astype(np.float64)
    assert len(scgim.GIM.load(tmp_path / "model", adata=adata.copy()).evaluate(refit=False, distributions=False))
    adata.obs["split"] = np.where(adata.obs["drug"] == "drug-001", "test", "train")
    with pytest.raises(ValueError, match=r"trained on test condition \(drug-001"):
        scgim.GIM.load(tmp_path / "model", adata=adata).evaluate(refit=False)


@pytest.mark.parametrize("seed", range(4))
def test_no_split_by_dose_parts_a_dose(screen, seed):
    adata = in_other_precision(screen())
    scgim.pp.split(adata, unseen="dose", control="DMSO", frac=0.3, seed=seed)
    treated = adata.obs[adata.obs["drug"] != "DMSO"]
    sides = treated.groupby(["drug", treated["dose"].round(5)], observed=True)["scgim_split"].nunique()
    assert (sides == 1).all()
    fold = deal(adata, "dose", 3, {"drug_key": "drug", "control": "DMSO", "dose_key": "dose"}, seed)[
        treated.index.get_indexer(treated.index)
    ]
    assert len(fold) == len(treated)
    adata.obs["scgim_split"] = np.where(np.arange(adata.n_obs) % 2, "train", "test")
    assert len(scgim.pp.audit_split(adata, control="DMSO", dose_key="dose")) == 30


def test_doses_of_combinations(screen, setup_kwargs):
    adata = screen()
    drug = adata.obs["drug"].astype(str).replace({"drug-001": "drug-002+drug-003"})
    adata.obs["drug"] = drug
    one = in_other_precision(adata.copy())
    plain = adata.copy()
    plain.obs["dose"] = plain.obs["dose"].to_numpy(np.float64) / 5
    names = []
    for each in (one, plain):
        scgim.setup_anndata(each, **(setup_kwargs | {"combination_sep": "+"}))
        names.append(scgim.GIM(each).get_state_registry("context")["combinations"].tolist())
    assert names[0] == names[1]
    assert len(names[0]) == 3


def test_a_combination_is_asked_in_any_precision(trained):
    expected = trained.predict(drug=("drug-001", "drug-002"), dose=(0.2, 0.2), as_="mean")
    found = trained.predict(drug=("drug-001", "drug-002"), dose=(np.float32(0.2), 0.2), as_="mean")
    np.testing.assert_array_equal(found.X, expected.X)
    assert found.obs["doses"].tolist() == ["0.2 + 0.2"]


# ---- names -------------------------------------------------------------------------------------------------------------


def named(screen, names: dict[str, str]) -> AnnData:
    adata = screen()
    adata.obs["drug"] = adata.obs["drug"].cat.rename_categories(names)
    adata.uns["drug_features"] = adata.uns["drug_features"].rename(index=names)
    return adata


@pytest.mark.parametrize(
    ("one", "two"), [("JQ1", "JQ1 "), ("TGF-b", "TGF\u2013b"), ("\u00b5", "\u03bc"), ("SAHA", "saha")]
)
def test_names_that_look_the_same(screen, setup_kwargs, one, two):
    adata = named(screen, {"drug-001": one, "drug-004": two})
    with pytest.warns(UserWarning, match=r"look the same and are 2 drugs.*merge them: adata\.obs\['drug'\]") as said:
        scgim.setup_anndata(adata, **setup_kwargs)
    assert len(said) == 1
    row = scgim.pp.check(adata, **setup_kwargs).set_index("check").loc["columns"]
    assert row["status"] == "WARN"
    assert "look the same" in row["finding"]
    for seed in range(6):
        scgim.pp.split(adata, control="DMSO", frac=0.3, seed=seed)
        assert adata.obs.groupby("drug", observed=True)["scgim_split"].first()[[one, two]].nunique() == 1
        folds = deal(adata, "drug", 3, {"drug_key": "drug", "control": "DMSO"}, seed)
        assert len(np.unique(folds[adata.obs["drug"].isin([one, two])], axis=0)) == 1
    adata.obs["scgim_split"] = np.where(adata.obs["drug"] == two, "test", "train")
    leaks = scgim.pp.audit_split(adata, control="DMSO")
    assert leaks[["kind", "test", "train"]].to_numpy().tolist() == [["name", two, one]]


def test_cell_lines_and_batches(in_lines, setup_kwargs):
    adata = in_lines(0.0)
    line = adata.obs["line"].to_numpy(object)
    line[::2] = line[::2] + " "
    adata.obs["line"] = line
    with pytest.warns(
        UserWarning, match="'A549' and 'A549 ' in obs.'line'. look the same and are 2 cell lines; so do 1 more"
    ):
        scgim.setup_anndata(adata, **setup_kwargs, cell_line_key="line", batch_key="plate")


def test_a_control_with_another_dash_is_a_control_of_another_name(screen, setup_kwargs):
    adata = named(screen, {"drug-001": "no\u2013drug", "DMSO": "no-drug"})
    with pytest.warns(UserWarning, match="which count as drugs.*call them 'no-drug'") as said:
        scgim.setup_anndata(adata, **(setup_kwargs | {"control": "no-drug"}))
    assert len(said) == 1


def test_a_query_or_table_with_another_form_of_a_name(screen, model, setup_kwargs):
    features = screen().uns["drug_features"].loc[["drug-001"]].rename(index={"drug-001": "drug\u2010001"})
    with pytest.warns(UserWarning, match="looks like the drug 'drug-001' of the screen"):
        model.predict(drug="drug\u2010001", features=features, dose=1.0, as_="mean")
    adata = screen()
    scgim.setup_anndata(adata, **setup_kwargs)
    known = pd.DataFrame({"drug": ["drug-001 ", "drug-002"], "gene": model.summary_.genes[:2], "kind": "known"})
    with pytest.warns(UserWarning, match=r"known_targets\['drug'\]: 'drug-001 ' looks like"):
        scgim.GIM(adata, known_targets=known)


def test_genes_that_look_the_same(screen, setup_kwargs):
    adata = screen()
    adata.var_names = ["STAT1", "STAT1 ", "Stat1", "nan", "MYC", "JUN"]
    with pytest.warns(UserWarning, match="var_names look the same|is called 'nan'") as said:
        scgim.setup_anndata(adata, **setup_kwargs)
    text = [str(warning.message) for warning in said]
    assert "'STAT1' and 'STAT1 ' in var_names look the same and are 2 genes." in text[0]
    assert "A gene is called 'nan'" in text[1]
    row = scgim.pp.check(adata, **setup_kwargs).set_index("check").loc["genes"]
    assert row["status"] == "WARN"
    with pytest.warns(UserWarning, match="only up to case or spaces .'MYC ' is taken for 'MYC'"):
        model = scgim.GIM(adata, regulators=["MYC "])
    assert model.settings_["regulators"] == ["MYC"]


def test_numbers_as_names_do_not_depend_on_their_storage(in_lines, fit):
    adata = in_lines(0.0)
    adata.obs["line"] = (adata.obs["line"] == "K562").astype(int)
    model = fit(adata, cell_line_key="line")
    controls = adata[adata.obs["drug"] == "DMSO"].copy()
    expected = model.predict(adata=controls.copy(), drug="drug-001", as_="mean")
    controls.obs["line"] = controls.obs["line"].astype(float)  # as beside a missing value elsewhere
    found = model.predict(adata=controls, drug="drug-001", as_="mean")
    assert found.obs["cell_line"].tolist() == expected.obs["cell_line"].tolist()
    np.testing.assert_array_equal(found.X, expected.X)
