"""Recovery of the direct targets of drugs; rows are drugs, columns are genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import average_precision_score

from ._arrays import pair

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def target_average_precision(score: ArrayLike, truth: ArrayLike) -> float:
    r"""Average precision of a drug's targets among all genes, averaged over the drugs that have a target.

    .. math:: \sum_k (R_k - R_{k-1})\, P_k

    The sum runs over the distinct scores :math:`k` of a drug from the highest down. :math:`R_k` and :math:`P_k` are recall and precision of
    the genes with at least this score. The function is :func:`sklearn.metrics.average_precision_score` of every row. 1 is perfect; chance
    level is the share of targets among the genes.

    Parameters
    ----------
    score
        Scores, higher for more certain targets, ``(drugs, genes)``.
    truth
        A target where non-zero, ``(drugs, genes)``.

    Returns
    -------
    From 0 to 1; NaN if no drug has a target.

    Raises
    ------
    ValueError
        If the shapes differ or a value is not finite.

    Examples
    --------
    >>> target_average_precision([[0.9, 0.1, 0.2], [0.3, 0.5, 0.1]], [[1, 0, 0], [1, 0, 0]])
    0.75
    """
    score, truth = _with_targets(score, truth)
    return _mean([average_precision_score(targets, row) for targets, row in zip(truth, score, strict=True)])


def target_f1(called: ArrayLike, truth: ArrayLike) -> float:
    r"""F1 score of the called targets over all pairs of drug and gene.

    .. math:: \frac{2\,TP}{2\,TP + FP + FN}

    :math:`TP`, :math:`FP` and :math:`FN` are the numbers of true positives, false positives and false negatives. 1 is perfect. Unlike the
    other metrics of targets, this one includes drugs without targets, whose calls are false positives.

    Parameters
    ----------
    called, truth
        A target where non-zero, ``(drugs, genes)``.

    Returns
    -------
    From 0 to 1; NaN if there is neither a call nor a target.

    Raises
    ------
    ValueError
        If the shapes differ or a value is not finite.

    Examples
    --------
    >>> target_f1([[1, 0, 0], [1, 1, 0]], [[1, 0, 0], [0, 1, 0]])
    0.8
    """
    called, truth = (value != 0 for value in _pair(called, truth, "called"))
    n = int(called.sum() + truth.sum())
    return 2 * int((called & truth).sum()) / n if n else float("nan")


def recall_at_k(score: ArrayLike, truth: ArrayLike, k: int) -> float:
    """Share of a drug's targets among its `k` genes with the highest scores, averaged over the drugs that have a target.

    Genes that tie for the last places share them, as if drawn at random. A drug with more than `k` targets cannot reach 1. Chance level
    is ``k / genes``.

    Parameters
    ----------
    score
        Scores, higher for more certain targets, ``(drugs, genes)``.
    truth
        A target where non-zero, ``(drugs, genes)``.
    k
        Number of genes, from 1 to all genes.

    Returns
    -------
    From 0 to 1; NaN if no drug has a target.

    Raises
    ------
    ValueError
        If the shapes differ, a value is not finite or `k` is impossible.

    Examples
    --------
    >>> recall_at_k([[0.9, 0.1, 0.2], [0.3, 0.5, 0.1]], [[1, 0, 0], [1, 0, 0]], 1)
    0.5
    """
    score, truth = _with_targets(score, truth)
    genes = score.shape[1]
    if k not in range(1, genes + 1):
        raise ValueError(f"k={k!r} must be a whole number from 1 to {genes}, the number of genes.")
    k = int(k)
    last = np.partition(score, genes - k, axis=1)[:, [genes - k]]
    above, tied = score > last, score == last
    taken = above + tied * (k - above.sum(1, keepdims=True)) / tied.sum(1, keepdims=True)
    return _mean((taken * truth).sum(1) / truth.sum(1))


def _pair(first: ArrayLike, truth: ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray]:
    return pair(first, truth, names=(name, "truth"), axes="(drugs, genes)")


def _with_targets(score: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    score, truth = _pair(score, truth, "score")
    rows = (truth != 0).any(1)
    return score[rows], truth[rows] != 0


def _mean(values: ArrayLike) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
