from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

import scgim


def screen(cells: dict[str, np.ndarray], features: bool) -> ad.AnnData:
    """The cells as anybody would hand them in."""
    drug, dose = cells["drug"][cells["condition"]], cells["dose"][cells["condition"]]
    obs = pd.DataFrame({"drug": drug, "dose": dose}, index=np.arange(len(drug)).astype(str))
    adata = ad.AnnData(cells["raw"], obs=obs, var=pd.DataFrame(index=[f"g{j}" for j in range(cells["raw"].shape[1])]))
    columns = {"drug_key": "drug", "control": "DMSO", "dose_key": "dose", "dose_unit": "uM"}
    if features:
        adata.uns["features"] = pd.DataFrame(cells["features"], index=cells["features_of"])
        adata.uns["features"].columns = [f"f{k}" for k in range(cells["features"].shape[1])]
        columns["features_key"] = "features"
    scgim.setup_anndata(adata, scale="continuous", **columns)
    return adata


def warm_up() -> None:
    """Compile, once in a process."""
    adata = scgim.datasets.simulate_screen(n_drugs=8, n_new_drugs=0)
    columns = {"drug_key": "drug", "control": "DMSO", "dose_key": "dose", "dose_unit": "uM"}
    scgim.setup_anndata(adata, scale="continuous", **columns)
    scgim.GIM(adata).train(max_epochs=6, enable_progress_bar=False)


def fit(
    cells: dict[str, np.ndarray], mechanism: str, intervention: str, features: bool = True
) -> dict[str, np.ndarray]:
    """Set-up and training with defaults, and the targets of every condition from its own cells."""
    adata = screen(cells, features)
    model = scgim.GIM(adata, mechanism=mechanism, intervention=intervention)
    model.train(enable_progress_bar=False)
    edges, strength = model.get_graph(), np.zeros((adata.n_vars,) * 2)
    place = adata.var_names.get_indexer
    strength[place(edges["source"]), place(edges["target"])] = edges["strength"]
    ranking = model.rank_targets().pivot(index=["drug", "dose"], columns="gene", values="probability")
    called = np.zeros((len(cells["drug"]), adata.n_vars), bool)
    called[1:] = ranking.loc[list(zip(cells["drug"][1:], cells["dose"][1:], strict=True)), adata.var_names] > 0.5
    return {"graph": strength > 0, "strength": strength, "called": called}
