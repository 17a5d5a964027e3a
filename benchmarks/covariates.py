"""A covariate that confounds edges: ``python benchmarks/covariates.py [--seeds 5]``. Writes ``covariates.csv``.

A score like that of the cell cycle moves half of the genes of every cell. It is independent of the drugs. Compared are the same screen
without its effect, with its effect, and with its effect regressed out.
"""

from __future__ import annotations

import argparse
import os
import warnings
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # numpy reads it once

import numpy as np
import pandas as pd
from common import HERE, fit, matrix

import scgim

if TYPE_CHECKING:
    from anndata import AnnData

N_GENES, SIZE = 20, 0.8  # control SD by which one SD of the covariate moves a gene
KEYS = {
    "drug_key": "drug",
    "control": "DMSO",
    "scale": "continuous",
    "dose_key": "dose",
    "dose_unit": "uM",
    "features_key": "drug_features",
}


def screen(seed: int, *, moved: bool) -> AnnData:
    adata = scgim.datasets.simulate_screen(
        n_genes=N_GENES, n_drugs=40, n_cells=50, n_control=800, n_new_drugs=2, seed=seed
    )
    rng = np.random.default_rng([seed, 2])
    phase = rng.normal(size=adata.n_obs)
    loading = rng.permutation(np.arange(N_GENES) % 2) * rng.choice([-1, 1], size=N_GENES) * SIZE
    sd = np.asarray(adata.X[(adata.obs["drug"] == "DMSO").to_numpy()], float).std(0)
    adata.obs["phase"] = phase
    adata.X = np.asarray(adata.X, float) + moved * np.outer(phase, loading) * sd
    return adata


def scores(adata: AnnData, columns: dict, seed: int) -> dict:
    model, _ = fit(adata, columns, seed=seed, structure="search")
    found = matrix(model.get_graph(), adata.var_names) > 0
    truth = adata.varp["true_graph"]
    truth = (truth.toarray() if hasattr(truth, "toarray") else np.asarray(truth)) != 0
    known = adata.uns["truth"]
    target = pd.DataFrame(np.asarray(known["targets"]) > 0, pd.Index(known["drugs"], name="drug"), adata.var_names)
    called = model.rank_targets()
    called = called[called["probability"] > 0.5]
    right = [target.loc[drug, gene] for drug, gene in zip(called["drug"], called["gene"], strict=True)]
    hits = (found & truth).sum()
    return {
        "edges": int(found.sum()),
        "edge_precision": hits / max(found.sum(), 1),
        "edge_recall": hits / truth.sum(),
        "target_precision": np.mean(right),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    warnings.simplefilter("ignore")
    rows = []
    for seed in range(parser.parse_args().seeds):
        settings = (
            ("no effect of the covariate", False, KEYS),
            ("effect ignored", True, KEYS),
            ("covariate_keys", True, KEYS | {"covariate_keys": ["phase"]}),
        )
        for name, moved, columns in settings:
            rows.append({"screen": name, "seed": seed} | scores(screen(seed, moved=moved), columns, seed))
            print(rows[-1], flush=True)
    each = pd.DataFrame(rows).drop(columns="seed").groupby("screen", sort=False).agg(["mean", "std"]).round(3)
    each.columns = [name + "_sd" * (what == "std") for name, what in each.columns]
    each.to_csv(HERE / "covariates.csv")
    print(each.to_string())


if __name__ == "__main__":
    main()
