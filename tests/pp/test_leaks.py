from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scgim
from scgim.pp import audit_split, split
from scgim.pp._chemistry import standardize_all
from scgim.pp._leaks import find_leaks

SMILES = {
    "DMSO": "",
    "valproate": "CCCC(CCC)C(=O)[O-].[Na+]",
    "valproic acid": "CCCC(CCC)C(=O)O",
    "R": "C[C@@H](N)c1ccccc1",
    "S": "C[C@H](N)c1ccccc1",
    "C12": "CCCCCCCCCCCC(=O)O",
    "C16": "CCCCCCCCCCCCCCCC(=O)O",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
}


def screen(*rows: tuple[str, float, str, str]) -> ad.AnnData:
    """Cells from (drug, dose, line, side), and a control in train."""
    obs = pd.DataFrame([*rows, ("DMSO", np.nan, "A549", "train")], columns=["drug", "dose", "line", "side"])
    obs["smiles"] = obs["drug"].map(SMILES)
    obs.index = [f"cell {i}" for i in range(len(obs))]
    return ad.AnnData(np.zeros((len(obs), 1), np.float32), obs=obs)


def audit(adata: ad.AnnData, **options) -> list[tuple[str, str, str]]:
    keys = {"smiles_key": "smiles", "dose_key": "dose", "cell_line_key": "line", "control": "DMSO", "split_key": "side"}
    found = audit_split(adata, **(keys | options))
    assert list(found) == ["kind", "test", "train", "detail"]
    assert found["detail"].str.len().gt(0).all()
    return list(found[["kind", "test", "train"]].itertuples(index=False, name=None))


def pair(test: str, train: str, *, dose: float = 1.0, line: str = "A549") -> ad.AnnData:
    """One drug tested at dose 1 in A549, another trained on, and a third in training everywhere."""
    return screen(
        (test, 1.0, "A549", "test"),
        (train, dose, line, "train"),
        *(("aspirin", 1.0, x, "train") for x in ("A549", "K562")),
    )


@pytest.mark.parametrize(
    ("adata", "leaks"),
    [
        pytest.param(pair("R", "valproate"), [], id="clean"),
        pytest.param(pair("valproate", "valproic acid"), [("parent", "valproate", "valproic acid")], id="salt"),
        pytest.param(pair("R", "S"), [("parent", "R", "S")], id="stereo duplicate"),
        pytest.param(pair("C12", "C16"), [("near-identical", "C12", "C16")], id="chain length"),
        pytest.param(pair("R", "S", dose=9.0), [("parent", "R", "S")], id="duplicate at another dose"),
        pytest.param(pair("R", "S", line="K562"), [("parent", "R", "S")], id="duplicate in another line"),
        pytest.param(pair("R", "R"), [("condition", "R", "R")], id="condition"),
        pytest.param(pair("R", "R", dose=9.0), [], id="unseen dose"),
        pytest.param(pair("R", "R", line="K562"), [], id="unseen pair"),
        pytest.param(
            screen(("R", 1.0, "K562", "test"), ("R", 1.0, "A549", "train"), ("S", 1.0, "A549", "train")),
            [],
            id="unseen line",
        ),
        pytest.param(
            screen(("R", 1.0, "K562", "test"), ("S", 1.0, "A549", "train")),
            [],
            id="duplicate seen in another line only",
        ),
        pytest.param(
            screen(("R", 1.0, "A549", "test"), ("R", 9.0, "A549", "train"), ("S", 9.0, "A549", "train")),
            [],
            id="unseen dose of duplicates",
        ),
        pytest.param(
            screen(("R", 1.0, "A549", "test"), ("R", 9.0, "A549", "train"), ("S", 1.0, "A549", "train")),
            [("parent", "R", "S")],
            id="dose seen with the duplicate",
        ),
        pytest.param(screen(("R", 1.0, "A549", "test")), [], id="no drug in train"),
        pytest.param(screen(("R", 1.0, "A549", "train")), [], id="no test"),
        pytest.param(screen(), [], id="controls only"),
        pytest.param(screen(("DMSO", np.nan, "A549", "test")), [], id="controls on both sides"),
    ],
)
def test_leaks(adata, leaks):
    before = adata.copy()
    assert audit(adata) == leaks
    assert audit(adata[::-1]) == leaks  # a view, in another order
    pd.testing.assert_frame_equal(adata.obs, before.obs)


def test_without_columns_conditions_are_coarser():
    adata = pair("R", "R", dose=9.0, line="K562")
    assert audit(adata, smiles_key=None) == []
    assert audit(adata, cell_line_key=None) == []
    assert audit(adata, cell_line_key=None, dose_key=None) == [("condition", "R", "R")]


def test_detail_says_where_and_how_many():
    adata = screen(*[("R", 1.0, "A549", "train")] * 3, *[("R", 1.0, "A549", "test")] * 2)
    keys = {"control": "DMSO", "split_key": "side"}
    everywhere = audit_split(adata, **keys, dose_key="dose", cell_line_key="line")
    assert everywhere["detail"].item() == "dose 1, line A549, 3 cells in train and 2 in test"
    assert audit_split(adata, **keys)["detail"].item() == "3 cells in train and 2 in test"


def test_published_table():
    """Splits that part every pair of the compounds of sci-Plex 3 find the duplicates that are known."""
    drugs = scgim.datasets.sciplex3_drugs()
    structures = standardize_all(drugs["smiles"])
    cells, found = pd.DataFrame({"drug": drugs.index, "dose": 1.0, "line": ""}), set()
    for bit in range(8):
        cells["train"] = (np.arange(len(cells)) >> bit) % 2 == 0
        leaks = find_leaks(cells, structures, dosed=False, lined=False)
        found |= {
            frozenset(name.split(" ")[0] for name in pair) for pair in zip(leaks["test"], leaks["train"], strict=True)
        }
    assert {frozenset({"Divalproex", "Valproic"}), frozenset({"Ruxolitinib", "S-Ruxolitinib"})} <= found
    assert len(found) < 12


@pytest.mark.parametrize("seed", range(5))
def test_cells_at_random_leak_in_every_condition(seed):
    adata = screen(*[(drug, 1.0, "A549", "") for drug in SMILES if drug != "DMSO"] * 40)
    adata.obs["side"] = np.random.default_rng(seed).permutation(["train", "test"] * (adata.n_obs // 2) + ["train"])
    assert {drug for kind, drug, _ in audit(adata) if kind == "condition"} == set(SMILES) - {"DMSO"}


def test_a_split_by_name_lets_duplicates_through():
    adata = screen(*[(drug, 1.0, "A549", "") for drug in SMILES if drug != "DMSO"])
    kinds = set()
    for seed in range(10):
        split(adata, control="DMSO", frac=0.4, seed=seed, key_added="side")
        kinds |= {kind for kind, _, _ in audit(adata)}
        split(adata, control="DMSO", smiles_key="smiles", frac=0.4, seed=seed, key_added="side")
        assert "parent" not in {kind for kind, _, _ in audit(adata)}
    assert kinds == {"parent", "near-identical"}


@pytest.mark.parametrize(
    ("spoil", "options", "error", "message"),
    [
        pytest.param({}, {"split_key": "sides"}, KeyError, "no column 'sides'. Nearest: 'side'", id="no column"),
        pytest.param({}, {"control": "dmso"}, ValueError, "No cell equals control='dmso'.*'DMSO'", id="control"),
        pytest.param({"side": "valid"}, {}, ValueError, "also holds 'valid'", id="third side"),
        pytest.param({"side": None}, {}, ValueError, "missing for 1", id="no side"),
        pytest.param({"drug": None}, {}, ValueError, "missing for 1", id="no drug"),
        pytest.param({"line": " "}, {}, ValueError, "blank for 1", id="blank line"),
        pytest.param({"dose": -1.0}, {}, ValueError, "'-1.0' for 1 treated", id="negative dose"),
        pytest.param({"smiles": "C1CC"}, {}, ValueError, "no usable structure: 'R'", id="no SMILES"),
    ],
)
def test_errors(spoil, options, error, message):
    adata = pair("R", "S")
    for key, value in spoil.items():
        adata.obs.loc["cell 0", key] = value
    with pytest.raises(error, match=message):
        audit(adata, **options)


def test_refuses_what_is_no_screen():
    with pytest.raises(TypeError, match="not a list"):
        audit_split([], control="DMSO")
