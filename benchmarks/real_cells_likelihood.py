"""Likelihood of cells or of means, on every scale of a screen: the part ``likelihood`` of ``benchmarks/real_cells.py``."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from common import SURE, fit, matrix, progress, write
from measured import SACHS
from simulated import true_graph, values_of

import scgim
from scgim.metrics import edge_average_precision, target_f1

if TYPE_CHECKING:
    from pathlib import Path


def likelihood(folder: Path) -> None:
    """Both likelihoods on every scale, where the truth is known or nearly."""
    write(pd.DataFrame([on_sachs(name) for name in ("cells", "means")]), "real_cells_likelihood_sachs")
    counts, both = sorted((folder / "screens_counts").glob("*.h5ad")), ("cells", "means")
    # on counts the likelihood of cells works on log-normalized counts, so that scale is not run twice
    jobs = [(on_counts, *job) for job in product(counts, ["counts"], ["means"])]
    jobs += [(on_counts, *job) for job in product(counts, ["lognorm"], both)]
    continuous = [p for p in sorted((folder / "screens").glob("linear_*.h5ad")) if "100genes" not in p.stem]
    jobs += [(on_continuous, *job) for job in product(continuous, ["continuous"], both)]
    rows = []
    for run, path, scale, name in jobs:
        rows.append({"scale": scale, "screen": path.stem, "likelihood": name, **run(path, scale, name)})
        progress(rows)
    table = write(pd.DataFrame(rows), "real_cells_likelihood_screens")
    write(table.groupby(["scale", "likelihood"]).mean(numeric_only=True).reset_index(), "real_cells_likelihood", 2)


def on_sachs(name: str) -> dict[str, object]:
    adata = scgim.datasets.sachs()
    model, took = fit(adata, SACHS, likelihood=name)
    strength = matrix(model.get_graph(), adata.var_names)
    table = model.rank_targets().astype({"drug": str}).set_index(["drug", "gene"])
    nominal = adata.uns["known_targets"]
    first = table.loc[list(zip(nominal["drug"].astype(str), nominal["target"].astype(str), strict=True)), "rank"] == 1
    return {
        "likelihood": name,
        "edges": (strength > 0).sum(),
        **{f"SHD, {g.split('_')[0]}": scgim.metrics.shd(strength, adata.varp[g].toarray() > 0) for g in adata.varp},
        "targets per drug": (table["probability"] > SURE).sum() / len(model.drugs),
        "nominal target first (of 7)": first.sum(),
        "seconds": took.clock,
    }


def on_counts(path: Path, scale: str, name: str) -> dict[str, float]:
    """A screen of UMI counts, or of the same counts log-normalized."""
    adata = ad.read_h5ad(path)
    truth, genes = adata.uns["truth"], adata.var_names
    columns = {"drug_key": "perturbation", "control": "control", "scale": scale, "batch_key": "replicate"}
    if scale == "counts":
        columns["size_factor_key"] = "n_counts"
    else:
        adata.X = adata.X.multiply(1e4 / adata.obs["n_counts"].to_numpy()[:, None]).tocsr().log1p().astype(np.float32)
    model, took = fit(adata, columns, likelihood=name)
    conditions, targets = [str(c) for c in truth["conditions"]], np.asarray(truth["targets"]) > 0
    table = model.rank_targets().astype({"drug": str})
    called = table.pivot(index="drug", columns="gene", values="probability").loc[conditions, genes].to_numpy() > SURE
    dead = np.asarray(truth["n_targets_total"]) == 0
    return {
        "target_f1": target_f1(called[~dead], targets[~dead]),
        "dead_called": called[dead].any(1).mean(),
        "edge_ap": edge_ap(model, adata),
        "effect_r": effect_r(model, adata, targets.any(0)),
        "seconds": took.clock,
    }


def on_continuous(path: Path, scale: str, name: str) -> dict[str, float]:
    """A screen with doses and features; targets are those of unseen drugs."""
    adata = ad.read_h5ad(path)
    about, test, features = adata.uns["about"], adata.uns["test"]["unseen_drug"], adata.uns["features"]
    columns = {"drug_key": "drug", "control": about["control"], "scale": scale, "dose_key": "dose", "dose_unit": "uM"}
    model, took = fit(
        adata, columns | {"features_key": "features"}, intervention=about["intervention"], likelihood=name
    )
    unique, which = np.unique(np.asarray(test["features"], float), axis=0, return_inverse=True)
    frame = pd.DataFrame(unique, index=[f"new {i}" for i in range(len(unique))], columns=features.columns)
    doses = np.asarray(test["dose"]).round(6)
    table = model.rank_targets(
        drug=list(frame.index), features=frame, dose=sorted(set(doses.tolist())), evidence="features"
    )
    table["dose"] = table["dose"].round(6)
    called = values_of(table, frame.index[np.ravel(which)], doses, adata.var_names) > SURE
    return {
        "target_f1": target_f1(called, np.asarray(test["targets"]) > 0),
        "edge_ap": edge_ap(model, adata),
        "seconds": took.clock,
    }


def edge_ap(model: scgim.GIM, adata: ad.AnnData) -> float:
    return edge_average_precision(matrix(model.get_graph(), adata.var_names), true_graph(adata))


def effect_r(model: scgim.GIM, adata: ad.AnnData, knocked: np.ndarray) -> float:
    """Mean correlation of total effects with the true ones, over knocked-out genes with five or more effects above .15."""
    total, truth = matrix(model.get_graph(kind="total"), adata.var_names, "weight"), adata.varp["true_total_effect"]
    truth, scores = truth.toarray(), []
    for i in np.flatnonzero(knocked):
        others = np.arange(adata.n_vars) != i
        if (np.abs(truth[i][others]) > 0.15).sum() >= 5:
            found = total[i][others]
            scores.append(np.corrcoef(found, truth[i][others])[0, 1] if found.std() > 0 else 0.0)
    return float(np.mean(scores)) if scores else float("nan")
