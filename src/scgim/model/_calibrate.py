"""What a context's mean is worth as evidence, and what a target has to gain: both learned from the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from scgim.statistics import between_batches, misfit_variance
from scgim.structure import FLOOR

from ._placebos import LEAST_CHARGE, Calibration, calibrate, excess_of_cells, excess_of_counts

if TYPE_CHECKING:
    from scgim.module import Contexts, Moments
    from scgim.module.mechanisms import Mechanism
    from scgim.structure import LocalFit

    from ._collect import Collected


def weigh(
    data: Collected, mechanism: Mechanism, fit: LocalFit | None, contexts: Contexts, held: Contexts | None
) -> tuple[Contexts, Contexts | None]:
    """Training and validation contexts as evidence: how many independent cells each gene's mean is worth.

    ``fit`` is that of the means, on the standardised scale, if the graph was learned from them.
    """
    like = contexts.mean  # where training takes place
    if fit is not None and mechanism.affine:
        mean, n = data.means.seen(fit)
        contexts = contexts._replace(mean=torch.as_tensor(mean).to(like), spread=torch.zeros_like(like))
    else:
        n = worth(data, mechanism)
    contexts = contexts._replace(n=torch.as_tensor(n).to(like))
    if held is not None and fit is not None:
        floor = torch.as_tensor((FLOOR * data.means.unit) ** 2).to(like) / mechanism.variance
        held = held._replace(n=1 / (1 / held.n + floor), spread=torch.zeros_like(held.spread))
    return contexts, held


def misfit(data: Collected, mechanism: Mechanism, moments: Moments, n: torch.Tensor) -> np.ndarray:
    """Variance that contexts' residuals have beyond sampling because the graph misfits, ``(contexts, genes)``.

    See :func:`~scgim.statistics.misfit_variance`; ``n`` is what their means are worth. The likelihood of means has a misfit of
    its own, so there this is 0.
    """
    residual, change, cells = (a.detach().cpu().numpy() for a in (moments.residual, moments.value, n))
    if data.means is not None and mechanism.affine:
        return np.zeros_like(residual)
    noise = mechanism.variance.detach().cpu().numpy()
    weight, _ = mechanism.effects(data.some_controls().to(mechanism.bias))
    return misfit_variance(
        residual, change, noise / cells, weight.detach().cpu().numpy(), noise, data.fitted.design.drug
    )


def worth(data: Collected, mechanism: Mechanism) -> np.ndarray:
    r"""How many independent cells every context's mean is worth, ``(contexts, genes)``.

    .. math:: 1 / n_{kj} = 1 / n_k + 1 / n_{0k} + \tau_j^2 / (\sigma_j^2 B_k)

    for :math:`n_{0k}` controls of its own line and batches and :math:`B_k` batches, between which residuals of the same
    context vary by :math:`\tau_j^2` beyond sampling.
    """
    variance = mechanism.variance.cpu().numpy()
    return variance / _error(data, _residual(mechanism, torch.as_tensor(data.fine.mean)), variance)


def change_error(data: Collected) -> np.ndarray:
    """Variance of the error of every context's mean change, ``(contexts, genes)``: as in :func:`worth`, of the genes themselves."""
    statistics = data.fitted.statistics
    freedom = max(float(statistics.n_cells) - len(statistics.n), 1.0)
    return _error(data, data.fine.mean, np.maximum(np.diag(statistics.scatter) / freedom, 1e-12))


def _error(data: Collected, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Sampling, the controls' own error, and what batches of one context differ by; ``mean`` is by batch, ``variance`` of a cell."""
    fine, n = data.fine, data.contexts.n.numpy()
    k = len(n)
    sampling = variance * (1 / fine.n + 1 / fine.controls)[:, None]
    between, batches = between_batches(mean, sampling, fine.context, fine.n, k)
    # the error of controls, at the weights with which batches enter the context's mean
    controls = np.bincount(fine.context, fine.n**2 / fine.controls, minlength=k)[:, None] / n**2
    return variance * (1 / n + controls) + between / batches


def calibration(data: Collected, mechanism: Mechanism, fit: LocalFit | None) -> Calibration:
    """Charges of all genes, from placebos; ``fit`` is that of the means, on the standardised scale."""
    least = LEAST_CHARGE if fit is None else data.means.charge(fit)
    if data.raw is not None and mechanism.affine:
        return calibrate(excess_of_counts(data.placebos, data.raw, data.means, data.means.unscaled(fit)), least)
    residual = _residual(mechanism, data.some_controls())
    return calibrate(excess_of_cells(data.placebos, residual, mechanism.variance.cpu().numpy()), least)


def rest(data: Collected, mechanism: Mechanism) -> torch.Tensor:
    """What mechanisms leave of the control cells on average, ``(genes,)``; 0 but for what all contexts share.

    Predictions start from these cells, so that an effect is one against them, and not against the intercept, which many
    contexts that share a weak one draw towards themselves.
    """
    return torch.as_tensor(_residual(mechanism, data.some_controls()).mean(0))


def _residual(mechanism: Mechanism, x: torch.Tensor) -> np.ndarray:
    """What the mechanisms leave of cells, or of means; networks in single precision, as they train."""
    seen = x.to(mechanism.bias.device, torch.float64 if mechanism.affine else torch.float32)
    return (x - mechanism(seen).to("cpu", torch.float64)).numpy()
