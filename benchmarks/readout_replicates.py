"""Own changes of readout genes in wells: ``python benchmarks/readout_replicates.py [--seeds 5]`` writes ``readout_replicates.csv``.

Twenty drugs have two training wells of 25 cells each, and the controls 16. Every well shifts every gene by an effect of its own. A third of
60 readout genes has a change of its own under a fifth of the drugs; the others are placebos, and follow the panel of 15 genes alone. Two
further wells of every drug are held out.
"""

from __future__ import annotations

import argparse
import warnings

import anndata as ad
import numpy as np
import pandas as pd
from common import HERE, fit

from scgim.module import Readout

DRUGS, PANEL, READOUT, CELLS, WELLS, CONTROLS = 20, 15, 60, 25, 2, 16
KEYS = {"drug_key": "drug", "control": "DMSO", "scale": "continuous", "readout": "readout"}


def screen(seed: int, sd: float) -> tuple[ad.AnnData, np.ndarray, np.ndarray]:
    """Training wells; true changes of the readout genes, and changes in the held-out wells, ``(drugs, readout)`` each."""
    rng = np.random.default_rng(seed)
    slopes = 0.5 * rng.normal(size=(PANEL, READOUT)) * (rng.random((PANEL, READOUT)) < 0.2)
    panel = np.zeros((DRUGS, PANEL))
    panel[np.arange(DRUGS), rng.integers(PANEL, size=DRUGS)] = rng.choice([-1, 1], DRUGS) * rng.uniform(0.8, 1.6, DRUGS)
    own = np.zeros((DRUGS, READOUT))
    own[:, : READOUT // 3] = rng.normal(size=(DRUGS, READOUT // 3)) * (rng.random((DRUGS, READOUT // 3)) < 0.2)
    drug = np.concatenate([np.full(CONTROLS, -1), np.repeat(np.arange(DRUGS), 2 * WELLS)])
    held = np.concatenate([np.zeros(CONTROLS, bool), np.tile(np.arange(2 * WELLS) >= WELLS, DRUGS)])
    shift = np.where((drug >= 0)[:, None], np.hstack([panel, own])[drug], 0) + rng.normal(
        0, sd, (len(drug), PANEL + READOUT)
    )
    x = shift[:, None] + rng.normal(size=(len(drug), CELLS, PANEL + READOUT))
    x[:, :, PANEL:] += x[:, :, :PANEL] @ slopes
    mean = x[:, :, PANEL:].mean(1)
    measured = np.array([mean[(drug == k) & held].mean(0) for k in range(DRUGS)]) - mean[drug < 0].mean(0)
    names = np.array([*(f"drug {k:02}" for k in range(DRUGS)), "DMSO"])[drug]
    obs = pd.DataFrame({"drug": names, "well": [f"W{i}" for i in range(len(drug))]})[~held]
    obs = obs.loc[np.repeat(obs.index, CELLS)].reset_index(drop=True)
    var = pd.DataFrame({"readout": np.arange(PANEL + READOUT) >= PANEL})
    var.index = [f"P{i:02}" for i in range(PANEL)] + [f"R{i:02}" for i in range(READOUT)]
    adata = ad.AnnData(x[~held].reshape(-1, PANEL + READOUT), obs.set_index(obs.index.astype(str)), var)
    return adata, panel @ slopes + own, measured


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for sd in (0.0, 0.1, 0.3):
        for seed in range(options.seeds):
            adata, truth, held = screen(seed, sd)
            for key in (None, "well"):
                model, _ = fit(adata, KEYS | {"replicate_key": key}, seed=seed)
                own = Readout.from_state(model.summary_.readout["model"]).responses.own(model.summary_.rows())
                change = model.predict(as_="delta")[:, adata.var_names[PANEL:]].X
                rows.append(
                    {
                        "well_sd": sd,
                        "replicate_key": key or "none",
                        "placebo_own": (np.abs(own[:, READOUT // 3 :]) > 0.1).mean(),
                        "r_held_out": np.corrcoef(change.ravel(), held.ravel())[0, 1],
                        "r_truth": np.corrcoef(change.ravel(), truth.ravel())[0, 1],
                        "rmse_truth": np.sqrt(((change - truth) ** 2).mean()),
                    }
                )
    table = pd.DataFrame(rows).groupby(["well_sd", "replicate_key"], sort=False).mean().round(3)
    table.to_csv(HERE / "readout_replicates.csv")
    print(table)


if __name__ == "__main__":
    main()
