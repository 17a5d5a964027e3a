from __future__ import annotations

import numpy as np
from sklearn.linear_model import LassoLarsIC, LinearRegression
from sklearn.metrics import average_precision_score

from scgim.structure.dag import ancestors

from ._arrays import matrix, pair


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


def edge_average_precision(strength: np.ndarray, truth: np.ndarray) -> float:
    r"""Average precision of the true edges among all ordered pairs of two genes.

    .. math:: \sum_k (R_k - R_{k-1})\, P_k

    over the distinct strengths from the highest down, with R and P recall and precision of the pairs that are so strong
    or stronger: :func:`sklearn.metrics.average_precision_score` off the diagonal, whatever that holds. A reversed edge
    is a wrong one. 1 is perfect; chance is the share of pairs that are edges. NaN if there is no true edge.

    Parameters
    ----------
    strength
        ``(genes, genes)``, row = source, higher for surer edges and not negative: the probability of an edge, or the
        size of its weight.
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
    """Structural intervention distance: ordered pairs of genes whose interventional distribution `graph` gets wrong.

    `graph` infers the distribution of j under an intervention on i by adjusting for its own parents of i, or says that
    j stays as it is if j is one of them. That is right for every distribution that is Markov to `truth`, and not
    counted, if

    - j is among these parents: j is no descendant of i in `truth`;
    - else: in `truth` none of these parents descends from a gene, other than i, on a directed path from i to j, and
      they block all other paths between i and j.

    From 0 to ``genes * (genes - 1)``, not symmetric: a graph with edges too many, in the right order, has 0. The empty
    graph, which takes conditioning for intervening, is wrong where i and j are confounded or i descends from j.

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
        opened = self_or_below[:, adjusted].any(1)  # a collider among these lets a path pass
        spoiled = self_or_below[below[i] & opened].any(0)
        wrong += int(np.where(adjusted, below[i], spoiled | _other_paths(truth, i, adjusted, opened)).sum())
    return wrong


def varsortability(x: np.ndarray, graph: np.ndarray) -> float:
    r"""Share of directed paths of `graph` whose end varies more than their start.

    .. math::

        \frac{\sum_{k=1}^{d-1} \sum_{i \to j \in E^k} s_{ij}}{\sum_{k=1}^{d-1} \sum_{i \to j \in E^k} 1}, \qquad
        s_{ij} = [v_i < v_j] + \tfrac12 [v_i = v_j]

    with v the variance of genes over cells and E\ :sup:`k` the pairs that a path of length k joins; variances equal up
    to :math:`10^{-9}` of them tie. At 1 the order of variances is a causal order, and :func:`sort_and_regress` finds
    the graph without any causal reasoning; at 0.5 they say nothing. Standardized genes have 0.5. NaN if there is no
    edge.

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
    """A graph from the order of variances alone: each gene regressed on all that vary less.

    Least squares, then the adaptive lasso of that fit, its penalty chosen by BIC. A baseline: where a method is no
    better, the graph could be read off the scale of genes, see :func:`varsortability`.

    Parameters
    ----------
    x
        Cells, ``(cells, genes)``; more cells than genes.

    Returns
    -------
    Weights with sign, ``(genes, genes)``, row = source: expected change of the column gene per unit of the row gene.

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
        # BIC is undefined without noise, as for a gene that copies another
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
    """Genes that a path from `i` reaches, open given `adjusted`, that is not directed all the way; (genes,) bool.

    Walks do as well as paths as long as they do not return to `i`, but for genes that `sid` counts anyway.
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
