"""Whether predictions take the graph: judged on conditions that the generator did not see."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class GraphChoice(NamedTuple):
    """Whether predictions use the graph, why, and the mean squared errors in control variances (NaN where none were compared)."""

    use: bool
    reason: str
    with_graph: float = np.nan
    without: float = np.nan
    se: float = np.nan

    def about(self) -> dict:
        """Plain values for files, without those that were not compared."""
        return {name: value for name, value in self._asdict().items() if value == value}


def choose_graph(
    change: np.ndarray,
    with_graph: np.ndarray | None,
    without: np.ndarray | None,
    drug: np.ndarray,
    *,
    rows: int,
) -> GraphChoice:
    r"""Leave the graph out where it harms held-out conditions, or where there are fewer rows than genes.

    Fewer rows than genes do not determine a graph. Otherwise the generator on the graph's mechanisms is compared with the same
    generator without a graph, each predicting the mean changes of conditions that it did not see. The graph harms if its squared
    error, mean over a drug's conditions and genes, is larger by more than one standard error of the difference over drugs. The
    graph itself was learned from all conditions, which favours it.

    Parameters
    ----------
    change
        Measured mean changes, ``(conditions, genes)``.
    with_graph, without
        Predictions of them by generators that did not see the condition; ``None`` where none are possible.
    drug
        Index of every condition's, ``(conditions,)``.
    rows
        Cells or wells that were trained on.
    """
    n_genes = change.shape[1]
    if rows < n_genes:
        return GraphChoice(
            False, f"{rows} rows for {n_genes} genes do not determine a graph, so predictions are made without it"
        )
    if with_graph is None or without is None:
        return GraphChoice(True, "no held-out conditions to judge the graph by, so predictions use it")
    n = np.bincount(drug)
    errors = [np.bincount(drug, ((change - said) ** 2).mean(1))[n > 0] / n[n > 0] for said in (with_graph, without)]
    gap = errors[0] - errors[1]
    se = float(gap.std(ddof=1) / len(gap) ** 0.5)
    means = [float(error.mean()) for error in errors]
    harm = bool(gap.mean() > se)
    said = (
        f"on held-out conditions the graph {'does harm' if harm else 'does no harm'} (squared error {means[0]:.3g} with it, "
        f"{means[1]:.3g} without, standard error of the difference {se:.2g}), so predictions "
        f"{'are made without it' if harm else 'use it'}"
    )
    return GraphChoice(not harm, said, *means, se)
