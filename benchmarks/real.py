"""Measured screens, what was held out and how well it was predicted: ``python benchmarks/real.py --data FOLDER [--jobs 2]``.

The folder holds the files that ``docs/real_cells.md`` names, ``l1000_ht115_6h.h5ad`` and ``sachs2005.h5ad``. Every part
(``--only l1000 eccite sachs lines``) writes ``real_*.csv`` beside this file, and a panel of ``real.png``. Changes
are in control sd: mean of a condition minus that of the controls of its own line and batch, over their pooled sd.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy reads it: the processes are the parallelism

import anndata as ad
import numpy as np
import pandas as pd
from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles
from real_cells import DEAD, ECCITE, HDSTIM, SACHS, SCIDSEQ, Z, eccite_cells, matrix, z_scores
from scipy.sparse import csr_matrix
from sklearn.model_selection import GroupKFold

import scgim
from scgim.evaluation import BASELINES, ConditionTable, compare
from scgim.metrics import (
    edge_average_precision,
    edge_precision_recall,
    pearson_delta,
    rmse_delta,
    shd,
    sort_and_regress,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.axes import Axes

HERE = Path(__file__).parent
SPLIT, TRAIN, TEST = "scgim_split", "train", "test"
ZHAO = {"drug_key": "drug", "control": "control", "scale": "counts", "cell_line_key": "donor"}
L1000 = {
    "drug_key": "pert_id",
    "control": "DMSO",
    "scale": "lognorm",
    "batch_key": "plate",
    "features_key": "drug_features",
}
FOLDS, AGREE, SHUFFLES, PANEL = 5, 0.3, 5, 100
FEW = 3  # genes, over which nothing can be said to correlate
NO_CHANGE, MEAN, PLATE, SHUFFLED = "no change", "training mean", "the other plate", "scgim, kernel, shuffled features"


# ---- common -----------------------------------------------------------------------------------------------------------


def on_scale(adata: ad.AnnData, columns: dict) -> np.ndarray:
    """Cells on the training scale."""
    x = adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X, float)
    if columns["scale"] != "counts":
        return x.astype(float)
    size = adata.obs[columns["size_factor_key"]].to_numpy() if "size_factor_key" in columns else x.sum(1)
    return np.log1p(1e4 * x / size[:, None])


def standardised(adata: ad.AnnData, columns: dict) -> tuple[pd.DataFrame, pd.Series]:
    """Cells less the mean of the controls of their line and batch, over the pooled control sd; and that sd."""
    x, obs = pd.DataFrame(on_scale(adata, columns), adata.obs_names, adata.var_names), adata.obs
    control = (obs[columns["drug_key"]].astype(str) == columns["control"]).to_numpy()
    group = pd.Series("", adata.obs_names)
    for key in ("cell_line_key", "batch_key"):
        if key in columns:
            group = group + "/" + obs[columns[key]].astype(str)
    centred = x - x[control].groupby(group[control]).mean().loc[group].to_numpy()
    sd = np.sqrt((centred[control] ** 2).mean())
    return centred / sd, sd


def changes(adata: ad.AnnData, columns: dict) -> tuple[pd.DataFrame, pd.Series]:
    """Mean change of every drug in every line, (drug, line) x genes; and the control sd."""
    cells, sd = standardised(adata, columns)
    obs = adata.obs[[columns["drug_key"]]].astype(str).set_axis(["drug"], axis=1)
    obs["line"] = adata.obs[columns["cell_line_key"]].astype(str) if "cell_line_key" in columns else ""
    treated = obs["drug"] != columns["control"]
    return cells[treated].groupby([obs["drug"][treated], obs["line"][treated]]).mean(), sd


def fit(adata: ad.AnnData, columns: dict, test: np.ndarray, **options: object) -> scgim.GIM:
    """A model trained on all but the test cells."""
    adata.obs[SPLIT] = np.where(test, TEST, TRAIN)
    plan = options.pop("plan_kwargs", None)
    scgim.setup_anndata(adata, **columns, split_key=SPLIT)
    model = scgim.GIM(adata, **options)
    model.train(seed=0, enable_progress_bar=False, plan_kwargs=plan)
    return model


def predicted(model: scgim.GIM, drugs: Iterable[str], sd: pd.Series) -> pd.DataFrame:
    """Predicted changes, (drug, line) x genes."""
    delta = model.predict(drug=list(drugs), as_="delta")
    index = pd.MultiIndex.from_frame(delta.obs[["drug", "cell_line"]].astype(str), names=["drug", "line"])
    return pd.DataFrame(delta.X, index, delta.var_names) / sd


def quiet() -> None:
    """What is known of these files, and not news: panels are small, two drugs look alike."""
    warnings.filterwarnings("ignore", message=".*size", category=UserWarning)
    warnings.filterwarnings("ignore", message=".*identical fingerprints", category=UserWarning)


def write(table: pd.DataFrame, name: str, digits: int = 3) -> pd.DataFrame:
    table.round(digits).to_csv(HERE / f"real_{name}.csv", index=False)
    print(f"\n{name}\n{table.round(digits).to_string(index=False)}", flush=True)
    return table


def scored(methods: dict[str, pd.DataFrame], truth: pd.DataFrame, unit: np.ndarray) -> pd.DataFrame:
    """Error and correlation of every method, and the difference to the best of the baselines, resampled over units."""
    error = {name: pd.Series(rmse_delta(p, truth)) for name, p in methods.items()}
    best = min((name for name in methods if not name.startswith("scgim")), key=lambda name: error[name].mean())
    rows = []
    for name, change in methods.items():
        gap = compare(error[name], error[best], pd.Series(unit))
        rows.append({
            "method": name,
            "RMSE": error[name].mean(),
            "r": np.nanmean(pearson_delta(change, truth)) if np.ptp(change.to_numpy()) else None,
            "RMSE less that of the best baseline": "" if name == best else interval(gap.difference, gap.low, gap.high),
        })  # fmt: skip
    return pd.DataFrame(rows)


def interval(value: float, low: float, high: float, digits: int = 3) -> str:
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


# ---- L1000: unseen drugs ----------------------------------------------------------------------------------------------


@cache
def l1000_wells(folder: Path) -> ad.AnnData:
    """Wells with the features of their drugs; a drug is a batch of a compound, of which a few have several."""
    adata = ad.read_h5ad(folder / "l1000_ht115_6h.h5ad")
    adata.obs["pert_id"] = adata.obs["pert_id"].astype(str)
    scgim.pp.featurize_drugs(adata, drug_key="pert_id", control="DMSO", method="morgan_descriptors")
    return adata


@cache
def l1000_folds(folder: Path, unseen: str) -> pd.Series:
    """Fold of every drug: forms of one compound together, or all compounds on one Murcko scaffold."""
    smiles = (
        l1000_wells(folder)
        .obs[["pert_id", "smiles"]]
        .astype(str)
        .drop_duplicates("pert_id")
        .set_index("pert_id")["smiles"]
    )
    group = {}
    for drug, text in smiles.drop("DMSO").sort_index().items():
        structure = scgim.pp.standardise(text)
        rings = MurckoScaffoldSmiles(mol=structure.mol, includeChirality=False) if unseen == "scaffold" else ""
        group[drug] = rings or structure.skeleton
    fold = pd.Series(-1, list(group))
    parts = GroupKFold(FOLDS, shuffle=True, random_state=0).split(fold, groups=list(group.values()))
    for k, (_, test) in enumerate(parts):
        fold.iloc[test] = k
    return fold


def l1000_plates(adata: ad.AnnData) -> dict[str, pd.DataFrame]:
    """Mean change of every drug on each plate, drugs x genes."""
    cells, _ = standardised(adata, L1000)
    drug, plate = (adata.obs[key].astype(str) for key in ("pert_id", "plate"))
    return {p: cells[(plate == p) & (drug != "DMSO")].groupby(drug).mean() for p in sorted(plate.unique())}


def agreeing(plates: dict[str, pd.DataFrame]) -> pd.Index:
    """Drugs whose two plates agree once each plate's mean drug is removed."""
    one, two = (table - table.mean() for table in plates.values())
    both = one.index.intersection(two.index)
    r = pearson_delta(one.loc[both], two.loc[both])
    return both[r > AGREE]


def l1000_fold(
    folder: Path, unseen: str, k: int, name: str, options: dict, genes: int | None, shuffle: int | None
) -> tuple:
    """Changes that one model predicts for the drugs of one fold, and the generator that it chose."""
    quiet()
    adata = l1000_wells(folder).copy()
    if genes:
        adata = adata[:, np.sort(np.argsort(-adata.X.var(0), kind="stable")[:genes])].copy()
    test = adata.obs["pert_id"].map(l1000_folds(folder, unseen)).eq(k).to_numpy()
    drugs = sorted(set(adata.obs["pert_id"][test]))
    if shuffle is not None:
        adata.uns["drug_features"] = shuffled(adata.uns["drug_features"], drugs, shuffle)
    start, (_, sd) = time.process_time(), standardised(adata, L1000)
    model = fit(adata, L1000, test, **options)
    return name, predicted(model, drugs, sd).droplevel("line"), model.generator_, time.process_time() - start


def shuffled(features: pd.DataFrame, test: list[str], seed: int) -> pd.DataFrame:
    """Features dealt anew, among training drugs and among test drugs, so that no drug of the test takes a training drug's place."""
    rng, out = np.random.default_rng(seed), features.copy()
    for rows in (features.index.isin(test), ~features.index.isin(test)):
        out[rows] = features[rows].to_numpy()[rng.permutation(rows.sum())]
    return out


def l1000_baselines(change: pd.DataFrame, features: pd.DataFrame, fold: pd.Series) -> dict[str, pd.DataFrame]:
    """Of every baseline, the predictions of the folds that did not see the drug."""
    counts = features.filter(like="morgan_")  # Tanimoto is for these; descriptors may be negative
    kinds = {"control": (NO_CHANGE, counts), "training mean": (MEAN, counts), "nearest drug": ("nearest drug", counts)}
    kinds |= {"ridge": ("ridge", features), "kernel ridge": ("kernel ridge", counts)}
    out = {name: change * np.nan for name, _ in kinds.values()}
    for (kind, (name, table)), k in ((item, k) for item in kinds.items() for k in range(FOLDS)):
        parts = []
        for rows in (change.index[fold != k], change.index[fold == k]):
            names = pd.DataFrame({"drug": rows, "dose": np.nan, "cell_line": ""})
            parts.append(
                ConditionTable(names, table.loc[rows].to_numpy(float), change.loc[rows].to_numpy(), np.ones(len(rows)))
            )
        baseline = BASELINES[kind]()
        baseline.fit(parts[0])
        out[name].loc[fold == k] = baseline.predict(parts[1])
    return out


def drug_scores(change: pd.DataFrame, truth: pd.DataFrame, centre: pd.DataFrame, use: pd.Index) -> pd.DataFrame:
    """Of every drug in use: squared error, that of the training mean, r without it, and rank by r among drugs' own changes.

    The rank is how many of the other drugs' changes resemble the prediction less than the drug's own does: of all other
    drugs (PDS), and of the others in use. A prediction that is the mean itself tells no drug apart: 0 and .5.
    """
    at = truth.index.get_indexer(use)
    p, c, t = change.loc[use].to_numpy(), centre.loc[use].to_numpy(), truth.to_numpy()
    alike = np.empty((len(p), len(t)))
    for m in np.unique(c, axis=0):  # one a fold
        rows = (c == m).all(1)
        alike[rows] = unit(p[rows] - m, m) @ unit(t - m, m).T
    own = alike[np.arange(len(at)), at][:, None]
    less = (alike < own) + 0.5 * (alike == own)
    return pd.DataFrame({
        "error": ((p - t[at]) ** 2).sum(1),
        "of the mean": ((c - t[at]) ** 2).sum(1),
        "r": own[:, 0],
        "PDS": (less.sum(1) - 0.5) / (len(t) - 1),
        "PDS among these": (less[:, at].sum(1) - 0.5) / (len(at) - 1),
    }, use)  # fmt: skip


def unit(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Rows centred over genes, of length 1; 0 where nothing but rounding of the mean is left."""
    x = x - x.mean(1, keepdims=True)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return np.where(norm > 1e-5 * np.linalg.norm(mean), x / np.where(norm > 0, norm, 1), 0)


def skill(scores: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
    """In percent, of every draw of drugs, ``(draws, drugs)``."""
    error, of_mean = (scores[name].to_numpy()[rows].sum(1) for name in ("error", "of the mean"))
    return 100 * (1 - error / of_mean)


def over_drugs(values: np.ndarray, draws: np.ndarray, digits: int = 3) -> str:
    """Mean over drugs with its 95 % bootstrap interval."""
    return interval(values.mean(), *np.quantile(values[draws].mean(1), [0.025, 0.975]), digits)


def l1000_summary(scores: dict[str, pd.DataFrame]) -> tuple[list[dict], list[dict]]:
    """Every method, skill also as difference to the best baseline; and every twin, from which the method is told apart."""
    n = len(next(iter(scores.values())))
    every, draws = np.arange(n)[None], np.random.default_rng(0).integers(0, n, (4000, n))
    skills = {name: np.append(skill(table, draws), skill(table, every)) for name, table in scores.items()}
    best = max((m for m in scores if not m.startswith("scgim") and m != PLATE), key=lambda m: skills[m][-1])

    def of_skill(values: np.ndarray) -> str:
        return interval(values[-1], *np.quantile(values[:-1], [0.025, 0.975]), 2)

    rows = [
        {
            "method": name,
            "skill, %": of_skill(skills[name]),
            "less that of the best baseline": "" if name in (best, PLATE) else of_skill(skills[name] - skills[best]),
            **{metric: over_drugs(table[metric].to_numpy(), draws) for metric in ("r", "PDS", "PDS among these")},
        }
        for name, table in scores.items()
    ]
    twins = [
        {"method": name, "less": twin, "skill, %": of_skill(skills[name] - skills[twin])}
        | {metric: over_drugs((scores[name] - scores[twin])[metric].to_numpy(), draws) for metric in ("r", "PDS")}
        for name, twin in TWINS
        if name in scores and twin in scores
    ]
    return rows, twins


QUICK = {"mechanism_steps": 30}  # without edges mechanisms have next to nothing to learn
WITHOUT_GRAPH = {"structure": "none", "plan_kwargs": QUICK}
SEARCHED = {"plan_kwargs": {"search_rounds": 3}}  # each takes seconds on so dense a graph
KERNEL = {"generator": "kernel"}
WHOLE = {"scgim": WITHOUT_GRAPH, "scgim, kernel": WITHOUT_GRAPH | KERNEL}
PANELLED = {
    "scgim": SEARCHED,
    "scgim, empty graph": WITHOUT_GRAPH,
    "scgim, kernel": SEARCHED | KERNEL,
    "scgim, kernel, empty graph": WITHOUT_GRAPH | KERNEL,
}
TWINS = [(name, f"{name}, {twin}") for name in WHOLE for twin in ("shuffled features", "empty graph")]


def l1000(folder: Path, pool: ProcessPoolExecutor) -> None:
    """Unseen drugs and scaffolds, all genes without a graph; then a graph of the genes that vary most."""
    adata = l1000_wells(folder)
    plates = l1000_plates(adata)
    drugs, folds = agreeing(plates), {unseen: l1000_folds(folder, unseen) for unseen in ("drug", "scaffold")}
    runs = [(unseen, None, name, options, None) for unseen in folds for name, options in WHOLE.items()]
    runs += [("drug", PANEL, name, options, None) for name, options in PANELLED.items()]
    runs += [("drug", None, SHUFFLED, WITHOUT_GRAPH | KERNEL, seed) for seed in range(SHUFFLES)]
    jobs = {
        (unseen, genes, name, shuffle, k): pool.submit(l1000_fold, folder, unseen, k, name, options, genes, shuffle)
        for unseen, genes, name, options, shuffle in runs
        for k in range(FOLDS)
    }
    whole, _ = changes(adata, L1000)
    whole = whole.droplevel("line")
    rows, twins = [], []
    for unseen, genes in dict.fromkeys((unseen, genes) for unseen, genes, *_ in runs):
        fold, done = folds[unseen].loc[whole.index], {}
        for (u, g, name, shuffle, _), job in jobs.items():
            if (u, g) == (unseen, genes):
                done.setdefault((name, shuffle), []).append(job.result())
        names = next(iter(done.values()))[0][1].columns
        change = whole[names]
        methods = l1000_baselines(change, adata.uns["drug_features"], fold)
        methods = {name: [table] for name, table in methods.items()}
        for (name, _), parts in done.items():
            methods.setdefault(name, []).append(pd.concat([part[1] for part in parts]).loc[change.index, names])
        centre = methods[MEAN][0]
        for which, use in {f"{len(drugs)}": drugs, f"all {len(change)}": change.index}.items():
            scores = {
                name: sum(drug_scores(table, change, centre, use) for table in tables) / len(tables)
                for name, tables in methods.items()
            }
            if genes is None and len(use) == len(drugs):
                scores[PLATE] = other_plate(plates, use, fold)
            about = {"unseen": unseen, "genes": len(names), "drugs": which}
            for table, part in zip((rows, twins), l1000_summary(scores), strict=True):
                table += [about | row for row in part]
        took = {name: np.mean([part[3] for part in parts]) for (name, _), parts in done.items()}
        chosen = {name: sorted({part[2] for part in parts}) for (name, _), parts in done.items()}
        print(unseen, genes, "processor seconds a fold:", {k: round(v, 1) for k, v in took.items()}, chosen, flush=True)
    table = pd.DataFrame(rows)
    every = table["drugs"].str.startswith("all")
    write(table[~every], "l1000")
    write(table[every].drop(columns="PDS among these"), "l1000_all")
    write(pd.DataFrame(twins), "l1000_twins")


def other_plate(plates: dict[str, pd.DataFrame], use: pd.Index, fold: pd.Series) -> pd.DataFrame:
    """The ceiling: what one plate says of the other, each less the mean of the training drugs on it."""
    one, two = plates.values()
    both = one.index.intersection(two.index)
    means = [
        pd.DataFrame({drug: table[(fold != fold[drug]).loc[table.index]].mean() for drug in both}).T
        for table in (one, two)
    ]
    return drug_scores(one.loc[both] - means[0] + means[1], two.loc[both], means[1], use)


# ---- ECCITE: a knock-out never seen -----------------------------------------------------------------------------------


def eccite_left_out(folder: Path, gene: str) -> dict[str, pd.Series]:
    """What a model without one knock-out, and baselines, predict of it from its measured drop; and what was measured."""
    quiet()
    adata = eccite_cells(folder)
    table, sd = changes(adata, ECCITE)
    table = table.droplevel("line")
    drop, others = float(table.loc[gene, gene]), table.drop(index=[gene, *DEAD])
    model = fit(adata, ECCITE, (adata.obs["condition"] == gene).to_numpy())
    do = model.do({gene: drop}, kind="set", as_="delta")
    cells, _ = standardised(adata[(adata.obs["condition"] == "control").to_numpy()], ECCITE)
    return {
        "measured": table.loc[gene],
        "scgim, do()": pd.Series(do.X[0], do.var_names) / sd,
        "regression in controls": cells.mul(cells[gene], axis=0).mean() / (cells[gene] ** 2).mean() * drop,
        "mean of the other knock-outs": others.mean(),
        NO_CHANGE: 0 * sd,
        "|z|": z_scores(adata, ECCITE).loc[gene].abs(),
    }


def eccite(folder: Path, pool: ProcessPoolExecutor) -> None:
    """Each measured knock-out in turn, over the genes that it moves."""
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
    write(pd.DataFrame(rows), "eccite")


# ---- Sachs: the graph -------------------------------------------------------------------------------------------------


def sachs_cells(folder: Path, which: str) -> ad.AnnData:
    """The shipped eight conditions; the nine of the usual benchmark; or the seven drug effects on two backgrounds."""
    if which == "8 conditions":
        return scgim.datasets.sachs()
    adata = ad.read_h5ad(folder / "sachs2005.h5ad")
    adata.X = np.log(adata.X)
    if which == "9 conditions":
        adata = adata[adata.obs["in_sachs9"].to_numpy()].copy()
        adata.obs["drug"] = adata.obs["condition"].astype(str)
    else:
        adata = adata[(adata.obs["stimulus"] != "none").to_numpy()].copy()
    return adata


def sachs_graph(folder: Path, which: str, seed: int) -> dict[str, object]:
    """One default fit against the published graph."""
    quiet()
    adata = sachs_cells(folder, which)
    truth = csr_matrix(adata.varp["graph17_sachs_inferred"]).toarray() > 0
    scgim.setup_anndata(adata, **SACHS)
    model = scgim.GIM(adata)
    model.train(seed=seed, enable_progress_bar=False)
    strength = matrix(model.get_graph(), adata.var_names, "strength")
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
    simple = sort_and_regress(np.asarray(adata.X, float))
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
    write(table.reset_index(), "sachs", 2)


# ---- a drug never seen, or seen in other lines only -------------------------------------------------------------------

LINES = {
    "Zhao: a donor": ("zhao2021_panobinostat.h5ad", ZHAO, 5),
    "scID-seq: plates": (
        "scidseq_kramer2026.h5ad",
        {name: value for name, value in SCIDSEQ.items() if name != "batch_key"}
        | {"control": "EGF", "cell_line_key": "plate"},
        5,
    ),
    "CyTOF: a cell type": ("hdstim_chi11_cytof.h5ad", HDSTIM, 8),
    "Sachs: a background": ("sachs2005.h5ad", SACHS | {"control": "none", "cell_line_key": "stimulus"}, 2),
}


def screen(folder: Path, name: str) -> tuple[ad.AnnData, dict]:
    file, columns, _ = LINES[name]
    adata = sachs_cells(folder, "two backgrounds") if name.startswith("Sachs") else ad.read_h5ad(folder / file)
    return adata, columns


def lines_left_out(folder: Path, name: str, held: list[str]) -> dict[str, pd.DataFrame]:
    """Changes in lines whose treated cells no method has seen, by all of them."""
    quiet()
    adata, columns = screen(folder, name)
    truth, sd = changes(adata, columns)
    line, drug = (adata.obs[columns[key]].astype(str) for key in ("cell_line_key", "drug_key"))
    test = (line.isin(held) & (drug != columns["control"])).to_numpy()
    asked = truth.index[truth.index.get_level_values("line").isin(held)]
    seen = truth.drop(index=asked)
    # what a drug does elsewhere is what there is to be said of it here
    asked = asked[asked.get_level_values("drug").isin(seen.index.get_level_values("drug"))]
    of_drug = seen.groupby(level="drug").mean().loc[asked.get_level_values("drug")].set_axis(asked)
    out = {"measured": truth.loc[asked], NO_CHANGE: 0 * of_drug, "the same drug in other lines": of_drug}
    if seen.index.get_level_values("drug").nunique() > 1:
        out["all drugs in other lines"] = 0 * of_drug + seen.mean()
    for label, options in {"scgim": {}, "scgim, empty graph": {"structure": "none"}}.items():
        model = fit(adata, columns, test, **options)
        out[label] = predicted(model, seen.index.get_level_values("drug").unique(), sd).loc[asked, sd.index]
    return out


def inhibitor_left_out(folder: Path, drug: str) -> dict[str, pd.DataFrame]:
    """The shipped Sachs cells without one drug, of which its structure alone is known."""
    quiet()
    adata, columns = scgim.datasets.sachs(), SACHS | {"smiles_key": "smiles"}
    truth, sd = changes(adata, columns)
    smiles = adata.obs.drop_duplicates("drug").set_index("drug")["smiles"].astype(str).drop(SACHS["control"])
    features, _ = scgim.pp.fingerprints(smiles.sort_index())
    baselines = {}
    drugs = truth.index.get_level_values("drug")
    parts = [
        ConditionTable(
            pd.DataFrame({"drug": drugs[use], "dose": np.nan, "cell_line": ""}),
            features.loc[drugs[use]].to_numpy(float),
            truth[use].to_numpy(),
            np.ones(use.sum()),
        )
        for use in (drugs != drug, drugs == drug)
    ]
    for kind, name in {
        "control": NO_CHANGE,
        "training mean": MEAN,
        "nearest drug": "nearest drug",
        "ridge": "ridge",
    }.items():
        baseline = BASELINES[kind]()
        baseline.fit(parts[0])
        baselines[name] = pd.DataFrame(baseline.predict(parts[1]), truth.index[drugs == drug], truth.columns)
    out = {"measured": truth[drugs == drug], **baselines}
    for label, options in {"scgim, kernel": {}, "scgim, kernel, empty graph": {"structure": "none"}}.items():
        model = fit(adata, columns, (adata.obs["drug"] == drug).to_numpy(), generator="kernel", **options)
        out[label] = predicted(model, [drug], sd)[truth.columns]
    return out


def lines(folder: Path, pool: ProcessPoolExecutor) -> None:
    """One question a data set."""
    jobs: dict[str, list] = {}
    for name, (_, columns, n) in LINES.items():
        adata, _ = screen(folder, name)
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
        # conditions of one line are no independent witnesses, nor are those of one drug
        unit = max(
            (truth.index.get_level_values(of).to_numpy(str) for of in ("line", "drug")), key=lambda u: len(set(u))
        )
        about = {"held out": name, "conditions": len(truth), "of": len(set(unit))}
        rows += [about | row for row in scored(methods, truth, unit).to_dict("records")]
    write(pd.DataFrame(rows), "lines")


# ---- the figure -------------------------------------------------------------------------------------------------------


def l1000_panel(ax: Axes, table: pd.DataFrame) -> None:
    rows = table[table["genes"] == table["genes"].max()]
    off = (NO_CHANGE, "nearest drug", PLATE)  # far below
    names = [name for name in dict.fromkeys(rows["method"]) if name not in off]
    for shift, (unseen, part) in zip((-0.15, 0.15), rows.groupby("unseen"), strict=True):
        part = part[part["method"].isin(names)]
        value, low, high = np.array(part["skill, %"].str.findall(r"[-\d.]+").tolist(), float).T
        at, color = part["method"].map(names.index) + shift, {"drug": "C0", "scaffold": "C1"}[unseen]
        ax.hlines(at, low, high, color=color)
        ax.plot(value, at, "o", color=color, markersize=5, label=f"unseen {unseen}s")
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="skill over the training mean, %", title=f"L1000: {rows['drugs'].iloc[0]} drugs whose plates agree")
    ax.legend(frameon=False, fontsize=8)


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
    """From the tables on file, so that parts can be run one by one."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the files")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS))
    options = parser.parse_args()
    quiet()
    begin = time.perf_counter()
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for name in options.only:
            start = time.perf_counter()
            PARTS[name](options.data, pool)
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    figure()
    print(f"all: {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
