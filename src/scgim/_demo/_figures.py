"""The four figures of the demonstration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

import scgim

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData


def draw(out: Path, model: scgim.GIM, adata: AnnData, drug: str, predicted: pd.DataFrame) -> None:
    """Graph with the targets of a drug, target ranking, prediction of a held-out drug, training history."""
    figures = {
        "graph.png": scgim.pl.graph(adata, drug=drug, show=False).figure,
        "targets.png": scgim.pl.targets(adata, drug=drug, show=False).figure,
        "held_out.png": held_out(predicted, drug),
        "history.png": np.ravel(scgim.pl.history(model, show=False))[0].figure,
    }
    for name, figure in figures.items():
        figure.savefig(out / name, dpi=150, bbox_inches="tight")
        plt.close(figure)


def held_out(table: pd.DataFrame, drug: str) -> plt.Figure:
    """Measured change of the proteins that were not given, next to the prediction of every method."""
    figure, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
    methods = [name for name in table.columns if name not in {"measured", "no change"}]
    place, markers = np.arange(len(table)), "osD^v"
    ax.bar(place, table["measured"], width=0.75, color="0.85", label="measured")
    for i, name in enumerate(methods):
        ax.scatter(
            place + (i - (len(methods) - 1) / 2) * 0.16, table[name], s=28, marker=markers[i], label=name, zorder=3
        )
    ax.axhline(0, color="0.4", lw=0.8)
    ax.set(
        xticks=place,
        xticklabels=table.index,
        ylabel="change (control SD)",
        title=f"{drug}, held out: given only its nominal target",
    )
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    ax.spines[["top", "right"]].set_visible(False)
    return figure
