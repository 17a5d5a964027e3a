from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgim.metrics import centroid_rank, pearson_delta, rmse_delta, wmse

if TYPE_CHECKING:
    from ._conditions import ConditionTable

MEAN_METRICS = ("rmse", "pearson", "pearson_centred", "wmse", "rank", "size_ratio")


def score(
    method: str, predicted: np.ndarray, truth: ConditionTable, center: np.ndarray, weight: np.ndarray
) -> pd.DataFrame:
    """Scores of predicted mean changes, one row per condition; changes are in control SD.

    Parameters
    ----------
    predicted
        Predicted changes, ``(conditions, genes)``; rows of NaN get scores of NaN.
    truth
        The conditions and their measured changes.
    center
        Mean change of the training conditions at each condition's cell line and dose, ``(conditions, genes)``: the reference of
        ``pearson_centred``.
    weight
        Weights of genes in ``wmse``, ``(conditions, genes)``.
    """
    known = np.isfinite(predicted).all(1)
    rows = np.flatnonzero(known)
    p, t, c = predicted[rows], truth.change[rows], center[rows]
    out = {name: np.full(len(predicted), np.nan) for name in MEAN_METRICS}
    if len(rows):
        out["rmse"][rows] = rmse_delta(p, t)
        out["pearson"][rows] = pearson_delta(p, t)
        out["pearson_centred"][rows] = pearson_delta(p, t, reference=c)
        out["wmse"][rows] = wmse(p, t, weight[rows])
        # With a single condition there are no others to rank against.
        out["rank"][rows] = centroid_rank(p, t) if len(rows) > 1 else np.nan
        norm = np.linalg.norm(t, axis=1)
        out["size_ratio"][rows] = np.linalg.norm(p, axis=1) / np.where(norm > 0, norm, np.nan)
    return pd.concat([truth.names.assign(method=method, n_cells=truth.n), pd.DataFrame(out)], axis=1)
