"""What a context's mean is worth as evidence, and what a target has to gain: both learned from the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from scgim.statistics import between_batches

from ._placebos import LEAST_CHARGE, Calibration, calibrate, excess_of_cells, excess_of_counts

if TYPE_CHECKING:
    from scgim.module.mechanisms import Mechanism
    from scgim.structure import LocalFit

    from ._collect import Collected


def worth(data: Collected, mechanism: Mechanism, variance: np.ndarray) -> np.ndarray:
    r"""How many independent cells every context's mean is worth, ``(contexts, genes)``.

    .. math:: 1 / n_{kj} = 1 / n_k + 1 / n_{0k} + \tau_j^2 / (\sigma_j^2 B_k)

    for :math:`n_{0k}` controls of its own line and batches and :math:`B_k` batches, between which residuals of the same
    context vary by :math:`\tau_j^2` beyond sampling.
    """
    fine, n = data.fine, data.contexts.n.numpy()
    k, cells = len(n), fine.n[:, None]
    residual = (torch.as_tensor(fine.mean) - mechanism(torch.as_tensor(fine.mean))).numpy()
    sampling = variance * (1 / cells + 1 / fine.controls[:, None])
    between, batches = between_batches(residual, sampling, fine.context, k)
    # the error of controls, at the weights with which batches enter the context's mean
    share = fine.n**2 / fine.controls
    controls = np.bincount(fine.context, share, minlength=k)[:, None] / n**2
    return 1 / (1 / n + controls + between / variance / batches)


def calibration(data: Collected, mechanism: Mechanism, fit: LocalFit | None) -> Calibration:
    """Charges of all genes, from placebos; ``fit`` is that of the means, on the standardised scale."""
    least = LEAST_CHARGE if fit is None else data.means.charge(fit)
    if data.raw is not None and mechanism.affine:
        unscaled = data.means.unscaled(fit)
        return calibrate(excess_of_counts(data.placebos, data.raw.toarray().astype(float), data.means, unscaled), least)
    x = data.some_controls()
    dtype = torch.float64 if mechanism.affine else torch.float32
    residual = (x - mechanism(x.to(dtype)).double()).numpy()
    return calibrate(excess_of_cells(data.placebos, residual, mechanism.variance.numpy()), least)
