"""The exact mixture likelihood over unknown intervention targets."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def mixture(logits: Tensor, touched: Tensor, untouched: Tensor, charge: float) -> Tensor:
    r"""Log likelihood of every context's every gene, the unknown target summed out.

    The indicators :math:`I_{kj}` are independent given the drug's features, and each changes only the conditional of
    its own gene, so the sum over all :math:`2^d` intervention sets factorises and is exact:

    .. math:: \log \sum_I p(I)\, p(D_k \mid I)\, e^{-c|I|}
        = \sum_j \log\left(e^{\log\sigma(\ell_{kj}) + S^1_{kj} - c} + e^{\log\sigma(-\ell_{kj}) + S^0_{kj}}\right)

    Parameters
    ----------
    logits
        :math:`\ell_{kj}`, ``(contexts, genes)``.
    touched, untouched
        Log likelihoods of the context's cells if the gene's mechanism is touched, or not; ``(contexts, genes)``.
    charge
        Occam charge in nats for every target, :math:`c`.

    Examples
    --------
    >>> import torch
    >>> even = mixture(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1), 0.0)
    >>> bool(even.abs() < 1e-6)
    True
    """
    return torch.logaddexp(logsigmoid(logits) + touched - charge, logsigmoid(-logits) + untouched)


def complete(logits: Tensor, touched: Tensor, untouched: Tensor, charge: float, targets: Tensor) -> Tensor:
    """As :func:`mixture` with the targets known, ``(contexts, genes)`` bool: what teacher forcing maximises."""
    return torch.where(targets, logsigmoid(logits) + touched - charge, logsigmoid(-logits) + untouched)


def shift_evidence(residual: Tensor, shift: Tensor, n: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    r"""Log likelihoods of a context's mean residual with and without a shift, up to what both share.

    For Gaussian noise the cells of a context enter through their scatter, which no shift changes, and the mean
    residual :math:`r_{kj}`: :math:`S^1 = -n_k (r_{kj} - \psi_{kj})^2 / 2\sigma_j^2`, :math:`S^0` the same at 0.

    Parameters
    ----------
    residual, shift
        ``(contexts, genes)``.
    n
        Cells per context, ``(contexts, 1)``.
    variance
        :math:`\sigma_j^2`, ``(genes,)``.
    """
    precision = n / (2 * variance)
    return -precision * (residual - shift) ** 2, -precision * residual**2


def scatter_loss(within: Tensor, variance: Tensor, n_cells: float) -> Tensor:
    r"""Minus log likelihood of all cells around their context's mean, ``(genes,)``.

    :math:`\tfrac N2 \log 2\pi\sigma_j^2 + \tilde w_j^\top W \tilde w_j / 2\sigma_j^2`, with the within-context residual
    sum of squares :math:`\tilde w_j^\top W \tilde w_j` as ``within``.
    """
    return 0.5 * n_cells * torch.log(2 * math.pi * variance) + within / (2 * variance)
