"""What every part of the model is worth on simulated screens: ``python benchmarks/ablation.py [--seeds 5]``.

Writes beside this file ``ablation_seeds.csv``, every run; ``ablation.csv``, mean and standard deviation over seeds; and
``ablation.png``. Distances are those of predicted to true mean expression, over genes in control sd, per unseen context.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy reads it

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

import scgim

if TYPE_CHECKING:
    from anndata import AnnData

SCREENS = {
    "linear": {"mechanism": "linear"},
    "network": {"mechanism": "network"},
    "hard": {"intervention": "hard"},
}
NEVER = 1e9  # nats for a target: no context is one
METRICS = {
    "edge_ap": "edge AP",
    "shd": "SHD",
    "target_f1": "target F1, unseen drugs",
    "drug_distance": "distance, unseen drugs",
    "dose_distance": "distance, unseen doses",
    "seconds": "seconds",
}


@dataclass(frozen=True)
class Variant:
    """What differs from the default; ``graph_from``: options of a training whose graph this one is given."""

    model: dict = field(default_factory=dict)
    plan: dict = field(default_factory=dict)
    graph_from: dict | None = None


VARIANTS = {
    "base": Variant(),
    "no interventions in the score": Variant(graph_from={"search_charge": NEVER}),
    "empty graph": Variant(model={"structure": "none"}),
    "no Hill layer": Variant(model={"dose_response": "none"}),
    "no restarts": Variant(plan={"search_rounds": 0}),
    **{f"charge {c}": Variant(plan={"search_charge": float(c), "charge": float(c)}) for c in (0, 5, 20)},
}


def fit(adata: AnnData, screen: dict, variant: Variant) -> scgim.GIM:
    """A trained model; where the graph comes from another training, the search alone is different."""
    options = variant.model
    if variant.graph_from is not None:
        first = scgim.GIM(adata, generator="hill", **screen)
        # of the other phases only what prunes edges
        first.train(enable_progress_bar=False, plan_kwargs=variant.graph_from | {"generator_steps": 1})
        graph = first.get_graph()[["source", "target"]].assign(kind="required")
        options = {"structure": "none", "prior_graph": graph}
    model = scgim.GIM(adata, **{"generator": "hill", **screen, **options})
    model.train(enable_progress_bar=False, plan_kwargs=dict(variant.plan))
    return model


@cache
def drawn(name: str, seed: int) -> AnnData:
    return scgim.datasets.simulate_screen(seed=seed, **SCREENS[name])


def run(name: str, seed: int, variant: str) -> dict[str, object]:
    adata = drawn(name, seed)
    columns = {"drug_key": "drug", "control": "DMSO", "dose_key": "dose", "features_key": "drug_features"}
    scgim.setup_anndata(adata, scale="continuous", dose_unit="uM", **columns)
    start = time.perf_counter()
    model = fit(adata, SCREENS[name], VARIANTS[variant])
    seconds = time.perf_counter() - start
    return {"screen": name, "variant": variant, "seed": seed, **scores(model, adata), "seconds": seconds}


def scores(model: scgim.GIM, adata: AnnData) -> dict[str, float]:
    truth, strength = adata.varp["true_graph"].toarray() > 0, np.zeros((adata.n_vars, adata.n_vars))
    edges = model.get_graph()
    place = adata.var_names.get_indexer
    strength[place(edges["source"]), place(edges["target"])] = edges["strength"]
    pairs = ~np.eye(adata.n_vars, dtype=bool)
    unseen = adata.uns["truth"]["unseen_drug"]
    features = pd.DataFrame(unseen["features"], index=unseen["drug"], columns=adata.uns["drug_features"].columns)
    features = features[~features.index.duplicated()].astype(float)
    return {
        "edge_ap": average_precision_score(truth[pairs], strength[pairs]),
        "shd": scgim.metrics.shd(strength, truth),
        "target_f1": target_f1(model, adata, unseen, features),
        "drug_distance": distance(model, adata, unseen, features),
        "dose_distance": distance(model, adata, adata.uns["truth"]["unseen_dose"], None),
    }


def asked(table: dict, features: pd.DataFrame | None) -> dict[str, object]:
    """The request for all contexts of a table."""
    return {"drug": list(dict.fromkeys(table["drug"])), "features": features, "dose": sorted(set(table["dose"]))}


def distance(model: scgim.GIM, adata: AnnData, table: dict, features: pd.DataFrame | None) -> float:
    control = adata.X[(adata.obs["drug"] == "DMSO").to_numpy()]
    predicted = model.predict(**asked(table, features), as_="mean")
    rows = pd.MultiIndex.from_frame(predicted.obs[["drug", "dose"]].astype({"drug": str}))
    rows = rows.get_indexer(pd.MultiIndex.from_arrays([table["drug"].astype(str), table["dose"]]))
    return float(np.linalg.norm((predicted.X[rows] - table["mean"]) / control.std(0), axis=1).mean())


def target_f1(model: scgim.GIM, adata: AnnData, table: dict, features: pd.DataFrame) -> float:
    ranking = model.rank_targets(**asked(table, features), evidence="features")
    called = ranking.pivot(index=["drug", "dose"], columns="gene", values="probability")[adata.var_names] > 0.5
    called = called.loc[list(zip(table["drug"], table["dose"], strict=True))].to_numpy()
    hit = table["targets"] > 0
    return float(2 * (called & hit).sum() / (called.sum() + hit.sum()))


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds as text."""
    groups = runs.groupby(["screen", "variant"], sort=False)[list(METRICS)]
    mean, sd = groups.mean(), groups.std(ddof=1).fillna(0)
    digits = {name: 1 if name in ("shd", "seconds") else 2 for name in METRICS}
    text = {
        METRICS[m]: [f"{a:.{digits[m]}f} ± {b:.{digits[m]}f}" for a, b in zip(mean[m], sd[m], strict=True)]
        for m in METRICS
    }
    return pd.DataFrame(text, index=mean.index).reset_index()


def figure(runs: pd.DataFrame, path: Path) -> None:
    import matplotlib.pyplot as plt

    shown = [name for name in METRICS if name != "seconds"]
    fig, axes = plt.subplots(1, len(shown), figsize=(15, 4), sharey=True, layout="constrained")
    names = list(VARIANTS)
    for ax, metric in zip(axes, shown, strict=True):
        for k, screen in enumerate(SCREENS):
            rows = runs[runs["screen"] == screen]
            at = rows["variant"].map(names.index) + 0.22 * (k - 1)
            ax.scatter(rows[metric], at, s=10, alpha=0.4, lw=0, color=f"C{k}")
            mean = rows.groupby("variant")[metric].mean().reindex(names)
            ax.scatter(mean, np.arange(len(names)) + 0.22 * (k - 1), marker="|", s=90, color=f"C{k}", label=screen)
        for line in np.arange(len(names) - 1) + 0.5:
            ax.axhline(line, color="0.9", lw=0.8)
        ax.set(xlabel=METRICS[metric], xlim=(0, 1.03) if metric in ("edge_ap", "target_f1") else (0, None))
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    axes[0].legend(frameon=False, fontsize=8, loc="lower left")
    fig.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--screens", nargs="+", default=list(SCREENS), choices=list(SCREENS))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    rows = []
    for job in ((s, seed, v) for s in options.screens for seed in range(options.seeds) for v in VARIANTS):
        rows.append(run(*job))
        print(pd.DataFrame(rows[-1:]).round(3).to_string(index=False, header=len(rows) == 1), flush=True)
    runs = pd.DataFrame(rows)
    runs.round(4).to_csv(options.out.with_stem(options.out.stem + "_seeds"), index=False)
    summary(runs).to_csv(options.out, index=False)
    print(summary(runs).to_string(index=False))
    figure(runs, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
