from __future__ import annotations

import tempfile

import anndata as ad
import networkx as nx
import numpy as np
import pandas as pd
from cascade.data import configure_dataset, encode_regime
from cascade.graph import acyclify, filter_edges, map_edges
from cascade.model import CASCADE
from cascade.utils import config


def fit(cells: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """CASCADE, discovery alone: normal likelihood, no scaffold, no gene embedding; edges of mean probability above one half."""
    genes = [f"g{j}" for j in range(cells["x"].shape[1])]
    names = np.array([",".join(genes[j] for j in np.flatnonzero(row)) for row in cells["targets"]])
    obs = pd.DataFrame({"target": names[cells["condition"]]}, index=np.arange(len(cells["x"])).astype(str))
    adata = ad.AnnData(cells["x"].astype(np.float32), obs=obs, var=pd.DataFrame(index=genes))
    encode_regime(adata, "regime", key="target")
    configure_dataset(adata, use_regime="regime")
    config.NUM_WORKERS = 0  # one thread, as for all
    with tempfile.TemporaryDirectory() as folder:
        model = CASCADE(genes, latent_mod="NilLatent", latent_dim=0, lik_mod="Normal", log_dir=folder)
        model.discover(adata)
        edges = map_edges(model.export_causal_graph(), fn=np.mean)
    kept = acyclify(filter_edges(edges, cutoff=0.5))
    return {
        "graph": nx.to_numpy_array(kept, nodelist=genes, weight=None),
        "strength": nx.to_numpy_array(edges, nodelist=genes),
    }
