"""What one may ask of a model, and how it says no."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import scgim

pytestmark = pytest.mark.usefixtures("generator_alone")

SMILES = ["CCO", "CCN", "CCCl", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "CC(=O)Nc1ccc(O)cc1", "CCCCCC", "OCC(O)CO", "CC#N"]


@pytest.fixture(scope="session")
def undosed(screen, fit):
    """Without doses and features."""
    return fit(screen(doses=(1.0,)), dose_key=None, dose_unit=None, features_key=None)


@pytest.fixture(scope="session")
def chemical(screen, fit):
    """With features from SMILES, drugs at doses of their own."""
    adata = screen(n_drugs=9)
    smiles = dict(zip(sorted(set(adata.obs["drug"]) - {"DMSO"}), SMILES, strict=True))
    adata.obs["smiles"] = [smiles.get(name, "") for name in adata.obs["drug"]]
    adata = adata[~((adata.obs["drug"] == "drug-002") & (adata.obs["dose"] > 0.5))].copy()
    return fit(adata, features_key=None, smiles_key="smiles")


@pytest.fixture
def new(model) -> pd.DataFrame:
    """Features of two drugs that were not measured."""
    columns = model.drug_table_.frame.columns
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.integers(2, size=(2, len(columns))), index=["new", "newer"], columns=columns)


def mean(model, **asked):
    return model.predict(**asked, as_="mean")


# ---- drugs -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [list, np.array, pd.Index, pd.Series, iter], ids=lambda f: f.__name__)
def test_drugs_in_any_list(model, form):
    drugs = ["drug-007", "drug-002"]
    pred = mean(model, drug=form(drugs), dose=1.0)
    assert pred.obs["drug"].tolist() == drugs
    np.testing.assert_array_equal(pred.X, np.vstack([mean(model, drug=d, dose=1.0).X for d in drugs]))


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        pytest.param({"drug": "drug-0O1"}, KeyError, r"'drug-0O1' is unknown \(nearest.*'drug-.*features=", id="unseen"),
        pytest.param({"drug": ["drug-001", "dmso"]}, KeyError, "'dmso' is unknown", id="other case of the control"),
        pytest.param({"drug": ["drug-001", "DMSO"]}, ValueError, "'DMSO' is the control.*Leave it out", id="control"),
        pytest.param({"drug": [("drug-001", "drug-001")]}, ValueError, "tuple of different drugs", id="combination"),
        pytest.param({"drug": [1]}, TypeError, r"got 1 of type int. Nearest name: 'drug-001'", id="number"),
        pytest.param({"drug": [None]}, TypeError, "got None", id="None"),
        pytest.param({"drug": np.array(["drug-001"] * 2)}, ValueError, "'drug-001' was asked for more than once", id="twice"),
        pytest.param({"drug": []}, ValueError, "drug=None means all", id="nothing"),
        pytest.param({"drug": "drug-001", "smiles": "CCO"}, ValueError, "do not come from SMILES but from 'features'", id="smiles"),
        pytest.param({"smiles": "CCO"}, ValueError, "smiles= was passed without drug=", id="no name"),
        pytest.param({"features": pd.DataFrame()}, ValueError, "features= was passed without drug=", id="no names"),
        pytest.param({"drug": "x", "features": {"x": [1]}}, TypeError, "features is a dict", id="dict"),
        pytest.param({"drug": "x", "features": np.ones((1, 3))}, TypeError, "features is a ndarray", id="array"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["predict", "rank_targets"])
def test_drugs_that_cannot_be_asked_for(model, verb, asked, error, message):
    with pytest.raises(error, match=message) as caught:
        getattr(model, verb)(**asked)
    assert "np.str_" not in str(caught.value)


def test_no_drug_means_all_at_their_doses(model):
    pred = mean(model)
    design = model.summary_.design.names()
    np.testing.assert_array_equal(pred.obs["drug"].astype(str), design["drug"])
    np.testing.assert_array_equal(pred.obs["dose"], design["dose"])


def test_without_features_only_measured_drugs_are_known(undosed):
    with pytest.raises(ValueError, match=r"'Drug-003 ' was not measured in training \(nearest name: 'drug-003'\)"):
        undosed.predict(drug="Drug-003 ")
    for given in ({"smiles": "CCO"}, {"features": pd.DataFrame({"a": [1.0]}, index=["drug-003"])}):
        with pytest.raises(ValueError, match=f"{next(iter(given))}= is of no use to this model.*setup_anndata"):
            undosed.predict(drug="drug-003", **given)


# ---- features --------------------------------------------------------------------------------------------------------------


def test_features_are_read_by_name(model, new):
    expected = mean(model, drug=["newer", "new"], features=new, dose=1.0)
    alike = [
        new[new.columns[::-1]],
        new[::-1].assign(unasked=3.0),
        pd.concat([new, new.iloc[:1].set_axis(["a third"])]),
        new.astype(np.float32),
        new.astype(object),
        new.astype(bool),
    ]
    for features in alike:
        np.testing.assert_array_equal(mean(model, drug=["newer", "new"], features=features, dose=1.0).X, expected.X)
    assert expected.obs["drug"].tolist() == ["newer", "new"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        pytest.param(lambda t: t.iloc[1:], KeyError, "no row for 'new' .nearest: 'newer'", id="row"),
        pytest.param(lambda t: t.iloc[:, 2:], KeyError, "lacks 2 of the model's 32 columns, e.g. 'motif_000'", id="columns"),
        pytest.param(
            lambda t: t.rename(columns={"motif_004": "Motif_004"}), KeyError, "'motif_004' .nearest: 'Motif_004'", id="case"
        ),
        pytest.param(lambda t: t * np.nan, ValueError, "not finite for drug 'new', feature 'motif_000': 'nan'", id="NaN"),
        pytest.param(lambda t: t.set_axis(range(32), axis=1), TypeError, "holds 0: table.columns =", id="int columns"),
        pytest.param(lambda t: pd.concat([t, t]), ValueError, "index of features holds 'new' more than once", id="twice"),
        pytest.param(lambda t: t.iloc[:, :0], ValueError, "has no columns", id="empty"),
    ],
)  # fmt: skip
def test_bad_features(model, new, change, error, message):
    with pytest.raises(error, match=message):
        model.predict(drug=["new", "newer"], features=change(new))


def test_a_measured_drug_keeps_its_features(model):
    own = model.drug_table_.frame.loc[["drug-001"]]
    np.testing.assert_array_equal(mean(model, drug="drug-001", features=own).X, mean(model, drug="drug-001").X)
    with pytest.raises(ValueError, match="'drug-001' has other features than in training. Give a new drug a new name"):
        model.predict(drug="drug-001", features=1 - own)


def test_equal_features_give_equal_predictions(model):
    own = model.drug_table_.frame.loc[["drug-001"]].set_axis(["alias"])
    pred = mean(model, drug="alias", features=own)
    np.testing.assert_array_equal(pred.X, mean(model, drug="drug-001").X)
    assert (pred.obs["nearest_drug"] == "drug-001").all()
    assert (pred.obs["similarity"] == 1).all()
    assert (pred.obs["trust"] == "edge").all()


# ---- structures -------------------------------------------------------------------------------------------------------------


def test_a_new_smiles_is_all_it_takes(chemical):
    pred = mean(chemical, drug=["X", "Y"], smiles=["CCCO", "c1ccncc1"], dose=1.0)
    assert pred.obs["smiles"].tolist() == ["CCCO", "c1ccncc1"]
    assert mean(chemical, drug="X", smiles="CCCO", dose=1.0).X.tolist() == pred.X[:1].tolist()
    assert pred.obs["nearest_drug"].tolist()[1] == "drug-003"


def test_a_salt_of_a_measured_drug_is_that_drug(chemical):
    salt = "CC(=O)Oc1ccccc1C(=O)[O-].[Na+]"
    np.testing.assert_array_equal(mean(chemical, drug="sodium salt", smiles=salt).X, mean(chemical, drug="drug-004").X)
    with pytest.raises(ValueError, match="'drug-004' has other features"):
        chemical.predict(drug="drug-004", smiles="CCO")


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        pytest.param({"drug": "X"}, KeyError, "'X' is unknown.*For a new drug pass smiles=", id="none"),
        pytest.param({"drug": "X", "smiles": ""}, ValueError, "no usable structure: 'X' .no SMILES: ''", id="empty"),
        pytest.param({"drug": "X", "smiles": "not one"}, ValueError, "'X' .more than a SMILES", id="two words"),
        pytest.param({"drug": "X", "smiles": "C1CC"}, ValueError, "'X' .not a SMILES: 'C1CC'", id="unparseable"),
        pytest.param({"drug": ["X", "Y"], "smiles": "CCO"}, ValueError, "2 drugs but 1 SMILES", id="too few"),
        pytest.param({"drug": ["X", "Y"], "smiles": ["CCO", None]}, ValueError, "'Y' .no SMILES: None", id="missing"),
        pytest.param({"drug": "X", "smiles": {"X": "CCO"}}, TypeError, "in the order of drug, not a dict", id="dict"),
        pytest.param({"drug": "X", "smiles": 3}, TypeError, "not a int", id="number"),
        pytest.param(
            {"drug": "X", "smiles": "CCO", "features": pd.DataFrame()}, ValueError, "smiles or features, not both", id="both"
        ),
    ],
)  # fmt: skip
def test_bad_smiles(chemical, asked, error, message):
    with pytest.raises(error, match=message):
        chemical.predict(**asked)


def test_duplicates_in_one_question_are_said_at_the_callers_line(chemical):
    with pytest.warns(UserWarning, match="'X' = 'Y'") as caught:
        chemical.predict(drug=["X", "Y"], smiles=["CCCO", "OCCC"], dose=1.0)
    assert caught[0].filename == __file__


# ---- doses -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "doses"),
    [
        pytest.param({"drug": "drug-000"}, [0.5, 1, 2], id="its own"),
        pytest.param({"drug": "drug-002"}, [0.5], id="its only one"),
        pytest.param({"drug": "X", "smiles": "CCCO"}, [0.5, 1, 2], id="all for an unseen one"),
        pytest.param({"drug": ["drug-002", "drug-000"]}, [0.5, 0.5, 1, 2], id="each its own"),
        pytest.param({"drug": ["drug-002", "drug-000"], "dose": [2, 1]}, [2, 1, 2, 1], id="all pairs as asked"),
        pytest.param({"drug": "drug-002", "dose": np.float32(7)}, [7], id="any number"),
        pytest.param({"drug": "drug-002", "dose": pd.Series([3, 4])}, [3, 4], id="Series"),
    ],
)
def test_doses(chemical, asked, doses):
    assert mean(chemical, **asked).obs["dose"].tolist() == doses


@pytest.mark.parametrize(
    ("dose", "message"),
    [
        (-1, "not negative.*got -1"),
        ([1.0, -0.1], "not negative"),
        (np.nan, "finite"),
        (np.inf, "finite.*inf"),
        ("1 uM", "numbers.*in the unit of set-up; got '1 uM'"),
        ([1.0, 2.0, 1], "more than once"),
        ([], r"got \[\]"),
        ({1: 2}, "numbers"),
    ],
)
def test_bad_doses(model, dose, message):
    with pytest.raises(ValueError, match=message):
        model.predict(drug="drug-000", dose=dose)


def test_a_dose_needs_a_dose_key(undosed):
    with pytest.raises(ValueError, match="dose=1.0 was asked for, but the model was set up without dose_key"):
        undosed.predict(drug="drug-000", dose=1.0)
    assert undosed.predict(drug="drug-000", as_="mean").obs["dose"].isna().all()


def test_no_dose_no_effect(model, new):
    control = model.predict(drug="drug-000", dose=0.0)
    np.testing.assert_allclose(control.X, control.layers["control"], atol=1e-6)
    unseen = model.predict(drug=["new", "newer"], features=new, dose=[0.0, 1.0], as_="delta")
    none = (unseen.obs["dose"] == 0).to_numpy()
    assert (unseen.X[none] == 0).all()
    assert (unseen.obs["trust"][none] == "extrapolation").all()
    assert not unseen.obs["dose_in_range"][none].any()
    assert (model.rank_targets(drug="drug-000", dose=0.0)["effect"] == 0).all()


@pytest.mark.parametrize(
    ("dose", "in_range", "trust"),
    [(0.5, True, "in-domain"), (2, True, "in-domain"), (1.3, True, "in-domain"), (4, False, "edge"), (0.25, False, "edge"),
     (4.1, False, "extrapolation"), (0.2, False, "extrapolation")],
)  # fmt: skip
def test_trust_in_doses(model, dose, in_range, trust):
    obs = mean(model, drug="drug-000", dose=dose).obs
    assert obs["dose_in_range"].tolist() == [in_range]
    assert obs["trust"].tolist() == [trust]


def test_the_unit_of_doses_does_not_matter(screen, fit):
    models = []
    for factor in (1.0, 1e3):
        adata = screen()
        adata.obs["dose"] *= factor
        models.append(fit(adata))
    one, other = (mean(m, drug="drug-000", dose=0.7 * f) for m, f in zip(models, (1.0, 1e3), strict=True))
    np.testing.assert_allclose(one.X, other.X, rtol=1e-4)


def test_a_dose_kept_as_float32_is_the_dose_one_asks_for(screen, fit):
    adata = screen(doses=(0.1, 0.7))
    adata.obs["dose"] = adata.obs["dose"].astype(np.float32)
    model = fit(adata)
    assert mean(model, drug="drug-000", dose=[0.1, 0.7]).obs["dose_in_range"].all()
    assert (model.rank_targets(drug="drug-000", dose=0.1)["evidence"] == "data").all()


def test_a_drug_held_out_is_predicted_from_its_features(screen, fit):
    adata = screen()
    adata.obs["split"] = np.where(adata.obs["drug"] == "drug-004", "test", "train")
    model = fit(adata, split_key="split")
    pred = mean(model, drug="drug-004")
    assert "drug-004" not in model.summary_.design.drugs
    assert pred.obs["dose"].tolist() == [0.5, 1, 2]
    assert (pred.obs["trust"] != "in-domain").all()


def test_nothing_of_the_model_changes(model, new):
    before = model.drug_table_.frame.copy(), dict(model.drug_table_.smiles)
    model.predict(drug=["new", "newer"], features=new)
    pd.testing.assert_frame_equal(model.drug_table_.frame, before[0])
    assert model.drug_table_.smiles == before[1]
    assert isinstance(model, scgim.GIM)


def test_conditions_are_asked_for_as_they_are_and_no_others(model):
    predictor = model._predictor()
    names = predictor.summary.design.names()
    # every drug at doses of its own
    wanted = names.groupby("drug", sort=False).sample(1, random_state=0)[["drug", "dose"]]
    query = predictor.query_of(wanted)
    found = set(zip(query.drug, query.dose, strict=True))
    assert found == set(wanted.itertuples(index=False, name=None))
    assert len(query.drug) == len(wanted)
    together = predictor.resolve(drug=sorted(set(names["drug"])), dose=sorted(set(names["dose"])))
    place = {key: i for i, key in enumerate(zip(together.drug, together.dose, strict=True))}
    rows = np.array([place[key] for key in zip(query.drug, query.dose, strict=True)])
    np.testing.assert_array_equal(query.features, together.features[rows])
    np.testing.assert_array_equal(query.index, together.index[rows])
    np.testing.assert_array_equal(query.row, np.arange(len(rows)))
