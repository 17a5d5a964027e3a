from __future__ import annotations

import numpy as np


def shd(found: np.ndarray, truth: np.ndarray) -> int:
    """Structural Hamming distance of two directed graphs: edges to add, delete or reverse.

    A reversed edge counts once: pairs of genes whose edges differ in any way.

    Parameters
    ----------
    found, truth
        ``(genes, genes)``, an edge where non-zero, row = source.

    Examples
    --------
    >>> import numpy as np
    >>> chain, turned = np.eye(3, k=1), np.eye(3, k=-1)
    >>> shd(chain, chain), shd(chain, turned), shd(chain, 0 * chain)
    (0, 2, 2)
    """
    differ = (np.asarray(found) != 0) != (np.asarray(truth) != 0)
    return int(np.triu(differ | differ.T, 1).sum())


def edge_precision_recall(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Share of found edges that are true with their direction, and share of true edges that were found.

    Precision is NaN where nothing was found, recall where nothing is true.

    Parameters
    ----------
    found, truth
        ``(genes, genes)``, an edge where non-zero, row = source.

    Examples
    --------
    >>> import numpy as np
    >>> edge_precision_recall(np.eye(3, k=1), np.triu(np.ones((3, 3)), 1))
    (1.0, 0.6666666666666666)
    """
    found, truth = np.asarray(found) != 0, np.asarray(truth) != 0
    hits = float((found & truth).sum())
    return tuple(hits / n if (n := float(graph.sum())) else float("nan") for graph in (found, truth))
