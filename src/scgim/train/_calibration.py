"""Calibration: effective cells of every condition's mean, and the target penalty, both estimated from the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from scipy.stats import chi2, f

from scgim.data._placebos import dense_sum
from scgim.statistics import between_batch_variance, log_fold_change, misfit_variance, own_dispersion
from scgim.structure import FLOOR

if TYPE_CHECKING:
    from scgim.data._mean_evidence import ConditionMeansModel
    from scgim.data._placebos import Placebos
    from scgim.data._training_data import TrainingData
    from scgim.module import MeasuredConditions, Moments
    from scgim.module.mechanisms import Mechanism
    from scgim.statistics import ReplicateVariance
    from scgim.structure import LocalFit

LEVEL = 0.02  # accepted share of placebos with any target
MIN_TARGET_PENALTY = 5.0  # nats
_METHOD = "placebos: control cells against the other controls of their line and batch"
_PRIOR_PLACEBOS = (
    50  # pseudo-placebos with the overdispersion of all genes, towards which a gene's overdispersion is shrunk
)


def with_effective_cells(
    data: TrainingData,
    mechanism: Mechanism,
    fit: LocalFit | None,
    conditions: MeasuredConditions,
    validation: MeasuredConditions | None,
) -> tuple[MeasuredConditions, MeasuredConditions | None]:
    """Training and validation conditions with effective cells, the number of independent cells equivalent to each gene's mean.

    ``fit`` is the regression of the means on the standardized scale if the graph was learned from means.
    """
    like = conditions.mean  # gives the device and the precision
    if fit is not None and mechanism.affine:
        mean, n = data.means.seen(fit)
        conditions = conditions._replace(mean=torch.as_tensor(mean).to(like), spread=torch.zeros_like(like))
    else:
        n = effective_cells(data, mechanism)
    conditions = conditions._replace(n=torch.as_tensor(n).to(like))
    if validation is not None and fit is not None:
        floor = torch.as_tensor((FLOOR * data.means.unit) ** 2).to(like) / mechanism.variance
        validation = validation._replace(n=1 / (1 / validation.n + floor), spread=torch.zeros_like(validation.spread))
    return conditions, validation


def misfit(data: TrainingData, mechanism: Mechanism, moments: Moments, n: torch.Tensor) -> np.ndarray:
    """Variance of the conditions' residuals due to misfit of the graph, ``(conditions, genes)``.

    :func:`~scgim.statistics.misfit_variance` estimates it; ``n`` are effective cells. It is 0 for graphs learned from means, because
    the likelihood of means contains a misfit of its own.
    """
    residual, change, cells = (a.detach().cpu().numpy() for a in (moments.residual, moments.value, n))
    if data.means is not None and mechanism.affine:
        return np.zeros_like(residual)
    noise = mechanism.variance.detach().cpu().numpy()
    weight, _ = mechanism.effects(data.some_controls().to(mechanism.bias))
    return misfit_variance(
        residual, change, noise / cells, weight.detach().cpu().numpy(), noise, data.summary.design.drug
    )


def effective_cells(data: TrainingData, mechanism: Mechanism) -> np.ndarray:
    r"""Effective cells :math:`n_{kj}` of every condition's mean, ``(conditions, genes)``.

    .. math:: 1 / n_{kj} = 1 / n_k + 1 / n_{0k} + \tau_j^2 / (\sigma_j^2 B_k) + \omega_j^2 / (\sigma_j^2 R_k)

    Condition :math:`k` has :math:`n_k` cells in :math:`B_k` batches, and :math:`n_{0k}` controls in its line and batches. :math:`\sigma_j^2`
    is the noise variance of a cell, and :math:`\tau_j^2` the variance of residuals between batches of the same condition beyond
    sampling. :math:`\omega_j^2` is the variance between replicates, if they are declared, and :math:`1 / R_k` the sum of the squared
    shares of replicates in the condition, plus that of its controls (:class:`~scgim.statistics.Replicates`).
    """
    variance = mechanism.variance.cpu().numpy()
    found = replicate_variance(data, mechanism)
    return variance / _error(data, _residual(mechanism, torch.as_tensor(data.fine.mean)), variance, found)


def replicate_variance(data: TrainingData, mechanism: Mechanism | None = None) -> ReplicateVariance | None:
    """Variance between replicates of the residuals under mechanisms, or of the genes' values; ``None`` without replicates."""
    replicates = data.fine.replicates
    if replicates is None:
        return None
    mean = replicates.mean if mechanism is None else _residual(mechanism, torch.as_tensor(replicates.mean))
    variance = _cell_variance(data) if mechanism is None else mechanism.variance.cpu().numpy()
    return replicates.replicates.variance(mean, variance / replicates.replicates.n[:, None])


def change_error(data: TrainingData) -> np.ndarray:
    """Variance of the error of every condition's mean change, ``(conditions, genes)``.

    It has the components of :func:`effective_cells`, estimated from the genes' values in place of their residuals.
    """
    return _error(data, data.fine.mean, _cell_variance(data), replicate_variance(data))


def _cell_variance(data: TrainingData) -> np.ndarray:
    """Variance of the values of a cell within conditions, ``(genes,)``."""
    statistics = data.summary.statistics
    freedom = max(float(statistics.n_cells) - len(statistics.n), 1.0)
    return np.maximum(np.diag(statistics.scatter) / freedom, 1e-12)


def _error(
    data: TrainingData, mean: np.ndarray, variance: np.ndarray, replicates: ReplicateVariance | None
) -> np.ndarray:
    """Sampling variance of a condition and of its controls, and variance between its replicates and its batches.

    ``mean`` are means by condition and batch, and ``variance`` is the variance of a cell.
    """
    fine, n = data.fine, data.conditions.n.numpy()
    k = len(n)
    sampling = variance * (1 / fine.n + 1 / fine.controls)[:, None]
    excess, added = 0.0, 0.0
    if replicates is not None:
        known = fine.replicates.replicates
        excess = replicates.variance / variance * known.between_parts(fine.condition, k)[0]
        added = replicates.variance * known.concentration(fine.condition, k).sum(0)
    between, batches = between_batch_variance(mean, sampling, fine.condition, fine.n, k, excess)
    # A condition is compared with the controls of its batches, so the sampling error of these controls enters with the weights of
    # the batches in the condition's mean.
    controls = np.bincount(fine.condition, fine.n**2 / fine.controls, minlength=k)[:, None] / n**2
    return variance * (1 / n + controls) + between / batches + added


def calibrate_penalty(data: TrainingData, mechanism: Mechanism, fit: LocalFit | None) -> Calibration:
    """Target penalties of all genes from placebos; ``fit`` is the regression of the means on the standardized scale."""
    least = MIN_TARGET_PENALTY if fit is None else data.means.target_penalty(fit)
    if data.raw is not None and mechanism.affine:
        found, added = data.means.means.replicates, 0.0
        if found is not None:
            added = found.variance * _concentration(data, data.means.sizes.of(data.raw))
        squares = placebo_squares_of_counts(data.placebos, data.raw, data.means, data.means.unscaled(fit), added)
        return penalty_from_placebos(squares, least, freedom=_freedom(found))
    found = replicate_variance(data, mechanism)
    residual, noise, added = _residual(mechanism, data.some_controls()), mechanism.variance.cpu().numpy(), 0.0
    if found is not None:
        added = found.variance * _concentration(data, np.ones(len(residual)))
    squares = placebo_squares_of_cells(data.placebos, residual, noise, added)
    return penalty_from_placebos(squares, least, freedom=_freedom(found))


def _freedom(found: ReplicateVariance | None) -> float:
    return np.inf if found is None else found.freedom


def _concentration(data: TrainingData, size: np.ndarray) -> np.ndarray:
    """Sum of the squared shares of replicates in every placebo and its reference; ``size`` is the weight of every control cell."""
    return data.placebos.concentration(data.summary.control_replicate, size)


def control_residual_mean(data: TrainingData, mechanism: Mechanism) -> torch.Tensor:
    """Mean residual of the control cells under the mechanisms, ``(genes,)``.

    Predictions start from control cells, so effects are measured from the controls' mean residual. The intercept of a mechanism is no
    substitute, because a weak effect common to many conditions biases the intercept.
    """
    return torch.as_tensor(_residual(mechanism, data.some_controls()).mean(0))


def _residual(mechanism: Mechanism, x: torch.Tensor) -> np.ndarray:
    """Residuals of cells or of means under the mechanisms; networks are evaluated in single precision, as in training."""
    values = x.to(mechanism.bias.device, torch.float64 if mechanism.affine else torch.float32)
    return (x - mechanism(values).to("cpu", torch.float64)).numpy()


@dataclass(frozen=True)
class Calibration:
    """Target penalties from placebos.

    ``target_penalty``, ``chance`` (gain that is expected by chance) and ``overdispersion`` are ``(genes,)``. ``level`` is the accepted
    false-positive rate, and ``placebos`` the number of placebos.
    """

    target_penalty: np.ndarray
    chance: np.ndarray
    overdispersion: np.ndarray
    level: float
    placebos: int

    @classmethod
    def given(cls, target_penalty: float, genes: int) -> Calibration:
        """A target penalty set by the user."""
        return cls(np.full(genes, target_penalty), np.full(genes, target_penalty), np.ones(genes), 0.0, 0)

    def about(self) -> dict:
        """Plain values for provenance."""
        q = np.quantile(self.target_penalty, [0, 0.5, 1])
        return {
            "method": _METHOD if self.placebos else "none: set by hand, or too few controls for placebos",
            "placebos": self.placebos,
            "level": self.level,
            "target_penalty_min": float(q[0]),
            "target_penalty_median": float(q[1]),
            "target_penalty_max": float(q[2]),
            "overdispersion_median": float(np.median(self.overdispersion)),
            "overdispersion_max": float(self.overdispersion.max(initial=0.0)),
        }


def placebo_squares_of_cells(
    placebos: Placebos, residual: np.ndarray, variance: np.ndarray, added: np.ndarray | float = 0.0
) -> np.ndarray:
    r"""Squared standardized mean residuals of placebos, ``(placebos, genes)``, with mean 1 if cells are independent.

    ``residual`` are residuals of control cells, ``(cells, genes)``, and ``variance`` is their variance, ``(genes,)``. A placebo is compared
    with the other cells of its groups. ``added`` is the variance between replicates in its mean, ``(placebos, genes)``.
    """
    sums = placebos.by_group(residual)
    size = placebos.by_group(np.ones((len(residual), 1)))[..., 0]
    whole = np.bincount(placebos.group, minlength=size.shape[1]).astype(float)
    total = np.stack([residual[placebos.group == g].sum(0) for g in range(size.shape[1])])
    rest = np.maximum(whole - size, 1.0)
    gap = (sums - size[..., None] * (total - sums) / rest[..., None]).sum(
        1
    )  # sum of the placebo less its expected value
    cells = (size + size**2 / rest).sum(1)[:, None]  # variance of the gap, in variances of a cell
    return gap**2 / cells / (variance + size.sum(1)[:, None] ** 2 / cells * added)


def placebo_squares_of_counts(
    placebos: Placebos,
    x: sp.csr_matrix,
    model: ConditionMeansModel,
    weight: np.ndarray,
    added: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Squared standardized residuals of the log fold changes of placebos, ``(placebos, genes)``.

    ``x`` are raw counts with size factors in the last column, ``(cells, genes + 1)``. ``weight`` are the coefficients of the means.
    ``added`` is the variance between replicates of a log fold change, ``(placebos, genes)``.
    """
    size, group = model.sizes.of(x), placebos.group
    counts, sizes = placebos.by_group(x[:, :-1]), placebos.by_group(size[:, None])
    groups = sp.csr_matrix((np.ones(len(group)), (group, np.arange(len(group)))))
    whole, total = dense_sum(groups, x[:, :-1]), groups @ size
    overall = np.maximum(whole.sum(0) / total.sum(), 0.5 / total.sum())
    left = whole - counts
    rate = (left + 1) / (total[:, None] - sizes + 1 / overall)
    expected, dispersion = (sizes * rate).sum(1), model.means.dispersion
    cells = np.asarray(placebos.member.sum(1))
    own = own_dispersion(dispersion, _squares(placebos, x[:, :-1], size), counts.sum(1), cells)
    change, variance = log_fold_change(counts.sum(1), expected, own)
    # The estimate of the controls' rate has an error of its own, as for real conditions.
    variance = variance + dispersion * ((sizes * rate) ** 2 / (left + 1)).sum(1) / expected**2
    residual, sd = change - change @ weight, np.sqrt(variance + added)
    return residual**2 / (error_of(weight, model.means.correlation, sd) + FLOOR**2)


def _squares(placebos: Placebos, x: np.ndarray | sp.csr_matrix, size: np.ndarray) -> np.ndarray:
    """Squared deviations of counts from each placebo's rate in every group, ``(placebos, genes)``."""
    x = sp.csr_matrix(x)
    counts, sizes = placebos.by_group(x), placebos.by_group(size[:, None])
    rate = counts / np.maximum(sizes, 1e-12)
    both, squared = (placebos.by_group(sp.csr_matrix(x.multiply(other))) for other in (size[:, None], x))
    return (squared - 2 * rate * both + rate**2 * placebos.by_group(size[:, None] ** 2)).sum(1)


def error_of(weight: np.ndarray, correlation: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Variance of every gene's residual, ``(rows, genes)``, from the correlated errors of the gene and of its parents."""
    own = np.eye(len(weight)) - weight
    out = np.empty_like(sd)
    # The loop over genes uses only a gene and its parents; the dense product would cost genes x genes for every gene.
    for j in range(len(weight)):
        rows = np.flatnonzero(own[:, j])
        part = sd[:, rows] * own[rows, j]
        out[:, j] = ((part @ correlation[np.ix_(rows, rows)]) * part).sum(1)
    return np.maximum(out, 1e-12)


def penalty_from_placebos(
    squares: np.ndarray,
    least: np.ndarray | float = MIN_TARGET_PENALTY,
    level: float = LEVEL,
    *,
    freedom: float = np.inf,
) -> Calibration:
    r"""Target penalties at which a share ``level`` of the placebos has any target.

    Without an effect, the gain of gene :math:`j` is distributed as :math:`\phi_j \chi^2_1 / 2`. The overdispersion :math:`\phi_j \ge 1` is
    the mean of the squares of placebos, shrunk towards the mean of all genes. The target penalty is :math:`\phi_j / 2` times the
    larger of two quantiles: the :math:`\chi^2_1` quantile at :math:`1 - \alpha / d` for :math:`d` genes, and the empirical quantile at
    :math:`1 - \alpha` of :math:`\max_j z_{pj}^2 / \phi_j` over placebos :math:`p`. The penalty is at least ``least`` and at least 5 nats.
    With a variance of :math:`\nu` degrees of freedom, the first quantile is that of :math:`F_{1, \nu}`, as in a moderated t-test.

    Parameters
    ----------
    squares
        :math:`z_{pj}^2`, ``(placebos, genes)``.
    least
        Lower bound on the target penalty, a number or ``(genes,)``.
    level
        :math:`\alpha`, accepted share of placebos with any target.
    freedom
        :math:`\nu`, degrees of freedom of the variance between replicates; infinite if the error is that of cells alone.
    """
    n, d = squares.shape
    theory = chi2.ppf(1 - level / d, 1) if np.isinf(freedom) else f.ppf(1 - level / d, 1, freedom)
    if n == 0:
        chance = MIN_TARGET_PENALTY if np.isinf(freedom) else max(0.5 * theory, MIN_TARGET_PENALTY)
        target_penalty = np.maximum(chance, np.broadcast_to(least, d)).astype(float)
        return Calibration(target_penalty, np.full(d, chance), np.ones(d), level, 0)
    # The overdispersion describes typical squares. Outliers are clipped here, and the empirical quantile below accounts for them.
    mean = np.minimum(squares, chi2.ppf(1 - 1 / max(n, 2), 1)).mean(0)
    phi = np.maximum((n * mean + _PRIOR_PLACEBOS * mean.mean()) / (n + _PRIOR_PLACEBOS), 1.0)
    tail = max(theory, float(np.quantile((squares / phi).max(1), 1 - level)))
    chance = np.maximum(0.5 * phi * tail, MIN_TARGET_PENALTY)
    return Calibration(np.maximum(chance, least), chance, phi, level, n)
