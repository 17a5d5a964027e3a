from __future__ import annotations

import numpy as np
from sklearn.linear_model import LassoLarsIC, LinearRegression
from sklearn.metrics import average_precision_score

from scgim.structure.dag import ancestors

from ._arrays import matrix, pair


def shd(found: np.ndarray, truth: np.ndarray) -> int:
    """Structural Hamming distance of two directed graphs: number of edges to add, delete or reverse.

    A reversed edge counts once: the distance is the number of pairs of genes whose edges differ in any way.

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
    """Precision and recall of directed edges: share of found edges that are true, and share of true edges that were found.

    Precision is NaN if no edge was found, recall is NaN if there is no true edge.

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


def edge_average_precision(strength: np.ndarray, truth: np.ndarray) -> float:
    r"""Average precision of the true edges among all ordered pairs of two genes.

    .. math:: \sum_k (R_k - R_{k-1})\, P_k

    The sum runs over the distinct strengths :math:`k` from the highest down. :math:`R_k` and :math:`P_k` are recall and precision of the
    pairs of at least this strength. The function is :func:`sklearn.metrics.average_precision_score` without the diagonal. A reversed
    edge counts as wrong. 1 is perfect; chance level is the share of pairs that are edges. NaN if there is no true edge.

    Parameters
    ----------
    strength
        ``(genes, genes)``, row = source, not negative, higher for more certain edges: probabilities of edges, or absolute weights.
    truth
        ``(genes, genes)``, an edge where non-zero, row = source.

    Raises
    ------
    ValueError
        If the shapes differ or are not square, a value is not finite or a strength is negative.

    Examples
    --------
    >>> import numpy as np
    >>> chain = np.eye(3, k=1)
    >>> edge_average_precision(chain, chain), round(edge_average_precision(chain.T, chain), 3)
    (1.0, 0.333)
    """
    strength, truth = _graphs(strength, truth, "strength")
    if (strength < 0).any():
        raise ValueError(f"strength holds {strength.min():g}: of weights with a sign pass the size, np.abs(strength).")
    pairs = ~np.eye(len(truth), dtype=bool)
    edges = truth[pairs] != 0
    return float(average_precision_score(edges, strength[pairs])) if edges.any() else float("nan")


def sid(graph: np.ndarray, truth: np.ndarray) -> int:
    """Structural intervention distance: number of ordered pairs of genes whose interventional distribution `graph` gets wrong.

    `graph` predicts the distribution of gene j under an intervention on gene i by adjusting for the parents of i in `graph`. If j is one
    of these parents, it predicts that j does not change. A pair is not counted if the prediction is right for every distribution that is
    Markov to `truth`:

    - If j is among these parents: j is no descendant of i in `truth`.
    - Otherwise: in `truth`, none of these parents descends from a gene other than i on a directed path from i to j, and the parents
      block all other paths between i and j.

    The distance ranges from 0 to ``genes * (genes - 1)`` and is not symmetric: a graph with surplus edges in the right order has 0. The
    empty graph equates conditioning with intervening, so it is wrong where i and j are confounded or i descends from j.

    Parameters
    ----------
    graph, truth
        DAGs, ``(genes, genes)``, an edge where non-zero, row = source.

    Raises
    ------
    ValueError
        If the shapes differ or are not square, a value is not finite or a graph has a cycle.

    References
    ----------
    Peters and Bühlmann, Structural intervention distance for evaluating causal graphs, Neural Computation 27:771 (2015).
    Shpitser, VanderWeele and Robins, On the validity of covariate adjustment for estimating causal effects, UAI 2010.

    Examples
    --------
    >>> import numpy as np
    >>> chain, full = np.eye(3, k=1), np.triu(np.ones((3, 3)), 1)
    >>> sid(chain, chain), sid(full, chain), sid(chain.T, chain)
    (0, 0, 6)
    """
    graph, truth = (value != 0 for value in _graphs(graph, truth, "graph"))
    _ancestors(graph, "graph")
    below = _ancestors(truth, "truth")
    self_or_below = below | np.eye(len(truth), dtype=bool)
    wrong = 0
    for i in range(len(truth)):
        adjusted = graph[:, i]
        opened = self_or_below[:, adjusted].any(
            1
        )  # adjusting for a descendant of a collider opens the paths through it
        spoiled = self_or_below[below[i] & opened].any(0)
        wrong += int(np.where(adjusted, below[i], spoiled | _other_paths(truth, i, adjusted, opened)).sum())
    return wrong


def varsortability(x: np.ndarray, graph: np.ndarray) -> float:
    r"""Share of directed paths of `graph` whose end varies more than their start.

    .. math::

        \frac{\sum_{k=1}^{d-1} \sum_{i \to j \in E^k} s_{ij}}{\sum_{k=1}^{d-1} \sum_{i \to j \in E^k} 1}, \qquad
        s_{ij} = [v_i < v_j] + \tfrac12 [v_i = v_j]

    :math:`v_i` is the variance of gene :math:`i` over cells and E\ :sup:`k` the set of pairs joined by a path of length :math:`k`.
    Variances with a relative difference below :math:`10^{-9}` count as equal. At 1, the order of variances is a topological order, and
    :func:`sort_and_regress` finds the graph without any causal reasoning. At 0.5, variances carry no information about the order, as for
    standardized genes. NaN if there is no edge.

    Parameters
    ----------
    x
        Cells, ``(cells, genes)``.
    graph
        The true DAG, ``(genes, genes)``, an edge where non-zero, row = source.

    Raises
    ------
    ValueError
        If the shapes do not fit, a value is not finite or the graph has a cycle.

    References
    ----------
    Reisach, Seiler and Weichwald, Beware of the simulated DAG! Causal discovery benchmarks may be easy to game,
    NeurIPS 2021.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(100, 3)).cumsum(1)
    >>> varsortability(x, np.eye(3, k=1)), varsortability(x / x.std(0), np.eye(3, k=1))
    (1.0, 0.5)
    """
    x, graph = matrix(x, "x", axes="(cells, genes)"), matrix(graph, "graph", axes="(genes, genes)") != 0
    if graph.shape != (x.shape[1],) * 2:
        raise ValueError(f"graph must be (genes, genes) for x of shape {x.shape}; its shape is {graph.shape}.")
    _ancestors(graph, "graph")
    variance = x.var(0)
    start, end = variance[:, None], variance
    rises = np.where(np.isclose(start, end, rtol=1e-9, atol=0), 0.5, start < end)
    paths, joined = np.zeros(graph.shape), graph
    while joined.any():
        paths, joined = paths + joined, joined @ graph
    return float((paths * rises).sum() / paths.sum()) if paths.any() else float("nan")


def sort_and_regress(x: np.ndarray) -> np.ndarray:
    """A graph from the order of variances alone: each gene regressed on all genes that vary less.

    Least squares, then the adaptive lasso of this fit with a penalty chosen by BIC. This is a baseline: if a method is no better, its
    graph could be read off the scale of the genes (:func:`varsortability`).

    Parameters
    ----------
    x
        Cells, ``(cells, genes)``; more cells than genes.

    Returns
    -------
    Signed weights, ``(genes, genes)``, row = source: expected change of the column gene per unit of the row gene.

    Raises
    ------
    ValueError
        If `x` has no more cells than genes or a value is not finite.

    References
    ----------
    Reisach, Seiler and Weichwald, Beware of the simulated DAG! Causal discovery benchmarks may be easy to game,
    NeurIPS 2021.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(500, 3)).cumsum(1)
    >>> sort_and_regress(x).round(1).tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    x = matrix(x, "x", axes="(cells, genes)")
    cells, genes = x.shape
    if cells <= genes:
        raise ValueError(f"x must have more cells than genes to regress on; its shape is {x.shape}.")
    variance = x.var(0)
    weights, order = np.zeros((genes, genes)), np.argsort(variance, kind="stable")
    for k in range(1, genes):
        sources, y = x[:, order[:k]], x[:, order[k]]
        fit = LinearRegression().fit(sources, y)
        # BIC is undefined for a gene without noise, such as a copy of another gene.
        noise = max(((y - fit.predict(sources)) ** 2).sum() / (cells - k - 1), 1e-12 * variance[order[k]])
        if noise > 0:
            scale = abs(fit.coef_)
            lasso = LassoLarsIC("bic", noise_variance=noise).fit(sources * scale, y)
            weights[order[:k], order[k]] = lasso.coef_ * scale
    return weights


def _graphs(graph: np.ndarray, truth: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    graph, truth = pair(graph, truth, names=(name, "truth"), axes="(genes, genes)")
    if graph.shape[0] != graph.shape[1]:
        raise ValueError(f"{name} and truth must be (genes, genes); their shape is {graph.shape}.")
    return graph, truth


def _ancestors(graph: np.ndarray, name: str) -> np.ndarray:
    try:
        return ancestors(graph)
    except ValueError as error:
        raise ValueError(f"{name} must be a DAG. {error}") from error


def _other_paths(graph: np.ndarray, i: int, adjusted: np.ndarray, opened: np.ndarray) -> np.ndarray:
    """Genes reached from `i` by a path that is open given `adjusted` and not directed all the way; (genes,) bool.

    The search is over walks, not paths. The two agree if walks may not return to `i`, except for genes that `sid` counts anyway.
    """
    walked = graph.copy()
    walked[i] = walked[:, i] = False
    causal = np.zeros(len(graph), dtype=bool)
    step = graph[i]
    while (step & ~causal).any():
        causal = causal | step
        step = walked[causal & ~adjusted].any(0)
    up, down = graph[:, i] | walked[:, causal & opened].any(1), np.zeros_like(causal)
    while True:
        more_up = up | walked[:, (up & ~adjusted) | (down & opened)].any(1)
        more_down = down | walked[(up | down) & ~adjusted].any(0)
        if (more_up == up).all() and (more_down == down).all():
            return up | down
        up, down = more_up, more_down
