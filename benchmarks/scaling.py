"""Time, memory and accuracy of training as genes and cells grow: ``python benchmarks/scaling.py [--genes 20 100] [--cells 100000]``.

Simulated screens of 100 drugs x 4 doses, by default of 50 cells each and 800 controls. All are drawn first; then every one is trained
on alone, in a process of its own, so that peaks of memory do not mix. Writes ``scaling.csv`` and ``scaling.png`` beside this file.
``--dask`` measures the pass over the cells on one core and on dask's worker processes instead, and writes ``scaling_dask.csv``.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import pandas as pd
from common import arguments, f1, matrix, peak_mb, processes, progress
from simulated import COLUMNS, true_graph

import scgim
from scgim.metrics import edge_average_precision, shd

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

CONDITIONS, CONTROLS, CELLS = 400, 800, 50
GENES_FOR_CELLS = 100
PHASES = {"statistics": "statistics", "structure": "search", "mechanisms": "refit", "generator": "generator"}


class Stopwatch(pl.Callback):
    """Seconds by phase: a step counts for the phase that it ends in, and all before the first for the statistics."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES.values(), 0.0)
        self.last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] += now - self.last
        self.last = now

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.lap("statistics")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        self.lap(PHASES.get(pl_module.phase, "generator"))


def draw(path: Path, mechanism: str, genes: int, cells: int, controls: int) -> None:
    """Write a screen of ``cells`` cells a condition."""
    about = {"n_genes": genes, "n_cells": cells, "n_control": controls, "mechanism": mechanism}
    # one unseen dose: the truth about many would take longer to compute than the cells
    scgim.datasets.simulate_screen(
        n_drugs=CONDITIONS // 4, n_bits=64, n_new_drugs=0, new_doses=[3], **about
    ).write_h5ad(path)


def set_up(adata: AnnData, mechanism: str) -> scgim.GIM:
    scgim.setup_anndata(adata, **COLUMNS)
    return scgim.GIM(adata, mechanism=mechanism)


def train(path: Path, mechanism: str) -> dict[str, object]:
    """Time, memory and accuracy on the screen in a file."""
    import anndata as ad

    small = set_up(scgim.datasets.simulate_screen(n_drugs=8, n_new_drugs=0), mechanism)
    small.train(max_epochs=6, enable_progress_bar=False)  # compiles
    adata = ad.read_h5ad(path)
    model, before, watch = set_up(adata, mechanism), peak_mb(), Stopwatch()
    start = time.perf_counter()
    model.train(enable_progress_bar=False, callbacks=[watch])
    seconds, after = time.perf_counter() - start, peak_mb()
    return {
        "mechanism": mechanism,
        "genes": adata.n_vars,
        "cells": adata.n_obs,
        **{phase: round(value, 2) for phase, value in watch.seconds.items()},
        "train": round(seconds, 2),
        "mb_before": round(before),
        "mb_peak": round(after),
        **accuracy(model, adata),
        "chosen": model.generator_,
    }


def accuracy(model: scgim.GIM, adata: AnnData) -> dict[str, float]:
    truth, strength = true_graph(adata), matrix(model.get_graph(), adata.var_names)
    return {
        "edge_ap": round(edge_average_precision(strength, truth), 3),
        "edge_f1": round(f1(strength > 0, truth), 3),
        "shd": shd(strength, truth),
    }


def alone(function: Callable[..., dict], *args: object) -> dict:
    """What a function returns in a process of its own."""
    with processes(1) as pool:
        return pool.submit(function, *args).result()


def figure(table: pd.DataFrame, path: Path) -> None:
    import matplotlib.pyplot as plt

    linear = table[table["mechanism"] == "linear"]
    standard = linear["cells"] == CONDITIONS * CELLS + CONTROLS
    genes, cells = (
        linear[rows].sort_values(by)
        for rows, by in ((standard, "genes"), (linear["genes"] == GENES_FOR_CELLS, "cells"))
    )
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for ax, rows, size in ((left, genes, "genes"), (right, cells, "cells")):
        for phase in (*PHASES.values(), "train"):
            ax.loglog(rows[size], rows[phase], "o-", color="k" if phase == "train" else None, label=phase, markersize=4)
        ax.set(xlabel=size, ylabel="seconds")
    left.set_title(f"time, {CONDITIONS} conditions x {CELLS} cells", fontsize=10)
    right.set_title(f"time, {GENES_FOR_CELLS} genes", fontsize=10)
    left.legend(frameon=False, fontsize=8)
    for column, label in {"edge_ap": "edge AP", "edge_f1": "edge F1"}.items():
        middle.semilogx(genes["genes"], genes[column], "o-", label=label, markersize=4)
    middle.set(xlabel="genes", ylabel="accuracy of the graph", ylim=(0, 1.02))
    memory = middle.twinx()
    memory.semilogx(genes["genes"], genes["mb_peak"] / 1000, "s--", color="0.5", label="peak memory", markersize=4)
    memory.set(ylabel="GB", ylim=(0, None))
    middle.set_title("accuracy and memory", fontsize=10)
    handles = [*middle.get_lines(), *memory.get_lines()]
    middle.legend(handles=handles, frameon=False, fontsize=8, loc="lower right")
    fig.savefig(path, dpi=130)


def main() -> None:
    # jobs: how many screens are drawn at a time
    parser = arguments(__doc__, jobs=2, out=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--genes", type=int, nargs="*", default=[20, 50, 100, 200, 500, 1000, 2000])
    parser.add_argument("--network-genes", type=int, nargs="*", default=[500])
    parser.add_argument("--cells", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--dask", action="store_true", help="the pass on 1, 2 and 4 worker processes")
    options = parser.parse_args()
    if options.dask:
        import scaling_dask

        scaling_dask.main(options.out.with_name("scaling_dask.csv"))
        return
    jobs = [("linear", genes, CELLS, CONTROLS) for genes in options.genes]
    jobs += [("network", genes, CELLS, CONTROLS) for genes in options.network_genes]
    jobs += [("linear", GENES_FOR_CELLS, cells * 24 // 10_000, cells // 25) for cells in options.cells]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{k}.h5ad" for k in range(len(jobs))]
        with processes(options.jobs) as pool:
            # the large ones first, so that the last ones end together
            drawn = [pool.submit(draw, path, *job) for path, job in reversed(list(zip(paths, jobs, strict=True)))]
            for each in drawn:
                each.result()
        for path, (mechanism, *_) in zip(paths, jobs, strict=True):
            rows.append(alone(train, path, mechanism))
            progress(rows)
            pd.DataFrame(rows).to_csv(options.out, index=False)
    figure(pd.DataFrame(rows), options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
