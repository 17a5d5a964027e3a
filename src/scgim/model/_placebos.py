"""Placebo contexts: control cells against the other control cells, to see what passes for an effect where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.stats import chi2

from scgim.statistics import change_of, own_dispersion
from scgim.structure import FLOOR

if TYPE_CHECKING:
    from ._means import MeanEvidence

N_PLACEBOS = 200
LEVEL = 0.02  # share of placebos that may have any target
LEAST_CHARGE = 5.0
_METHOD = "placebos: control cells against the other controls of their line and batch"
_PRIOR_PLACEBOS = 50  # placebos' worth of belief that a gene's overdispersion is that of all genes


@dataclass(frozen=True)
class Calibration:
    """What placebos say: ``charge``, ``chance`` (what they gain) and ``overdispersion`` ``(genes,)``, the ``level``, how many."""

    charge: np.ndarray
    chance: np.ndarray
    overdispersion: np.ndarray
    level: float
    placebos: int

    @classmethod
    def given(cls, charge: float, genes: int) -> Calibration:
        """A charge that was set by hand."""
        return cls(np.full(genes, charge), np.full(genes, charge), np.ones(genes), 0.0, 0)

    def about(self) -> dict:
        """For provenance, plain values."""
        q = np.quantile(self.charge, [0, 0.5, 1])
        return {
            "method": _METHOD if self.placebos else "none: set by hand, or too few controls for placebos",
            "placebos": self.placebos,
            "level": self.level,
            "charge_min": float(q[0]),
            "charge_median": float(q[1]),
            "charge_max": float(q[2]),
            "overdispersion_median": float(np.median(self.overdispersion)),
            "overdispersion_max": float(self.overdispersion.max(initial=0.0)),
        }


@dataclass(frozen=True)
class Placebos:
    """Which control cells make up every placebo: ``member`` (placebos, cells) sparse of ones, and the ``group`` of every cell.

    Drawn without replacement within control groups (line x batch), at most half of a group, at the sizes and with the
    groups of real contexts. With a ``key``, a number that every cell has of its own, the order of cells does not matter.
    """

    member: sp.csr_matrix
    group: np.ndarray  # (cells,)

    @classmethod
    def draw(
        cls, group: np.ndarray, of_contexts: np.ndarray, seed: int, n: int = N_PLACEBOS, key: np.ndarray | None = None
    ) -> Placebos:
        """``group`` (and ``key``) of every kept control cell, ``of_contexts`` ``(contexts, groups)`` cells of the real ones."""
        rng = np.random.default_rng([seed, 0x0C0A])
        order = np.arange(len(group)) if key is None else np.argsort(key, kind="stable")
        rows = [order[group[order] == g] for g in range(of_contexts.shape[1])]
        chosen, placebo = [], []
        for p, k in enumerate(rng.integers(0, len(of_contexts), n)):
            for g in np.flatnonzero(of_contexts[k]):
                size = min(int(of_contexts[k, g]), len(rows[g]) // 2)
                picked = rng.choice(rows[g], size, replace=False)
                chosen.append(picked)
                placebo.append(np.full(size, p))
        at = (np.concatenate(placebo), np.concatenate(chosen)) if chosen else (np.zeros(0, int), np.zeros(0, int))
        member = sp.csr_matrix((np.ones(len(at[0])), at), shape=(n, len(group)))
        return cls(member[np.asarray(member.sum(1)).ravel() > 0], group)

    def by_group(self, x: np.ndarray | sp.csr_matrix) -> np.ndarray:
        """Sums over each placebo's cells in every group, ``(placebos, groups, columns)``; ``x`` stays sparse."""
        own = (self.group == g for g in range(int(self.group.max()) + 1))
        return np.stack([dense_sum(self.member[:, rows], x[rows]) for rows in own], 1)


def dense_sum(member: sp.csr_matrix, x: np.ndarray | sp.csr_matrix) -> np.ndarray:
    """``member @ x``, dense."""
    found = member @ x
    return found.toarray() if sp.issparse(found) else found


def excess_of_cells(placebos: Placebos, residual: np.ndarray, variance: np.ndarray) -> np.ndarray:
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


def excess_of_counts(placebos: Placebos, x: sp.csr_matrix, evidence: MeanEvidence, weight: np.ndarray) -> np.ndarray:
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
    change, variance = change_of(counts.sum(1), expected, own)
    # the controls' own error, which real contexts share
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


def calibrate(squares: np.ndarray, least: np.ndarray | float = LEAST_CHARGE, level: float = LEVEL) -> Calibration:
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
        charge = np.maximum(LEAST_CHARGE, np.broadcast_to(least, d)).astype(float)
        return Calibration(charge, np.full(d, LEAST_CHARGE), np.ones(d), level, 0)
    # a few huge squares are the tail's business
    mean = np.minimum(squares, chi2.ppf(1 - 1 / max(n, 2), 1)).mean(0)
    phi = np.maximum((n * mean + _PRIOR_PLACEBOS * mean.mean()) / (n + _PRIOR_PLACEBOS), 1.0)
    tail = max(chi2.ppf(1 - level / d, 1), float(np.quantile((squares / phi).max(1), 1 - level)))
    chance = np.maximum(0.5 * phi * tail, LEAST_CHARGE)
    return Calibration(np.maximum(chance, least), chance, phi, level, n)
