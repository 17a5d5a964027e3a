from __future__ import annotations

import inspect
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from anndata.tests.helpers import assert_equal

import scgim

PARACETAMOL = "CC(=O)Nc1ccc(O)cc1"


def answers(model, smiles):
    """What every verb says, as arrays: asked here and in a process that has never seen the data."""
    asked = {"dose": [0.7, 2.0], "n_cells": 9}
    told = {as_: model.predict(drug="new", smiles=smiles, as_=as_, **asked).X for as_ in ("cells", "samples", "delta")}
    told["measured"] = model.predict(as_="mean").X
    told["set"] = model.do({"G0001": 2.0}, kind="set").X
    told["edges"] = model.get_graph().drop(columns=["source", "target"]).to_numpy(float)
    told["ends"] = model.get_graph(kind="total")[["source", "target"]].to_numpy(str)
    table = model.rank_targets()
    told["targets"] = table[["score", "probability", "effect"]].to_numpy()
    told["genes"] = table["gene"].to_numpy(str)
    return told


SCRIPT = f"""
import sys
import numpy as np
import torch
import scgim

{inspect.getsource(answers)}
torch.set_num_threads(1)
folder, out, smiles = sys.argv[1:]
model = scgim.GIM.load(folder)
np.savez(out, **answers(model, smiles))
print(repr(model))
"""


@pytest.fixture(scope="module")
def chemical(screen, fit):
    return fit(screen(chemistry="sciplex"), smiles_key="smiles", features_key=None)


@pytest.fixture(scope="module")
def saved(chemical, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    chemical.save(folder)
    return folder


def screen_of(model):
    """The AnnData as it was before set-up."""
    adata = model.adata.copy()
    for key in [key for key in adata.uns if key.startswith("_scvi")]:
        del adata.uns[key]
    return adata


@pytest.mark.slow  # a new process imports scvi-tools
def test_a_new_process_without_data_gives_the_same_bits(chemical, saved, tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(saved), str(tmp_path / "told.npz"), PARACETAMOL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = answers(chemical, PARACETAMOL)
    with np.load(tmp_path / "told.npz") as told:
        assert set(told) == set(expected)
        for name in expected:
            np.testing.assert_array_equal(told[name], expected[name], err_msg=name)
    assert done.stdout.strip() == repr(chemical)


@pytest.mark.parametrize("features", ["smiles", "table", "none"])
def test_the_same_bits_without_data(screen, fit, in_lines, tmp_path, features):
    adata = in_lines(1.0, **({"chemistry": "sciplex"} if features == "smiles" else {}))
    setup = {
        "smiles": {"smiles_key": "smiles", "features_key": None},
        "table": {},
        "none": {"features_key": None, "dose_key": None, "dose_unit": None},
    }[features]
    model = fit(adata, **setup, cell_line_key="line", batch_key="plate")
    model.save(tmp_path / "model")
    again = scgim.GIM.load(tmp_path / "model")
    assert again.adata is None
    for as_ in ("cells", "samples", "mean", "delta"):
        assert_equal(again.predict(as_=as_), model.predict(as_=as_))
    pd.testing.assert_frame_equal(again.rank_targets(), model.rank_targets())
    pd.testing.assert_frame_equal(again.get_graph(), model.get_graph())
    assert repr(again) == repr(model)
    assert again.drugs == model.drugs
    for key, frame in model.history.items():
        pd.testing.assert_frame_equal(again.history[key], frame.astype(float), check_names=False)


@pytest.mark.parametrize("generator", ["mean", "kernel", "hill", "network"])
def test_every_generator_gives_the_same_bits(screen, fit, tmp_path, generator):
    model = fit(screen(), gim={"generator": generator})
    model.save(tmp_path / "model")
    again = scgim.GIM.load(tmp_path / "model")
    assert_equal(again.predict(as_="mean"), model.predict(as_="mean"))
    for evidence in ("data", "features"):
        pd.testing.assert_frame_equal(
            again.rank_targets(evidence=evidence), model.rank_targets(evidence=evidence), check_exact=True
        )


def test_saving_what_was_loaded_gives_the_same_files(saved, tmp_path):
    scgim.GIM.load(saved).save(tmp_path / "again")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_no_pickle(saved):
    files = {path.name: path.read_bytes() for path in saved.iterdir()}
    assert set(files) == {"model.json", "model.safetensors"}
    json.loads(files["model.json"])
    header = files["model.safetensors"][8 : 8 + int.from_bytes(files["model.safetensors"][:8], "little")]
    assert "/fitted/scale" in json.loads(header)


def test_controls_are_capped(screen, fit, tmp_path, monkeypatch):
    monkeypatch.setattr("scgim.data._training_data.MAX_CONTROLS", 30)
    model = fit(screen())
    cells = model.predict(drug="drug-000", dose=1.0)
    assert cells.n_obs == 30
    mean = np.asarray(model.adata[model.adata.obs["drug"] == "DMSO"].X, dtype=float).mean(0)
    np.testing.assert_allclose(
        model.predict(drug="drug-000", dose=1.0, as_="mean").layers["control"][0], mean, rtol=1e-5
    )


def test_overwriting(chemical, saved, tmp_path):
    folder = tmp_path / "model"
    chemical.save(folder)
    with pytest.raises(FileExistsError, match="already holds a model. Pass overwrite=True"):
        chemical.save(folder)
    (folder / "model.json").write_text("{}")
    chemical.save(folder, overwrite=True)
    assert (folder / "model.json").read_bytes() == (saved / "model.json").read_bytes()


def test_bound_data_is_annotated_and_trained_on_again(chemical, saved):
    adata = screen_of(chemical)
    again = scgim.GIM.load(saved, adata)
    again.annotate()
    expected = screen_of(chemical)
    chemical.annotate(expected)
    np.testing.assert_array_equal(adata.obsm["scgim_shift"], expected.obsm["scgim_shift"])
    np.testing.assert_array_equal(adata.obsm["scgim_pred"], expected.obsm["scgim_pred"])
    assert_equal(adata.uns["scgim_targets"], expected.uns["scgim_targets"])
    again.train(max_epochs=20, enable_progress_bar=False)
    pd.testing.assert_frame_equal(again.rank_targets(), chemical.rank_targets())


def test_bound_data_may_have_other_cells_drugs_and_gene_order(chemical, saved, tmp_path):
    adata = screen_of(chemical)[:, ::-1].copy()
    gone, known = chemical.drugs[0], chemical.drugs[1]
    adata.obs["drug"] = adata.obs["drug"].astype(str).replace({gone: "paracetamol"})
    adata.obs["smiles"] = adata.obs["smiles"].astype(str).where(adata.obs["drug"] != "paracetamol", PARACETAMOL)
    model = scgim.GIM.load(saved, adata)
    model.annotate()
    asked = adata.obs["drug"] == "paracetamol"
    expected = chemical.predict(drug="paracetamol", smiles=PARACETAMOL, dose=0.5, as_="delta").X[0, ::-1]
    shift = adata.obsm["scgim_shift"][asked & (adata.obs["dose"] == 0.5)]
    np.testing.assert_array_equal(shift, np.tile(expected, (len(shift), 1)))
    both = model.predict(drug=[gone, known], as_="delta")
    np.testing.assert_array_equal(both.X[:, ::-1], chemical.predict(drug=[gone, known], as_="delta").X)
    model.save(tmp_path / "again")
    third = scgim.GIM.load(tmp_path / "again")
    assert_equal(
        third.predict(drug=[gone, "paracetamol"], as_="delta"), model.predict(drug=[gone, "paracetamol"], as_="delta")
    )
    model.train(max_epochs=20, enable_progress_bar=False)
    assert "paracetamol" in set(model.rank_targets()["drug"])
    assert gone not in set(model.rank_targets()["drug"])


def test_features_of_bound_data_must_agree(screen, model, tmp_path):
    model.save(tmp_path / "model")
    adata = screen()
    adata.uns["drug_features"].loc["drug-003"] += 1
    with pytest.raises(ValueError, match="other features in adata than in the model: 'drug-003'"):
        scgim.GIM.load(tmp_path / "model", adata)
    adata = screen()
    adata.uns["drug_features"] = adata.uns["drug_features"].rename(columns={"motif_000": "weight"})
    with pytest.raises(ValueError, match="'motif_000', 'weight' in one of them only"):
        scgim.GIM.load(tmp_path / "model", adata)


def test_wrong_genes_are_refused_and_nothing_is_written(chemical, saved):
    adata = screen_of(chemical)
    adata.var_names = [*adata.var_names[:-1], "XIST"]
    before = adata.copy()
    with pytest.raises(ValueError, match="1 missing: 'G0005'.* 1 new: 'XIST'"):
        scgim.GIM.load(saved, adata)
    assert_equal(adata, before)


def test_refusals(chemical, saved, tmp_path):
    with pytest.raises(ValueError, match="holds no AnnData and needs none"):
        chemical.save(tmp_path / "x", save_anndata=True)
    with pytest.raises(FileNotFoundError, match="holds no scgim model"):
        scgim.GIM.load(tmp_path)
    later = tmp_path / "later"
    chemical.save(later)
    content = json.loads((later / "model.json").read_text())
    (later / "model.json").write_text(json.dumps(content | {"format": content["format"] + 1}))
    with pytest.raises(ValueError, match="was saved in format 3; this version reads up to 2. Upgrade scgim"):
        scgim.GIM.load(later)
    loaded = scgim.GIM.load(saved)
    for verb in (loaded.train, loaded.annotate):
        with pytest.raises(ValueError, match="loaded without data"):
            verb()


def test_the_folder_is_all_that_is_needed(saved, chemical, tmp_path):
    moved = tmp_path / "a folder with spaces, and ü"
    saved_files = {path.name: path.read_bytes() for path in saved.iterdir()}
    moved.mkdir()
    for name, content in saved_files.items():
        (moved / name).write_bytes(content)
    again = scgim.GIM.load(moved)
    np.testing.assert_array_equal(again.predict(as_="mean").X, chemical.predict(as_="mean").X)
