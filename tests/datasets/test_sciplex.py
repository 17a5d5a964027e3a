from __future__ import annotations

import anndata as ad
import numpy as np
from rdkit.Chem import MolFromSmiles

from scgim.datasets import sciplex3_drugs
from scgim.datasets._compounds import LIBRARY_SIZE


def test_library():
    drugs = sciplex3_drugs()
    assert len(drugs) == LIBRARY_SIZE == 188
    assert drugs.index.name == "drug"
    assert drugs.index.is_unique
    assert list(drugs.columns) == ["catalog_number", "smiles", "target_class", "pathway", "cas", "mw"]
    assert drugs.drop(columns="mw").map(lambda v: isinstance(v, str) and v != "").all(axis=None)
    assert (drugs["mw"] > 100).all()


def test_every_structure_parses_and_is_unique():
    molecules = sciplex3_drugs()["smiles"].map(MolFromSmiles)
    assert molecules.notna().all()
    assert sciplex3_drugs()["smiles"].is_unique


def test_fresh_at_every_call():
    drugs = sciplex3_drugs()
    drugs.loc[:, "smiles"] = "C"
    assert sciplex3_drugs()["smiles"].nunique() == 188


def test_difficult_names_round_trip(written_and_read, assert_same):
    drugs = sciplex3_drugs()
    difficult = [name for name in drugs.index if any(c in name for c in "/()+-") or name != name.strip()]
    assert "(+)-JQ1" in difficult
    adata = ad.AnnData(np.zeros((len(drugs), 1), dtype=np.float32), obs=drugs.copy(), uns={"drugs": drugs})
    back = written_and_read(adata)
    assert list(back.obs_names) == list(drugs.index)
    assert_same(adata, back)
