"""How well the direct targets of drugs are found: rows are drugs, columns genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import average_precision_score

from ._arrays import pair

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def target_average_precision(score: ArrayLike, truth: ArrayLike) -> float:
    r"""Average precision of a drug's targets among its genes, mean over the drugs that have one.

    .. math:: \sum_k (R_k - R_{k-1})\, P_k

    over the distinct scores of a drug from the highest down, with R and P recall and precision of the genes that score
    so much or more: :func:`sklearn.metrics.average_precision_score` of every row. 1 is perfect; chance is a drug's
    share of targets.

    Parameters
    ----------
    score
        Higher for surer targets, ``(drugs, genes)``.
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
    r"""F1 score of the called targets, all pairs of drug and gene pooled.

    .. math:: \frac{2\,TP}{2\,TP + FP + FN}

    1 is perfect. Unlike the other measures of targets it counts calls for drugs that have none.

    Parameters
    ----------
    called, truth
        A target where non-zero, ``(drugs, genes)``.

    Returns
    -------
    From 0 to 1; NaN if nothing is called and nothing is true.

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
    """Share of a drug's targets among its `k` genes of highest score, mean over the drugs that have one.

    Genes that tie for the last places share them, as if drawn at random. A drug with more than `k` targets cannot
    reach 1; chance is ``k / genes``.

    Parameters
    ----------
    score
        Higher for surer targets, ``(drugs, genes)``.
    truth
        A target where non-zero, ``(drugs, genes)``.
    k
        From 1 to the number of genes.

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
