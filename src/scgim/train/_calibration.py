"""What a condition's mean is worth as evidence, and what a target has to gain: both learned from the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from scipy.stats import chi2

from scgim.data._placebos import dense_sum
from scgim.statistics import between_batch_variance, log_fold_change, misfit_variance, own_dispersion
from scgim.structure import FLOOR

if TYPE_CHECKING:
    from scgim.data._mean_evidence import ConditionMeansModel
    from scgim.data._placebos import Placebos
    from scgim.data._training_data import TrainingData
    from scgim.module import MeasuredConditions, Moments
    from scgim.module.mechanisms import Mechanism
    from scgim.structure import LocalFit


def with_effective_cells(
    data: TrainingData,
    mechanism: Mechanism,
    fit: LocalFit | None,
    conditions: MeasuredConditions,
    held: MeasuredConditions | None,
) -> tuple[MeasuredConditions, MeasuredConditions | None]:
    """Training and validation conditions as evidence: how many independent cells each gene's mean is worth.

    ``fit`` is that of the means, on the standardised scale, if the graph was learned from them.
    """
    like = conditions.mean  # where training takes place
    if fit is not None and mechanism.affine:
        mean, n = data.means.seen(fit)
        conditions = conditions._replace(mean=torch.as_tensor(mean).to(like), spread=torch.zeros_like(like))
    else:
        n = effective_cells(data, mechanism)
    conditions = conditions._replace(n=torch.as_tensor(n).to(like))
    if held is not None and fit is not None:
        floor = torch.as_tensor((FLOOR * data.means.unit) ** 2).to(like) / mechanism.variance
        held = held._replace(n=1 / (1 / held.n + floor), spread=torch.zeros_like(held.spread))
    return conditions, held


def misfit(data: TrainingData, mechanism: Mechanism, moments: Moments, n: torch.Tensor) -> np.ndarray:
    """Variance that conditions' residuals have beyond sampling because the graph misfits, ``(conditions, genes)``.

    See :func:`~scgim.statistics.misfit_variance`; ``n`` is what their means are worth. The likelihood of means has a misfit of
    its own, so there this is 0.
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
    r"""How many independent cells every condition's mean is worth, ``(conditions, genes)``.

    .. math:: 1 / n_{kj} = 1 / n_k + 1 / n_{0k} + \tau_j^2 / (\sigma_j^2 B_k)

    for :math:`n_{0k}` controls of its own line and batches and :math:`B_k` batches, between which residuals of the same
    condition vary by :math:`\tau_j^2` beyond sampling.
    """
    variance = mechanism.variance.cpu().numpy()
    return variance / _error(data, _residual(mechanism, torch.as_tensor(data.fine.mean)), variance)


def change_error(data: TrainingData) -> np.ndarray:
    """Variance of the error of every condition's mean change, ``(conditions, genes)``: as in :func:`worth`, of the genes themselves."""
    statistics = data.summary.statistics
    freedom = max(float(statistics.n_cells) - len(statistics.n), 1.0)
    return _error(data, data.fine.mean, np.maximum(np.diag(statistics.scatter) / freedom, 1e-12))


def _error(data: TrainingData, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Sampling, the controls' own error, and what batches of one condition differ by; ``mean`` is by batch, ``variance`` of a cell."""
    fine, n = data.fine, data.conditions.n.numpy()
    k = len(n)
    sampling = variance * (1 / fine.n + 1 / fine.controls)[:, None]
    between, batches = between_batch_variance(mean, sampling, fine.context, fine.n, k)
    # the error of controls, at the weights with which batches enter the condition's mean
    controls = np.bincount(fine.context, fine.n**2 / fine.controls, minlength=k)[:, None] / n**2
    return variance * (1 / n + controls) + between / batches


def calibration(data: TrainingData, mechanism: Mechanism, fit: LocalFit | None) -> Calibration:
    """Charges of all genes, from placebos; ``fit`` is that of the means, on the standardised scale."""
    least = MIN_TARGET_PENALTY if fit is None else data.means.target_penalty(fit)
    if data.raw is not None and mechanism.affine:
        return calibrate(
            placebo_squares_of_counts(data.placebos, data.raw, data.means, data.means.unscaled(fit)), least
        )
    residual = _residual(mechanism, data.some_controls())
    return calibrate(placebo_squares_of_cells(data.placebos, residual, mechanism.variance.cpu().numpy()), least)


def rest(data: TrainingData, mechanism: Mechanism) -> torch.Tensor:
    """What mechanisms leave of the control cells on average, ``(genes,)``; 0 but for what all conditions share.

    Predictions start from these cells, so that an effect is one against them, and not against the intercept, which many
    conditions that share a weak one draw towards themselves.
    """
    return torch.as_tensor(_residual(mechanism, data.some_controls()).mean(0))


def _residual(mechanism: Mechanism, x: torch.Tensor) -> np.ndarray:
    """What the mechanisms leave of cells, or of means; networks in single precision, as they train."""
    seen = x.to(mechanism.bias.device, torch.float64 if mechanism.affine else torch.float32)
    return (x - mechanism(seen).to("cpu", torch.float64)).numpy()


LEVEL = 0.02  # share of placebos that may have any target


MIN_TARGET_PENALTY = 5.0


_METHOD = "placebos: control cells against the other controls of their line and batch"


_PRIOR_PLACEBOS = 50  # placebos' worth of belief that a gene's overdispersion is that of all genes


@dataclass(frozen=True)
class Calibration:
    """What placebos say: ``charge``, ``chance`` (what they gain) and ``overdispersion`` ``(genes,)``, the ``level``, how many."""

    target_penalty: np.ndarray
    chance: np.ndarray
    overdispersion: np.ndarray
    level: float
    placebos: int

    @classmethod
    def given(cls, target_penalty: float, genes: int) -> Calibration:
        """A charge that was set by hand."""
        return cls(np.full(genes, target_penalty), np.full(genes, target_penalty), np.ones(genes), 0.0, 0)

    def about(self) -> dict:
        """For provenance, plain values."""
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


def placebo_squares_of_cells(placebos: Placebos, residual: np.ndarray, variance: np.ndarray) -> np.ndarray:
    r"""Squares of placebos' standardised mean residuals, ``(placebos, genes)``: 1 on average if cells are independent.

    ``residual`` are those of control cells, ``(cells, genes)``, and ``variance`` theirs, ``(genes,)``; what is measured is the
    difference to the other cells of the group.
    """
    sums = placebos.by_group(residual)
    size = placebos.by_group(np.ones((len(residual), 1)))[..., 0]
    whole = np.bincount(placebos.group, minlength=size.shape[1]).astype(float)
    total = np.stack([residual[placebos.group == g].sum(0) for g in range(size.shape[1])])
    rest = np.maximum(whole - size, 1.0)
    gap = (sums - size[..., None] * (total - sums) / rest[..., None]).sum(1)  # own sum less what the rest would give
    return gap**2 / (size + size**2 / rest).sum(1)[:, None] / variance


def placebo_squares_of_counts(
    placebos: Placebos, x: sp.csr_matrix, evidence: ConditionMeansModel, weight: np.ndarray
) -> np.ndarray:
    """The same of log changes; ``x`` are raw counts with sizes, ``(cells, genes + 1)``, ``weight`` of the means' changes."""
    size, group = evidence.sizes.of(x), placebos.group
    counts, sizes = placebos.by_group(x[:, :-1]), placebos.by_group(size[:, None])
    groups = sp.csr_matrix((np.ones(len(group)), (group, np.arange(len(group)))))
    whole, total = dense_sum(groups, x[:, :-1]), groups @ size
    overall = np.maximum(whole.sum(0) / total.sum(), 0.5 / total.sum())
    left = whole - counts
    rate = (left + 1) / (total[:, None] - sizes + 1 / overall)
    expected, dispersion = (sizes * rate).sum(1), evidence.means.dispersion
    cells = np.asarray(placebos.member.sum(1))
    own = own_dispersion(dispersion, _squares(placebos, x[:, :-1], size), counts.sum(1), cells)
    change, variance = log_fold_change(counts.sum(1), expected, own)
    # the controls' own error, which real conditions share
    variance = variance + dispersion * ((sizes * rate) ** 2 / (left + 1)).sum(1) / expected**2
    residual, sd = change - change @ weight, np.sqrt(variance)
    return residual**2 / (error_of(weight, evidence.means.correlation, sd) + FLOOR**2)


def _squares(placebos: Placebos, x: np.ndarray | sp.csr_matrix, size: np.ndarray) -> np.ndarray:
    """Squares of counts about each placebo's own rate in every group, ``(placebos, genes)``."""
    x = sp.csr_matrix(x)
    counts, sizes = placebos.by_group(x), placebos.by_group(size[:, None])
    rate = counts / np.maximum(sizes, 1e-12)
    both, squared = (placebos.by_group(sp.csr_matrix(x.multiply(other))) for other in (size[:, None], x))
    return (squared - 2 * rate * both + rate**2 * placebos.by_group(size[:, None] ** 2)).sum(1)


def error_of(weight: np.ndarray, correlation: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Variance of every gene's residual given errors of all genes, ``(rows, genes)``, parents' included."""
    own = np.eye(len(weight)) - weight
    out = np.empty_like(sd)
    for j in range(len(weight)):
        rows = np.flatnonzero(own[:, j])
        part = sd[:, rows] * own[rows, j]
        out[:, j] = ((part @ correlation[np.ix_(rows, rows)]) * part).sum(1)
    return np.maximum(out, 1e-12)


def calibrate(squares: np.ndarray, least: np.ndarray | float = MIN_TARGET_PENALTY, level: float = LEVEL) -> Calibration:
    r"""Charges at which a share ``level`` of the placebos would have any target.

    A gene's gain without an effect is half a :math:`\chi^2_1` times its overdispersion :math:`\phi_j \ge 1`, the mean of
    its placebos' squares, drawn towards that of all genes. The charge is :math:`\phi_j / 2` times the larger of the
    :math:`\chi^2_1` quantile at :math:`1 - \alpha / d` and the placebos' own quantile at :math:`1 - \alpha` of the largest
    :math:`z_{pj}^2 / \phi_j` over genes; never less than ``least`` nor 5 nats.

    Parameters
    ----------
    squares
        :math:`z_{pj}^2`, ``(placebos, genes)``.
    """
    n, d = squares.shape
    if n == 0:
        target_penalty = np.maximum(MIN_TARGET_PENALTY, np.broadcast_to(least, d)).astype(float)
        return Calibration(target_penalty, np.full(d, MIN_TARGET_PENALTY), np.ones(d), level, 0)
    # a few huge squares are the tail's business
    mean = np.minimum(squares, chi2.ppf(1 - 1 / max(n, 2), 1)).mean(0)
    phi = np.maximum((n * mean + _PRIOR_PLACEBOS * mean.mean()) / (n + _PRIOR_PLACEBOS), 1.0)
    tail = max(chi2.ppf(1 - level / d, 1), float(np.quantile((squares / phi).max(1), 1 - level)))
    chance = np.maximum(0.5 * phi * tail, MIN_TARGET_PENALTY)
    return Calibration(np.maximum(chance, least), chance, phi, level, n)
