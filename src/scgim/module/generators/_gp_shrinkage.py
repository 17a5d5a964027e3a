"""Gaussian processes with a common kernel: the share of every output's variance that the kernel explains, by marginal likelihood."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Grid of the share of an output's variance that the kernel explains.
SHARES = torch.tensor([0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.99], dtype=torch.float64)


class Shrinkage(NamedTuple):
    """Posterior of the kernel's share of the variance on the grid :data:`SHARES` for every output."""

    evidence: float  # log marginal likelihood, summed over outputs
    posterior: Tensor  # (shares, outputs)
    variance: Tensor  # (shares, outputs) variance of the output, signal and noise, given the share


def shrink(y: Tensor, eigenvalues: Tensor, rounds: int = 30) -> Shrinkage:
    r"""Posterior of the share :math:`h_j` in outputs :math:`y_j \sim N(0, t_j (h_j \Lambda + (1 - h_j) I))`.

    The outputs are in the basis of the kernel's eigenvectors, and :math:`\Lambda` are its eigenvalues. The variance :math:`t_j` maximizes
    the likelihood for every share on the grid. The prior of the shares is estimated from all outputs (empirical Bayes by EM), so that
    an output that appears to carry signal by chance is shrunk towards zero by the many that carry none.

    Parameters
    ----------
    y
        Outputs in the basis of the kernel's eigenvectors, ``(conditions, outputs)``.
    eigenvalues
        Eigenvalues of the kernel, ``(conditions,)``.
    rounds
        Rounds of EM.
    """
    # In the eigenbasis the covariance is diagonal for every share, so the grid needs no further decomposition.
    spectrum = SHARES[:, None] * eigenvalues + 1 - SHARES[:, None]
    variance = (1 / spectrum) @ y**2 / len(y) + 1e-300
    likelihood = -0.5 * (len(y) * torch.log(variance) + torch.log(spectrum).sum(1, keepdim=True))
    # One pseudo-count keeps every share of the grid possible.
    prior = torch.full((len(SHARES),), 1 / len(SHARES), dtype=torch.float64)
    for _ in range(rounds):
        joint = likelihood + torch.log(prior)[:, None]
        prior = (torch.softmax(joint, 0).sum(1) + 1 / len(SHARES)) / (y.shape[1] + 1)
    joint = likelihood + torch.log(prior)[:, None]
    return Shrinkage(float(torch.logsumexp(joint, 0).sum()), torch.softmax(joint, 0), variance)


def smooth(shrinkage: Shrinkage, y: Tensor, eigenvalues: Tensor) -> Tensor:
    r"""Weights of the training conditions in predictions, in the eigenbasis: :math:`E_h[h / (h \Lambda + 1 - h)]\, y`."""
    return ((SHARES / (SHARES * eigenvalues[:, None] + 1 - SHARES)) @ shrinkage.posterior) * y


def noise_squares(shrinkage: Shrinkage, y: Tensor, eigenvalues: Tensor, vectors: Tensor) -> Tensor:
    """Expected squared noise of every condition, relative to its variance, at the posterior mean share; ``(conditions, outputs)``.

    The average is 1 if the model is correct.
    """
    # The noise given the outputs has mean (1 - h) times the estimate below. Its posterior variance is the rest of the expression.
    share = SHARES @ shrinkage.posterior
    inverse = 1 / (share * eigenvalues[:, None] + 1 - share)
    variance = (inverse * y**2).mean(0) + 1e-300
    estimate = vectors @ (inverse * y)
    return 1 + (1 - share) * (estimate**2 / variance - vectors**2 @ inverse)
