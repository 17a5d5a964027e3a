from __future__ import annotations

import numpy as np
import torch
from dagma.linear import DagmaLinear
from dagma.nonlinear import DagmaMLP, DagmaNonlinear


def fit(
    cells: dict[str, np.ndarray], use: str, mechanism: str = "linear", threshold: float = 0.3
) -> dict[str, np.ndarray]:
    """DAGMA, defaults, on the controls, on all cells pooled, or on all less the mean of their condition."""
    x, condition = cells["x"].astype(float), cells["condition"]
    if use == "controls":
        x = x[condition == 0]
    elif use == "centred":
        sums = np.zeros((condition.max() + 1, x.shape[1]))
        np.add.at(sums, condition, x)
        x = x - (sums / np.bincount(condition)[:, None])[condition]
    x = x - x.mean(0)
    if mechanism == "linear":
        weights = DagmaLinear(loss_type="l2").fit(x, w_threshold=0)
    else:
        torch.manual_seed(0)
        layers = DagmaMLP(dims=[x.shape[1], 10, 1], bias=True, dtype=torch.double)
        weights = DagmaNonlinear(layers, dtype=torch.double).fit(x, w_threshold=0)
    return {"graph": abs(weights) > threshold, "strength": abs(weights)}
