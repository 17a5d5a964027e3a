"""Readout genes on simulated screens: ``python benchmarks/readout.py [--only accuracy cost] [--seeds 5]``.

- ``readout.csv``: change of 300 readout genes under held-out drugs, beside baselines; five seeds
- ``readout_cost.csv``: seconds of the processor and peak memory with 18,000 readout genes, and of the panel alone

Readout genes follow a few genes of the panel, and a tenth of them have a change of their own under a third of the drugs. Counts
are Poisson given log rates, which adds measurement noise to panel and readout.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # numpy reads it once

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from common import HERE, fit

import scgim
from scgim.evaluation import BASELINES, ConditionTable

N_READOUT, OWN_GENES, OWN_DRUGS, OWN = 300, 0.1, 0.33, 1.0
KEYS = {"drug_key": "drug", "control": "DMSO", "features_key": "drug_features", "split_key": "scgim_split"}


def screen(seed: int, scale: str) -> ad.AnnData:
    """A screen of 30 panel genes and readout genes that are linear in them, continuous or as counts; a quarter of the drugs are test."""
    panel = scgim.datasets.simulate_screen(n_genes=30, n_drugs=48, doses=(1.0,), n_cells=50, n_new_drugs=2, seed=seed)
    rng = np.random.default_rng([seed, 1])
    z = np.asarray(panel.X, float)
    control = (panel.obs["drug"] == "DMSO").to_numpy()
    z = (z - z[control].mean(0)) / z[control].std(0)
    slopes = rng.normal(size=(30, N_READOUT)) * (rng.random((30, N_READOUT)) < 0.15)
    code, drugs = pd.factorize(panel.obs["drug"])
    own = OWN * rng.normal(size=(len(drugs), N_READOUT)) * (rng.random(N_READOUT) < OWN_GENES)
    own *= (rng.random((len(drugs), 1)) < OWN_DRUGS) & (drugs != "DMSO")[:, None]
    readout = z @ slopes + own[code] + rng.normal(size=(len(z), N_READOUT))
    x = np.hstack([z, readout])
    if scale == "counts":
        x = rng.poisson(np.exp(rng.normal(0.0, 0.7, size=x.shape[1]) + 0.3 * x)).astype(np.float32)
    names = [*panel.var_names, *(f"R{i:03}" for i in range(N_READOUT))]
    var = pd.DataFrame({"readout": np.arange(x.shape[1]) >= 30}, index=names)
    out = ad.AnnData(x, obs=panel.obs, var=var, uns=dict(panel.uns))
    scgim.pp.split(out, unseen="drug", control="DMSO", frac=0.25, seed=seed)
    return out


def changes(adata: ad.AnnData, rows: np.ndarray, drugs: np.ndarray, genes: np.ndarray, scale: str) -> np.ndarray:
    """Mean of every drug less the mean of the controls, in control SD, ``(drugs, genes)``."""
    x = np.asarray(adata.X, float)
    if scale == "counts":
        x = np.log1p(1e4 * x / x.sum(1, keepdims=True))
    x, name = x[rows][:, adata.var_names.get_indexer(genes)], adata.obs["drug"].to_numpy(str)[rows]
    control = x[name == "DMSO"]
    means = np.array([x[name == drug].mean(0) for drug in drugs])
    return (means - control.mean(0)) / control.std(0)


def accuracy(seed: int, scale: str) -> list[dict]:
    adata = screen(seed, scale)
    model, _ = fit(adata, KEYS | {"scale": scale, "readout": "readout"}, seed=seed)
    split = adata.obs["scgim_split"].to_numpy(str)
    drug = adata.obs["drug"].to_numpy(str)
    train = np.unique(drug[(split == "train") & (drug != "DMSO")])
    test = np.unique(drug[(split == "test") & (drug != "DMSO")])
    found = model.summary_.readout
    genes, state = found["genes"], found["model"]
    every = np.ones(len(drug), dtype=bool)
    both = np.concatenate([model.summary_.genes, genes])
    truth, seen = (changes(adata, every, names, both, scale) for names in (test, train))
    panel = truth[:, : len(model.summary_.genes)]
    pred = model.predict(drug=test.tolist(), as_="delta")
    order = pd.Index(pred.obs["drug"].astype(str)).get_indexer(test)
    features = model.drug_table_.frame

    def table(names: np.ndarray, change: np.ndarray) -> ConditionTable:
        about = pd.DataFrame({"drug": names, "dose": np.nan, "cell_line": ""})
        return ConditionTable(about, features.loc[names].to_numpy(float), change, np.full(len(names), 50.0))

    unit = np.concatenate([model.summary_.scale, found["scale"]])
    predicted = {
        "scgim": pred[order, both].X / unit,
        "scgim, panel as measured": np.hstack([panel, panel @ state["slopes"]]),
    }
    for name in ("training mean", "ridge", "kernel ridge"):
        baseline = BASELINES[name]()
        baseline.fit(table(train, seen))
        predicted[name] = baseline.predict(table(test, truth))
    predicted["no change"] = np.zeros_like(truth)
    n = panel.shape[1]
    return [
        {"scale": scale, "seed": seed, "method": name, "attenuation": state["attenuation"]}
        | scores(change[:, n:], truth[:, n:])
        | {"r_panel": scores(change[:, :n], panel)["r"]}
        for name, change in predicted.items()
    ]


def scores(change: np.ndarray, truth: np.ndarray) -> dict:
    with np.errstate(invalid="ignore"):
        r = np.nanmean([np.corrcoef(a, b)[0, 1] for a, b in zip(change, truth, strict=True)]) if change.any() else 0.0
    return {"r": r, "rmse": np.sqrt(((change - truth) ** 2).mean())}


def cost(scale: str, n_cells: int, n_panel: int, n_readout: int) -> None:
    """Seconds and memory of one training, printed; in a process of its own."""
    rng, n_drugs, total = np.random.default_rng(0), 100, n_panel + 18_000
    drug = rng.integers(n_drugs + 1, size=n_cells)
    base = 0.02 + 0.5 * rng.gamma(0.3, size=total)
    effect = rng.normal(size=(n_drugs + 1, n_panel)) * (rng.random((n_drugs + 1, n_panel)) < 0.05)
    effect[0] = 0
    blocks = []
    for rows in np.array_split(np.arange(n_cells), n_cells // 500):
        rate = np.tile(base, (len(rows), 1))
        rate[:, :n_panel] *= np.exp(effect[drug[rows]])
        blocks.append(sp.csr_matrix(rng.poisson(rate).astype(np.float32)))
    x = sp.vstack(blocks, format="csr")
    size = np.asarray(x.sum(1)).ravel()
    if scale == "lognorm":
        x.data = np.log1p(1e4 * x.data / np.repeat(size, np.diff(x.indptr))).astype(np.float32)
    names = np.array(["DMSO", *(f"d{i:03}" for i in range(n_drugs))])
    adata = ad.AnnData(
        x, obs=pd.DataFrame({"drug": names[drug], "size": size}, index=[f"c{i}" for i in range(n_cells)])
    )
    adata.var["readout"] = np.arange(total) >= n_panel
    keys: dict = {"drug_key": "drug", "control": "DMSO", "scale": scale}
    keys |= {"size_factor_key": "size"} if scale == "counts" else {}
    if n_readout:
        keys["readout"] = "readout"
    else:
        adata = adata[:, :n_panel].copy()
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, time.process_time()
    scgim.setup_anndata(adata, **keys)
    setup = time.process_time() - start
    scgim.GIM(adata).train(enable_progress_bar=False)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{setup:.1f},{time.process_time() - start - setup:.1f},{before:.0f},{after:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", default=["accuracy", "cost"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--one", nargs=4)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.one:
        cost(options.one[0], *map(int, options.one[1:]))
        return
    if "accuracy" in options.only:
        rows = [
            row for scale in ("continuous", "counts") for seed in range(options.seeds) for row in accuracy(seed, scale)
        ]
        each = (
            pd.DataFrame(rows).groupby(["scale", "method"], sort=False)[["r", "rmse", "r_panel"]].agg(["mean", "std"])
        )
        each.columns = [name + "_sd" * (what == "std") for name, what in each.columns]
        each.round(3).to_csv(HERE / "readout.csv")
        print(each.round(3), pd.DataFrame(rows).groupby("scale")["attenuation"].mean(), flush=True)
    if "cost" in options.only:
        rows = []
        for scale, n_cells, n_panel in (("lognorm", 10_000, 100), ("lognorm", 10_000, 500), ("counts", 10_000, 100)):
            for n_readout in (0, 18_000):
                command = [sys.executable, __file__, "--one", scale, *map(str, (n_cells, n_panel, n_readout))]
                found = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.split()[-1]
                rows.append([scale, n_cells, n_panel, n_readout, *map(float, found.split(","))])
                print(rows[-1], flush=True)
        columns = ["scale", "cells", "panel", "readout", "setup", "train", "mb_before", "mb_peak"]
        pd.DataFrame(rows, columns=columns).to_csv(HERE / "readout_cost.csv", index=False)


if __name__ == "__main__":
    main()
