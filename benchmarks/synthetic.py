"""Simulated screens, and where the model breaks: ``python benchmarks/synthetic.py [--seeds 5] [--jobs 2]``.

Numbers of drugs, doses and cells are those of the synthetic conditions of Schneider et al. (ICML 2025): 40 Hill functions at 4
doses, 50 cells a condition and 800 controls; tested on 5 other doses and on 20 new functions. All else is our own choice: 20
genes, graphs, mechanisms, effects of drugs and their features (``scgim.datasets.simulate_screen``). Then linear shift screens
that violate one assumption of the model, three seeds each. Writes beside this file

- ``synthetic.csv``: errors of predicted changes beside baselines; ``synthetic_graphs.csv``; ``synthetic_targets.csv``
- ``synthetic_breaks.csv``: a row for each break
- ``synthetic_seeds.csv``: every run; ``synthetic.png``

Errors are root mean squares over genes of predicted minus true mean change, in control SD, mean over conditions.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # numpy reads it once; the processes are the parallelism

import numpy as np
import pandas as pd
from CausalDisco.analytics import r2_sortability, r2coeff, var_sortability
from CausalDisco.baselines import sort_regress
from common import SURE, arguments, fit, matrix, on_scale, processes, progress, quiet, trained_baseline
from simulated import COLUMNS, features_of_unseen, request, rows_of, true_graph, values_of
from sklearn.metrics import average_precision_score, precision_recall_curve
from synthetic_screens import BASE, BREAKS, SETTINGS, TESTS, draw
from synthetic_tables import BROKEN, COARSE, GRAPHS, TARGETS, by_setting, error_table, figure, with_best

from scgim.evaluation import BASELINES, EMPTY, SCGIM, ConditionTable
from scgim.metrics import edge_average_precision, rmse_delta, shd, sid, target_f1

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData

    import scgim

GRADIENT = ("network, shift, ER", "linear, shift, ER")  # on seed 0, structure="gradient" as well
BREAK_SEEDS = 3
TIES = 1e-9  # genes whose variance or R2 differs by less are not in any order: cells are rounded to 32 bits


# ---- one run ---------------------------------------------------------------------------------------------------------


def run(name: str, seed: int, structure: str = "search") -> tuple[dict, pd.DataFrame]:
    """Scores of one screen, and every method's error for every unseen condition."""
    quiet()
    adata, columns, options = draw(name, seed)
    columns = COLUMNS | columns
    truth, graph = adata.uns["truth"], true_graph(adata)
    of_model = {key: options[key] for key in ("mechanism", "intervention")}
    model, took = fit(adata, columns, structure=structure, **of_model)
    # without edges there are no mechanisms: linear ones are the same model as networks, and faster
    empty, _ = fit(adata, columns, structure="none", **of_model | {"mechanism": "linear"})

    cells, train, z = seen(adata, columns)
    row = {"setting": name, "seed": seed, "structure": structure, "seconds": took.processor}
    row["generator"] = model.generator_
    row |= graph_scores(model, cells, adata, graph)
    drugs = pd.Index(truth["drugs"]).get_indexer(train.drug)
    targets = truth["targets"][drugs] != 0
    for label, who in {"": model, ", empty": empty}.items():
        row |= target_scores(who.rank_targets(), train.names, adata.var_names, targets, "seen", label)
    row |= {"seen AP, |z|": pooled_ap(z, targets), "seen F1, |z|": best_f1(z, targets)}

    errors, baselines = [], {method: trained_baseline(method, train) for method in BASELINES}
    for test in TESTS:
        table, asked = unseen(adata, test)
        predicted = {
            method: predict(who, table, asked, truth["control_sd"])
            for method, who in {SCGIM: model, EMPTY: empty}.items()
        }
        predicted |= {method: baseline.predict(table) for method, baseline in baselines.items()}
        known = {method: x for method, x in predicted.items() if np.isfinite(x).all()}
        error = pd.DataFrame({method: rmse_delta(x, table.change) for method, x in known.items()})
        errors.append(
            error.assign(setting=name, structure=structure, test=test, drug=[f"{seed} {d}" for d in table.drug])
        )
        row |= {f"{test} {method}": value for method, value in error.mean().items()}
        if test == "unseen_drug":
            targets, ridge = truth[test]["targets"] != 0, np.abs(predicted["ridge"])
            for label, who in {"": model, ", empty": empty}.items():
                ranking = who.rank_targets(**asked, evidence="features")
                row |= target_scores(ranking, table.names, adata.var_names, targets, "unseen", label)
            row |= {
                "unseen AP, ridge": pooled_ap(ridge, targets),
                "unseen F1, ridge": best_f1(ridge, targets),
            }
    return row, pd.concat(errors)


def seen(adata: AnnData, columns: dict) -> tuple[np.ndarray, ConditionTable, np.ndarray]:
    """CellMatrix in control SD around the controls (of their plate), the conditions as baselines see them, and Welch's \\|z\\|."""
    obs, truth = adata.obs, adata.uns["truth"]
    control = (obs["drug"] == columns["control"]).to_numpy()
    batch = obs[columns["batch_key"]].to_numpy() if "batch_key" in columns else np.zeros(len(obs))
    x = on_scale(adata, columns) / truth["control_sd"]
    for b in np.unique(batch):
        x[batch == b] -= x[control & (batch == b)].mean(0)
    groups = obs[~control].groupby(["drug", "dose"], observed=True).indices
    parts = [x[~control][rows] for rows in groups.values()]
    names = pd.DataFrame(groups.keys(), columns=["drug", "dose"]).assign(cell_line="")
    change, n = np.array([part.mean(0) for part in parts]), np.array([len(part) for part in parts])
    variance = np.array([part.var(0) for part in parts]) / n[:, None] + x[control].var(0) / control.sum()
    features = adata.uns["drug_features"].loc[names["drug"]].to_numpy(float)
    return x, ConditionTable(names, features, change, n), np.abs(change) / np.sqrt(variance)


def unseen(adata: AnnData, test: str) -> tuple[ConditionTable, dict]:
    """Unseen conditions with their true change, and the request for all of them."""
    truth, frame = adata.uns["truth"], adata.uns["drug_features"]
    table = truth[test]
    names = pd.DataFrame({"drug": table["drug"].astype(str), "dose": table["dose"], "cell_line": ""})
    change = (table["mean"] - truth["control_mean"]) / truth["control_sd"]
    new = features_of_unseen(adata) if test == "unseen_drug" else None
    features = (frame if new is None else new).loc[names["drug"]].to_numpy(float)
    return ConditionTable(names, features, change, np.zeros(len(names))), request(table, new)


def predict(model: scgim.GIM, table: ConditionTable, asked: dict, sd: np.ndarray) -> np.ndarray:
    """Predicted changes in control SD, in the order of the table."""
    return rows_of(model.predict(**asked, as_="delta"), table.names["drug"], table.names["dose"]) / sd


def graph_scores(model: scgim.GIM, cells: np.ndarray, adata: AnnData, truth: np.ndarray) -> dict[str, float]:
    """Of the graph found, and of those read off an order of the genes over all cells, the better of order and reverse."""
    strength = matrix(model.get_graph(), adata.var_names)
    acyclic = not (truth & truth.T).any()
    row = {"edge AP": edge_average_precision(strength, truth), "SHD": shd(strength, truth), "edges": int(truth.sum())}
    row |= {"SID": sid(strength, truth), "SID, empty": sid(0 * strength, truth)} if acyclic else {}
    orders = {"variance": (cells.var(0), var_sortability), "R2": (r2coeff(cells.T), r2_sortability)}
    for order, (score, sortability) in orders.items():
        graphs = [np.abs(sort_regress(cells, rising)) for rising in (score, -score)]
        row[f"edge AP, {order} order"] = max(edge_average_precision(graph, truth) for graph in graphs)
        row |= {f"{order} sortability": sortability(cells, truth, tol=TIES)} if acyclic else {}
    return row


def target_scores(
    ranking: pd.DataFrame, names: pd.DataFrame, genes: pd.Index, truth: np.ndarray, rows: str, label: str
) -> dict[str, float]:
    score, probability = (
        values_of(ranking, names["drug"], names["dose"], genes, column) for column in ("score", "probability")
    )
    called = probability > SURE
    return {
        f"{rows} AP{label}": pooled_ap(score, truth),
        f"{rows} F1{label}": target_f1(called, truth),
        f"{rows} false calls{label}": (called & ~truth).sum() / len(truth),
    }


def pooled_ap(score: np.ndarray, truth: np.ndarray) -> float:
    """Average precision over all pairs of condition and gene."""
    return float(average_precision_score(truth.ravel(), score.ravel()))


def best_f1(score: np.ndarray, truth: np.ndarray) -> float:
    """F1 of the rule "score above a threshold", at the threshold that is best given the truth."""
    precision, recall, _ = precision_recall_curve(truth.ravel(), score.ravel())
    return float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())


# ---- all of it -------------------------------------------------------------------------------------------------------


def in_processes(jobs: list[tuple], n: int) -> Iterable[tuple[dict, pd.DataFrame]]:
    with processes(n) as pool:
        for done in [pool.submit(run, *job) for job in jobs]:
            yield done.result()


def main() -> None:
    options = arguments(__doc__, jobs=2, seeds=5, out=Path(__file__).with_suffix(".csv")).parse_args()
    start, few = time.perf_counter(), range(min(BREAK_SEEDS, options.seeds))
    # the longest first
    jobs = [(name, 0, "gradient") for name in GRADIENT]
    jobs += [(name, seed) for name in reversed(SETTINGS) for seed in range(options.seeds)]
    jobs += [(name, seed) for name in BREAKS for seed in few]
    rows, errors = [], []
    for row, error in in_processes(jobs, options.jobs):
        rows.append(row)
        errors.append(error)
        progress(rows, ("setting", "seed", "structure", "edge AP", "seen F1", f"unseen_drug {SCGIM}", "seconds"))
    runs, errors = pd.DataFrame(rows), pd.concat(errors)
    for table in (runs, errors):
        gradient = table["structure"] == "gradient"
        table.loc[gradient, "setting"] += ", by gradient"
    order = [*(n + g for n in SETTINGS for g in ("", ", by gradient")), *BREAKS]
    runs = runs.sort_values(["setting", "seed"], key=lambda c: c.map(order.index) if c.name == "setting" else c)

    main_runs = runs[~runs["setting"].isin(BREAKS)]
    searched = main_runs[main_runs["structure"] == "search"]
    broken = pd.concat(
        [searched[(searched["setting"] == BASE) & searched["seed"].isin(few)], runs[runs["setting"].isin(BREAKS)]]
    )
    tables = {
        "": error_table(main_runs, errors),
        "_graphs": by_setting(main_runs, GRAPHS, **COARSE),
        "_targets": by_setting(main_runs, TARGETS),
        "_breaks": by_setting(with_best(broken), BROKEN, **COARSE),
        "_seeds": runs.round(4),
    }
    for name, table in tables.items():
        table.to_csv(options.out.with_stem(options.out.stem + name), index=False)
        if name != "_seeds":
            print(f"\n{table.to_string(index=False)}")
    figure(searched, broken, options.out.with_suffix(".png"))
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"\n{time.perf_counter() - start:.0f} s, {spent.ru_utime + spent.ru_stime:.0f} s of CPU")


if __name__ == "__main__":
    main()
