"""Time and accuracy of the structure search on simulated screens of 100 drugs x 4 doses x 50 cells.

    python benchmarks/search.py [--genes 20 100 500] [--columns 1] [--seed 0]

One row a size: seconds of the first climb and of the whole search (compiled before), F1 and recall of directed edges,
the share of true edges among the candidates, and nats by which the score lies above that of the true graph.
"""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
from common import arguments, f1, progress
from simulated import true_graph

from scgim.datasets import simulate_screen
from scgim.statistics import SufficientStatistics, accumulate, expand
from scgim.structure import local_score, search_dag
from scgim.structure.candidates import ALL_PAIRS, neighbors
from scgim.structure.score import score_data


def draw(n_genes: int, columns: int, seed: int) -> tuple[SufficientStatistics, np.ndarray]:
    """Statistics of cells in control SD, and the true graph."""
    adata = simulate_screen(n_genes=n_genes, n_drugs=100, n_new_drugs=2, seed=seed)
    control = (adata.obs["drug"] == "DMSO").to_numpy()
    condition = adata.obs.groupby(["drug", "dose"], observed=True, dropna=False).ngroup().to_numpy()
    code = np.where(control, 0, 1 + pd.Categorical(np.where(control, -1, condition)).codes)
    code = np.unique(code, return_inverse=True)[1]
    x = np.asarray(adata.X, dtype=float)
    x = (x - x[control].mean(0)) / x[control].std(0)
    x = expand(x) if columns > 1 else x
    statistics = accumulate([(x, code)], n_conditions=code.max() + 1, n_genes=x.shape[1])
    return statistics, true_graph(adata)


def measure(n_genes: int, columns: int, seed: int) -> dict[str, float]:
    """One row of the table."""
    statistics, truth = draw(n_genes, columns, seed)
    start = time.perf_counter()
    search = search_dag(statistics, columns=columns, seed=seed)
    last, climbed = next(search), time.perf_counter() - start
    for last in search:  # noqa: B007
        pass
    seconds, data = time.perf_counter() - start, score_data(statistics, columns=columns)
    best = sum(local_score(j, np.flatnonzero(s), int(s.sum()), data) for j, s in enumerate(truth.T))
    near = neighbors(statistics, columns) if n_genes > ALL_PAIRS else np.ones_like(truth)
    return {
        "genes": n_genes,
        "climb_s": climbed,
        "search_s": seconds,
        "rounds": last.rounds,
        "f1": f1(last.graph, truth),
        "recall": last.graph[truth].mean(),
        "candidate_recall": near[truth].mean(),
        "nats_above_truth": last.score - best,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--genes", type=int, nargs="+", default=[20, 50, 100, 200, 300, 500, 1000, 2000])
    parser.add_argument("--columns", type=int, default=1, choices=(1, 4))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    measure(20, options.columns, 0)  # compiles
    rows = []
    for n_genes in options.genes:
        rows.append(measure(n_genes, options.columns, options.seed))
        progress(rows)


if __name__ == "__main__":
    main()
