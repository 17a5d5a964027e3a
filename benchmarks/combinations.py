"""Measured pairs of drugs: predictions of held-out pairs, and targets of single drugs, with and without pairs in training.

    python benchmarks/combinations.py [--seeds 5]

``combinations.csv``: simulated linear screens of 20 genes, 24 drugs at one dose and 60 pairs, whose shifts add; a third of the pairs is
held out. Weak: 10 cells a condition; clear: 40. ``rmse`` is the error of the mean change of held-out pairs against the simulated truth in
control SD, mean over seeds; ``gain`` is the difference to the better of the mean and the sum of the measured singles, positive if
better, with its interval over seeds. F1 of targets counts single drugs.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # numpy reads it once

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from common import SURE, arguments, f1, fit, gap, progress, write

import scgim

if TYPE_CHECKING:
    from anndata import AnnData

N_DRUGS, N_PAIRS, N_CONTROL = 24, 60, 300
KINDS = {"weak": 10, "clear": 40}  # cells of a condition
COLUMNS = {"drug_key": ["drug", "drug_2"], "control": "DMSO", "scale": "continuous", "features_key": "drug_features"}


def screen(seed: int, n_cells: int) -> tuple[AnnData, pd.DataFrame]:
    """A screen with pairs, and its pairs: names, whether held out, and true mean change in control SD."""
    adata = scgim.datasets.simulate_screen(
        n_drugs=N_DRUGS,
        doses=(1.0,),
        n_cells=n_cells,
        n_control=N_CONTROL + N_PAIRS * n_cells,
        frac_dead=0.0,
        seed=900 + seed,
    )
    truth, rng = adata.uns["truth"], np.random.default_rng(seed)
    every = np.array(list(combinations(range(N_DRUGS), 2)))
    pairs = rng.permutation(every)[:N_PAIRS]
    shift = truth["effect"] / (1 + truth["ec50"])
    total = np.linalg.inv(np.eye(adata.n_vars) - adata.varp["true_weight"].toarray())
    change = (shift[pairs[:, 0]] + shift[pairs[:, 1]]) @ total
    # Control cells become cells of pairs: with linear mechanisms, shifts move every cell by the same change.
    source = np.flatnonzero(adata.obs["drug"] == "DMSO")[N_CONTROL:]
    pair = np.repeat(np.arange(N_PAIRS), n_cells)
    adata.X[source] += (change[pair] * truth["control_sd"]).astype(np.float32)
    names = truth["drugs"][pairs]
    first, second = adata.obs["drug"].astype(str).to_numpy(), np.full(adata.n_obs, "", dtype=object)
    first[source], second[source] = names[pair].T
    held = np.arange(N_PAIRS) < N_PAIRS // 3
    adata.obs = pd.DataFrame({"drug": first, "drug_2": second, "held": False}, index=adata.obs_names)
    adata.obs.loc[adata.obs_names[source], "held"] = held[pair]
    return adata, pd.DataFrame({"a": names[:, 0], "b": names[:, 1], "held": held, "change": list(change)})


def singles(adata: AnnData) -> pd.DataFrame:
    """Measured mean changes of single drugs in control SD."""
    alone = (adata.obs["drug_2"] == "").to_numpy()
    means = pd.DataFrame(adata.X[alone], columns=adata.var_names).groupby(adata.obs["drug"].to_numpy()[alone]).mean()
    return (means - means.loc["DMSO"]) / adata.uns["truth"]["control_sd"]


def targets(model: scgim.GIM, adata: AnnData) -> dict[str, float]:
    """Precision, recall and F1 of called targets of single drugs."""
    truth, ranking = adata.uns["truth"], model.rank_targets(drug=adata.uns["truth"]["drugs"].tolist())
    table = ranking.pivot(index="drug", columns="gene", values="probability")
    found, true = table.loc[truth["drugs"], adata.var_names].to_numpy() > SURE, truth["targets"] > 0
    right = (found & true).sum()
    return {"precision": right / found.sum(), "recall": right / true.sum(), "target F1": f1(found, true)}


def scores(seed: int, kind: str) -> list[dict]:
    """Error on held-out pairs and target F1 of every method."""
    adata, pairs = screen(seed, KINDS[kind])
    sd, held = adata.uns["truth"]["control_sd"], pairs[pairs["held"]]
    true, single = np.array(held["change"].tolist()), singles(adata)
    added = single.loc[held["a"]].to_numpy() + single.loc[held["b"]].to_numpy()
    found: dict[str, tuple[np.ndarray, dict]] = {"mean of singles": (added / 2, {}), "sum of singles": (added, {})}
    rows = {"pairs in training": ~adata.obs["held"], "singles alone": adata.obs["drug_2"] == ""}
    for name, use in rows.items():
        model, _ = fit(adata[use].copy(), COLUMNS)
        predicted = model.predict(drug=list(zip(held["a"], held["b"], strict=True)), as_="mean")
        found[f"scgim, {name}"] = (predicted.X - predicted.layers["control"]) / sd, targets(model, adata)
    error = {name: np.sqrt(((change - true) ** 2).mean()) for name, (change, _) in found.items()}
    return [{"screen": kind, "seed": seed, "method": name, "rmse": error[name], **found[name][1]} for name in found]


def table_of(runs: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, and the error of the better baseline less the error of every method."""
    out = []
    for kind in KINDS:
        errors = runs[runs["screen"] == kind].pivot(index="seed", columns="method", values="rmse")
        best = errors[["mean of singles", "sum of singles"]].min(axis=1)
        for name, own in runs[runs["screen"] == kind].groupby("method", sort=False):
            gain = gap(best, errors[name], pd.Series(errors.index, errors.index))
            out.append(
                {"screen": kind, "method": name, **own.drop(columns=["screen", "seed", "method"]).mean(), "gain": gain}
            )
    return pd.DataFrame(out)


def main() -> None:
    asked, runs = arguments(__doc__, seeds=5).parse_args(), []
    for kind in KINDS:
        for seed in range(asked.seeds):
            runs += scores(seed, kind)
            progress(runs)
    write(table_of(pd.DataFrame(runs)), "combinations")


if __name__ == "__main__":
    main()
