from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

import scgim
from scgim.pp import audit_split, split


def screen(doses_of: dict[str, tuple[float, ...]], n_cells: int = 4) -> ad.AnnData:
    rows = [(drug, dose) for drug, doses in doses_of.items() for dose in doses for _ in range(n_cells)]
    rows += [("DMSO", np.nan)] * n_cells
    obs = pd.DataFrame(rows, columns=["drug", "dose"], index=[f"cell {i}" for i in range(len(rows))])
    return ad.AnnData(np.zeros((len(obs), 1), np.float32), obs=obs)


def sides(adata: ad.AnnData, by: list[str], key: str = "scgim_split") -> pd.Series:
    """ "train" or "test" by condition; fails if a condition is on both sides."""
    found = adata.obs.groupby(by, observed=True, dropna=False)[key].agg(lambda s: "/".join(sorted(set(s))))
    assert set(found) <= {"train", "test"}
    return found


FORTY = {f"drug {i}": (1.0, 10.0) for i in range(40)}


@pytest.mark.parametrize(
    ("n", "frac", "held_out"), [(40, 0.2, 8), (40, 0.01, 1), (40, 0.99, 39), (5, 0.2, 1), (7, 0.5, 4)]
)
def test_whole_drugs(n, frac, held_out):
    adata = screen(dict(list(FORTY.items())[:n]))
    assert split(adata, unseen="drug", control="DMSO", frac=frac) is None
    found = sides(adata, ["drug"])
    assert (found == "test").sum() == held_out
    assert found["DMSO"] == "train"
    assert adata.obs["scgim_split"].cat.categories.to_list() == ["train", "test"]


@pytest.mark.parametrize("frac", [0.01, 0.2, 0.5, 0.99])
def test_whole_doses_some_of_every_drug(frac):
    adata = screen({"one": (1.0,), "two": (1.0, 2.0), "four": (1.0, 2.0, 4.0, 8.0), "ten": tuple(range(1, 11))})
    split(adata, unseen="dose", control="DMSO", frac=frac)
    found = sides(adata, ["drug", "dose"])
    n_test = (found == "test").groupby("drug").sum().to_dict()
    assert n_test == {"DMSO": 0, "one": 0, "two": 1} | {
        drug: min(max(1, round(frac * n)), n - 1) for drug, n in (("four", 4), ("ten", 10))
    }


@pytest.mark.parametrize("unseen", ["drug", "dose", "scaffold", "cell_line"])
def test_seed_decides_alone(unseen):
    adata = in_lines([f"line {i}" for i in range(20)])
    adata.obs["smiles"] = adata.obs["drug"].map(
        {drug: "C" * (i % 20 + 1) + "C1" + i * "C" + "C1" for i, drug in enumerate(FORTY, 1)}
    )
    keys = {"unseen": unseen, "control": "DMSO", "smiles_key": "smiles", "cell_line_key": "line"}
    split(adata, **keys, seed=3)
    other = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    other.obs["drug"] = pd.Categorical(other.obs["drug"], categories=["unused", *sorted(set(other.obs["drug"]))[::-1]])
    other.obs["dose"] = other.obs["dose"].astype(object).astype("category")
    np.random.seed(1)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    split(other, **keys, seed=3, key_added="again")
    assert (other.obs["again"].astype(str) == adata.obs["scgim_split"].astype(str)[other.obs_names]).all()
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    split(adata, **keys, seed=4, key_added="else")
    assert (adata.obs["else"] != adata.obs["scgim_split"]).any()


def test_every_drug_may_be_held_out():
    adata, tested = screen(FORTY, n_cells=1), set()
    for seed in range(40):
        split(adata, control="DMSO", seed=seed)
        tested |= set(adata.obs["drug"][adata.obs["scgim_split"] == "test"])
    assert tested == set(FORTY)


TWINS = {
    "Valproic acid": "CCCC(CCC)C(=O)O",
    "Divalproex": "CCCC(CCC)C(=O)O.CCCC(CCC)C(=O)[O-].[Na+]",
    "Ruxolitinib": "N#CC[C@H](C1CCCC1)n1cc(-c2ncnc3[nH]ccc23)cn1",
    "S-Ruxolitinib": "N#CC[C@@H](C1CCCC1)n1cc(-c2ncnc3[nH]ccc23)cn1",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "ethanol": "CCO",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("unseen", ["drug", "dose"])
def test_duplicates_stay_together(unseen, seed):
    adata = screen(dict.fromkeys(TWINS, (1.0, 2.0, 5.0)))
    adata.obs["smiles"] = adata.obs["drug"].map(TWINS)
    split(adata, unseen=unseen, control="DMSO", smiles_key="smiles", frac=0.4, seed=seed)
    found = sides(adata, ["drug", "dose"]).unstack("drug")
    for one, two in (("Valproic acid", "Divalproex"), ("Ruxolitinib", "S-Ruxolitinib")):
        pd.testing.assert_series_equal(found[one], found[two], check_names=False)


def test_duplicates_are_separated_unless_their_structure_is_known():
    adata, apart = screen(dict.fromkeys(TWINS, (1.0,)), n_cells=1), 0
    for seed in range(20):
        split(adata, control="DMSO", frac=0.4, seed=seed)
        found = sides(adata, ["drug"])
        apart += found["Valproic acid"] != found["Divalproex"]
    assert apart


@pytest.mark.parametrize("seed", range(10))
def test_duplicates_at_different_doses_keep_one_each(seed):
    doses = {"Valproic acid": (1.0, 2.0), "Divalproex": (2.0,), "aspirin": (1.0, 2.0)}
    adata = screen(doses)
    adata.obs["smiles"] = adata.obs["drug"].map(TWINS)
    split(adata, unseen="dose", control="DMSO", smiles_key="smiles", frac=0.5, seed=seed)
    found = sides(adata, ["drug", "dose"])
    assert all("train" in found[drug].to_list() for drug in doses)
    assert found["Valproic acid", 2.0] == found["Divalproex", 2.0] == "train"


# ---- scaffolds ---------------------------------------------------------------------------------------------------------

RINGS = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "benzoate": "O=C([O-])c1ccccc1.[Na+]",
    "indole": "c1ccc2[nH]ccc2c1",
    "tryptophan": "N[C@@H](Cc1c[nH]c2ccccc12)C(=O)O",
    "caffeine": "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "theophylline": "Cn1c(=O)c2[nH]cnc2n(C)c1=O",
    "ethanol": "CCO",
    "propanol": "CCCO",
    "cisplatin": "N.N.Cl[Pt]Cl",
}
ON_ONE_SCAFFOLD = [
    {"aspirin", "paracetamol", "benzoate"},
    {"indole", "tryptophan"},
    {"caffeine", "theophylline"},
    {"ethanol"},
    {"propanol"},
    {"cisplatin"},
]


def with_smiles(smiles: dict[str, str]) -> ad.AnnData:
    adata = screen(dict.fromkeys(smiles, (1.0,)), n_cells=1)
    adata.obs["smiles"] = adata.obs["drug"].map(smiles)
    return adata


@pytest.mark.parametrize("frac", [0.01, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("seed", range(10))
def test_whole_scaffolds(seed, frac):
    adata = with_smiles(RINGS)
    split(adata, unseen="scaffold", control="DMSO", smiles_key="smiles", frac=frac, seed=seed)
    test = {drug for drug, side in sides(adata, ["drug"]).items() if side == "test"}
    assert test
    assert test < set(RINGS)
    assert all(group <= test or not group & test for group in ON_ONE_SCAFFOLD)
    if 0.1 < frac < 0.9:
        assert abs(len(test) - frac * len(RINGS)) <= 2  # the largest scaffold has three


def test_every_scaffold_may_be_held_out():
    adata, tested = with_smiles(RINGS), set()
    for seed in range(25):
        split(adata, unseen="scaffold", control="DMSO", smiles_key="smiles", frac=0.3, seed=seed)
        tested |= set(adata.obs["drug"][adata.obs["scgim_split"] == "test"])
    assert tested == set(RINGS)


def test_scaffolds_of_a_real_library():
    """Against RDKit's own scaffolds of flattened structures as given, largest component."""
    drugs = scgim.datasets.sciplex3_drugs()
    adata = with_smiles(drugs["smiles"].to_dict())
    split(adata, unseen="scaffold", control="DMSO", smiles_key="smiles", seed=1)
    found = sides(adata, ["drug"]).drop("DMSO")
    assert 34 <= (found == "test").sum() <= 40
    sides_of = {}
    for drug, smiles in drugs["smiles"].items():
        largest = max(Chem.GetMolFrags(Chem.MolFromSmiles(smiles), asMols=True), key=lambda m: m.GetNumHeavyAtoms())
        rings = MurckoScaffold.MurckoScaffoldSmiles(mol=largest, includeChirality=False)
        if rings:
            sides_of.setdefault(rings, set()).add(found[drug])
    assert len(sides_of) > 100
    assert all(len(both) == 1 for both in sides_of.values())


def test_one_scaffold_larger_than_asked_for_is_held_out_whole():
    benzenes = {f"benzene {i}": "C" * i + "c1ccccc1" for i in range(4)}
    adata = with_smiles(benzenes | {f"furan {i}": "C" * i + "c1ccco1" for i in range(4)})
    split(adata, unseen="scaffold", control="DMSO", smiles_key="smiles", frac=0.2)
    assert (sides(adata, ["drug"]) == "test").sum() == 4
    adata = with_smiles(benzenes | {"benzene 4": "CCCCc1ccccc1"})
    with pytest.raises(ValueError, match="5 drugs on 1 scaffolds; .* at least 5 drugs on 2"):
        split(adata, unseen="scaffold", control="DMSO", smiles_key="smiles")


def test_forms_of_one_compound_count_once_on_any_scaffold():
    tautomers = {"pyridone": "O=c1cccc[nH]1", "hydroxypyridine": "Oc1ccccn1"}
    adata = with_smiles(tautomers | RINGS | TWINS)
    for seed in range(10):
        split(adata, unseen="scaffold", control="DMSO", smiles_key="smiles", frac=0.4, seed=seed)
        found = sides(adata, ["drug"])
        assert found["pyridone"] == found["hydroxypyridine"]
        assert found["Ruxolitinib"] == found["S-Ruxolitinib"]
        assert found["Valproic acid"] == found["Divalproex"]


def test_scaffold_split_names_unusable_structures():
    adata = with_smiles(RINGS | {"mixture": "", "typo": "c1ccc"})
    with pytest.raises(ValueError, match=r"1 of 11 drugs have no usable structure: 'typo'"):
        split(adata, unseen="scaffold", control="DMSO", smiles_key="smiles")


@pytest.mark.parametrize("unseen", ["drug", "scaffold"])
def test_drugs_without_a_structure_stay_in_training(unseen):
    adata = with_smiles(RINGS | {"antibody": "", "cytokine": ""})
    for seed in range(10):
        split(adata, unseen=unseen, control="DMSO", smiles_key="smiles", frac=0.5, seed=seed)
        found = sides(adata, ["drug"])
        assert found[["antibody", "cytokine"]].tolist() == ["train", "train"]
        assert (found == "test").any()


# ---- lines -------------------------------------------------------------------------------------------------------------


def in_lines(names: list[str]) -> ad.AnnData:
    adata = ad.concat([screen(FORTY, n_cells=1) for _ in names], index_unique="-")
    adata.obs["line"] = np.repeat(names, adata.n_obs // len(names))
    return adata


@pytest.mark.parametrize(
    ("lines", "frac", "held_out"),
    [
        pytest.param(["A549", "K562"], 0.01, 1, id="one of two"),
        pytest.param(["A549", "K562"], 0.99, 1, id="never all"),
        pytest.param(["A549", "K562", "MCF7", "HeLa", "U2OS"], 0.4, 2, id="two of five"),
    ],
)
def test_whole_lines_without_their_controls(lines, frac, held_out):
    adata = in_lines(lines)
    split(adata, unseen="cell_line", cell_line_key="line", control="DMSO", frac=frac)
    adata.obs["treated"] = adata.obs["drug"] != "DMSO"
    found = sides(adata, ["line", "treated"]).unstack("treated")
    assert (found[False] == "train").all()
    assert (found[True] == "test").sum() == held_out


def test_lines_need_no_structures():
    adata = in_lines(["A549", "K562"])
    adata.obs["smiles"] = "no structure"
    split(adata, unseen="cell_line", cell_line_key="line", control="DMSO", smiles_key="smiles")
    assert (adata.obs["scgim_split"] == "test").any()


def test_a_line_of_controls_only_is_no_line_to_hold_out():
    adata = in_lines(["A549", "K562"])
    adata = adata[(adata.obs["line"] == "A549") | (adata.obs["drug"] == "DMSO")].copy()
    with pytest.raises(ValueError, match="at least 2 lines; only 'A549' has treated cells"):
        split(adata, unseen="cell_line", cell_line_key="line", control="DMSO")


def test_a_cell_without_line():
    adata = in_lines(["A549", "K562"])
    adata.obs.iloc[0, adata.obs.columns.get_loc("line")] = None
    with pytest.raises(ValueError, match="obs\\['line'\\] is missing for 1"):
        split(adata, unseen="cell_line", cell_line_key="line", control="DMSO")


# ---- every kind --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unseen", ["drug", "dose", "scaffold", "cell_line"])
@pytest.mark.parametrize("seed", range(5))
def test_no_split_leaks(unseen, seed):
    adata = ad.concat([screen(dict.fromkeys(RINGS | TWINS, (1.0, 2.0, 4.0))) for _ in range(3)], index_unique="-")
    adata.obs["smiles"] = adata.obs["drug"].map(RINGS | TWINS)
    adata.obs["line"] = np.repeat(["A549", "K562", "MCF7"], adata.n_obs // 3)
    keys = {"control": "DMSO", "smiles_key": "smiles", "dose_key": "dose", "cell_line_key": "line"}
    split(adata, unseen=unseen, seed=seed, frac=0.4, **keys)
    assert audit_split(adata, **keys).empty


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_round_trip(tmp_path, kind):
    adata = screen(FORTY)
    split(adata, control="DMSO")
    path = tmp_path / f"screen.{kind}"
    getattr(adata, f"write_{kind}")(path)
    pd.testing.assert_series_equal(getattr(ad, f"read_{kind}")(path).obs["scgim_split"], adata.obs["scgim_split"])


@pytest.mark.parametrize("unseen", ["drug", "dose"])
def test_changes_nothing_else(unseen, caplog):
    adata = screen(FORTY)
    before = adata.copy()
    with caplog.at_level(logging.INFO, logger="scgim"):
        split(adata, unseen=unseen, control="DMSO", key_added="held out")
    pd.testing.assert_frame_equal(adata.obs.drop(columns="held out"), before.obs)
    assert not adata.uns
    assert "of 324 cells" in caplog.messages[0]


def test_cell_names_may_repeat():
    adata = screen(FORTY)
    adata.obs_names = ["cell"] * adata.n_obs
    split(adata, control="DMSO")
    sides(adata, ["drug"])


def dose_of_first_treated(value):
    def spoil(adata):
        adata.obs["dose"] = adata.obs["dose"].astype(object)
        adata.obs.iloc[0, adata.obs.columns.get_loc("dose")] = value

    return spoil


def without_drug_names(adata):
    adata.obs.iloc[:3, adata.obs.columns.get_loc("drug")] = None


@pytest.mark.parametrize(
    ("spoil", "options", "error", "message"),
    [
        pytest.param(None, {"control": "vehicle"}, ValueError, "No cell equals control='vehicle'", id="wrong control"),
        pytest.param(None, {"unseen": "scaffold"}, ValueError, "'scaffold' needs smiles_key=.*'dose'", id="scaffold"),
        pytest.param(None, {"unseen": "cell_line"}, ValueError, "'cell_line' needs cell_line_key=", id="cell_line"),
        pytest.param(
            None,
            {"unseen": "cell_line", "cell_line_key": "lines"},
            KeyError,
            "no column 'lines'. Nearest",
            id="cell_line_key",
        ),
        pytest.param(
            None,
            {"unseen": "cell_line", "cell_line_key": "line", "key_added": "line"},
            ValueError,
            "would overwrite",
            id="line overwritten",
        ),
        pytest.param(
            None, {"unseen": "drugs"}, ValueError, "unseen='drugs' does not exist. Did you mean 'drug'", id="unseen"
        ),
        pytest.param(None, {"frac": 0}, ValueError, "frac=0", id="frac 0"),
        pytest.param(None, {"frac": 1}, ValueError, "frac=1", id="frac 1"),
        pytest.param(None, {"frac": float("nan")}, ValueError, "frac=nan", id="frac nan"),
        pytest.param(None, {"drug_key": "Drug"}, KeyError, "no column 'Drug'. Nearest: 'drug'", id="drug_key"),
        pytest.param(
            None, {"unseen": "dose", "dose_key": "doses"}, KeyError, "'doses'. Nearest: 'dose'", id="dose_key"
        ),
        pytest.param(None, {"smiles_key": "smiles"}, KeyError, "no column 'smiles'", id="smiles_key"),
        pytest.param(None, {"key_added": "a/b"}, ValueError, "Use 'a_b'", id="slash"),
        pytest.param(None, {"key_added": "drug"}, ValueError, "would overwrite", id="own column"),
        pytest.param(without_drug_names, {}, ValueError, "missing for 3 of 324 cells", id="NaN drug"),
        pytest.param(dose_of_first_treated("1 uM"), {"unseen": "dose"}, ValueError, "'1 uM' for 1 treated", id="unit"),
        pytest.param(dose_of_first_treated(None), {"unseen": "dose"}, ValueError, "1 treated cells", id="no dose"),
        pytest.param(
            dose_of_first_treated(np.inf), {"unseen": "dose"}, ValueError, "'inf' for 1 treated", id="infinite"
        ),
        pytest.param(dose_of_first_treated(0.0), {"unseen": "dose"}, ValueError, "'0.0' for 1 treated", id="zero"),
    ],
)
def test_errors(spoil, options, error, message):
    adata = screen(FORTY)
    if spoil is not None:
        spoil(adata)
    columns = list(adata.obs)
    with pytest.raises(error, match=message):
        split(adata, **({"control": "DMSO"} | options))
    assert list(adata.obs) == columns


def test_too_little_to_split():
    adata = screen({"a": (1.0,), "b": (1.0,), "c": (1.0,), "d": (1.0,)})
    with pytest.raises(ValueError, match="You have 4 drugs; an unseen-drug split needs at least 5. Use unseen='dose'"):
        split(adata, control="DMSO")
    with pytest.raises(ValueError, match="No drug has two doses.*unseen='drug'"):
        split(adata, unseen="dose", control="DMSO")


def test_refuses_a_view():
    with pytest.raises(ValueError, match=r"view.*copy\(\)"):
        split(screen(FORTY)[:100], control="DMSO")


def test_a_conventional_control_is_found_and_said():
    adata, named = screen(FORTY), screen(FORTY)
    with pytest.warns(UserWarning, match="'DMSO' was taken for the control"):
        split(adata)
    split(named, control="DMSO")
    assert (adata.obs["scgim_split"] == named.obs["scgim_split"]).all()


def test_without_any_control_name_it_asks():
    adata = screen(FORTY)
    adata.obs["drug"] = adata.obs["drug"].astype(str).replace("DMSO", "compound x")
    with pytest.raises(ValueError, match="split needs control="):
        split(adata)
