"""Measured cells, and the false-positive rate on placebos: ``python benchmarks/real_cells.py --data FOLDER [--only eccite zhao]``.

The folder holds the files that ``docs/real_cells.md`` names; what each part needs is said there. Every part writes
``real_cells_*.csv`` beside this file, and ``eccite`` draws ``real_cells.png``. A quarter of an hour on one core.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # numpy reads it once

import numpy as np
import pandas as pd
from common import HERE, SURE, arguments, called, fit, quiet, write
from measured import (
    DEAD,
    ECCITE,
    HDSTIM,
    SCIDSEQ,
    ZHAO,
    Z,
    eccite_cells,
    hdstim_cells,
    scidseq_cells,
    z_scores,
    zhao_cells,
)
from real_cells_likelihood import likelihood
from real_cells_placebos import placebos

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import anndata as ad

    import scgim

LINEAGE = ["CD3", "CD4", "CD8", "CD19", "CD20", "CD56", "CD14", "CD11c"]
# what is known of interferon-gamma signalling among the measured genes
KNOWN = [("IFNGR2", "JAK2"), ("IFNGR2", "STAT1"), ("JAK2", "STAT1"), ("STAT1", "STAT2"), ("STAT1", "NFKBIA")]


def signed(rows: pd.DataFrame) -> str:
    """Genes and effects, the largest score first."""
    rows = rows.sort_values("score", ascending=False)
    return ", ".join(f"{gene} {effect:+.1f}" for gene, effect in zip(rows["gene"], rows["effect"], strict=True))


def jaccard(a: set, b: set) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0


# ---- ECCITE: knock-outs whose target is known ------------------------------------------------------------------------


def eccite(folder: Path) -> None:
    adata = eccite_cells(folder)
    model, took = fit(adata, ECCITE)
    table, z = model.rank_targets().astype({"drug": str}), z_scores(adata, ECCITE).abs()
    n, rank_z = adata.obs["condition"].value_counts(), z.rank(axis=1, ascending=False)
    rows = []
    for name, of_drug in table.groupby("drug"):
        own = of_drug[of_drug["gene"] == name]
        rows.append({
            "knock-out": name,
            "cells": n[name],
            "silent": "yes" if name in DEAD else "",
            "targets": signed(of_drug[of_drug["probability"] > SURE]),
            "rank of own gene": own["rank"].iloc[0] if len(own) else None,
            "its rank by |z|": rank_z.loc[name, name] if len(own) else None,
            f"genes of |z| > {Z}": (z.loc[name] > Z).sum(),
        })  # fmt: skip
    rows = pd.DataFrame(rows).astype({"rank of own gene": "Int64", "its rank by |z|": "Int64"})
    write(rows, "real_cells_eccite")
    replicates = eccite_replicates(adata, table)
    print(f"{len(model.get_graph())} edges, {took.clock:.1f} s")
    figure(rows, table, replicates, HERE / "real_cells.png")


def eccite_replicates(adata: ad.AnnData, whole: pd.DataFrame) -> pd.DataFrame:
    """All calls of three fits, with the effect and the probability by each."""
    fits = {"both": whole}
    for name in sorted(adata.obs["replicate"].unique()):
        model, _ = fit(adata[(adata.obs["replicate"] == name).to_numpy()].copy(), ECCITE)
        fits[name.replace("rep_", "only ")] = model.rank_targets().astype({"drug": str})
    fits = {name: table.set_index(["drug", "gene"])[["effect", "probability"]] for name, table in fits.items()}
    any_call = pd.concat([table["probability"] > SURE for table in fits.values()], axis=1).any(axis=1)
    pairs = any_call.index[any_call]
    out = pairs.to_frame(index=False).rename(columns={"drug": "knock-out"})
    for name, table in fits.items():
        out[f"effect, {name}"], out[f"p, {name}"] = table.loc[pairs].to_numpy().T
    return write(out.sort_values("effect, both", key=abs, ascending=False), "real_cells_eccite_replicates", 2)


def order(folder: Path, refits: int = 20) -> None:
    """Edges and ancestors around STAT1, and how often random halves of the cells find them."""
    adata = eccite_cells(folder)
    model, _ = fit(adata, ECCITE)
    edges, paths, calls = found(model)
    by_effect = sorted((pair for pair in paths if pair[0] == "STAT1"), key=lambda pair: -abs(paths[pair]))
    recurs, genes = model.stability(n=refits)["recurs"], np.sort(adata.var_names.to_numpy(str))
    drawn = pd.DataFrame(model.stability_.direct, index=genes, columns=genes).stack().to_dict()
    halves = [found(fit(half, ECCITE)[0]) for half in halved(adata, refits)]
    rows = [
        {
            "source": a,
            "target": b,
            "weight": edges.get((a, b)),
            "total effect": paths.get((a, b)),
            "in bootstrap": drawn[a, b],
            "reverse in bootstrap": drawn[b, a],
            "in halves": np.mean([(a, b) in half_edges for half_edges, _, _ in halves]),
            "path in halves": np.mean([(a, b) in half_paths for _, half_paths, _ in halves]),
            "reverse path in halves": np.mean([(b, a) in half_paths for _, half_paths, _ in halves]),
            "median total effect in halves": np.median([half_paths.get((a, b), 0.0) for _, half_paths, _ in halves]),
        }
        for a, b in dict.fromkeys([*KNOWN, *by_effect[:10]])
    ]
    write(pd.DataFrame(rows), "real_cells_order")
    print(f"{recurs.sum()} of {len(edges)} edges recur in the bootstrap")
    rows = [
        {
            "knock-out": pair[0],
            "gene": pair[1],
            "all cells": "yes" if pair in calls else "",
            "share of halves": np.mean([pair in half_calls for _, _, half_calls in halves]),
        }
        for pair in sorted(calls.union(*(half_calls for _, _, half_calls in halves)))
    ]
    write(pd.DataFrame(rows).sort_values("share of halves", ascending=False, kind="stable"), "real_cells_order_calls")


def halved(adata: ad.AnnData, n: int) -> Iterator[ad.AnnData]:
    """Random halves of the cells of every condition and replicate."""
    rng, label = np.random.default_rng(0), adata.obs["condition"].astype(str) + adata.obs["replicate"].astype(str)
    for _ in range(n):
        parts = [rng.permutation(rows)[: max(len(rows) // 2, 1)] for rows in label.groupby(label).indices.values()]
        yield adata[np.sort(np.concatenate(parts))].copy()


def found(model: scgim.GIM) -> tuple[dict, dict, set]:
    """Weights of edges and total effects by pair of genes, and pairs of drug and target."""
    direct, total = (
        dict(zip(zip(table["source"], table["target"], strict=True), table["weight"], strict=True))
        for table in (model.get_graph(), model.get_graph(kind="total"))
    )
    return direct, total, set(called(model)[["drug", "gene"]].itertuples(index=False, name=None))


def figure(rows: pd.DataFrame, table: pd.DataFrame, replicates: pd.DataFrame, path: Path) -> None:
    import matplotlib.pyplot as plt

    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.6), layout="constrained")
    rows = rows.sort_values(f"genes of |z| > {Z}", kind="stable")
    calls = table[table["probability"] > SURE].groupby("drug").size().reindex(rows["knock-out"], fill_value=0)
    at = np.arange(len(rows))
    left.hlines(at, calls, rows[f"genes of |z| > {Z}"], color="0.85")
    left.plot(rows[f"genes of |z| > {Z}"], at, "o", color="0.6", label=f"genes of |z| > {Z}", markersize=5)
    left.plot(calls, at, "o", color="C0", label="targets", markersize=5)
    left.set_yticks(
        at, [f"{k} *" if s else k for k, s in zip(rows["knock-out"], rows["silent"], strict=True)], fontsize=8
    )
    left.set(xscale="symlog", xlim=(-0.2, 110), xlabel="genes (* without a known effect)", xticks=[0, 1, 10, 100])
    left.set_xticklabels(["0", "1", "10", "100"])
    left.legend(frameon=False, fontsize=8, loc="lower right")

    own = rows.dropna(subset="rank of own gene").sort_values("its rank by |z|")
    at = np.arange(len(own))
    for shift, column, color in ((-0.18, "its rank by |z|", "0.6"), (0.18, "rank of own gene", "C0")):
        middle.barh(at + shift, own[column].astype(float), 0.34, color=color, label="by |z|" if shift < 0 else "model")
    middle.set_yticks(at, own["knock-out"], fontsize=8)
    middle.set(xlabel="rank of the knocked-out gene among 299", ylim=(-0.6, len(own) + 0.1))
    middle.legend(frameon=False, fontsize=8)

    one, two = (replicates[c] for c in replicates if c.startswith("effect, only"))
    sure = [replicates[c] > SURE for c in replicates if c.startswith("p, only")]
    for mask, color, label in (
        (sure[0] & sure[1], "C0", "target in both"),
        (sure[0] ^ sure[1], "C1", "in one"),
        (~sure[0] & ~sure[1], "0.6", "only with all cells"),
    ):
        right.plot(one[mask], two[mask], "o", color=color, label=label, markersize=5)
    ends = [min(one.min(), two.min()) - 0.3, max(one.max(), two.max()) + 0.3]
    right.plot(ends, ends, color="0.85", zorder=0)
    right.set(xlabel="effect, replicate 1 (control SD)", ylabel="effect, replicate 2")
    right.legend(frameon=False, fontsize=8)
    fig.savefig(path, dpi=130)


# ---- Zhao: one drug, five donors -------------------------------------------------------------------------------------


def zhao(folder: Path) -> None:
    adata, columns = zhao_cells(folder), ZHAO | {"batch_key": "donor"}
    donor = adata.obs["donor"].astype(str).to_numpy()
    names = np.unique(donor)
    parts = (
        {"all": donor != ""} | {f"without {d}": donor != d for d in names} | {f"only {d}": donor == d for d in names}
    )
    rows = []
    for name, cells in parts.items():
        part = adata[cells].copy()
        part = part[:, np.asarray(part.X.sum(0)).ravel() > 0].copy()  # some genes were detected in one donor only
        model, took = fit(part, columns)
        table, z = model.rank_targets().set_index("gene"), z_scores(part, columns).abs().iloc[0]
        alone = called(fit(part, columns, structure="none")[0])["gene"]
        sets = (
            set(table.index[table["probability"] > SURE]),
            set(table.index[table["rank"] <= 10]),
            set(alone),
            set(z.index[z > Z]),
        )
        if name == "all":
            whole, reference = table, sets
        shared = list(sets[0] & reference[0])
        rows.append({
            "donors": name,
            "cells": len(part),
            "targets": len(sets[0]),
            "Jaccard": jaccard(sets[0], reference[0]),
            "Jaccard, top 10": jaccard(sets[1], reference[1]),
            "targets, empty graph": len(sets[2]),
            "its Jaccard": jaccard(sets[2], reference[2]),
            f"genes of |z| > {Z}": len(sets[3]),
            "their Jaccard": jaccard(sets[3], reference[3]),
            "same sign": (np.sign(table.loc[shared, "effect"]) == np.sign(whole.loc[shared, "effect"])).mean(),
            "edges": len(model.get_graph()),
            "seconds": took.clock,
        })  # fmt: skip
        if name == "all":
            write(
                table.reset_index().head(15)[["gene", "rank", "effect", "effect_se", "probability"]],
                "real_cells_zhao_targets",
            )
    write(pd.DataFrame(rows), "real_cells_zhao", 2)


# ---- panels of proteins ----------------------------------------------------------------------------------------------


def panels(folder: Path) -> None:
    """scID-seq against either reference, and cytometry by cell type."""
    plates = SCIDSEQ | {"batch_key": "plate"}
    jobs = {
        "scID-seq, against EGF": (scidseq_cells, plates),
        "scID-seq, against no EGF": (scidseq_cells, plates | {"control": "No_EGF"}),
        "CyTOF": (hdstim_cells, HDSTIM),
    }
    runs, rows = [], []
    for name, (read, columns) in jobs.items():
        adata = read(folder)
        model, took = fit(adata, columns)
        edges, calls = model.get_graph(), called(model)
        model.annotate()
        runs.append({
            "data": name,
            "cells": adata.n_obs,
            "proteins": adata.n_vars,
            "contexts": len(conditions_of(model)),
            "edges": len(edges),
            "largest |weight|": edges["weight"].abs().max(),
            "targets": len(calls),
            "seconds": took.clock,
        })  # fmt: skip
        line = adata.obs.get(columns.get("cell_line_key"), pd.Series("", index=adata.obs_names)).astype(str)
        for drug, type_ in conditions_of(model):
            cells = adata[(line == type_).to_numpy()]
            own = calls[(calls["drug"] == drug) & (calls["cell_line"].astype(str) == type_)]
            z = z_scores(cells, columns).loc[drug].abs()
            rows.append({
                "data": name,
                "stimulus": drug,
                "cell type": type_,
                "expresses": expressed(cells, columns),
                "targets": signed(own),
                f"of |z| > {Z}": (z > Z).sum(),
                "largest |z|": z.idxmax(),
            })  # fmt: skip
    write(pd.DataFrame(runs), "real_cells_panels", 1)
    write(pd.DataFrame(rows), "real_cells_panels_targets")


def expressed(adata: ad.AnnData, columns: dict) -> str:
    """Which lineage markers the controls express: the labels on file do not name the cell types."""
    controls = adata[(adata.obs[columns["drug_key"]] == columns["control"]).to_numpy()].to_df()
    mean = controls.reindex(columns=LINEAGE).mean()
    return ", ".join(mean.index[mean > 2])


def conditions_of(model: scgim.GIM) -> list[tuple[str, str]]:
    """Drugs and cell lines of all conditions."""
    return list(
        model.rank_targets()[["drug", "cell_line"]].astype(str).drop_duplicates().itertuples(index=False, name=None)
    )


PARTS = {
    "placebos": placebos,
    "eccite": eccite,
    "order": order,
    "zhao": zhao,
    "panels": panels,
    "likelihood": likelihood,
}


def main() -> None:
    options = arguments(__doc__, parts=PARTS, data=True).parse_args()
    quiet()
    for name in options.only:
        start = time.perf_counter()
        PARTS[name](options.data)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
