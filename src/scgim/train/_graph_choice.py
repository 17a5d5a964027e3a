"""Choice between predictions with and without the graph, by held-out conditions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class GraphChoice(NamedTuple):
    """Whether predictions use the graph, the reason, and the mean squared errors in control variances (NaN without a comparison)."""

    use: bool
    reason: str
    with_graph: float = np.nan
    without: float = np.nan
    se: float = np.nan

    def about(self) -> dict:
        """Plain values for files, without NaN."""
        return {name: value for name, value in self._asdict().items() if value == value}


def choose_graph(
    change: np.ndarray,
    with_graph: np.ndarray | None,
    without: np.ndarray | None,
    drug: np.ndarray,
    *,
    rows: int,
) -> GraphChoice:
    r"""Predict without the graph if it increases the error on held-out conditions, or if there are fewer rows than genes.

    Fewer rows than genes do not determine a graph. Otherwise the generator on the graph's mechanisms is compared with the same
    generator without a graph. Both predict the mean changes of held-out conditions. The error of a drug is the squared error, mean over
    its conditions and genes. The graph does harm if its error is larger by more than one standard error of the difference over
    drugs. The comparison favors the graph, because the graph was learned from all conditions.

    Parameters
    ----------
    change
        Measured mean changes, ``(conditions, genes)``.
    with_graph, without
        Predictions of the changes by generators trained without the condition; ``None`` if impossible.
    drug
        Index of the drug of every condition, ``(conditions,)``.
    rows
        Number of training cells or wells.
    """
    n_genes = change.shape[1]
    if rows < n_genes:
        return GraphChoice(
            False, f"{rows} rows for {n_genes} genes do not determine a graph, so predictions are made without it"
        )
    if with_graph is None or without is None:
        return GraphChoice(True, "no held-out conditions to judge the graph by, so predictions use it")
    n = np.bincount(drug)
    predictions = (with_graph, without)
    errors = [np.bincount(drug, ((change - each) ** 2).mean(1))[n > 0] / n[n > 0] for each in predictions]
    gap = errors[0] - errors[1]
    se = float(gap.std(ddof=1) / len(gap) ** 0.5)
    means = [float(error.mean()) for error in errors]
    harm = bool(gap.mean() > se)
    reason = (
        f"on held-out conditions the graph {'does harm' if harm else 'does no harm'} (squared error {means[0]:.3g} with it, "
        f"{means[1]:.3g} without, standard error of the difference {se:.2g}), so predictions "
        f"{'are made without it' if harm else 'use it'}"
    )
    return GraphChoice(not harm, reason, *means, se)
