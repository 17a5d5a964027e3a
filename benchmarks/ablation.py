"""Ablations of the model on simulated screens: ``python benchmarks/ablation.py [--seeds 5]``.

Writes beside this file ``ablation_seeds.csv``, every run; ``ablation.csv``, mean and standard deviation over seeds; and
``ablation.png``. Distances are those of predicted to true mean expression, over genes in control SD, per unseen condition.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # numpy reads it once

import numpy as np
import pandas as pd
from common import SURE, arguments, fit, matrix, mean_and_sd, progress
from simulated import COLUMNS, features_of_unseen, request, rows_of, true_graph, values_of

import scgim
from scgim.metrics import edge_average_precision, shd
from scgim.metrics import target_f1 as f1_of_targets

if TYPE_CHECKING:
    from anndata import AnnData

SCREENS = {
    "linear": {"mechanism": "linear"},
    "network": {"mechanism": "network"},
    "hard": {"intervention": "hard"},
}
NEVER = 1e9  # a target penalty (nats) that no condition overcomes
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
    "no interventions in the score": Variant(graph_from={"search_target_penalty": NEVER}),
    "empty graph": Variant(model={"structure": "none"}),
    "no Hill layer": Variant(model={"dose_response": "none"}),
    "no restarts": Variant(plan={"search_rounds": 0}),
    **{
        f"charge {c}": Variant(plan={"search_target_penalty": float(c), "target_penalty": float(c)}) for c in (0, 5, 20)
    },
}


def train(adata: AnnData, screen: dict, variant: Variant) -> tuple[scgim.GIM, float]:
    """A trained model and its seconds; where the graph comes from another training, the search alone is different."""
    options, before = {"generator": "hill", **screen}, 0.0
    if variant.graph_from is not None:
        # later phases matter here only in that they prune edges
        first, took = fit(adata, COLUMNS, plan=variant.graph_from | {"generator_steps": 1}, **options)
        graph = first.get_graph()[["source", "target"]].assign(kind="required")
        options, before = options | {"structure": "none", "prior_graph": graph}, took.clock
    model, took = fit(adata, COLUMNS, plan=dict(variant.plan), **options | variant.model)
    return model, before + took.clock


@cache
def drawn(name: str, seed: int) -> AnnData:
    return scgim.datasets.simulate_screen(seed=seed, **SCREENS[name])


def run(name: str, seed: int, variant: str) -> dict[str, object]:
    adata = drawn(name, seed)
    model, seconds = train(adata, SCREENS[name], VARIANTS[variant])
    return {"screen": name, "variant": variant, "seed": seed, **scores(model, adata), "seconds": seconds}


def scores(model: scgim.GIM, adata: AnnData) -> dict[str, float]:
    truth, strength = true_graph(adata), matrix(model.get_graph(), adata.var_names)
    unseen, features = adata.uns["truth"]["unseen_drug"], features_of_unseen(adata)
    return {
        "edge_ap": edge_average_precision(strength, truth),
        "shd": shd(strength, truth),
        "target_f1": target_f1(model, adata, unseen, features),
        "drug_distance": distance(model, adata, unseen, features),
        "dose_distance": distance(model, adata, adata.uns["truth"]["unseen_dose"], None),
    }


def distance(model: scgim.GIM, adata: AnnData, table: dict, features: pd.DataFrame | None) -> float:
    control = adata.X[(adata.obs["drug"] == "DMSO").to_numpy()]
    predicted = model.predict(**request(table, features), as_="mean")
    gap = rows_of(predicted, table["drug"].astype(str), table["dose"]) - table["mean"]
    return float(np.linalg.norm(gap / control.std(0), axis=1).mean())


def target_f1(model: scgim.GIM, adata: AnnData, table: dict, features: pd.DataFrame) -> float:
    ranking = model.rank_targets(**request(table, features), evidence="features")
    called = values_of(ranking, table["drug"].astype(str), table["dose"], adata.var_names) > SURE
    return f1_of_targets(called, table["targets"] > 0)


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds as text."""
    groups = runs.groupby(["screen", "variant"], sort=False)[list(METRICS)]
    digits = {name: 1 if name in ("shd", "seconds") else 2 for name in METRICS}
    text = groups.agg({name: lambda values, d=d: mean_and_sd(values, d) for name, d in digits.items()})
    return text.rename(columns=METRICS).reset_index()


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
    parser = arguments(__doc__, seeds=5, out=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--screens", nargs="+", default=list(SCREENS), choices=list(SCREENS))
    options = parser.parse_args()
    rows = []
    for job in ((s, seed, v) for s in options.screens for seed in range(options.seeds) for v in VARIANTS):
        rows.append(run(*job))
        progress(rows)
    runs = pd.DataFrame(rows)
    runs.round(4).to_csv(options.out.with_stem(options.out.stem + "_seeds"), index=False)
    summary(runs).to_csv(options.out, index=False)
    print(summary(runs).to_string(index=False))
    figure(runs, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
