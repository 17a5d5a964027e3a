"""Comparison of results with published knowledge and with simpler methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import scgim
from scgim.metrics import edge_precision_recall, shd

if TYPE_CHECKING:
    from anndata import AnnData

DRUG, CONTROL = "drug", "cd3cd28"
GRAPHS = ("graph17_sachs_inferred", "graph18_conventional_semgraph", "graph20_consensus")


def changes(adata: AnnData) -> pd.DataFrame:
    """Mean of every condition minus the mean of the controls, in control SD; drugs x proteins."""
    frame = pd.DataFrame(np.asarray(adata.X, dtype=float), index=adata.obs[DRUG].astype(str), columns=adata.var_names)
    control = frame.loc[CONTROL]
    return (frame.groupby(level=0).mean().drop(index=CONTROL) - control.mean()) / control.std(ddof=0)


def compare_targets(ranking: pd.DataFrame, shifts: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Rank of every drug's nominal target by scgim and by absolute mean shift, and the number of called proteins."""
    by_shift = shifts.abs().rank(axis=1, ascending=False).astype(int)
    rows = []
    for drug, target in known[["drug", "target"]].itertuples(index=False, name=None):
        own = ranking[ranking["drug"] == drug].set_index("gene")
        rows.append(
            {
                "drug": drug,
                "nominal target": target,
                "first by scgim": own["rank"].idxmin(),
                "first by |shift|": shifts.loc[drug].abs().idxmax(),
                "rank by scgim": int(own.loc[target, "rank"]),
                "rank by |shift|": int(by_shift.loc[drug, target]),
                "called (p > .5)": int((own["probability"] > 0.5).sum()),
            }
        )
    return pd.DataFrame(rows)


def compare_graphs(adata: AnnData) -> pd.DataFrame:
    """The annotated graph against published graphs, and the published graphs against each other."""
    found = adata.varp["scgim_graph"].toarray() != 0
    rng, n, rows = np.random.default_rng(0), int(found.sum()), []
    for name in GRAPHS:
        truth = adata.varp[name].toarray() != 0
        precision, recall = edge_precision_recall(found, truth)
        chance = np.mean([shd(_random_dag(rng, len(truth), n), truth) for _ in range(500)])
        others = [shd(adata.varp[other].toarray(), truth) for other in GRAPHS if other != name]
        row = {
            "published graph": name,
            "edges": int(truth.sum()),
            "SHD": shd(found, truth),
            "SHD, random DAG": round(chance, 1),
        }
        row |= {"SHD, other published": f"{min(others)}-{max(others)}", "precision": precision, "recall": recall}
        rows.append(row)
    return pd.DataFrame(rows)


def _random_dag(rng: np.random.Generator, d: int, n_edges: int) -> np.ndarray:
    """A DAG with ``n_edges`` edges, uniform over pairs under a random order."""
    order, graph = rng.permutation(d), np.zeros((d, d), dtype=bool)
    first, second = np.triu_indices(d, 1)
    pick = rng.choice(len(first), n_edges, replace=False)
    graph[order[first[pick]], order[second[pick]]] = True
    return graph


def predict_held_out(adata: AnnData, drug: str, target: str, *, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train without a drug. Given only its shift on the nominal target, predict the other proteins.

    Returns
    -------
    Changes of the other proteins in control SD, measured and by every method; and a row of errors for each method.
    """
    adata = adata.copy()
    adata.obs["split"] = np.where(adata.obs[DRUG] == drug, "test", "train")
    scgim.setup_anndata(
        adata, drug_key=DRUG, control=CONTROL, scale="continuous", smiles_key="smiles", split_key="split"
    )
    model = scgim.GIM(adata)
    model.train(seed=seed, enable_progress_bar=False)

    shifts = changes(adata)
    given, others = shifts.loc[drug, target], shifts.drop(index=drug)
    control = np.asarray(adata[adata.obs[DRUG] == CONTROL].X, dtype=float)
    z = (control - control.mean(0)) / control.std(0)
    moved = model.do({target: float(given)}, as_="delta").X[0] / control.std(0)
    slope = z.T @ z[:, adata.var_names.get_loc(target)] / len(z)
    between = others.T @ others[target] / (others[target] ** 2).sum()
    table = pd.DataFrame(
        {
            "measured": shifts.loc[drug],
            "scgim do()": moved,
            "regression in controls": slope * given,
            "regression over other drugs": between * given,
            "mean of other drugs": others.mean(),
            "no change": 0.0,
        },
        index=adata.var_names,
    ).drop(index=target)
    methods = table.columns.drop("measured")
    error = table[methods].sub(table["measured"], axis=0)
    score = pd.DataFrame(
        {
            "drug": drug,
            "given": f"{target} {given:+.2f} SD",
            "method": methods,
            "RMSE": np.sqrt((error**2).mean()).to_numpy(),
            "moved": (table[methods].abs() > 0.05).sum().to_numpy(),
        }
    )
    return table, score
