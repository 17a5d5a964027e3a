"""Gaussian processes that share a kernel: how much of every output's variance the kernel explains, by marginal likelihood."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# of an output's variance that the kernel may explain
SHARES = torch.tensor([0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.99], dtype=torch.float64)


class Shrinkage(NamedTuple):
    """Posterior of the share :data:`SHARES` for every output."""

    evidence: float  # log marginal likelihood summed over outputs
    posterior: Tensor  # (shares, outputs)
    variance: Tensor  # (shares, outputs) of the output: signal and noise, given the share


def shrink(y: Tensor, eigenvalues: Tensor, rounds: int = 30) -> Shrinkage:
    r"""Share of the kernel in outputs :math:`y_j \sim N(0, t_j (h_j \Lambda + (1 - h_j) I))`, in its eigenvectors.

    The variance :math:`t_j` maximises the likelihood at every share on the grid. The prior of the shares is the outputs' own
    distribution of them (empirical Bayes by EM), so that many outputs without signal talk a chance one out of it.

    Parameters
    ----------
    y
        Outputs in the kernel's eigenvectors, ``(conditions, outputs)``.
    eigenvalues
        ``(conditions,)``.
    """
    spectrum = SHARES[:, None] * eigenvalues + 1 - SHARES[:, None]
    variance = (1 / spectrum) @ y**2 / len(y) + 1e-300
    likelihood = -0.5 * (len(y) * torch.log(variance) + torch.log(spectrum).sum(1, keepdim=True))
    prior = torch.full((len(SHARES),), 1 / len(SHARES), dtype=torch.float64)
    for _ in range(rounds):
        joint = likelihood + torch.log(prior)[:, None]
        prior = (torch.softmax(joint, 0).sum(1) + 1 / len(SHARES)) / (y.shape[1] + 1)
    joint = likelihood + torch.log(prior)[:, None]
    return Shrinkage(float(torch.logsumexp(joint, 0).sum()), torch.softmax(joint, 0), variance)


def smooth(shrinkage: Shrinkage, y: Tensor, eigenvalues: Tensor) -> Tensor:
    r"""What multiplies a new condition's covariance with the conditions: :math:`E_h[h / (h \Lambda + 1 - h)]\, y`."""
    return ((SHARES / (SHARES * eigenvalues[:, None] + 1 - SHARES)) @ shrinkage.posterior) * y


def noise_squares(shrinkage: Shrinkage, y: Tensor, eigenvalues: Tensor, vectors: Tensor) -> Tensor:
    """Expected square of every condition's noise over its variance, at the posterior mean share; ``(conditions, outputs)``.

    1 on average where the model holds.
    """
    share = SHARES @ shrinkage.posterior
    inverse = 1 / (share * eigenvalues[:, None] + 1 - share)
    variance = (inverse * y**2).mean(0) + 1e-300
    estimate = vectors @ (inverse * y)
    return 1 + (1 - share) * (estimate**2 / variance - vectors**2 @ inverse)
