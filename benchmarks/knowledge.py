"""Prior knowledge: likely edges, known and likely targets, genetic arms; and what wrong knowledge does.

    python benchmarks/knowledge.py [--only simulated measured] [--data FOLDER] [--seeds 5]

``knowledge.csv``: simulated screens of 20 genes and 40 drugs at one dose, weak (counts, 40 cells a drug, 1.5 counts a gene) and clear
(continuous, 50 cells a drug); mean over seeds, and the difference to the same screen without knowledge with its interval over seeds.
Joint screens have 24 drugs and some 25 genetic arms (perturbations of one gene) at 3 counts a gene; drugs are scored without and with the arms. Half of the true edges or targets are given, beside as
many wrong ones; or wrong ones alone. F1 of targets counts measured drugs without pairs that were given as known.
``knowledge_measured.csv``: the edge pMEK -> pERK on RPPA; regulators, and knock-outs as known targets, on ECCITE.
"""

from __future__ import annotations

import os
import warnings
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # numpy reads it once

import numpy as np
import pandas as pd
from common import SURE, arguments, changes, f1, fit, fit_without, gap, matrix, progress, write
from measured import ECCITE, Z, eccite_cells, z_scores
from simulated import COLUMNS, features_of_unseen, true_graph
from wells import first_nodes, halves, rppa

import scgim

if TYPE_CHECKING:
    from anndata import AnnData

COLUMNS_OF = {"counts": COLUMNS | {"scale": "counts", "size_factor_key": "n_counts"}, "continuous": COLUMNS}
# transcription factors among the genes of ECCITE (Lambert et al., Cell 172:650, 2018)
FACTORS = set(
    "CREB3L4 HIVEP3 LHX2 MBD1 MXD4 PBX3 SKI STAT1 STAT2 STAT3 TGIF1 ZBTB20 ZKSCAN3 ZNF284 ZNF438 ZNF585B ZNF616 "
    "ZNF628 ZNF646 ZNF699 ZNF74".split()
)
NOTHING = "nothing"
ARMS = "no genetic arms"
DRUGS = 24  # in a joint screen, beside some 25 genetic arms


def screen(seed: int, kind: str = "counts") -> AnnData:
    options = {"observation": "counts", "depth": 1.5, "n_cells": 40} if kind == "counts" else {}
    return scgim.datasets.simulate_screen(n_drugs=40, doses=(1.0,), seed=500 + seed, **options)


def edge_table(pairs: np.ndarray, genes: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(genes[pairs], columns=["source", "target"]).assign(kind="likely")


def target_table(truth: np.ndarray, adata: AnnData, kind: str) -> pd.DataFrame:
    rows, columns = np.nonzero(truth)
    return pd.DataFrame({"drug": adata.uns["truth"]["drugs"][rows], "gene": adata.var_names[columns], "kind": kind})


def half_right(true: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half of the true entries of a matrix, and as many false ones that are not on the diagonal."""
    right = true & (rng.random(true.shape) < 0.5)
    rest = ~true if true.shape[0] != true.shape[1] else ~true & ~true.T & ~np.eye(len(true), dtype=bool)
    wrong = rng.permutation(np.argwhere(rest))[: right.sum()]
    out = right.copy()
    out[tuple(wrong.T)] = True
    return out


def scores(
    model: scgim.GIM, adata: AnnData, knowledge: pd.DataFrame | None = None, drugs: np.ndarray | None = None
) -> dict:
    """F1 of edges, of targets of measured drugs without known pairs, and of unseen drugs."""
    genes, truth = adata.var_names, adata.uns["truth"]
    graph = matrix(model.get_graph(), genes) > 0
    table = model.rank_targets().astype({"drug": str})
    p = table.pivot_table(index="drug", columns="gene", values="probability", aggfunc="max", observed=True)
    names = truth["drugs"].astype(str) if drugs is None else drugs
    count = np.ones((len(names), len(genes)), dtype=bool)
    if knowledge is not None:
        sure = knowledge[knowledge["kind"] == "known"]
        count[pd.Index(names).get_indexer(sure["drug"]), genes.get_indexer(sure["gene"])] = False
    true = truth["targets"][pd.Index(truth["drugs"].astype(str)).get_indexer(names)] > 0
    called = p.loc[names, genes].to_numpy() > SURE
    unseen = truth["unseen_drug"]
    new = model.rank_targets(drug=list(dict.fromkeys(unseen["drug"].astype(str))), features=features_of_unseen(adata))
    new = new.astype({"drug": str}).pivot(index="drug", columns="gene", values="probability")
    return {
        "edge F1": f1(graph, true_graph(adata)),
        "target F1": f1(called & count, true & count),
        "target F1, unseen drugs": f1(
            new.loc[unseen["drug"].astype(str), genes].to_numpy() > SURE, np.asarray(unseen["targets"]) > 0
        ),
    }


def simulated(seeds: int) -> None:
    """Each kind of knowledge on the same screens, weak counts and clear continuous values."""
    rows: list[dict] = []
    for seed, kind in product(range(seeds), COLUMNS_OF):
        adata, rng, columns = screen(seed, kind), np.random.default_rng(seed), COLUMNS_OF[kind]
        genes, graph, targets = adata.var_names.to_numpy(str), true_graph(adata), adata.uns["truth"]["targets"] > 0
        known = targets & (rng.random(len(targets)) < 0.5)[:, None]  # of half of the drugs all targets
        knowledge = {
            NOTHING: {},
            "edges, half right": {"prior_graph": edge_table(np.argwhere(half_right(graph, rng)), genes)},
            "edges, all reversed": {"prior_graph": edge_table(np.argwhere(graph.T), genes)},
            "targets, half right": {"known_targets": target_table(half_right(targets, rng), adata, "likely")},
            "targets, all wrong": {"known_targets": target_table(half_right(targets, rng) & ~targets, adata, "likely")},
            "half of the drugs known": {"known_targets": target_table(known, adata, "known")},
        }
        for name, options in knowledge.items():
            model, _ = fit(adata.copy(), columns, **options)
            rows.append(
                {"screen": kind, "seed": seed, "knowledge": name} | scores(model, adata, options.get("known_targets"))
            )
            progress(rows)
    write(summary(pd.DataFrame(rows + genetic_arms(seeds))), "knowledge")


def genetic_arms(seeds: int) -> list[dict]:
    """Scores of drugs without and with genetic arms: perturbations of one gene, without features, in the same screen."""
    rows: list[dict] = []
    for seed in range(seeds):
        adata = scgim.datasets.simulate_screen(
            observation="counts", depth=3.0, n_drugs=120, n_cells=40, doses=(1.0,), seed=700 + seed
        )
        targets, names = adata.uns["truth"]["targets"] > 0, adata.uns["truth"]["drugs"].astype(str)
        arm = targets.sum(1) == 1
        chosen = np.flatnonzero(~arm)[:DRUGS]
        drugs = adata[adata.obs["drug"].isin(["DMSO", *names[chosen]]).to_numpy()].copy()
        adata = adata[adata.obs["drug"].isin(["DMSO", *names[chosen], *names[arm]]).to_numpy()].copy()
        adata.uns["drug_features"] = adata.uns["drug_features"].astype(float)
        adata.uns["drug_features"].loc[names[arm]] = np.nan
        known = {"known_targets": target_table(targets & arm[:, None], adata, "only")}
        for name, cells, options in ((ARMS, drugs, {}), ("genetic arms", adata, known)):
            model, _ = fit(cells, COLUMNS_OF["counts"], **options)
            rows.append({"screen": "joint counts", "seed": seed, "knowledge": name})
            rows[-1] |= scores(model, adata, drugs=names[chosen])
            progress(rows)
    return rows


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, and differences to the same screens without knowledge."""
    out = []
    for (kind, name), own in rows.groupby(["screen", "knowledge"], sort=False):
        plain = rows[(rows["screen"] == kind) & (rows["knowledge"] == (ARMS if "arms" in name else NOTHING))]
        row: dict = {"screen": kind, "knowledge": name}
        for column in rows.columns[3:]:
            row[column] = own[column].mean()
            if name not in (NOTHING, ARMS):
                one, other = (t.set_index("seed")[column] for t in (own, plain))
                row[f"gain in {column}"] = gap(one, other, pd.Series(one.index, one.index))
        out.append(row)
    return pd.DataFrame(out)


def measured(folder: Path) -> None:
    rows: list[dict] = []
    for knowledge, edge in (("nothing", None), ("pMEK -> pERK", ("pMEK", "pERK")), ("pERK -> pMEK", ("pERK", "pMEK"))):
        prior = None if edge is None else pd.DataFrame([[*edge, "likely"]], columns=["source", "target", "kind"])
        for hour in ("1", "24"):
            whole = rppa(folder, hour)
            subsets = {"all wells": np.ones(whole.n_obs, dtype=bool)}
            for seed in range(2 if edge != ("pERK", "pMEK") else 0):
                half = halves(whole.obs, ["drug", "dose", "cell_line"], seed)
                subsets |= {f"half {seed}": half, f"other half {seed}": ~half}
            for name, wells in subsets.items():
                found = first_nodes(whole[wells].copy(), prior_graph=prior)["scgim"]
                rows.append(
                    {
                        "screen": f"RPPA, {hour} h, {name}",
                        "knowledge": knowledge,
                        "measure": "RAF first",
                        "value": found,
                    }
                )
                progress(rows)
    rows += eccite(folder)
    write(pd.DataFrame(rows), "knowledge_measured")


def eccite(folder: Path) -> list[dict]:
    """Changes by `do` of the STAT1 knock-out that no model has seen, and placebos, on ECCITE."""
    whole = eccite_cells(folder)
    label = whole.obs["condition"].astype(str)
    arms = sorted(set(label) & set(whole.var_names))
    known = pd.DataFrame({"drug": arms, "gene": arms, "kind": "only"})
    regulators = sorted((FACTORS | set(arms)) & set(whole.var_names))
    change, sd = changes(whole, ECCITE)
    change, z = change.droplevel("line").loc["STAT1"], z_scores(whole, ECCITE).loc["STAT1"]
    moved = z.index[(z.abs() > Z) & (z.index != "STAT1")]
    rows: list[dict] = []
    for knowledge, options in (
        (NOTHING, {}),
        ("regulators", {"regulators": regulators}),
        ("knock-outs", {"known_targets": known[known["drug"] != "STAT1"]}),
        ("both", {"regulators": regulators, "known_targets": known[known["drug"] != "STAT1"]}),
    ):
        model = fit_without(whole.copy(), ECCITE, (label == "STAT1").to_numpy(), **options)
        delta = model.do({"STAT1": float(change["STAT1"])}, kind="set", as_="delta")
        shift = (pd.Series(delta.X[0], delta.var_names) / sd)[moved]
        r = np.corrcoef(shift, change[moved])[0, 1]
        rows.append({"screen": "ECCITE", "knowledge": knowledge, "measure": "r of do(STAT1), unseen", "value": r})
        progress(rows)
        if "regulators" not in options:
            all_known = options | ({"known_targets": known} if "known_targets" in options else {})
            rows += left_out_ranks(whole, arms, all_known, knowledge)
        placebo = with_placebos(whole)
        table = fit(placebo, ECCITE, **options)[0].rank_targets().astype({"drug": str})
        called = table[table["drug"].str.startswith("placebo")].groupby("drug")["probability"].max() > SURE
        rows.append(
            {"screen": "ECCITE", "knowledge": knowledge, "measure": "placebos with a target", "value": called.mean()}
        )
        progress(rows)
    return rows


def left_out_ranks(whole: AnnData, arms: list[str], options: dict, knowledge: str) -> list[dict]:
    """Rank of the own gene of each measured knock-out, when the other knock-outs are known and this one is not."""
    ranks = []
    for arm in arms if "known_targets" in options else arms[:1]:
        own = dict(options)
        if "known_targets" in own:
            own["known_targets"] = own["known_targets"].query("drug != @arm")
        table = fit(whole.copy(), ECCITE, **own)[0].rank_targets().astype({"drug": str, "gene": str})
        asked = [arm] if "known_targets" in options else arms
        ranks += [int(table.query("drug == @a and gene == @a")["rank"].iloc[0]) for a in asked]
    row = {
        "screen": "ECCITE",
        "knowledge": knowledge,
        "measure": "mean rank of the own gene, left out",
        "value": np.mean(ranks),
    }
    print(row, ranks, flush=True)
    return [row]


def with_placebos(whole: AnnData) -> AnnData:
    """Half of the control cells of each replicate as ten placebos."""
    adata, rng = whole.copy(), np.random.default_rng(0)
    label, replicate = adata.obs["condition"].astype(str).to_numpy(copy=True), adata.obs["replicate"].to_numpy()
    for name in np.unique(replicate):
        cells = rng.permutation(np.flatnonzero((label == "control") & (replicate == name)))
        for i, part in enumerate(np.array_split(cells[: len(cells) // 2], 10)):
            label[part] = f"placebo {i}"
    adata.obs["condition"] = label
    return adata


def main() -> None:
    """Run the parts and write their tables."""
    parser = arguments(__doc__, parts=("simulated", "measured"), seeds=5)
    parser.add_argument("--data", type=Path, help="folder of the measured screens")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if "simulated" in options.only:
        simulated(options.seeds)
    if "measured" in options.only and options.data is not None:
        measured(options.data)


if __name__ == "__main__":
    main()
