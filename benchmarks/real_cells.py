"""Measured cells, and how often nothing passes for something: ``python benchmarks/real_cells.py --data FOLDER [--only eccite zhao]``.

The folder holds the files that ``docs/real_cells.md`` names; what each part needs is said there. Every part writes
``real_cells_*.csv`` beside this file, and ``eccite`` draws ``real_cells.png``. A quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy reads it

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

import scgim

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
SURE, Z = 0.5, 4  # a target: probability above; by the rule: |z| above
ECCITE = {"drug_key": "condition", "control": "control", "scale": "counts", "batch_key": "replicate"}
ZHAO = {"drug_key": "drug", "control": "control", "scale": "counts", "batch_key": "donor"}
SACHS = {"drug_key": "drug", "control": "cd3cd28", "scale": "continuous"}
SIMULATED = {"drug_key": "drug", "control": "DMSO", "scale": "continuous", "batch_key": "plate"}
SCIDSEQ = {"drug_key": "condition", "scale": "counts", "batch_key": "plate", "size_factor_key": "total_counts"}
HDSTIM = {"drug_key": "condition", "control": "control", "scale": "continuous", "cell_line_key": "cell_type"}
LINEAGE = ["CD3", "CD4", "CD8", "CD19", "CD20", "CD56", "CD14", "CD11c"]
# knock-outs that move nothing among these genes
DEAD = ("ATF2", "CAV1", "CD86", "ETV7", "IRF7", "MARCH8", "PDCD1LG2", "STAT5A")
# what is known of interferon-gamma signalling among the measured genes
KNOWN = [("IFNGR2", "JAK2"), ("IFNGR2", "STAT1"), ("JAK2", "STAT1"), ("STAT1", "STAT2"), ("STAT1", "NFKBIA")]


# ---- common -----------------------------------------------------------------------------------------------------------


def fit(adata: ad.AnnData, columns: dict, **options: object) -> tuple[scgim.GIM, float]:
    """A trained model and the seconds of its training."""
    scgim.setup_anndata(adata, **columns)
    model = scgim.GIM(adata, **options)
    start = time.perf_counter()
    model.train(seed=0, enable_progress_bar=False)
    return model, time.perf_counter() - start


def called(model: scgim.GIM) -> pd.DataFrame:
    table = model.rank_targets()
    return table[table["probability"] > SURE].astype({"drug": str})


def signed(rows: pd.DataFrame) -> str:
    """Genes and effects, the largest first."""
    rows = rows.sort_values("score", ascending=False)
    return ", ".join(f"{gene} {effect:+.1f}" for gene, effect in zip(rows["gene"], rows["effect"], strict=True))


def z_scores(adata: ad.AnnData, columns: dict) -> pd.DataFrame:
    """Welch's z of every gene against all controls, drugs x genes; counts as log1p at the median size."""
    x = adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X, float)
    if columns["scale"] == "counts":
        size = adata.obs[columns["size_factor_key"]].to_numpy() if "size_factor_key" in columns else x.sum(1)
        x = np.log1p(x / size[:, None] * np.median(size))
    drug = adata.obs[columns["drug_key"]].astype(str).to_numpy()
    mean, variance, n = {}, {}, {}
    for name in np.unique(drug):
        cells = x[drug == name]
        mean[name], variance[name], n[name] = cells.mean(0), cells.var(0), len(cells)
    c = columns["control"]
    z = {k: (mean[k] - mean[c]) / np.sqrt(variance[k] / n[k] + variance[c] / n[c] + 1e-12) for k in mean if k != c}
    return pd.DataFrame(z, index=adata.var_names).T


def jaccard(a: set, b: set) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0


def matrix(edges: pd.DataFrame, genes: pd.Index, column: str) -> np.ndarray:
    out = np.zeros((len(genes), len(genes)))
    out[genes.get_indexer(edges["source"]), genes.get_indexer(edges["target"])] = edges[column]
    return out


def write(table: pd.DataFrame, name: str, digits: int = 3) -> pd.DataFrame:
    table.round(digits).to_csv(HERE / f"real_cells_{name}.csv", index=False)
    print(f"\n{name}\n{table.round(digits).to_string(index=False)}", flush=True)
    return table


def progress(rows: list[dict]) -> None:
    print(pd.DataFrame(rows[-1:]).round(3).to_string(index=False, header=len(rows) == 1), flush=True)


def eccite_cells(folder: Path) -> ad.AnnData:
    adata = ad.read_h5ad(folder / "papalexi2021_eccite.h5ad")
    return adata[adata.obs["confident"].to_numpy()].copy()


# ---- placebos ---------------------------------------------------------------------------------------------------------


def simulated(kind: str, seed: int) -> ad.AnnData:
    """A screen of 20 genes whose cells are not what the model assumes; effects in control sd."""
    rng = np.random.default_rng(seed)
    adata = scgim.datasets.simulate_screen(
        n_genes=20, n_drugs=10, n_cells=100, n_control=2000, doses=(1.0,), n_new_drugs=2, seed=seed
    )
    x, (n, d) = adata.X / adata.X.std(0), adata.shape
    plate = rng.integers(0, 4, n)
    if kind == "plates":
        x = x + rng.normal(0, 0.5, (4, d))[plate]
    elif kind == "tails":
        x = x + 0.5 * rng.standard_t(2.5, (n, d))
    elif kind == "zeros":
        x = np.where(rng.random((n, d)) < 0.6, 0, np.exp(x))
    drug = adata.obs["drug"].astype(str)
    well = drug + " " + (drug.groupby(drug).cumcount() // 50).astype(str)
    if kind == "wells":
        code = well.astype("category").cat.codes.to_numpy()
        x = x + rng.normal(0, 0.1, (code.max() + 1, d))[code]
        plate[:] = 0
    adata.X = x.astype(np.float32)
    adata.obs["plate"], adata.obs["well"] = plate.astype(str), well.to_numpy()
    return adata


def with_placebos(adata: ad.AnnData, columns: dict, n: int, seed: int, unit: str | None) -> ad.AnnData:
    """A copy in which half of the controls are ``n`` disjoint drugs: random cells of each batch, or whole units."""
    rng = np.random.default_rng(seed)
    drug = adata.obs[columns["drug_key"]].astype(str).to_numpy(copy=True)
    controls = np.flatnonzero(drug == columns["control"])
    if unit is not None:
        level = adata.obs[unit].astype(str).to_numpy()
        for i, name in enumerate(rng.choice(np.unique(level[controls]), n, replace=False)):
            drug[controls[level[controls] == name]] = f"placebo {i}"
    else:
        level = (
            adata.obs[columns["batch_key"]].astype(str).to_numpy() if "batch_key" in columns else np.zeros(len(drug))
        )
        for name in np.unique(level[controls]):
            cells = rng.permutation(controls[level[controls] == name])
            for i, part in enumerate(np.array_split(cells[: len(cells) // 2], n)):
                drug[part] = f"placebo {i}"
    copy = adata.copy()
    copy.obs[columns["drug_key"]] = pd.Categorical(drug)
    return copy


def placebos(folder: Path) -> None:
    """Fits with placebos as further drugs, until there are 200 a row (of whole guides: 40, of nine guides)."""
    eccite, zhao = eccite_cells(folder), ad.read_h5ad(folder / "zhao2021_panobinostat.h5ad")
    jobs = {
        "ECCITE, cells": (lambda _: eccite, ECCITE, 10, 20, None),
        "ECCITE, guides": (lambda _: eccite, ECCITE, 4, 10, "guide"),
        "Zhao, cells": (lambda _: zhao, ZHAO, 10, 20, None),
        "Zhao, fewer cells": (lambda _: zhao, ZHAO, 20, 10, None),
        "Sachs, cells": (lambda _: scgim.datasets.sachs(), SACHS, 10, 20, None),
        **{
            f"simulated {kind}, cells": (lambda seed, kind=kind: simulated(kind, seed), SIMULATED, 20, 10, None)
            for kind in ("plates", "tails", "zeros")
        },
        "simulated wells, cells": (lambda seed: simulated("wells", seed), SIMULATED, 20, 10, None),
        "simulated wells, wells": (lambda seed: simulated("wells", seed), SIMULATED, 20, 10, "well"),
    }
    rows = []
    for name, (draw, columns, n, refits, unit) in jobs.items():
        runs = [placebo_run(draw(seed), columns, n, seed, unit) for seed in range(refits)]
        total = pd.DataFrame(runs)
        hits = total["with_target"].sum()
        rows.append({
            "placebos of": name,
            "placebos": n * refits,
            "cells each": int(total["cells"].median()),
            "with a target": hits,
            "share": hits / (n * refits),
            "median charge": total["charge"].median(),
            "targets per real drug": total["real"].mean(),
        })  # fmt: skip
        progress(rows)
    write(pd.DataFrame(rows), "placebos")


def placebo_run(adata: ad.AnnData, columns: dict, n: int, seed: int, unit: str | None) -> dict[str, float]:
    adata = with_placebos(adata, columns, n, seed, unit)
    model, _ = fit(adata, columns)
    calls = called(model)
    fake = calls["drug"].str.startswith("placebo")
    drug = adata.obs[columns["drug_key"]].astype(str)
    return {
        "cells": drug[drug.str.startswith("placebo")].value_counts().median(),
        "with_target": calls.loc[fake, "drug"].nunique(),
        "charge": model.calibration_["charge_median"],
        "real": (~fake).sum() / (len(model.drugs) - n),
    }


# ---- ECCITE: knock-outs whose target is known ------------------------------------------------------------------------


def eccite(folder: Path) -> None:
    adata = eccite_cells(folder)
    model, seconds = fit(adata, ECCITE)
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
    write(rows, "eccite")
    replicates = eccite_replicates(adata, table)
    print(f"{len(model.get_graph())} edges, {seconds:.1f} s")
    figure(rows, table, replicates, HERE / "real_cells.png")


def eccite_replicates(adata: ad.AnnData, whole: pd.DataFrame) -> pd.DataFrame:
    """All calls of three fits, with what each says of them."""
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
    return write(out.sort_values("effect, both", key=abs, ascending=False), "eccite_replicates", 2)


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
    write(pd.DataFrame(rows), "order")
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
    write(pd.DataFrame(rows).sort_values("share of halves", ascending=False, kind="stable"), "order_calls")


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
    left.set(xscale="symlog", xlim=(-0.2, 110), xlabel="genes (* known to do nothing)", xticks=[0, 1, 10, 100])
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
    right.set(xlabel="effect, replicate 1 (control sd)", ylabel="effect, replicate 2")
    right.legend(frameon=False, fontsize=8)
    fig.savefig(path, dpi=130)


# ---- Zhao: one drug, five donors -------------------------------------------------------------------------------------


def zhao(folder: Path) -> None:
    adata = ad.read_h5ad(folder / "zhao2021_panobinostat.h5ad")
    donor = adata.obs["donor"].astype(str).to_numpy()
    names = np.unique(donor)
    parts = (
        {"all": donor != ""} | {f"without {d}": donor != d for d in names} | {f"only {d}": donor == d for d in names}
    )
    rows = []
    for name, cells in parts.items():
        part = adata[cells].copy()
        part = part[:, np.asarray(part.X.sum(0)).ravel() > 0].copy()  # some genes are one donor's
        model, seconds = fit(part, ZHAO)
        table, z = model.rank_targets().set_index("gene"), z_scores(part, ZHAO).abs().iloc[0]
        alone = called(fit(part, ZHAO, structure="none")[0])["gene"]
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
            "seconds": seconds,
        })  # fmt: skip
        if name == "all":
            write(table.reset_index().head(15)[["gene", "rank", "effect", "effect_se", "probability"]], "zhao_targets")
    write(pd.DataFrame(rows), "zhao", 2)


# ---- panels of proteins ----------------------------------------------------------------------------------------------


def panels(folder: Path) -> None:
    """scID-seq against either reference, and cytometry by cell type."""
    jobs = {
        "scID-seq, against EGF": ("scidseq_kramer2026.h5ad", SCIDSEQ | {"control": "EGF"}),
        "scID-seq, against no EGF": ("scidseq_kramer2026.h5ad", SCIDSEQ | {"control": "No_EGF"}),
        "CyTOF": ("hdstim_chi11_cytof.h5ad", HDSTIM),
    }
    runs, rows = [], []
    for name, (file, columns) in jobs.items():
        adata = ad.read_h5ad(folder / file)
        model, seconds = fit(adata, columns)
        edges, calls = model.get_graph(), called(model)
        model.annotate()
        runs.append({
            "data": name,
            "cells": adata.n_obs,
            "proteins": adata.n_vars,
            "contexts": len(calls_of(model)),
            "edges": len(edges),
            "largest |weight|": edges["weight"].abs().max(),
            "targets": len(calls),
            "seconds": seconds,
        })  # fmt: skip
        line = adata.obs.get(columns.get("cell_line_key"), pd.Series("", index=adata.obs_names)).astype(str)
        for drug, type_ in calls_of(model):
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
    write(pd.DataFrame(runs), "panels", 1)
    write(pd.DataFrame(rows), "panels_targets")


def expressed(adata: ad.AnnData, columns: dict) -> str:
    """What the controls have of the markers that tell cell types apart: their labels on file do not."""
    controls = adata[(adata.obs[columns["drug_key"]] == columns["control"]).to_numpy()].to_df()
    mean = controls.reindex(columns=LINEAGE).mean()
    return ", ".join(mean.index[mean > 2])


def calls_of(model: scgim.GIM) -> list[tuple[str, str]]:
    """Drugs and cell lines of all contexts."""
    return list(
        model.rank_targets()[["drug", "cell_line"]].astype(str).drop_duplicates().itertuples(index=False, name=None)
    )


# ---- cells or means --------------------------------------------------------------------------------------------------


def likelihood(folder: Path) -> None:
    """Both likelihoods on every scale, where the truth is known or nearly."""
    write(pd.DataFrame([on_sachs(name) for name in ("cells", "means")]), "likelihood_sachs")
    counts, both = sorted((folder / "screens_counts").glob("*.h5ad")), ("cells", "means")
    # cells of counts are cells of log-normalised counts
    jobs = [(on_counts, *job) for job in product(counts, ["counts"], ["means"])]
    jobs += [(on_counts, *job) for job in product(counts, ["lognorm"], both)]
    continuous = [p for p in sorted((folder / "screens").glob("linear_*.h5ad")) if "100genes" not in p.stem]
    jobs += [(on_continuous, *job) for job in product(continuous, ["continuous"], both)]
    rows = []
    for run, path, scale, name in jobs:
        rows.append({"scale": scale, "screen": path.stem, "likelihood": name, **run(path, scale, name)})
        progress(rows)
    table = write(pd.DataFrame(rows), "likelihood_screens")
    write(table.groupby(["scale", "likelihood"]).mean(numeric_only=True).reset_index(), "likelihood", 2)


def on_sachs(name: str) -> dict[str, object]:
    adata = scgim.datasets.sachs()
    model, seconds = fit(adata, SACHS, likelihood=name)
    strength = matrix(model.get_graph(), adata.var_names, "strength")
    table = model.rank_targets().astype({"drug": str}).set_index(["drug", "gene"])
    nominal = adata.uns["known_targets"]
    first = table.loc[list(zip(nominal["drug"].astype(str), nominal["target"].astype(str), strict=True)), "rank"] == 1
    return {
        "likelihood": name,
        "edges": (strength > 0).sum(),
        **{f"SHD, {g.split('_')[0]}": scgim.metrics.shd(strength, adata.varp[g].toarray() > 0) for g in adata.varp},
        "targets per drug": (table["probability"] > SURE).sum() / len(model.drugs),
        "nominal target first (of 7)": first.sum(),
        "seconds": seconds,
    }


def on_counts(path: Path, scale: str, name: str) -> dict[str, float]:
    """A screen of UMI counts, or of what they are after log-normalising."""
    adata = ad.read_h5ad(path)
    truth, genes = adata.uns["truth"], adata.var_names
    columns = {"drug_key": "perturbation", "control": "control", "scale": scale, "batch_key": "replicate"}
    if scale == "counts":
        columns["size_factor_key"] = "n_counts"
    else:
        adata.X = adata.X.multiply(1e4 / adata.obs["n_counts"].to_numpy()[:, None]).tocsr().log1p().astype(np.float32)
    model, seconds = fit(adata, columns, likelihood=name)
    conditions, targets = [str(c) for c in truth["conditions"]], np.asarray(truth["targets"]) > 0
    table = model.rank_targets().astype({"drug": str})
    called = table.pivot(index="drug", columns="gene", values="probability").loc[conditions, genes].to_numpy() > SURE
    dead = np.asarray(truth["n_targets_total"]) == 0
    return {
        "target_f1": f1(called[~dead], targets[~dead]),
        "dead_called": called[dead].any(1).mean(),
        "edge_ap": edge_ap(model, adata),
        "effect_r": effect_r(model, adata, targets.any(0)),
        "seconds": seconds,
    }


def on_continuous(path: Path, scale: str, name: str) -> dict[str, float]:
    """A screen with doses and features; targets are those of unseen drugs."""
    adata = ad.read_h5ad(path)
    about, test, features = adata.uns["about"], adata.uns["test"]["unseen_drug"], adata.uns["features"]
    columns = {"drug_key": "drug", "control": about["control"], "scale": scale, "dose_key": "dose", "dose_unit": "uM"}
    model, seconds = fit(
        adata, columns | {"features_key": "features"}, intervention=about["intervention"], likelihood=name
    )
    unique, which = np.unique(np.asarray(test["features"], float), axis=0, return_inverse=True)
    frame = pd.DataFrame(unique, index=[f"new {i}" for i in range(len(unique))], columns=features.columns)
    doses = np.asarray(test["dose"]).round(6)
    table = model.rank_targets(
        drug=list(frame.index), features=frame, dose=sorted(set(doses.tolist())), evidence="features"
    ).astype({"drug": str})
    table["dose"] = table["dose"].round(6)
    called = table.pivot(index=["drug", "dose"], columns="gene", values="probability")[adata.var_names] > SURE
    called = called.loc[list(zip(frame.index[np.ravel(which)], doses, strict=True))].to_numpy()
    return {
        "target_f1": f1(called, np.asarray(test["targets"]) > 0),
        "edge_ap": edge_ap(model, adata),
        "seconds": seconds,
    }


def f1(called: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (called & truth).sum() / max(1, called.sum() + truth.sum())


def edge_ap(model: scgim.GIM, adata: ad.AnnData) -> float:
    pairs = ~np.eye(adata.n_vars, dtype=bool)
    strength = matrix(model.get_graph(), adata.var_names, "strength")
    return average_precision_score(adata.varp["true_graph"].toarray()[pairs] > 0, strength[pairs])


def effect_r(model: scgim.GIM, adata: ad.AnnData, knocked: np.ndarray) -> float:
    """Mean correlation of total effects with the true ones, over knocked-out genes with at least five children's worth."""
    total, truth = matrix(model.get_graph(kind="total"), adata.var_names, "weight"), adata.varp["true_total_effect"]
    truth, scores = truth.toarray(), []
    for i in np.flatnonzero(knocked):
        others = np.arange(adata.n_vars) != i
        if (np.abs(truth[i][others]) > 0.15).sum() >= 5:
            found = total[i][others]
            scores.append(np.corrcoef(found, truth[i][others])[0, 1] if found.std() > 0 else 0.0)
    return float(np.mean(scores)) if scores else float("nan")


PARTS = {
    "placebos": placebos,
    "eccite": eccite,
    "order": order,
    "zhao": zhao,
    "panels": panels,
    "likelihood": likelihood,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the files")
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS))
    options = parser.parse_args()
    # a few hundred genes are no panel whose sums are sizes, which is what is on file
    warnings.filterwarnings("ignore", message=".*size", category=UserWarning)
    for name in options.only:
        start = time.perf_counter()
        PARTS[name](options.data)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
