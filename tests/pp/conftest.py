from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

SMILES = {
    "(+)-JQ1": "Cc1sc2c(c1C)C(c1ccc(Cl)cc1)=N[C@@H](CC(=O)OC(C)(C)C)c1nnc(C)n1-2",
    "Akti-1/2": "O=c1[nH]c2ccccc2n1C1CCN(Cc2ccc(-c3nc4cc5[nH]cnc5cc4nc3-c3ccccc3)cc2)CC1",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "ethanol": "CCO",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "vorinostat": "O=C(CCCCCCC(=O)Nc1ccccc1)NO",
}


@pytest.fixture
def adata() -> ad.AnnData:
    """Six drugs at three doses and a control, three cells each, in no order."""
    rows = [(drug, dose, smiles) for drug, smiles in SMILES.items() for dose in (0.1, 1.0, 10.0)]
    rows = 3 * [*rows, ("DMSO", 0.0, "")]
    obs = pd.DataFrame(rows, columns=["drug", "dose", "smiles"], index=[f"cell {i}" for i in range(len(rows))])
    obs = obs.iloc[np.random.default_rng(0).permutation(len(obs))].astype({"drug": "category"})
    return ad.AnnData(np.zeros((len(obs), 2), np.float32), obs=obs)
