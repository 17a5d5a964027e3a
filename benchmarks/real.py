"""Measured screens, what was held out and how well it was predicted: ``python benchmarks/real.py --data FOLDER [--jobs 2]``.

The folder holds the files that ``docs/real_cells.md`` names, ``l1000_ht115_6h.h5ad`` and ``sachs2005.h5ad``. Every part
(``--only l1000 eccite sachs lines``) writes ``real_*.csv`` beside this file, and a panel of ``real.png``. Changes
are in control SD: mean of a condition minus that of the controls of its own line and batch, over their pooled SD.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # numpy reads it once; the processes are the parallelism

import numpy as np
import pandas as pd
from CausalDisco.baselines import var_sort_regress
from common import (
    FEW,
    HERE,
    MEAN,
    NO_CHANGE,
    arguments,
    changes,
    conditions,
    fit,
    fit_without,
    matrix,
    predicted,
    processes,
    quiet,
    scored,
    standardized,
    trained_baseline,
    write,
)
from measured import (
    DEAD,
    ECCITE,
    HDSTIM,
    SACHS,
    SCIDSEQ,
    ZHAO,
    Z,
    eccite_cells,
    hdstim_cells,
    sachs_cells,
    scidseq_cells,
    z_scores,
    zhao_cells,
)
from real_l1000 import l1000, l1000_panel
from scipy.sparse import csr_matrix

import scgim
from scgim.metrics import edge_average_precision, edge_precision_recall, pearson_delta, shd

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ProcessPoolExecutor
    from pathlib import Path

    import anndata as ad
    from matplotlib.axes import Axes

# ---- ECCITE: a knock-out never seen -----------------------------------------------------------------------------------


def eccite_left_out(folder: Path, gene: str) -> dict[str, pd.Series]:
    """Changes under one knock-out: measured, and predicted from its measured drop by methods that have not seen it."""
    quiet()
    adata = eccite_cells(folder)
    table, sd = changes(adata, ECCITE)
    table = table.droplevel("line")
    drop, others = float(table.loc[gene, gene]), table.drop(index=[gene, *DEAD])
    model = fit_without(adata, ECCITE, (adata.obs["condition"] == gene).to_numpy())
    do = model.do({gene: drop}, kind="set", as_="delta")
    cells, _ = standardized(adata[(adata.obs["condition"] == "control").to_numpy()], ECCITE)
    return {
        "measured": table.loc[gene],
        "scgim, do()": pd.Series(do.X[0], do.var_names) / sd,
        "regression in controls": cells.mul(cells[gene], axis=0).mean() / (cells[gene] ** 2).mean() * drop,
        "mean of the other knock-outs": others.mean(),
        NO_CHANGE: 0 * sd,
        "|z|": z_scores(adata, ECCITE).loc[gene].abs(),
    }


def eccite(folder: Path, pool: ProcessPoolExecutor) -> None:
    """Each measured knock-out in turn, over the genes that it changes."""
    adata = eccite_cells(folder)
    genes = sorted(set(adata.obs["condition"].astype(str)) & set(adata.var_names))
    jobs = {gene: pool.submit(eccite_left_out, folder, gene) for gene in genes}
    rows, few = [], []
    for gene, job in jobs.items():
        frame = pd.DataFrame(job.result())
        moved = frame[(frame["|z|"] > Z) & (frame.index != gene)]
        methods = frame.columns.drop(["measured", "|z|"])
        error = frame[methods].sub(frame["measured"], axis=0).drop(gene) ** 2
        every = np.sqrt(error.mean())
        if len(moved) < FEW:
            few.append((gene, every))
            continue
        r = pearson_delta(moved[methods].T, np.broadcast_to(moved["measured"], (len(methods), len(moved))))
        about = {"knock-out": gene, "its drop": frame.loc[gene, "measured"], "genes moved": len(moved)}
        rows += [
            about
            | {
                "method": name,
                "r": r[i],
                "RMSE": np.sqrt(error.loc[moved.index, name].mean()),
                "RMSE, all genes": every[name],
            }
            for i, name in enumerate(methods)
        ]
    about = {"knock-out": ", ".join(gene for gene, _ in few), "genes moved": f"< {FEW} each"}
    rest = pd.DataFrame([every for _, every in few]).mean()
    rows += [about | {"method": name, "RMSE, all genes": value} for name, value in rest.items()]
    write(pd.DataFrame(rows), "real_eccite")


# ---- Sachs: the graph -------------------------------------------------------------------------------------------------


def sachs_graph(folder: Path, which: str, seed: int) -> list[dict[str, object]]:
    """One default fit against the published graph."""
    quiet()
    adata = sachs_cells(folder, which)
    truth = csr_matrix(adata.varp["graph17_sachs_inferred"]).toarray() > 0
    model, _ = fit(adata, SACHS, seed=seed)
    strength = matrix(model.get_graph(), adata.var_names)
    row = {"cells": which, "method": "scgim", "seed": seed, **against(strength, truth)}
    if seed:
        return [row]
    edges = model.stability(n=20)
    edges["one"] = 1.0
    recurring = matrix(edges[edges["recurs"]], adata.var_names, "one")
    rows = [
        row,
        {"cells": which, "method": "its edges that recur in the bootstrap", "seed": seed, **against(recurring, truth)},
    ]
    simple = var_sort_regress(np.asarray(adata.X, float))
    rows.append({"cells": which, "method": "sort and regress", "seed": "", **against(np.abs(simple), truth)})
    return [*rows, {"cells": which, "method": "random DAG", "seed": "", **by_chance(truth, int((strength > 0).sum()))}]


def against(strength: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    precision, recall = edge_precision_recall(strength != 0, truth)
    skeleton = edge_precision_recall((strength != 0) | (strength != 0).T, truth | truth.T)
    return {
        "edges": int((strength != 0).sum()),
        "SHD": shd(strength, truth),
        "edge AP": edge_average_precision(strength, truth),
        "precision": precision,
        "recall": recall,
        "precision, undirected": skeleton[0],
        "recall, undirected": skeleton[1],
    }


def by_chance(truth: np.ndarray, n: int, draws: int = 500) -> dict[str, float]:
    """Means over DAGs of so many edges, uniform over pairs under a random order."""
    rng, d, rows = np.random.default_rng(0), len(truth), []
    first, second = np.triu_indices(d, 1)
    for _ in range(draws):
        order, pick = rng.permutation(d), rng.choice(len(first), n, replace=False)
        graph = np.zeros((d, d))
        graph[order[first[pick]], order[second[pick]]] = rng.random(n) + 0.5
        rows.append(against(graph, truth))
    return pd.DataFrame(rows).mean().to_dict()


def sachs(folder: Path, pool: ProcessPoolExecutor) -> None:
    """Defaults, five seeds, shipped and usual cells."""
    jobs = [pool.submit(sachs_graph, folder, which, s) for which in ("8 conditions", "9 conditions") for s in range(5)]
    runs = pd.DataFrame([row for job in jobs for row in job.result()])
    numbers = runs.columns.drop(["cells", "method", "seed"])
    mean = runs.groupby(["cells", "method"], sort=False)[list(numbers)].agg(["mean", "min", "max"])
    table = mean.xs("mean", axis=1, level=1).copy()
    table["SHD, least and most"] = [f"{a:.0f}-{b:.0f}" for a, b in mean["SHD"][["min", "max"]].to_numpy()]
    write(table.reset_index(), "real_sachs", 2)


# ---- a drug never seen, or seen in other lines only -------------------------------------------------------------------

LINES: dict[str, tuple[Callable[[Path], ad.AnnData], dict, int]] = {
    "Zhao: a donor": (zhao_cells, ZHAO | {"cell_line_key": "donor"}, 5),
    "scID-seq: plates": (scidseq_cells, SCIDSEQ | {"cell_line_key": "plate"}, 5),
    "CyTOF: a cell type": (hdstim_cells, HDSTIM, 8),
    "Sachs: a background": (
        lambda folder: sachs_cells(folder, "two backgrounds"),
        SACHS | {"control": "none", "cell_line_key": "stimulus"},
        2,
    ),
}


def lines_left_out(folder: Path, name: str, held: list[str]) -> dict[str, pd.DataFrame]:
    """Changes in lines whose treated cells no method has seen, by all of them."""
    quiet()
    read, columns, _ = LINES[name]
    adata = read(folder)
    truth, sd = changes(adata, columns)
    line, drug = (adata.obs[columns[key]].astype(str) for key in ("cell_line_key", "drug_key"))
    test = (line.isin(held) & (drug != columns["control"])).to_numpy()
    asked = truth.index[truth.index.get_level_values("line").isin(held)]
    seen = truth.drop(index=asked)
    # a drug that was seen in no other line cannot be predicted here
    asked = asked[asked.get_level_values("drug").isin(seen.index.get_level_values("drug"))]
    of_drug = seen.groupby(level="drug").mean().loc[asked.get_level_values("drug")].set_axis(asked)
    out = {"measured": truth.loc[asked], NO_CHANGE: 0 * of_drug, "the same drug in other lines": of_drug}
    if seen.index.get_level_values("drug").nunique() > 1:
        out["all drugs in other lines"] = 0 * of_drug + seen.mean()
    for label, options in {"scgim": {}, "scgim, empty graph": {"structure": "none"}}.items():
        model = fit_without(adata, columns, test, **options)
        out[label] = predicted(model, seen.index.get_level_values("drug").unique(), sd).loc[asked, sd.index]
    return out


def inhibitor_left_out(folder: Path, drug: str) -> dict[str, pd.DataFrame]:
    """The shipped Sachs cells without one drug, whose structure alone is known."""
    quiet()
    adata, columns = scgim.datasets.sachs(), SACHS | {"smiles_key": "smiles"}
    truth, sd = changes(adata, columns)
    smiles = adata.obs.drop_duplicates("drug").set_index("drug")["smiles"].astype(str).drop(SACHS["control"])
    features, _ = scgim.pp.fingerprints(smiles.sort_index())
    baselines = {}
    drugs = truth.index.get_level_values("drug")
    parts = [
        conditions(pd.DataFrame({"drug": drugs[use]}), features.loc[drugs[use]].to_numpy(float), truth[use].to_numpy())
        for use in (drugs != drug, drugs == drug)
    ]
    for kind, name in {
        "control": NO_CHANGE,
        "training mean": MEAN,
        "nearest drug": "nearest drug",
        "ridge": "ridge",
    }.items():
        change = trained_baseline(kind, parts[0]).predict(parts[1])
        baselines[name] = pd.DataFrame(change, truth.index[drugs == drug], truth.columns)
    out = {"measured": truth[drugs == drug], **baselines}
    for label, options in {"scgim, kernel": {}, "scgim, kernel, empty graph": {"structure": "none"}}.items():
        model = fit_without(adata, columns, (adata.obs["drug"] == drug).to_numpy(), generator="kernel", **options)
        out[label] = predicted(model, [drug], sd)[truth.columns]
    return out


def lines(folder: Path, pool: ProcessPoolExecutor) -> None:
    """One question a data set."""
    jobs: dict[str, list] = {}
    for name, (read, columns, n) in LINES.items():
        adata = read(folder)
        treated = adata.obs[columns["drug_key"]].astype(str) != columns["control"]
        levels = sorted(set(adata.obs[columns["cell_line_key"]][treated].astype(str)))
        held = [levels[k::n] for k in range(n)]
        jobs[name] = [pool.submit(lines_left_out, folder, name, each) for each in held]
    inhibitors = sorted(set(scgim.datasets.sachs().obs["drug"].astype(str)) - {SACHS["control"]})
    jobs["Sachs: an inhibitor"] = [pool.submit(inhibitor_left_out, folder, drug) for drug in inhibitors]
    rows = []
    for name, parts in jobs.items():
        done = [job.result() for job in parts]
        methods = {method: pd.concat([part[method] for part in done]) for method in done[0]}
        truth = methods.pop("measured")
        # conditions of one line are not independent, nor are those of one drug: resample the finer of the two
        unit = max(
            (truth.index.get_level_values(of).to_numpy(str) for of in ("line", "drug")), key=lambda u: len(set(u))
        )
        about = {"held out": name, "conditions": len(truth), "of": len(set(unit))}
        rows += [about | row for row in scored(methods, truth, unit).to_dict("records")]
    write(pd.DataFrame(rows), "real_lines")


# ---- the figure -------------------------------------------------------------------------------------------------------


def eccite_panel(ax: Axes, table: pd.DataFrame) -> None:
    rows = table.dropna(subset="RMSE")
    names = list(dict.fromkeys(rows["method"]))
    for (gene, part), color in zip(rows.groupby("knock-out"), ("C0", "C1", "C2", "C3", "C4", "C5"), strict=False):
        error = part.set_index("method")["RMSE"].loc[names]
        ax.plot(error / error[NO_CHANGE], range(len(names)), "o", color=color, label=f"{gene} knock-out")
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="RMSE over that of no change", title="ECCITE: knock-outs never seen")
    ax.legend(frameon=False, fontsize=8)


def sachs_panel(ax: Axes, table: pd.DataFrame) -> None:
    names = list(dict.fromkeys(table["method"]))
    for (cells, part), color in zip(table.groupby("cells"), ("C0", "C1"), strict=True):
        ax.plot(part["SHD"], part["method"].map(names.index), "o", color=color, label=cells)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="SHD to the 17-edge graph (line: no edge)", title="Sachs: graph")
    ax.axvline(17, color="0.85", zorder=0)
    ax.legend(frameon=False, fontsize=8)


def lines_panel(ax: Axes, table: pd.DataFrame) -> None:
    names = list(dict.fromkeys(table["held out"]))
    for k, name in enumerate(names):
        error = table[table["held out"] == name].set_index("method")["RMSE"]
        for method, value in (error / error[NO_CHANGE]).drop(NO_CHANGE).items():
            own = method.startswith("scgim")
            ax.plot(value, k + (0.12 if own else -0.12), "o", color="C0" if own else "0.6", markersize=5)
    ax.axvline(1, color="0.85", zorder=0)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="RMSE over that of no change", title="Lines and inhibitors held out (grey: baselines)")


def figure() -> None:
    """Draw all panels from the tables on file, so that parts can be run one by one."""
    import matplotlib.pyplot as plt

    panels = {"l1000": l1000_panel, "eccite": eccite_panel, "sachs": sachs_panel, "lines": lines_panel}
    panels = {name: draw for name, draw in panels.items() if (HERE / f"real_{name}.csv").exists()}
    with plt.rc_context({"font.size": 8, "axes.titlesize": 9}):
        fig, axes = plt.subplots(2, 2, figsize=(9.5, 6), layout="constrained")
        for ax in axes.flat[len(panels) :]:
            ax.remove()
        for ax, (name, draw) in zip(axes.flat, panels.items(), strict=False):
            draw(ax, pd.read_csv(HERE / f"real_{name}.csv"))
            ax.invert_yaxis()
        fig.savefig(HERE / "real.png", dpi=130)


PARTS = {"l1000": l1000, "eccite": eccite, "sachs": sachs, "lines": lines}


def main() -> None:
    options = arguments(__doc__, parts=PARTS, data=True, jobs=2).parse_args()
    quiet()
    begin = time.perf_counter()
    with processes(options.jobs) as pool:
        for name in options.only:
            start = time.perf_counter()
            PARTS[name](options.data, pool)
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    figure()
    print(f"all: {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
