"""Scores of known targets, per drug and over all drugs, and their verdict in sentences."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from scgim.metrics import recall_at_k, target_average_precision, target_f1

from ._verdict import EARNED, EMPTY, SCGIM, Comparison, compare, interval

SHIFT, Z = "largest |shift|", "largest |z|"
PREDICTED_SHIFT = "largest |shift| by ridge"  # for unmeasured drugs
ALL = "(all)"


def score_targets(
    method: str, score: np.ndarray, truth: np.ndarray, drugs: np.ndarray, *, k: int, called: np.ndarray | None = None
) -> pd.DataFrame:
    """Scores of one method, one row per drug and one for all drugs.

    Parameters
    ----------
    score
        Scores, higher for more certain targets, ``(drugs, genes)``.
    truth
        Known targets, ``(drugs, genes)`` bool, at least one per drug.
    drugs
        Names of the drugs, ``(drugs,)``.
    k
        Number of genes in ``recall``.
    called
        Genes that the method calls targets, ``(drugs, genes)`` bool. By default the genes with the highest scores, as many as the drug has
        targets.

    Returns
    -------
    Columns method, drug, n_targets, n_called, ap, f1, recall, best_rank. In the row of all drugs, numbers of targets and calls are sums,
    ``f1`` is computed from all pairs of drug and gene, and the other scores are means over drugs.
    """
    if called is None:
        place = rankdata(-score, axis=1, method="ordinal")
        called = place <= truth.sum(1, keepdims=True)
    rank = np.where(truth, rankdata(-score, axis=1), np.inf).min(1)
    every = np.arange(len(drugs))
    rows = [
        {
            "method": method,
            "drug": name,
            "n_targets": int(truth[at].sum()),
            "n_called": int(called[at].sum()),
            "ap": target_average_precision(score[at], truth[at]),
            "f1": target_f1(called[at], truth[at]),
            "recall": recall_at_k(score[at], truth[at], k),
            "best_rank": float(rank[at].mean()),
        }
        for name, at in [*((name, every[[i]]) for i, name in enumerate(drugs)), (ALL, every)]
    ]
    return pd.DataFrame(rows)


def targets_verdict(table: pd.DataFrame, what: str) -> list[str]:
    """Sentences on the scores of all methods; ``what`` describes the drugs, e.g. "measured"."""
    total = table[table["drug"] == ALL].set_index("method")
    each = table[table["drug"] != ALL].pivot(index="drug", columns="method", values="ap")
    best = total["ap"].drop([SCGIM, EMPTY], errors="ignore").idxmax()
    against = _better(each, best)
    n = f"{len(each)} {what} drugs with {total.loc[SCGIM, 'n_targets']} known targets"
    said = [
        f"On {n}, scgim {against.word} the best baseline ({best}): average precision {total.loc[SCGIM, 'ap']:.3f} against "
        f"{total.loc[best, 'ap']:.3f}, difference {interval(_turned(against))}."
    ]
    calls = total.loc[SCGIM, "n_called"]
    said.append(
        f"It calls {calls} targets (probability > .5), F1 {total.loc[SCGIM, 'f1']:.3f}."
        if calls
        else "It calls no target: no probability exceeds .5."
    )
    if EMPTY in each:
        graph = _better(each, EMPTY)
        said.append(
            f"The graph {EARNED[graph.word]}: against an empty graph, difference of average precision {interval(_turned(graph))}."
        )
    return said


def _better(each: pd.DataFrame, other: str) -> Comparison:
    """Compare average precisions. They enter with a negative sign, because :func:`compare` takes errors."""
    drug = pd.Series(each.index.to_numpy(str), index=each.index)
    return compare(-each[SCGIM], -each[other], drug)


def _turned(c: Comparison) -> Comparison:
    """The comparison with the sign of average precisions restored."""
    return Comparison(-c.difference, -c.high, -c.low)
