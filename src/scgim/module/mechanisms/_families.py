from __future__ import annotations

import torch
from torch import Tensor


def parent_index(graph: Tensor) -> tuple[Tensor, Tensor]:
    """Every gene's parents side by side, so that a sparse graph costs what its edges do.

    Returns
    -------
    ``(genes, most parents)`` int64, padded with the gene itself, and which entries are parents, bool. At least one column.

    Examples
    --------
    >>> import torch
    >>> parents, exists = parent_index(torch.tensor([[False, True], [False, False]]))
    >>> parents.tolist(), exists.tolist()
    ([[0], [0]], [[False], [True]])
    """
    d = len(graph)
    width = max(1, int(graph.sum(0).max()))
    # a stable sort brings the parents to the front, in the order of genes
    index = torch.argsort(~graph.T, dim=1, stable=True)[:, :width]
    exists = torch.gather(graph.T, 1, index)
    return torch.where(exists, index, torch.arange(d, device=graph.device)[:, None]), exists
