"""Variance between replicates of a condition: wells, donors, guides or animals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from ._moderation import moderated_variance, sum_rows


class ReplicateVariance(NamedTuple):
    """Variance between replicates, ``(genes,)``, and its degrees of freedom with those of its prior."""

    variance: np.ndarray
    freedom: float


@dataclass(frozen=True)
class Replicates:
    r"""Which cells belong to which replicate, and what a variance between replicates adds to the errors of means.

    A part is a condition in a batch, or the controls of a line in a batch; a unit is a replicate in a part. A replicate may span batches.
    If replicate :math:`r` has a share :math:`a_r` of the cells of a condition and :math:`c_r` of its controls, a variance
    :math:`\omega^2` between replicates adds :math:`\omega^2 (\sum_r a_r^2 + \sum_r c_r^2)` to the variance of the condition's change.

    Parameters
    ----------
    n, part
        Cells and part of every unit, ``(units,)``.
    freedom
        Degrees of freedom of the differences between replicates within parts.
    own
        Share of every replicate in the cells of a treated part, ``(treated parts, replicates)`` sparse.
    overlap
        Sum over replicates of the product of their shares in two control groups, ``(groups, groups)`` sparse.
    group
        Control group of every treated part, ``(treated parts,)``.
    cells, controls
        Cells of every treated part, ``(treated parts,)``, and of every control group, ``(groups,)``.
    """

    n: np.ndarray
    part: np.ndarray
    freedom: int
    own: sp.csr_matrix
    overlap: sp.csr_matrix
    group: np.ndarray
    cells: np.ndarray
    controls: np.ndarray

    @classmethod
    def of(
        cls, n: np.ndarray, part: np.ndarray, replicate: np.ndarray, controls: np.ndarray, group: np.ndarray
    ) -> Self:
        """From the units: cells, part and replicate of each, ``(units,)``.

        ``controls`` are the parts of the control groups, ``(groups,)``; ``group`` is the group of every other part.
        """
        share = sp.csr_matrix((n, (part, replicate)))
        total = np.bincount(part, n)
        share = sp.csr_matrix(sp.diags(1 / total) @ share)
        # Parts and replicates are the nodes of a graph and units its edges. A connected part of it with R replicates has R - 1
        # independent differences, also if a replicate spans batches.
        links = sp.bmat([[None, share], [share.T, None]])
        components = connected_components(links, directed=False)[0]
        treated = np.setdiff1d(np.arange(len(total)), controls)
        overlap = sp.csr_matrix(share[controls] @ share[controls].T)
        freedom = share.shape[1] - components
        return cls(n, part, freedom, share[treated], overlap, group, total[treated], total[controls])

    def variance(self, change: np.ndarray, sampling: np.ndarray) -> ReplicateVariance:
        r"""Variance between replicates beyond sampling; ``change`` of every unit and its sampling variance, ``(units, genes)``.

        With weights :math:`w` (inverse sampling variances), :math:`Q = \sum_r w_r (m_r - \bar m)^2` about the weighted mean of a part has
        the expectation :math:`(R - 1) + \omega^2 (\sum_r w_r - \sum_r w_r^2 / \sum_r w_r)`, summed over parts. The mean square
        :math:`Q / (R - 1)` is moderated before it is solved for :math:`\omega^2`. If all replicates have equally many cells, the variance of
        a condition's mean is then the moderated mean square over replicates.
        """
        k, w = int(self.part.max()) + 1, 1 / sampling
        total, square = sum_rows(w, self.part, k), sum_rows(w**2, self.part, k)
        center = sum_rows(w * change, self.part, k) / total
        q = (w * (change - center[self.part]) ** 2).sum(0)
        count = len(self.part) - k
        moderated, prior = moderated_variance(q / count, self.freedom)
        leverage = (total - square / total).sum(0) / count
        return ReplicateVariance(np.maximum(moderated - 1, 0.0) / leverage, prior + self.freedom)

    def concentration(self, condition: np.ndarray, k: int, weight: np.ndarray | None = None) -> np.ndarray:
        r"""Sums :math:`\sum_r a_r^2` and :math:`\sum_r c_r^2` over replicates of every condition, ``(2, k, 1)``.

        ``condition`` of every treated part is an int below ``k``. ``weight`` of every treated part is its share of the cells of the
        condition by default.
        """
        if weight is None:
            weight = self.cells / np.bincount(condition, self.cells, minlength=k)[condition]
        own = _mix(weight, condition, np.arange(len(weight)), (k, len(weight))) @ self.own
        return np.stack(
            [_rows(own.multiply(own)), self._controls(_mix(weight, condition, self.group, (k, len(self.controls))))]
        )

    def of_lines(self, line: np.ndarray, lines: int) -> np.ndarray:
        """Sum of the squared shares of replicates in the controls of every line, ``(lines, 1)``; ``line`` of every control group."""
        used = np.isin(np.arange(len(line)), self.group) * self.controls
        weight = used / np.maximum(np.bincount(line, used, minlength=lines), 1e-300)[line]
        return self._controls(_mix(weight, line, np.arange(len(line)), (lines, len(line))))

    def _controls(self, mix: sp.csr_matrix) -> np.ndarray:
        return _rows((mix @ self.overlap).multiply(mix))

    def between_parts(self, condition: np.ndarray, k: int) -> tuple[float, float]:
        r"""Expectation of :math:`\sum_b w_b (m_b - \bar m)^2` over the parts of all conditions for a unit variance, and :math:`\sum_b w_b`.

        The weights are the inverse sampling variances :math:`1 / w_b = 1 / n_b + 1 / n_{0b}` of a part and its controls. A replicate that
        spans batches does not make the batches of a condition differ.
        """
        weight = 1 / (1 / self.cells + 1 / self.controls[self.group])
        total = np.maximum(np.bincount(condition, weight, minlength=k), 1e-300)
        mean = self.concentration(condition, k, weight / total[condition]).sum(0)[:, 0]
        single = _rows(self.own.multiply(self.own))[:, 0] + self.overlap.diagonal()[self.group]
        return float((weight * single).sum() - (total * mean).sum()), float(weight.sum())


def _mix(weight: np.ndarray, row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
    return sp.csr_matrix((weight, (row, column)), shape=shape)


def _rows(x: sp.csr_matrix) -> np.ndarray:
    return np.asarray(x.sum(1))
