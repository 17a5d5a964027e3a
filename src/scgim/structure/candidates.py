"""Candidate edges of a search, and the slots that the kernels walk over."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scgim.statistics import ConditionMeans

from .dag import levels

if TYPE_CHECKING:
    from scgim.statistics import SufficientStatistics

ALL_PAIRS = 200  # number of genes up to which every pair is a candidate
N_CANDIDATES = 40
N_MOVING = 24  # candidates of means: with 2,256 conditions they contain 99.6 % of the edges between measurable genes


class Slots(NamedTuple):
    """Edges sorted by target, then source. Slots ``start[j]:start[j + 1]`` hold the edges that may end in gene ``j``."""

    start: np.ndarray  # (genes + 1,)
    source: np.ndarray  # (slots,)
    back: np.ndarray  # (slots,) slot of the reversed edge, -1 if there is none
    leave: np.ndarray  # (genes + 1,)
    outward: np.ndarray  # (slots,) outward[leave[i] : leave[i + 1]] are the slots of edges out of gene i
    fixed: np.ndarray  # (slots,) bool: required edges


def make_slots(may: np.ndarray, required: np.ndarray) -> Slots:
    """Slots of the edges in ``may``, ``(genes, genes)`` bool, row = source."""
    d = len(may)
    target, source = map(np.ascontiguousarray, np.nonzero(may.T))  # numba would compile the kernels again for views
    number = np.full((d, d), -1)
    number[source, target] = np.arange(len(source))
    outward = np.argsort(source, kind="stable")
    start, leave = (np.searchsorted(a, np.arange(d + 1)) for a in (target, source[outward]))
    return Slots(start, source, number[target, source], leave, outward, required[source, target])


def check_priors(d: int, allowed: np.ndarray | None, required: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The masks of allowed and required edges, ``(genes, genes)`` bool; by default all edges are allowed and none required.

    Raises
    ------
    ValueError
        If a shape is wrong, a required edge is not allowed, or the required edges have a cycle.
    """
    allowed = np.ones((d, d), dtype=bool) if allowed is None else np.array(allowed, dtype=bool)
    required = np.zeros((d, d), dtype=bool) if required is None else np.array(required, dtype=bool)
    for name, mask in {"allowed": allowed, "required": required}.items():
        if mask.shape != (d, d):
            raise ValueError(f"{name} has shape {mask.shape}, not {(d, d)}: one row and one column per gene.")
    levels(required)
    if (required & ~allowed).any():
        edges = [tuple(edge) for edge in np.argwhere(required & ~allowed).tolist()]
        raise ValueError(f"Required edges that are not allowed: {edges}.")
    np.fill_diagonal(allowed, False)
    return allowed, required


def candidates(
    statistics: SufficientStatistics | ConditionMeans,
    columns: int,
    allowed: np.ndarray,
    required: np.ndarray,
    always: np.ndarray,
) -> Slots:
    """All allowed edges up to 200 genes; beyond, those between :func:`neighbors`. Required edges and ``always`` are included."""
    if len(allowed) <= ALL_PAIRS:
        may = allowed
    elif isinstance(statistics, ConditionMeans):
        may = allowed & moving_together(statistics)
    else:
        may = allowed & neighbors(statistics, columns)
    return make_slots(may | required | always, required)


def neighbors(statistics: SufficientStatistics, columns: int, count: int = N_CANDIDATES) -> np.ndarray:
    r"""Pairs of genes that are close within conditions: ``(genes, genes)`` bool, symmetric.

    Half of a gene's ``count`` neighbors are chosen by correlation (largest over the basis functions of the other gene), half by
    partial correlation of the values. Partial correlation finds parents whose effects cancel; each criterion alone misses more
    parents. With :math:`d` genes and :math:`f = N - K` degrees of freedom, correlations are shrunk by :math:`d / (d + f)` before
    they are inverted.
    """
    scale = np.sqrt(np.maximum(np.diag(statistics.scatter), 1e-300))
    correlation = statistics.scatter[:, ::columns] / scale[:, None] / scale[::columns]
    values, d = correlation[::columns], correlation.shape[1]
    shrink = d / (d + max(statistics.n.sum() - len(statistics.n), 0))
    precision = np.linalg.inv((1 - shrink) * values + shrink * np.eye(d))
    scale = np.sqrt(np.diag(precision))
    correlation = np.abs(correlation).reshape(d, columns, d).max(1)
    near = _largest(correlation, count // 2) | _largest(np.abs(precision / scale / scale[:, None]), count - count // 2)
    return near | near.T


def moving_together(means: ConditionMeans, count: int = N_MOVING) -> np.ndarray:
    """Pairs of genes that change together over conditions or vary together within them: ``(genes, genes)`` bool, symmetric.

    Half of a gene's ``count`` neighbors are chosen by the sum over conditions of the product of standardized changes, half by
    latent correlation.
    """
    z = means.change / np.sqrt(means.variance + means.control[means.line])
    scale = np.sqrt(np.diag(means.latent))
    correlation = np.abs(means.latent / scale / scale[:, None])
    near = _largest(np.abs(z.T @ z), count // 2) | _largest(correlation, count - count // 2)
    return near | near.T


def _largest(strength: np.ndarray, count: int) -> np.ndarray:
    """Mark the ``count`` largest entries of every column, without the diagonal."""
    np.fill_diagonal(strength, -1)
    chosen = np.zeros(strength.shape, dtype=bool)
    np.put_along_axis(chosen, np.argpartition(-strength, count, axis=0)[:count], True, axis=0)
    return chosen
