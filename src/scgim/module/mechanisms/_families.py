from __future__ import annotations

import torch
from torch import Tensor


def parent_index(graph: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of every gene's parents, so that the cost of a sparse graph grows with its edges.

    Returns
    -------
    Parents, ``(genes, most parents)`` int64, padded with the gene itself, and a mask of the parents, bool. At least one column.

    Examples
    --------
    >>> import torch
    >>> parents, exists = parent_index(torch.tensor([[False, True], [False, False]]))
    >>> parents.tolist(), exists.tolist()
    ([[0], [0]], [[False], [True]])
    """
    gene, parent = graph.T.nonzero(as_tuple=True)
    n_parents = graph.sum(0)
    slot = torch.arange(len(gene), device=graph.device) - (torch.cumsum(n_parents, 0) - n_parents)[gene]
    index = torch.arange(len(graph), device=graph.device)[:, None].repeat(1, max(1, int(n_parents.max())))
    index[gene, slot] = parent
    exists = torch.zeros_like(index, dtype=torch.bool)
    exists[gene, slot] = True
    return index, exists
