"""Unseen drugs and unseen scaffolds of L1000: the part ``l1000`` of ``benchmarks/real.py``.

Skill is 1 minus the squared error over that of the training mean. Intervals are 95 % bootstraps over drugs.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from common import (
    MEAN,
    NO_CHANGE,
    changes,
    conditions,
    fit_without,
    interval,
    predicted,
    quiet,
    standardized,
    trained_baseline,
    write,
)
from measured import L1000
from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles
from sklearn.model_selection import GroupKFold

import scgim
from scgim.metrics import pearson_delta

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor
    from pathlib import Path

    from matplotlib.axes import Axes

FOLDS, SHUFFLES = 5, 5
AGREE = 0.3  # the least correlation of a drug's changes on its two plates
PANEL = 100  # genes, those that vary most
PLATE, SHUFFLED = "the other plate", "scgim, kernel, shuffled features"
QUICK = {"mechanism_steps": 30}  # without edges mechanisms learn next to nothing
WITHOUT_GRAPH = {"structure": "none", "plan": QUICK}
SEARCHED = {"plan": {"search_rounds": 3}}  # a round takes seconds on so dense a graph
KERNEL = {"generator": "kernel"}
WHOLE = {"scgim": WITHOUT_GRAPH, "scgim, kernel": WITHOUT_GRAPH | KERNEL}
PANELLED = {
    "scgim": SEARCHED,
    "scgim, empty graph": WITHOUT_GRAPH,
    "scgim, kernel": SEARCHED | KERNEL,
    "scgim, kernel, empty graph": WITHOUT_GRAPH | KERNEL,
}
COUNTERPARTS = [(name, f"{name}, {other}") for name in WHOLE for other in ("shuffled features", "empty graph")]


@cache
def l1000_wells(folder: Path) -> ad.AnnData:
    """Wells with the features of their drugs; a drug is a batch of a compound, and a few compounds have several batches."""
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
        structure = scgim.pp.standardize(text)
        rings = MurckoScaffoldSmiles(mol=structure.mol, includeChirality=False) if unseen == "scaffold" else ""
        group[drug] = rings or structure.skeleton
    fold = pd.Series(-1, list(group))
    parts = GroupKFold(FOLDS, shuffle=True, random_state=0).split(fold, groups=list(group.values()))
    for k, (_, test) in enumerate(parts):
        fold.iloc[test] = k
    return fold


def l1000_plates(adata: ad.AnnData) -> dict[str, pd.DataFrame]:
    """Mean change of every drug on each plate, drugs x genes."""
    cells, _ = standardized(adata, L1000)
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
    start, (_, sd) = time.process_time(), standardized(adata, L1000)
    model = fit_without(adata, L1000, test, **options)
    return name, predicted(model, drugs, sd).droplevel("line"), model.generator_, time.process_time() - start


def shuffled(features: pd.DataFrame, test: list[str], seed: int) -> pd.DataFrame:
    """Features permuted among the training drugs and among the test drugs, so that a test drug keeps a test drug's features."""
    rng, out = np.random.default_rng(seed), features.copy()
    for rows in (features.index.isin(test), ~features.index.isin(test)):
        out[rows] = features[rows].to_numpy()[rng.permutation(rows.sum())]
    return out


def l1000_baselines(change: pd.DataFrame, features: pd.DataFrame, fold: pd.Series) -> dict[str, pd.DataFrame]:
    """Of every baseline, the predictions of the folds that did not see the drug."""
    counts = features.filter(like="morgan_")  # Tanimoto similarity needs counts: descriptors may be negative
    kinds = {"control": (NO_CHANGE, counts), "training mean": (MEAN, counts), "nearest drug": ("nearest drug", counts)}
    kinds |= {"ridge": ("ridge", features), "kernel ridge": ("kernel ridge", counts)}
    out = {name: change * np.nan for name, _ in kinds.values()}
    for (kind, (name, table)), k in ((item, k) for item in kinds.items() for k in range(FOLDS)):
        parts = []
        for rows in (change.index[fold != k], change.index[fold == k]):
            names = pd.DataFrame({"drug": rows})
            parts.append(conditions(names, table.loc[rows].to_numpy(float), change.loc[rows].to_numpy()))
        out[name].loc[fold == k] = trained_baseline(kind, parts[0]).predict(parts[1])
    return out


def drug_scores(change: pd.DataFrame, truth: pd.DataFrame, centre: pd.DataFrame, use: pd.Index) -> pd.DataFrame:
    """Of every drug in use: squared error, that of the training mean, r without the mean, and the rank of the own change.

    The rank is the share of other drugs whose change correlates less with the prediction than the drug's own change does:
    of all other drugs (PDS), and of the others in use. A prediction that equals the mean has r 0 and ranks .5.
    """
    at = truth.index.get_indexer(use)
    p, c, t = change.loc[use].to_numpy(), centre.loc[use].to_numpy(), truth.to_numpy()
    alike = np.empty((len(p), len(t)))
    for m in np.unique(c, axis=0):  # one mean a fold
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
    """Rows centred over genes, of length 1; 0 where a row differs from the mean by rounding only."""
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
    """Rows of all methods, with their skill less that of the best baseline; and differences of methods to their counterparts.

    A counterpart is the same model without the graph, or with shuffled features.
    """
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
    differences = [
        {"method": name, "less": other, "skill, %": of_skill(skills[name] - skills[other])}
        | {metric: over_drugs((scores[name] - scores[other])[metric].to_numpy(), draws) for metric in ("r", "PDS")}
        for name, other in COUNTERPARTS
        if name in scores and other in scores
    ]
    return rows, differences


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
    rows, differences = [], []
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
            for table, part in zip((rows, differences), l1000_summary(scores), strict=True):
                table += [about | row for row in part]
        took = {name: np.mean([part[3] for part in parts]) for (name, _), parts in done.items()}
        chosen = {name: sorted({part[2] for part in parts}) for (name, _), parts in done.items()}
        print(unseen, genes, "processor seconds a fold:", {k: round(v, 1) for k, v in took.items()}, chosen, flush=True)
    table = pd.DataFrame(rows)
    every = table["drugs"].str.startswith("all")
    write(table[~every], "real_l1000")
    write(table[every].drop(columns="PDS among these"), "real_l1000_all")
    write(pd.DataFrame(differences), "real_l1000_twins")


def other_plate(plates: dict[str, pd.DataFrame], use: pd.Index, fold: pd.Series) -> pd.DataFrame:
    """The ceiling: one plate's changes as a prediction of the other's, each less the mean of its training drugs."""
    one, two = plates.values()
    both = one.index.intersection(two.index)
    means = [
        pd.DataFrame({drug: table[(fold != fold[drug]).loc[table.index]].mean() for drug in both}).T
        for table in (one, two)
    ]
    return drug_scores(one.loc[both] - means[0] + means[1], two.loc[both], means[1], use)


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
