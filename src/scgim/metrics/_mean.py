"""How well mean expression is predicted: rows are conditions, columns genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from ._arrays import broadcast, matrix, pair, per_row

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_ROUNDING = 1e-12  # of the largest entry: what is left of a constant after subtracting a reference


def rmse_delta(predicted: ArrayLike, truth: ArrayLike) -> np.ndarray:
    r"""Root mean squared error of the predicted change, per condition.

    .. math:: \sqrt{\tfrac1d \textstyle\sum_j (\hat\delta_{cj} - \delta_{cj})^2}

    Means and changes of them give the same number: a reference subtracted from both cancels. In units of expression; 0
    is perfect.

    Parameters
    ----------
    predicted, truth
        Mean expression, or its change, ``(conditions, genes)``.

    Returns
    -------
    ``(conditions,)``.

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

    Blind to the size of the predicted change; 1 is perfect, 0 chance. With the control as reference an average drug
    already scores high, as drugs share much of their effect; the mean of all conditions takes that out.

    Parameters
    ----------
    predicted, truth
        Mean expression, ``(conditions, genes)``; changes if `reference` is ``None``.
    reference
        What is subtracted from both, ``(genes,)`` or ``(conditions, genes)``.

    Returns
    -------
    ``(conditions,)``, NaN where one of the two does not vary over genes.

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
    r"""Weighted mean squared error, per condition; with :func:`deg_weights` that of differentially expressed genes.

    .. math:: \sum_j w_{cj} (\hat\delta_{cj} - \delta_{cj})^2, \qquad \textstyle\sum_j w_{cj} = 1

    A prediction without effects cannot hide behind the many genes that do not change. In squared units of expression;
    0 is perfect, and equal weights give the square of :func:`rmse_delta`.

    Parameters
    ----------
    predicted, truth
        Mean expression, or its change, ``(conditions, genes)``.
    weight
        Not negative, ``(conditions, genes)`` or ``(genes,)``; divided by its sum over genes.

    Returns
    -------
    ``(conditions,)``.

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
    r"""Weights of genes by how clearly a condition changes them, for :func:`wmse`.

    .. math::

        t_{cj} = \frac{m_{cj} - m^0_j}{\sqrt{s_{cj}^2 / n_c + (s^0_j)^2 / n^0}}, \qquad
        w_{cj} \propto \left(\frac{|t_{cj}| - \min_k |t_{ck}|}{\max_k |t_{ck}| - \min_k |t_{ck}|}\right)^2

    Welch's t, its size scaled to 0..1 within the condition, squared, and divided by the sum over genes. Where all sizes
    are equal, so are the weights. A gene that neither varies nor changes has t = 0. The authors estimate t with the
    treated cells' number in both places; the weights are theirs in all else. To be computed from measured cells, never
    from predicted ones.

    Parameters
    ----------
    mean, sd
        Of the cells of each condition, ``(conditions, genes)``.
    n
        Cells of each condition, ``(conditions,)`` or one number.
    control_mean, control_sd
        Of the cells compared with, ``(genes,)`` or ``(conditions, genes)``.
    control_n
        How many these are, ``(conditions,)`` or one number.

    Returns
    -------
    ``(conditions, genes)``, rows sum to 1.

    Raises
    ------
    ValueError
        If the shapes do not fit, a value is not finite, an sd is negative, a number of cells is not positive, or a gene
        changes and varies in neither group.

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
            f"Gene {gene} changes in condition {row} with sd 0 in both groups, which makes its t infinite."
        )
    t = change / np.where(error == 0, 1, error)
    least, most = t.min(1, keepdims=True), t.max(1, keepdims=True)
    square = np.where(most > least, (t - least) / np.where(most > least, most - least, 1), 1) ** 2
    return square / square.sum(1, keepdims=True)


def centroid_rank(predicted: ArrayLike, truth: ArrayLike) -> np.ndarray:
    r"""Share of the other conditions whose true mean is farther from the prediction than the own one.

    .. math::

        \frac{1}{C - 1} \sum_{k \ne c} [d_{ck} > d_{cc}] + \tfrac12 [d_{ck} = d_{cc}], \qquad
        d_{ck} = \lVert \hat m_c - m_k \rVert_2

    1 is perfect. Chance is 0.5, which one prediction for all conditions attains exactly, on average over them: unlike
    an error, the rank asks whether drugs are told apart. The centroid accuracy of Systema, in which ties count nothing.

    Parameters
    ----------
    predicted, truth
        Mean expression, or its change, ``(conditions, genes)``; two conditions or more.

    Returns
    -------
    ``(conditions,)``, from 0 to 1.

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
    return (score.sum(1) - 0.5) / (len(truth) - 1)  # .5: the own mean ties with itself
