"""Models of screens with measured combinations."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scgim

TWO = {"drug_key": ["drug", "drug_2"], "dose_key": ["dose", "dose_2"]}
A, B, C = "drug-000", "drug-001", "drug-002"


def with_pairs(adata: ad.AnnData, n: int = 6) -> ad.AnnData:
    """The screen with pairs of neighboring drugs at dose 1; the changes of the two drugs add."""
    rng, obs = np.random.default_rng(0), adata.obs.assign(drug=adata.obs["drug"].astype(str), drug_2="", dose_2=np.nan)
    x, names = np.asarray(adata.X), sorted(set(obs["drug"]) - {"DMSO"})
    control = x[(obs["drug"] == "DMSO").to_numpy()]
    change = {
        name: x[((obs["drug"] == name) & (obs["dose"] == 1.0)).to_numpy()].mean(0) - control.mean(0) for name in names
    }
    cells, rows = [x], [obs]
    for first, second in zip(names[:n], names[1 : n + 1], strict=True):
        cells.append(control[rng.choice(len(control), 20, replace=False)] + change[first] + change[second])
        labels = {"drug": first, "dose": 1.0, "drug_2": second, "dose_2": 1.0}
        rows.append(pd.DataFrame(labels, index=[f"{first}-{second}-{i}" for i in range(20)]))
    return ad.AnnData(np.vstack(cells), obs=pd.concat(rows), var=adata.var, uns=dict(adata.uns))


@pytest.fixture(scope="module")
def pairs(screen):
    adata = with_pairs(screen())
    return lambda: adata.copy()


@pytest.fixture(scope="module")
def paired(pairs, fit):
    return fit(pairs(), gim={"generator": "hill"}, **TWO)


def test_drugs_are_single_drugs(paired):
    assert paired.drugs == sorted(f"drug-{i:03d}" for i in range(10))


def test_a_list_and_a_separator_give_the_same_bits(pairs, fit, paired, assert_same_bits):
    adata = pairs()
    two = (adata.obs["drug_2"] != "").to_numpy()
    text = adata.obs["dose"].astype(str).to_numpy(object)
    adata.obs["dose"] = np.where(two, text + "+1.0", text)
    adata.obs["drug"] = np.where(two, adata.obs["drug_2"] + "+" + adata.obs["drug"], adata.obs["drug"])
    assert_same_bits(paired, fit(adata, gim={"generator": "hill"}, combination_sep="+"))


def test_a_screen_without_pairs_has_the_bits_of_a_single_column(screen, fit, model, assert_same_bits):
    adata = screen()
    adata.obs["drug_2"], adata.obs["dose_2"] = "", np.nan
    assert_same_bits(model, fit(adata, train={"max_epochs": 40}, **TWO))


@pytest.mark.parametrize("generator", ["hill", "kernel", "mean", "identity", "network"])
def test_every_generator_learns_from_pairs(pairs, fit, generator, tmp_path):
    model = fit(pairs(), gim={"generator": generator}, **TWO)
    table = model.rank_targets(drug=(B, A))
    assert set(table["evidence"]) == {"data"}
    assert set(table["doses"]) == {"1 + 1"}
    pred = model.predict(drug=[(A, B), (A, C)], as_="mean", dose=[(1.0, 1.0)])
    assert pred.obs["evidence"].tolist() == ["data", "drug"]
    assert pred.obs["trust"].tolist() == ["in-domain", "edge"]
    model.save(tmp_path / "model")
    again = scgim.GIM.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(as_="mean").X, model.predict(as_="mean").X)
    pd.testing.assert_frame_equal(again.rank_targets(), model.rank_targets())
    pd.testing.assert_frame_equal(again.interactions(), model.interactions())


def test_a_measured_pair_rests_on_its_own_cells(pairs, paired):
    adata = pairs()
    own = ((adata.obs["drug"] == A) & (adata.obs["drug_2"] == B)).to_numpy()
    change = adata.X[own].mean(0) - adata.X[(adata.obs["drug"] == "DMSO").to_numpy()].mean(0)
    pred = paired.predict(drug=(A, B), as_="delta")
    assert np.corrcoef(pred.X[0], change)[0, 1] > 0.95
    with pytest.raises(ValueError, match="measured condition"):
        paired.predict(drug=(A, C), dose=(1.0, 1.0), evidence="data")


def test_all_measured_treatments_by_default(paired):
    pred = paired.predict(as_="mean")
    assert len(pred) == 36
    assert pred.obs["evidence"].tolist() == ["data"] * 36
    assert paired.rank_targets().groupby("drug", observed=True).ngroups == 16


def test_permuted_genes_and_cells(pairs, fit, paired):
    adata = pairs()
    rng = np.random.default_rng(0)
    other = fit(
        adata[rng.permutation(adata.n_obs), rng.permutation(adata.n_vars)].copy(), gim={"generator": "hill"}, **TWO
    )
    one, two = (model.interactions().sort_values(["drug", "gene"])["deviation"] for model in (paired, other))
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_interactions_of_additive_pairs(pairs, paired):
    table, adata = paired.interactions(), pairs()
    assert len(table) == 6 * 6
    assert set(table["singles"]) == {"data"}
    np.testing.assert_allclose(table["deviation"], table["observed"] - table["additive"])
    assert (table["p_value"] < 0.05).mean() < 0.2
    assert (table["p_adjusted"] >= table["p_value"]).all()
    x, obs = np.asarray(adata.X), adata.obs
    control = x[(obs["drug"] == "DMSO").to_numpy()]
    mean = lambda a, b, dose: x[((obs["drug"] == a) & (obs["drug_2"] == b) & (obs["dose"] == dose)).to_numpy()].mean(0)
    observed = (mean(A, B, 1.0) - mean(A, "", 1.0) - mean(B, "", 1.0) + control.mean(0)) / control.std(0)
    own = table[table["drug"] == f"{A} + {B}"].set_index("gene").loc[adata.var_names, "deviation"]
    assert np.corrcoef(own, observed)[0, 1] > 0.999


def test_a_synergy_is_found(pairs, fit):
    adata = pairs()
    own = ((adata.obs["drug"] == A) & (adata.obs["drug_2"] == B)).to_numpy()
    sd = adata.X[(adata.obs["drug"] == "DMSO").to_numpy()].std(0)
    adata.X[own, 2] += 2 * sd[2]
    first = fit(adata, gim={"generator": "mean"}, **TWO).interactions().iloc[0]
    assert (first["drug"], first["gene"]) == (f"{A} + {B}", adata.var_names[2])
    assert first["p_adjusted"] < 0.01
    assert first["deviation"] == pytest.approx(2, abs=1)


def test_singles_at_other_doses_come_from_the_model(pairs, fit):
    adata = pairs()
    adata = adata[~((adata.obs["drug"] == A) & (adata.obs["dose"] == 1.0) & (adata.obs["drug_2"] == ""))].copy()
    table = fit(adata, gim={"generator": "mean"}, **TWO).interactions()
    own = table[table["drug"] == f"{A} + {B}"]
    assert set(own["singles"]) == {"model"}
    assert own["p_value"].isna().all()
    assert own["deviation"].notna().all()


def test_no_interactions_without_pairs(model):
    assert model.interactions().empty


def test_annotate_and_evaluate(pairs, fit):
    adata = pairs()
    held = ((adata.obs["drug"] == A) & (adata.obs["drug_2"] == B)).to_numpy()
    adata.obs["split"] = np.where(held, "test", "train")
    model = fit(adata, gim={"generator": "kernel"}, split_key="split", **TWO)
    scores = model.evaluate(refit=False, distributions=False).set_index("method")
    scores = scores[scores["drug"] == f"{A} (1) + {B} (1)"]
    assert scores.loc["scgim", "rmse"] < scores.loc["control", "rmse"]
    model.annotate()
    assert np.isfinite(adata.obsm["scgim_shift"]).all()
    assert f"{A} + {B}" in adata.uns["scgim_targets"]["names"].dtype.names


@pytest.mark.slow
def test_smiles_of_every_column(screen, fit):
    adata = with_pairs(screen(chemistry="sciplex"))
    smiles = adata.obs[adata.obs["drug_2"] == ""].groupby("drug")["smiles"].first().to_dict()
    adata.obs["smiles"] = adata.obs["drug"].map(smiles)
    adata.obs["smiles_2"] = adata.obs["drug_2"].map(smiles)
    setup = TWO | {"features_key": None}
    one = fit(adata, smiles_key=["smiles", "smiles_2"], **setup)
    two = fit(adata, smiles_key="smiles", **setup)
    pd.testing.assert_frame_equal(one.drug_table_.frame, two.drug_table_.frame)


@pytest.mark.parametrize("options", [{"intervention": "hard"}, {"scale_shift": True}])
def test_models_without_sums_are_refused(pairs, setup_kwargs, options):
    adata = pairs()
    scgim.setup_anndata(adata, **(setup_kwargs | TWO))
    with pytest.raises(ValueError, match="measured combinations"):
        scgim.GIM(adata, **options)


def test_split_features_and_model_take_the_same_columns(pairs, fit):
    """Of the test drugs nothing is in training, neither alone nor in pairs."""
    adata = pairs()
    scgim.pp.split(adata, control="DMSO", seed=1, **TWO)
    train = adata.obs[adata.obs["scgim_split"] == "train"]
    model = fit(adata, gim={"generator": "hill"}, train={"max_epochs": 20}, split_key="scgim_split", **TWO)
    assert set(model.summary_.design.drugs) == {*train["drug"], *train["drug_2"]} - {"", "DMSO"}
    scores = model.evaluate(refit=False, distributions=False)
    own = scores[(scores["method"] == "scgim") & ~scores["drug"].str.startswith("(")]
    assert own["drug"].str.contains("+", regex=False).any()
    assert np.isfinite(own["rmse"]).all()
    with pytest.raises(TypeError, match="pp.check reads no combinations"):
        scgim.pp.check(adata, control="DMSO", scale="continuous", drug_key=TWO["drug_key"])
