"""Accuracy of predicted mean expression; rows are conditions, columns are genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from ._arrays import broadcast, matrix, pair, per_row

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_ROUNDING = 1e-12  # of the largest entry: rounding error of a constant after a reference was subtracted


def rmse_delta(predicted: ArrayLike, truth: ArrayLike) -> np.ndarray:
    r"""Root mean squared error of the predicted change, per condition.

    .. math:: \sqrt{\tfrac1d \textstyle\sum_j (\hat\delta_{cj} - \delta_{cj})^2}

    :math:`\hat\delta_{cj}` and :math:`\delta_{cj}` are the predicted and the true change of gene :math:`j` of :math:`d` in condition
    :math:`c`. Means give the same number as changes, because a common reference cancels. The unit is that of expression; 0 is perfect.

    Parameters
    ----------
    predicted, truth
        Mean expression, or its change, ``(conditions, genes)``.

    Returns
    -------
    The errors, ``(conditions,)``.

    Raises
    ------
    ValueError
        If the shapes differ or a value is not finite.

    Examples
    --------
    >>> rmse_delta([[1.0, 2.0], [0.0, 0.0]], [[1.0, 2.0], [3.0, 4.0]]).round(3).tolist()
    [0.0, 3.536]
    """
    predicted, truth = pair(predicted, truth)
    return np.sqrt(((predicted - truth) ** 2).mean(1))


def pearson_delta(predicted: ArrayLike, truth: ArrayLike, *, reference: ArrayLike | None = None) -> np.ndarray:
    """Pearson correlation over genes of the predicted and the true change, per condition.

    The size of the predicted change has no influence. 1 is perfect, 0 is chance level. With the control as reference, the mean of all
    drugs already scores high, because drugs share much of their effect. With the mean of all conditions as reference, it does not.

    Parameters
    ----------
    predicted, truth
        Mean expression, ``(conditions, genes)``; changes if `reference` is ``None``.
    reference
        Reference subtracted from both, ``(genes,)`` or ``(conditions, genes)``.

    Returns
    -------
    The correlations, ``(conditions,)``; NaN if the predicted or the true change does not vary over genes.

    Raises
    ------
    ValueError
        If the shapes do not fit or a value is not finite.

    References
    ----------
    Viñas Torné et al., Systema: a framework for evaluating genetic perturbation response prediction beyond systematic
    variation, Nature Biotechnology 2025.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.array([[1.0, 2.0, 4.0], [0.0, 1.0, 0.0]])
    >>> pearson_delta([[2.0, 4.0, 8.0], [3.0, 3.0, 3.0]], truth).round(3).tolist()
    [1.0, nan]
    """
    predicted, truth = pair(predicted, truth)
    base = np.zeros_like(truth) if reference is None else broadcast(reference, truth.shape, "reference")
    centered, constant = [], np.zeros(len(truth), dtype=bool)
    for mean in (predicted, truth):
        change = mean - base
        constant |= np.ptp(change, axis=1) <= _ROUNDING * np.maximum(abs(mean), abs(base)).max(1)
        centered.append(change - change.mean(1, keepdims=True))
    a, b = (change / np.where(constant, 1, np.linalg.norm(change, axis=1))[:, None] for change in centered)
    return np.where(constant, np.nan, np.clip((a * b).sum(1), -1, 1))


def wmse(predicted: ArrayLike, truth: ArrayLike, weight: ArrayLike) -> np.ndarray:
    r"""Weighted mean squared error of the predicted change, per condition.

    .. math:: \sum_j w_{cj} (\hat\delta_{cj} - \delta_{cj})^2, \qquad \textstyle\sum_j w_{cj} = 1

    :math:`\hat\delta_{cj}` and :math:`\delta_{cj}` are the predicted and the true change of gene :math:`j` in condition :math:`c`, and
    :math:`w_{cj}` its weight. With :func:`deg_weights`, the error is that of differentially expressed genes: genes without change, which
    favor a prediction of no effect, have little weight. The unit is that of squared expression; 0 is perfect. Equal weights give the
    square of :func:`rmse_delta`.

    Parameters
    ----------
    predicted, truth
        Mean expression, or its change, ``(conditions, genes)``.
    weight
        Weights, not negative, ``(conditions, genes)`` or ``(genes,)``; they are divided by their sum over genes.

    Returns
    -------
    The errors, ``(conditions,)``.

    Raises
    ------
    ValueError
        If the shapes do not fit, a value is not finite, a weight is negative or all of a condition's are 0.

    References
    ----------
    Mejia et al., Diversity by design: addressing mode collapse improves scRNA-seq perturbation modeling on
    well-calibrated metrics, arXiv:2506.22641.

    Examples
    --------
    >>> wmse([[0.0, 0.0]], [[2.0, 1.0]], [3.0, 1.0]).tolist()
    [3.25]
    """
    predicted, truth = pair(predicted, truth)
    weight = broadcast(weight, truth.shape, "weight")
    total = weight.sum(1, keepdims=True)
    if (weight < 0).any() or not total.all():
        raise ValueError(
            f"weight of shape {weight.shape} must not be negative and have a positive sum in every condition; "
            f"its smallest entry is {weight.min():g}, its smallest sum {total.min():g}."
        )
    return (weight / total * (predicted - truth) ** 2).sum(1)


def deg_weights(
    mean: ArrayLike,
    sd: ArrayLike,
    n: ArrayLike,
    control_mean: ArrayLike,
    control_sd: ArrayLike,
    control_n: ArrayLike,
) -> np.ndarray:
    r"""Weights of genes by the evidence of differential expression in a condition, for :func:`wmse`.

    .. math::

        t_{cj} = \frac{m_{cj} - m^0_j}{\sqrt{s_{cj}^2 / n_c + (s^0_j)^2 / n^0}}, \qquad
        w_{cj} \propto \left(\frac{|t_{cj}| - \min_k |t_{ck}|}{\max_k |t_{ck}| - \min_k |t_{ck}|}\right)^2

    :math:`m`, :math:`s` and :math:`n` are mean, SD and number of cells of condition :math:`c` and of the control (index 0). Welch's
    :math:`t` is scaled in absolute value to the range 0 to 1 within the condition, squared, and divided by the sum over genes. Equal
    values of :math:`|t|` give equal weights. A gene that neither varies nor changes has :math:`t = 0`. The authors use the number of
    treated cells in both places of :math:`t`; everything else follows them. Weights must be computed from measured cells, never from
    predicted ones.

    Parameters
    ----------
    mean, sd
        Mean and SD of the cells of each condition, ``(conditions, genes)``.
    n
        Number of cells of each condition, ``(conditions,)`` or one number.
    control_mean, control_sd
        Mean and SD of the control cells, ``(genes,)`` or ``(conditions, genes)``.
    control_n
        Number of control cells, ``(conditions,)`` or one number.

    Returns
    -------
    The weights, ``(conditions, genes)``; rows sum to 1.

    Raises
    ------
    ValueError
        If the shapes do not fit, a value is not finite, an SD is negative, a number of cells is not positive, or a gene changes but varies
        in neither group.

    References
    ----------
    Mejia et al., Diversity by design: addressing mode collapse improves scRNA-seq perturbation modeling on
    well-calibrated metrics, arXiv:2506.22641.

    Examples
    --------
    >>> deg_weights([[0.0, 1.0, -2.0]], [[1.0, 1.0, 1.0]], 50, [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], 50).tolist()
    [[0.0, 0.2, 0.8]]
    """
    mean = matrix(mean, "mean")
    named = {"sd": sd, "control_mean": control_mean, "control_sd": control_sd}
    sd, control_mean, control_sd = (broadcast(value, mean.shape, name) for name, value in named.items())
    n, control_n = (per_row(value, len(mean), name) for name, value in {"n": n, "control_n": control_n}.items())
    if min(sd.min(), control_sd.min()) < 0:
        raise ValueError(f"sd and control_sd must not be negative: {min(sd.min(), control_sd.min()):g}.")
    if min(n.min(), control_n.min()) <= 0:
        raise ValueError(f"n and control_n must be positive: {min(n.min(), control_n.min()):g}.")
    change, error = abs(mean - control_mean), np.sqrt(sd**2 / n + control_sd**2 / control_n)
    if (sure := (error == 0) & (change > 0)).any():
        row, gene = np.argwhere(sure)[0].tolist()
        raise ValueError(
            f"Gene {gene} changes in condition {row} with an SD of 0 in both groups, which makes its t infinite."
        )
    t = change / np.where(error == 0, 1, error)
    least, most = t.min(1, keepdims=True), t.max(1, keepdims=True)
    square = np.where(most > least, (t - least) / np.where(most > least, most - least, 1), 1) ** 2
    return square / square.sum(1, keepdims=True)


def centroid_rank(predicted: ArrayLike, truth: ArrayLike) -> np.ndarray:
    r"""Share of the other conditions whose true mean is farther from the prediction than the condition's own true mean.

    .. math::

        \frac{1}{C - 1} \sum_{k \ne c} [d_{ck} > d_{cc}] + \tfrac12 [d_{ck} = d_{cc}], \qquad
        d_{ck} = \lVert \hat m_c - m_k \rVert_2

    :math:`\hat m_c` is the predicted mean of condition :math:`c` of :math:`C`, and :math:`m_k` the true mean of condition :math:`k`. 1 is
    perfect. Chance level is 0.5; a single prediction for all conditions attains it exactly on average. Unlike an error, the rank measures
    whether drugs are told apart. It is the centroid accuracy of Systema, except that ties count one half instead of nothing.

    Parameters
    ----------
    predicted, truth
        Mean expression, or its change, ``(conditions, genes)``; two conditions or more.

    Returns
    -------
    The ranks, ``(conditions,)``, from 0 to 1.

    Raises
    ------
    ValueError
        If the shapes differ, a value is not finite or there is one condition only.

    References
    ----------
    Viñas Torné et al., Systema: a framework for evaluating genetic perturbation response prediction beyond systematic
    variation, Nature Biotechnology 2025.

    Examples
    --------
    >>> truth = [[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]]
    >>> centroid_rank(truth, truth).tolist()
    [1.0, 1.0, 1.0]
    >>> centroid_rank([[0.0, 0.0]] * 3, truth).tolist()
    [1.0, 0.5, 0.0]
    """
    predicted, truth = pair(predicted, truth)
    if len(truth) < 2:
        raise ValueError(f"A rank needs two conditions or more; truth is of shape {truth.shape}.")
    distance = cdist(predicted, truth)
    own = np.diag(distance)[:, None]
    score = (distance > own) + 0.5 * (distance == own)
    return (score.sum(1) - 0.5) / (len(truth) - 1)  # 0.5: the own mean ties with itself
