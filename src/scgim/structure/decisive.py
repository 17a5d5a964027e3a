"""The edge on which a target call depends most."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit

_LEAST = 0.1  # least relative change of a gene's score for an edge to count as decisive
_BLOCK = 10**7  # numbers in memory at a time


class Calls(NamedTuple):
    """Target calls on a graph, ``(conditions, genes)`` each: mean, residual, variance of the residual, probability of a target."""

    mean: np.ndarray
    residual: np.ndarray
    error: np.ndarray
    probability: np.ndarray


def decisive_edges(weight: np.ndarray, variance: np.ndarray, calls: Calls) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""For every gene in every condition, the incident edge whose removal or reversal changes the gene's score most.

    Let :math:`x` be mean changes, :math:`r` residuals, :math:`w` the weight of the edge and :math:`\sigma^2` noise variances.
    Without the edge :math:`i \to j` the residual of the child is :math:`r_j + w x_i`. With the reversed edge the residual of the
    parent is

    .. math:: r_i - w' (r_j + w x_i), \qquad w' = \frac{w \sigma_i^2}{\sigma_j^2 + w^2 \sigma_i^2},

    where :math:`w'` is the slope of the reverse regression. The log odds of a target change by the change of :math:`r^2 / 2v`,
    with the variance :math:`v` of the residual. The score is the probability times :math:`|r|`.

    Parameters
    ----------
    weight
        Weights of the edges, ``(genes, genes)``, row = source; 0 without an edge.
    variance
        Noise variances, ``(genes,)``.
    calls
        Target calls of the conditions.

    Returns
    -------
    Number of the decisive edge, ``(conditions, genes)`` int, -1 if no edge changes the score by a tenth; then source and target of
    every edge.

    Examples
    --------
    >>> import numpy as np
    >>> w = np.array([[0.0, 1.0], [0.0, 0.0]])  # gene 1 follows gene 0, and does so here
    >>> calls = Calls(*(np.array([row]) for row in ([-3.0, -3.0], [-3.0, 0.0], [0.1, 0.1], [1.0, 0.01])))
    >>> edge, source, target = decisive_edges(w, np.ones(2), calls)
    >>> edge.tolist(), source.tolist(), target.tolist()  # the only edge is decisive for both genes
    ([[0, 0]], [0], [1])
    """
    source, target = np.nonzero(weight)
    k, d = calls.mean.shape
    chosen = np.full((k, d), -1)
    if not len(source):
        return chosen, source, target
    w = weight[source, target]
    back = w * variance[source] / (variance[target] + w**2 * variance[source])
    # Every edge occurs twice: once for its child, once for its parent.
    gene, edge = np.concatenate([target, source]), np.tile(np.arange(len(source)), 2)
    order = np.argsort(gene, kind="stable")
    gene, edge = gene[order], edge[order]
    own, start = np.unique(gene, return_index=True)
    size = np.diff([*start, len(gene)])
    for at in range(0, k, step := max(1, _BLOCK // len(gene))):
        mean, residual, error, probability = (a[at : at + step] for a in calls)
        without = residual[:, target] + w * mean[:, source]
        after = np.concatenate([without, residual[:, source] - back * without], 1)[:, order]
        odds = logit(np.clip(probability, 1e-12, 1 - 1e-12)) - residual**2 / (2 * error)
        score = probability * np.abs(residual)
        changed = expit(odds[:, gene] + after**2 / (2 * error[:, gene])) * np.abs(after)
        change = np.abs(changed - score[:, gene])
        change[change < _LEAST * np.maximum(changed, score[:, gene])] = 0.0
        most = np.maximum.reduceat(change, start, axis=1)
        # Changes that are equal up to rounding are ties: the first edge wins, so the result does not depend on rounding.
        first = np.where(change >= np.repeat(most * (1 - 1e-9), size, axis=1), np.arange(len(gene)), len(gene))
        which = edge[np.minimum.reduceat(first, start, axis=1)]
        chosen[at : at + step, own] = np.where(most > 0, which, -1)
    return chosen, source, target
