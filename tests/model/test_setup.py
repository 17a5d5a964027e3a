"""What set-up says of a screen's columns and drug tables; refusals of single values are in test_refusals."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata.tests.helpers import assert_equal

import scgim

UUIDS = {"_scvi_uuid", "_scvi_manager_uuid"}
SMILES = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "CCO",
    "CC(=O)Nc1ccc(O)cc1",
    "O=C(CCCCCCC(=O)Nc1ccccc1)NO",
    "c1ccccc1",
    "CCN",
    "CCCl",
    "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "OCC1OC(O)C(O)C(O)C1O",
]


@pytest.fixture
def chemical(screen, setup_kwargs):
    """A screen with SMILES, and its set-up from them."""
    adata = screen()
    smiles = dict(zip(sorted(set(adata.obs["drug"]) - {"DMSO"}), SMILES, strict=True))
    adata.obs["smiles"] = [smiles.get(name, "") for name in adata.obs["drug"]]
    return adata, {key: value for key, value in setup_kwargs.items() if key != "features_key"} | {
        "smiles_key": "smiles"
    }


def state(adata: ad.AnnData, field: str) -> dict:
    return scgim.GIM(adata).get_state_registry(field)


# ---- nothing changes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_writes_and_reads_back_equal_after_set_up(screen, setup_kwargs, tmp_path, kind):
    adata = screen()
    scgim.setup_anndata(adata, **setup_kwargs)
    path = tmp_path / f"x.{kind}"
    getattr(adata, f"write_{kind}")(path)
    back = getattr(ad, f"read_{kind}")(path)
    assert UUIDS <= set(back.uns)
    assert_equal(back, adata)
    scgim.setup_anndata(back, **setup_kwargs)


@pytest.mark.parametrize(
    "wrong",
    [{"drug_key": "drgu"}, {"features_key": "x"}, {"scale": "counts"}, {"dose_unit": None}, {"split_key": "drug"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_set_up_that_fails_changes_nothing(screen, setup_kwargs, wrong):
    adata = screen()
    scgim.setup_anndata(adata, **setup_kwargs)
    before = adata.copy()
    with pytest.raises((KeyError, ValueError)):
        scgim.setup_anndata(adata, **(setup_kwargs | wrong))
    assert_equal(adata, before)
    assert scgim.GIM(adata).adata is adata


def test_two_set_ups_of_one_anndata_make_two_models(screen, setup_kwargs):
    adata = screen()
    scgim.setup_anndata(adata, **setup_kwargs)
    first = scgim.GIM(adata)
    scgim.setup_anndata(adata, **(setup_kwargs | {"features_key": None}))
    second = scgim.GIM(adata)
    for model, source in ((first, "features"), (second, "identity")):
        model.train(max_epochs=6, enable_progress_bar=False)
        assert model.drug_table_.source == source
        assert len(model.predict(as_="mean")) == 30


def test_models_on_two_copies_are_equal_and_apart(screen, setup_kwargs):
    adata, models = screen(), []
    scgim.setup_anndata(adata, **setup_kwargs)
    for data in (adata, adata.copy()):
        scgim.setup_anndata(data, **setup_kwargs)
        models.append(scgim.GIM(data))
    assert models[0].adata is not models[1].adata
    for model in models:
        model.train(max_epochs=6, enable_progress_bar=False)
    np.testing.assert_array_equal(*(model.predict(as_="mean").X for model in models))


def test_cell_names_may_repeat(screen, setup_kwargs):
    adata, once = screen(), screen()
    adata.obs_names = ["cell"] * adata.n_obs
    for data in (adata, once):
        scgim.setup_anndata(data, **setup_kwargs)
    pd.testing.assert_frame_equal(
        *(scgim.GIM(data)._screen().conditions.reset_index(drop=True) for data in (adata, once))
    )


# ---- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rename",
    [
        pytest.param(str, id="plain"),
        pytest.param(lambda name: {"drug-003": "nan", "drug-004": "None"}.get(name, name), id="called nan"),
        pytest.param(lambda name: f"β-{name} (±)/µ", id="unicode and slashes"),
        pytest.param(lambda name: int(name[-3:]) if name != "DMSO" else -1, id="numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*'None', which count as drugs and have usual names of controls")
@pytest.mark.parametrize("dtype", [object, "category"])
def test_any_name_is_a_name(screen, setup_kwargs, rename, dtype):
    adata = screen()
    adata.obs["drug"] = pd.Series([rename(name) for name in adata.obs["drug"]], adata.obs_names).astype(dtype)
    adata.uns["drug_features"].index = [str(rename(name)) for name in adata.uns["drug_features"].index]
    setup_kwargs["control"] = rename("DMSO")
    scgim.setup_anndata(adata, **setup_kwargs)
    model = scgim.GIM(adata)
    model.train(max_epochs=6, enable_progress_bar=False)
    drugs = {str(rename(f"drug-{i:03d}")) for i in range(10)}
    assert set(model.drugs) == drugs
    control = adata[(adata.obs["drug"] == setup_kwargs["control"]).to_numpy()]
    assert set(model.predict(control, as_="mean").obs["drug"]) == drugs
    assert set(model.rank_targets()["drug"]) == drugs


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param([1, "1"], "differ only in type", id="1 and '1'"),
        pytest.param([1, 1.0], "differ only in type", id="1 and 1.0"),
        pytest.param(["", ""], "blank for 2 of 700 cells", id="empty"),
        pytest.param([" ", "\t"], "blank for 2 of 700 cells", id="spaces"),
        pytest.param([None, np.nan], r"missing for 2 of 700 cells \(0.29 %\).*notna", id="missing"),
        pytest.param([pd.NA, pd.NaT], "missing for 2 of 700 cells", id="NA"),
    ],
)
@pytest.mark.parametrize("key", ["drug_key", "cell_line_key", "batch_key", "split_key"])
def test_columns_without_a_clear_name_for_every_cell(screen, setup_kwargs, key, values, message):
    adata = screen()
    adata.obs["column"] = [*values, *adata.obs["drug"].astype(object)[2:]]
    with pytest.raises(ValueError, match=r"obs\['column'\].*" + message):
        scgim.setup_anndata(adata, **(setup_kwargs | {key: "column"}))


@pytest.mark.parametrize("key", ["drug_key", "cell_line_key", "batch_key", "split_key", "dose_key", "smiles_key"])
def test_missing_columns_name_the_nearest(screen, setup_kwargs, key):
    with pytest.raises(KeyError, match="obs has no column 'Dose '. Nearest: 'dose'"):
        scgim.setup_anndata(screen(), **(setup_kwargs | {key: "Dose "}))


def test_a_control_by_another_case_is_doubted(screen, setup_kwargs):
    adata = screen()
    adata.obs["drug"] = adata.obs["drug"].cat.rename_categories({"drug-000": "dmso "})
    setup_kwargs["features_key"] = None
    with pytest.warns(UserWarning, match=r"also holds 'dmso ', which count as drugs.*call them 'DMSO'") as caught:
        scgim.setup_anndata(adata, **setup_kwargs)
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match=r"control='Dmso'.*Nearest.*\(\d+ cells\)"):
        scgim.setup_anndata(adata, **(setup_kwargs | {"control": "Dmso"}))


# ---- lines, batches, splits ----------------------------------------------------------------------------------------------


@pytest.fixture
def plates(screen):
    """Plates p0, p1 and p2; there is no control on p2, nor on p1 in line B."""
    adata = screen()
    i = np.arange(adata.n_obs)
    adata.obs["plate"] = np.array(["p0", "p1", "p2"])[i % 3]
    adata.obs["line"] = np.array(["A", "B"])[i // 3 % 2]
    control = (adata.obs["drug"] == "DMSO").to_numpy()
    adata.obs.loc[control & (adata.obs["plate"] == "p2"), "plate"] = "p0"
    adata.obs.loc[control & (adata.obs["plate"] == "p1"), "line"] = "A"
    return adata


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        pytest.param({"batch_key": "plate"}, "where plate='p2', so the effect of 'drug-000'", id="batch"),
        pytest.param(
            {"batch_key": "plate", "cell_line_key": "line"},
            "where line='A' and plate='p2'; line='B' and plate='p1'; line='B' and plate='p2', so",
            id="line and batch",
        ),
    ],
)
def test_every_group_without_controls_is_named(plates, setup_kwargs, keys, where):
    with pytest.raises(ValueError, match=where):
        scgim.setup_anndata(plates, **setup_kwargs, **keys)
    scgim.setup_anndata(plates, **setup_kwargs, cell_line_key="line")


def test_test_rows_need_controls_too_and_train_rows_their_own(plates, setup_kwargs):
    held = plates.obs["plate"] == "p2"
    plates.obs["split"] = np.where(held, "test", "train")
    with pytest.raises(ValueError, match="where plate='p2'"):
        scgim.setup_anndata(plates, **setup_kwargs, batch_key="plate", split_key="split")
    control = plates.obs["drug"] == "DMSO"
    plates.obs["split"] = np.where(control & (plates.obs["plate"] == "p1"), "test", "train")
    plates.obs.loc[held, "plate"] = "p0"
    with pytest.raises(ValueError, match="in the 'train' rows where plate='p1'"):
        scgim.setup_anndata(plates, **setup_kwargs, batch_key="plate", split_key="split")


@pytest.mark.parametrize(
    ("side", "message"),
    [
        pytest.param(lambda drug: drug != "DMSO", "must hold controls", id="no control"),
        pytest.param(lambda drug: drug == "DMSO", "at least one drug", id="no drug"),
    ],
)
def test_train_rows_hold_controls_and_a_drug(screen, setup_kwargs, side, message):
    adata = screen()
    adata.obs["split"] = np.where(side(adata.obs["drug"].astype(str)), "train", "test")
    with pytest.raises(ValueError, match=r"'train' rows of obs\['split'\] " + f".*{message}|where"):
        scgim.setup_anndata(adata, **setup_kwargs, split_key="split")


@pytest.mark.parametrize("unseen", ["drug", "dose"])
def test_every_split_of_ours_is_accepted(screen, setup_kwargs, unseen):
    adata = screen()
    scgim.pp.split(adata, unseen=unseen, control="DMSO")
    scgim.setup_anndata(adata, **setup_kwargs, split_key="scgim_split")


def test_one_leaking_condition_is_named_alone(screen, setup_kwargs):
    adata = screen()
    adata.obs["split"] = "train"
    one = ((adata.obs["drug"] == "drug-004") & (adata.obs["dose"] == 2)).to_numpy()
    adata.obs.loc[adata.obs_names[one][:3], "split"] = "test"
    with pytest.raises(
        ValueError, match=r"Leak: condition \(drug-004, 2\) has 17 cells in train and 3 in test\. Split"
    ):
        scgim.setup_anndata(adata, **setup_kwargs, split_key="split")


def test_a_tested_twin_of_a_training_drug_is_said(chemical):
    adata, options = chemical
    drug = adata.obs["drug"]
    adata.obs.loc[drug == "drug-001", "smiles"] = "CC(=O)Oc1ccccc1C(=O)[O-].[Na+]"
    adata.obs["split"] = np.where(drug == "drug-001", "test", "train")
    leak = "Leak: test drug 'drug-001' has the same structure as training drug 'drug-000'.*smiles_key"
    with (
        pytest.warns(UserWarning, match=leak) as outer,
        pytest.warns(UserWarning, match="'drug-000' = 'drug-001'") as inner,
    ):
        scgim.setup_anndata(adata, **options, split_key="split")
    assert {warning.filename for warning in [*outer, *inner]} == {__file__}
    # at another dose it is a test of doses
    adata.obs["split"] = np.where((drug == "drug-001") & (adata.obs["dose"] == 2), "test", "train")
    adata = adata[(drug != "drug-000") | (adata.obs["dose"] != 2)].copy()
    with pytest.warns(UserWarning, match="'drug-000' = 'drug-001'"):
        scgim.setup_anndata(adata, **options, split_key="split")


# ---- doses ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, object, str, "category", "Float64", "float32 category"], ids=str
)
def test_doses_are_the_numbers_that_were_written(screen, setup_kwargs, dtype):
    adata = screen(doses=(0.1, 0.3, 1.0))
    if dtype == "float32 category":
        adata.obs["dose"] = adata.obs["dose"].astype(np.float32)
        dtype = "category"
    adata.obs["dose"] = adata.obs["dose"].astype(dtype)
    scgim.setup_anndata(adata, **setup_kwargs)
    table = scgim.GIM(adata)._screen().conditions
    assert set(table["dose"][~table["control"]]) == {0.1, 0.3, 1.0}
    assert table["dose"][table["control"]].isna().all()


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan, "vehicle", None])
def test_the_dose_of_controls_is_ignored(screen, setup_kwargs, value):
    adata = screen()
    adata.obs["dose"] = adata.obs["dose"].astype(object).where(adata.obs["drug"] != "DMSO", value)
    scgim.setup_anndata(adata, **setup_kwargs)


@pytest.mark.parametrize(
    ("value", "shown"),
    [("10 uM", "'10 uM' for 2"), (True, "'True'"), (-np.inf, "'-inf'"), (None, "'None'"), ("", "''"), (0, "'0'")],
)
def test_doses_that_are_none_are_shown(screen, setup_kwargs, value, shown):
    adata = screen()
    dose, treated = adata.obs["dose"].to_numpy(object), np.flatnonzero(adata.obs["drug"] != "DMSO")[:2]
    dose[treated] = value
    adata.obs["dose"] = dose
    with pytest.raises(ValueError, match=rf"obs\['dose'\] holds {shown}.*positive and finite"):
        scgim.setup_anndata(adata, **setup_kwargs)


def test_doubt_about_doses_points_to_the_callers_line(screen, setup_kwargs):
    adata = screen()
    adata.obs["dose"] = np.where(adata.obs["dose"] == 2, 2e6, adata.obs["dose"])
    with pytest.warns(UserWarning, match="Doses range from 0.5 to 2e.*dose_unit='uM'.*in one unit") as caught:
        scgim.setup_anndata(adata, **setup_kwargs)
    assert caught[0].filename == __file__


# ---- features and structures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        pytest.param(dict, TypeError, "is a dict; drug features are a DataFrame", id="dict"),
        pytest.param(lambda t: t.iloc[:, 0], TypeError, "is a Series", id="Series"),
        pytest.param(lambda t: t.iloc[:, :0], ValueError, "has no columns", id="no columns"),
        pytest.param(lambda t: t.set_axis(range(len(t))), TypeError, "index.*must be strings, but holds 0", id="ints"),
        pytest.param(
            lambda t: t.rename({"drug-004": "Drug-004"}),
            ValueError,
            r"1 drugs have no row.*'drug-004' \(nearest row to the first: 'Drug-004'\)",
            id="case",
        ),
        pytest.param(lambda t: t.astype(object).where(t == 0, "yes"), ValueError, "for drug 'drug-0.*'yes'", id="text"),
        pytest.param(lambda t: t.replace(1, np.inf), ValueError, "feature 'motif_0.*inf", id="infinite"),
        pytest.param(
            lambda t: t.set_axis(["a", "a", *t.columns[2:]], axis=1),
            ValueError,
            "columns.*'a' more than once",
            id="twice",
        ),
    ],
)
def test_bad_feature_tables(screen, setup_kwargs, change, error, message):
    adata = screen()
    adata.uns["drug_features"] = change(adata.uns["drug_features"])
    with pytest.raises(error, match=message):
        scgim.setup_anndata(adata, **setup_kwargs)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda t: t[::-1][t.columns[::-1]], id="order"),
        pytest.param(lambda t: t.astype(bool), id="bool"),
        pytest.param(lambda t: t.astype(np.int8), id="int"),
        pytest.param(lambda t: t.astype(object), id="object"),
        pytest.param(lambda t: t.astype(int).astype("category"), id="category"),
        pytest.param(lambda t: t.astype("Float32"), id="nullable"),
        pytest.param(lambda t: pd.concat([t, t.iloc[:1].set_axis(["DMSO"]) * np.nan]), id="NaN for the control"),
    ],
)
def test_feature_tables_that_say_the_same(screen, setup_kwargs, change):
    adata, other = screen(), screen()
    other.uns["drug_features"] = change(other.uns["drug_features"])
    tables = []
    for data in (adata, other):
        scgim.setup_anndata(data, **setup_kwargs)
        tables.append(state(data, "drug_table"))
    for name in ("names", "columns", "values"):
        np.testing.assert_array_equal(tables[0][name], tables[1][name])


@pytest.mark.usefixtures("generator_alone")
def test_extra_rows_are_drugs_one_may_ask_for(screen, setup_kwargs):
    adata = screen()
    table = adata.uns["drug_features"]
    adata.uns["drug_features"] = pd.concat([table, table.iloc[:1].set_axis(["another"])])
    scgim.setup_anndata(adata, **setup_kwargs)
    model = scgim.GIM(adata)
    model.train(max_epochs=20, enable_progress_bar=False)
    assert "another" not in model.drugs
    np.testing.assert_array_equal(*(model.predict(drug=d, as_="mean").X for d in ("another", table.index[0])))


def test_smiles_make_fingerprints_of_drugs_alone(chemical):
    adata, options = chemical
    adata.obs["smiles"] = adata.obs["smiles"].replace("", "not a structure")  # the control's is ignored
    scgim.setup_anndata(adata, **options)
    table = state(adata, "drug_table")
    drugs = adata.obs[adata.obs["drug"] != "DMSO"].drop_duplicates("drug").set_index("drug")["smiles"].sort_index()
    features, _ = scgim.pp.fingerprints(drugs)
    assert table["source"] == "smiles"
    np.testing.assert_array_equal(table["names"], features.index)
    np.testing.assert_array_equal(table["values"], features.sort_index(axis=1))
    np.testing.assert_array_equal(table["smiles"], drugs)


def test_with_features_smiles_are_kept_but_need_not_be_read(chemical, setup_kwargs):
    adata, options = chemical
    adata.obs.loc[adata.obs["drug"] == "drug-001", "smiles"] = "no structure known"
    with pytest.raises(ValueError, match=r"1 of 10 drugs .*'drug-001' \(more than a SMILES"):
        scgim.setup_anndata(adata, **options)
    scgim.setup_anndata(adata, **(options | setup_kwargs))
    table = state(adata, "drug_table")
    assert table["source"] == "features"
    assert table["smiles"][1] == "no structure known"


@pytest.mark.parametrize("conflict", ["first", "same_parent"])
def test_several_smiles_of_a_drug(chemical, conflict):
    adata, options = chemical
    scgim.setup_anndata(adata, **options)
    whole = state(adata, "drug_table")
    rows = np.flatnonzero(adata.obs["drug"] == "drug-001")[:3]
    adata.obs.iloc[rows, adata.obs.columns.get_loc("smiles")] += ".Cl"
    with pytest.raises(ValueError, match="more than one SMILES"):
        scgim.setup_anndata(adata, **options)
    scgim.setup_anndata(adata, **options, smiles_conflict=conflict)
    for name, value in state(adata, "drug_table").items():
        np.testing.assert_array_equal(value, whole[name])
    scgim.pp.split(adata, smiles_key="smiles", control="DMSO", smiles_conflict=conflict)
    assert scgim.pp.audit_split(adata, smiles_key="smiles", control="DMSO", smiles_conflict=conflict).empty
    with pytest.raises(ValueError, match="smiles_conflict='frist' does not exist"):
        scgim.setup_anndata(adata, **options, smiles_conflict="frist")


@pytest.mark.parametrize("missing", ["", "  ", None, np.nan])
def test_drugs_without_a_structure_are_listed(chemical, missing):
    adata, options = chemical
    scgim.setup_anndata(adata, **options)
    whole = state(adata, "drug_table")
    bare = adata.obs["drug"].isin(["drug-001", "drug-003"])
    adata.obs["smiles"] = adata.obs["smiles"].astype(object).mask(bare, missing)
    with pytest.warns(UserWarning, match="2 of 10 drugs have no features: 'drug-001', 'drug-003'") as caught:
        scgim.setup_anndata(adata, **options)
    assert [warning.filename for warning in caught] == [__file__]
    table = state(adata, "drug_table")
    np.testing.assert_array_equal(table["columns"], whole["columns"])
    expected = whole["values"].copy()
    expected[[1, 3]] = np.nan
    np.testing.assert_array_equal(table["values"], expected)
    assert table["smiles"][[1, 3]].tolist() == ["", ""]


def test_a_screen_without_any_structure_is_refused(chemical):
    adata, options = chemical
    adata.obs["smiles"] = ""
    with pytest.raises(ValueError, match="holds no SMILES of any drug. Leave smiles_key out"):
        scgim.setup_anndata(adata, **options)


def test_a_row_of_nan_says_that_a_drug_has_no_features(screen, setup_kwargs):
    adata = screen()
    table = adata.uns["drug_features"].astype(float)
    table.loc["drug-002"] = np.nan
    adata.uns["drug_features"] = table
    with pytest.warns(UserWarning, match="1 of 10 drugs have no features: 'drug-002'"):
        scgim.setup_anndata(adata, **setup_kwargs)
    adata.uns["drug_features"] = table.drop(index="drug-002")
    with pytest.raises(ValueError, match="'drug-002'.*A row of NaN says that a drug has no features"):
        scgim.setup_anndata(adata, **setup_kwargs)
    adata.uns["drug_features"] = table * np.nan
    with pytest.raises(ValueError, match="No drug has features in.*Leave features_key out"):
        scgim.setup_anndata(adata, **setup_kwargs)


def test_duplicates_are_said_at_the_callers_line(chemical):
    adata, options = chemical
    adata.obs.loc[adata.obs["drug"] == "drug-001", "smiles"] = SMILES[0]
    with pytest.warns(UserWarning, match="'drug-000' = 'drug-001'") as caught:
        scgim.setup_anndata(adata, **options)
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("n_genes", [1, 2])
def test_few_genes(screen, setup_kwargs, n_genes):
    adata = screen()[:, :n_genes].copy()
    scgim.setup_anndata(adata, **setup_kwargs)
    model = scgim.GIM(adata)
    model.train(max_epochs=6, enable_progress_bar=False)
    assert model.predict(drug="drug-000", dose=1.0, as_="mean").shape == (1, n_genes)
    assert len(model.rank_targets()) == 30 * n_genes
    assert {"source", "target", "weight"} <= set(model.get_graph().columns)


def test_other_things_than_an_anndata(setup_kwargs):
    with pytest.raises(TypeError, match="must be an AnnData, not a DataFrame"):
        scgim.setup_anndata(pd.DataFrame(), **setup_kwargs)
