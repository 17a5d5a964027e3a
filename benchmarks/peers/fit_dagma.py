from __future__ import annotations

import numpy as np
import torch
from dagma.linear import DagmaLinear
from dagma.nonlinear import DagmaMLP, DagmaNonlinear


def fit(
    cells: dict[str, np.ndarray], use: str, mechanism: str = "linear", threshold: float = 0.3
) -> dict[str, np.ndarray]:
    """DAGMA, defaults, on the controls, on all cells pooled, or on all less the mean of their context."""
    x, context = cells["x"].astype(float), cells["context"]
    if use == "controls":
        x = x[context == 0]
    elif use == "centred":
        sums = np.zeros((context.max() + 1, x.shape[1]))
        np.add.at(sums, context, x)
        x = x - (sums / np.bincount(context)[:, None])[context]
    x = x - x.mean(0)
    if mechanism == "linear":
        weights = DagmaLinear(loss_type="l2").fit(x, w_threshold=0)
    else:
        torch.manual_seed(0)
        layers = DagmaMLP(dims=[x.shape[1], 10, 1], bias=True, dtype=torch.double)
        weights = DagmaNonlinear(layers, dtype=torch.double).fit(x, w_threshold=0)
    return {"graph": abs(weights) > threshold, "strength": abs(weights)}
