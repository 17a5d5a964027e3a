"""A differentiable measure of the cycles of a weighted graph, and the removal of remaining cycles."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def log_det(gates: Tensor, scale: Tensor | float | None = None) -> Tensor:
    r"""Total weight of all cycles, ``(...)``: 0 without a cycle, positive otherwise (DAGMA, Bello et al. 2022).

    .. math:: h(A) = d \log s - \log\det(sI - A) = \sum_{k \ge 1} \frac{\operatorname{tr} A^k}{k\, s^k}

    for gates :math:`A \ge 0` of :math:`d` genes, whose spectral radius is less than :math:`s`. The gradient
    :math:`(sI - A)^{-\top}` weights every edge by the paths from its target back to its source.

    Parameters
    ----------
    gates
        ``(..., genes, genes)``, not negative.
    scale
        :math:`s`; by default 1 plus the largest number of children, because that number bounds the spectral radius.

    Examples
    --------
    >>> import torch
    >>> chain = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    >>> bool(log_det(chain) == 0), bool(log_det(chain + chain.T) > 0)
    (True, True)
    """
    d = gates.shape[-1]
    if scale is None:
        scale = 1 + gates.detach().sum(-1).amax(-1)
    scale = torch.as_tensor(scale, dtype=gates.dtype, device=gates.device)
    eye = torch.eye(d, dtype=gates.dtype, device=gates.device)
    return -torch.linalg.slogdet(eye - gates / scale[..., None, None]).logabsdet


def break_cycles(weight: np.ndarray, required: np.ndarray | None = None) -> np.ndarray:
    """The acyclic graph of the strongest edges. Edges are added in order of weight; edges that would close a cycle are left out.

    Parameters
    ----------
    weight
        ``(genes, genes)``, row = source; only positive entries are edges.
    required
        Acyclic graph of edges that are always included, bool.

    Examples
    --------
    >>> import numpy as np
    >>> break_cycles(np.array([[0.0, 2.0], [1.0, 0.0]])).tolist()
    [[False, True], [False, False]]
    """
    d = len(weight)
    graph, reach = np.zeros((d, d), dtype=bool), np.eye(d, dtype=bool)
    first = [] if required is None else np.argwhere(required).tolist()
    source, target = np.nonzero(weight > 0)
    order = np.lexsort((target, source, -weight[source, target]))
    for i, j in [*first, *np.column_stack([source, target])[order].tolist()]:
        if not reach[j, i]:
            graph[i, j] = True
            reach |= np.outer(reach[:, i], reach[j])
    return graph
