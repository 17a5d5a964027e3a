from __future__ import annotations

import random

import numpy as np
from causaldag import (
    MemoizedCI_Tester,
    MemoizedInvarianceTester,
    gauss_invariance_suffstat,
    gauss_invariance_test,
    partial_correlation_suffstat,
    partial_correlation_test,
    unknown_target_igsp,
)


def fit(cells: dict[str, np.ndarray], alpha: float = 1e-3) -> dict[str, np.ndarray]:
    """Sparsest permutation with unknown targets: independence is tested in the controls, invariance in every condition."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  it draws from the global stream
    x, condition = cells["x"], cells["condition"]
    control, treated = x[condition == 0], [x[condition == k] for k in range(1, condition.max() + 1)]
    genes = x.shape[1]
    dag, targets = unknown_target_igsp(
        [{"known_interventions": []} for _ in treated],
        set(range(genes)),
        MemoizedCI_Tester(partial_correlation_test, partial_correlation_suffstat(control), alpha=alpha),
        MemoizedInvarianceTester(gauss_invariance_test, gauss_invariance_suffstat(control, treated), alpha=alpha),
    )
    graph, called = np.zeros((genes, genes)), np.zeros((len(treated) + 1, genes), bool)
    for source, target in dag.arcs:
        graph[source, target] = 1
    for k, genes_of_k in enumerate(targets, start=1):
        called[k, list(genes_of_k)] = True
    return {"graph": graph, "called": called}
