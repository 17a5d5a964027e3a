"""The score of a gene's parents where they may interact: a small network, fitted by the Levenberg-Marquardt method."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scgim.statistics import BASIS_CENTERS, expand

if TYPE_CHECKING:
    from .score import Intervention

UNITS = 8
FITTED, JUDGED = 2_500, 20_000  # most cells to which coefficients are fitted, and on which the score is computed
_RIDGE, _LEVEL_RIDGE = (
    1.0,
    1e-6,
)  # penalties of the coefficients and of the intercept, in squares of standardized values
# Most steps of a fit, damping values tried per step, and least gain of two steps in a row (nats) for the fit to go on.
_STEPS, _TRIALS, _ENOUGH = 40, 6, 0.3
_REFLAGS, _REFIT = 3, 0.02  # updates of the targets, and least share of cells with a changed flag for a second fit
_SPREAD, _NEW = 1.5, 0.3  # SD of random weights: of all parents together, and of a newly added parent


@dataclass(frozen=True)
class Network:
    """A gene as a function of its parents, ``readout @ (1, z, tanh(inner.T @ z + bias))``, and the score of this network."""

    parents: tuple[int, ...]
    inner: np.ndarray  # (parents, units)
    bias: np.ndarray  # (units,)
    readout: np.ndarray  # (1 + parents + units,)
    moved: np.ndarray  # (conditions,) bool: conditions that target the gene
    score: float = math.inf

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The network at the values of all genes, ``(genes, cells)`` -> ``(cells,)``."""
        return self.readout.astype(x.dtype) @ _design(x[list(self.parents)], self.inner, self.bias)

    def without(self, parent: int) -> tuple[tuple[int, ...], np.ndarray, np.ndarray, np.ndarray]:
        """Start of a fit with one parent less."""
        at = self.parents.index(parent)
        return self.parents[:at] + self.parents[at + 1 :], np.delete(self.inner, at, 0), self.bias, self.moved

    def joined_by(self, parent: int) -> tuple[tuple[int, ...], np.ndarray, np.ndarray, np.ndarray]:
        """Start of a fit with one parent more, whose weights are small at first."""
        parents = tuple(sorted((*self.parents, parent)))
        weights = _NEW * np.random.default_rng(len(parents)).normal(size=len(self.bias))
        return parents, np.insert(self.inner, parents.index(parent), weights, 0), self.bias, self.moved


class _Offsets(NamedTuple):
    """Cells of conditions with an intercept of their own. They come last: where each condition begins, and the root of its size."""

    first: int
    start: np.ndarray
    root: np.ndarray

    def sums(self, a: np.ndarray) -> np.ndarray:
        """Sums over each condition divided by the root of its size. Subtracting their products centers every condition."""
        return (np.add.reduceat(a[..., self.first :], self.start, axis=-1) / self.root).astype(np.float64)


class NetworkScore:
    r"""Scores of parent sets by networks, in nats; smaller is better.

    .. math:: \tfrac N2 \log s_j^2 + c\,|T_j| + \lambda \tfrac12 \log N \, 4 |S|

    :math:`N` is the number of cells, :math:`T_j` the set of conditions that target gene :math:`j`, :math:`c` the target penalty,
    :math:`\lambda` the price of a basis function and :math:`S` the parent set. The score equals the score of the search, except
    that :math:`s_j^2` is the residual variance of a network of the parents. The parents may interact, so no further parent is
    needed to imitate an interaction. The network is fitted to a sample of the cells. Conditions that shift the gene have an
    intercept of their own in the fit, and conditions that set the gene are left out. The score is computed on more cells.

    Parameters
    ----------
    x
        Standardized cells, ``(cells, genes)``, sorted by condition, controls first.
    size
        Cells of every condition, ``(conditions,)``.
    intervention
        ``"shift"`` or ``"hard"``.
    target_penalty
        Nats per target; 6 by default.
    penalty
        Price of a basis function in BICs, 1 by default. A parent has four basis functions, as in the search.
    edge_log_odds, target_log_odds
        Prior log odds of edges, ``(genes, genes)``, row = source, and of targets, ``(conditions, genes)``, as in the search.
    """

    def __init__(
        self,
        x: np.ndarray,
        size: np.ndarray,
        *,
        intervention: Intervention = "shift",
        target_penalty: float | None = None,
        penalty: float | None = None,
        edge_log_odds: np.ndarray | None = None,
        target_log_odds: np.ndarray | None = None,
    ) -> None:
        code = np.repeat(np.arange(len(size)), size)
        # Cells are taken at even spacing, so that every condition keeps its share.
        judged, fitted = (np.linspace(0, len(x) - 1, min(len(x), most)).astype(int) for most in (JUDGED, FITTED))
        self.hard, self.target_penalty = intervention == "hard", 6.0 if target_penalty is None else target_penalty
        self.judged, self.code = np.ascontiguousarray(x[judged].T), code[judged]
        self.fitted, self.code_fitted = np.ascontiguousarray(x[fitted].T), code[fitted]
        self.size = np.bincount(self.code, minlength=len(size)).astype(float)
        self.cells = len(judged)
        columns = 1 + len(BASIS_CENTERS)
        d, k = x.shape[1], len(size)
        self.edge_log_odds = np.zeros((d, d)) if edge_log_odds is None else edge_log_odds
        self.target_log_odds = np.zeros((k, d)) if target_log_odds is None else target_log_odds
        self.price = (1.0 if penalty is None else penalty) * columns * 0.5 * math.log(self.cells)
        basis = expand(self.fitted.T.astype(np.float64)).reshape(len(fitted), -1, columns)
        self.basis = basis - basis.mean(0)
        self.inverse = np.linalg.pinv(np.einsum("cib,cie->ibe", self.basis, self.basis), hermitian=True)

    # ---- fits --------------------------------------------------------------------------------------------------------

    def first(self, j: int, parents: np.ndarray, moved: np.ndarray) -> Network:
        """Network of gene ``j`` on parents, from random units. ``moved`` are the conditions assumed to target the gene."""
        rng, p = np.random.default_rng(len(parents)), len(parents)
        inner = _SPREAD / math.sqrt(max(p, 1)) * rng.normal(size=(p, UNITS))
        # Weights are assigned by the correlation of each parent with the gene, so the result does not depend on the order of genes.
        inner = inner[np.argsort(np.argsort(self.fitted[parents] @ self.fitted[j]))]
        return self.fit(j, tuple(parents.tolist()), inner, rng.uniform(-_SPREAD, _SPREAD, UNITS), moved)

    def fit(self, j: int, parents: tuple[int, ...], inner: np.ndarray, bias: np.ndarray, moved: np.ndarray) -> Network:
        """Network of gene ``j`` on parents from a given start, its targets found as in the search, and its score."""
        own = self._by_condition(self.judged[j])[1]
        for _ in range(2):
            # The fit depends on the targets and the targets on the fit. Targets are updated on the fixed fit, and the network is
            # fitted a second time only if many cells changed sides.
            network = Network(parents, *self._descend(j, list(parents), inner, bias, moved), moved)
            mean, within = self._by_condition(self.judged[j] - network(self.judged))
            excess = within - own if self.hard else np.zeros_like(own)
            base = (own if self.hard else within).sum()
            price = self.target_penalty - self.target_log_odds[:, j]
            before, level = moved, mean[0]  # at first only the controls are known not to be targets
            for _ in range(_REFLAGS):
                gap = self.size * (mean - level) ** 2 + excess
                moved = gap > 2 * price * (base + gap @ ~moved) / self.cells
                moved[0] = False
                still = self.size * ~moved
                level = still @ mean / max(still.sum(), 1)
            gap = self.size * (mean - level) ** 2 + excess
            if not parents or self.size @ (moved != before) <= _REFIT * self.cells:
                break
            inner, bias = network.inner, network.bias
        misfit = 0.5 * self.cells * math.log((base + gap @ ~moved) / self.cells)
        score = misfit + np.maximum(price[moved], 0.0).sum() + self.price * len(parents)
        score -= self.edge_log_odds[list(parents), j].sum()
        return Network(parents, network.inner, network.bias, network.readout, moved, score)

    def _by_condition(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean of every condition, and sum of squares about this mean."""
        conditions, n = len(self.size), np.maximum(self.size, 1)
        mean = np.bincount(self.code, y, conditions) / n
        return mean, np.bincount(self.code, np.square(y, dtype=np.float64), conditions) - n * mean**2

    def _descend(
        self, j: int, parents: list[int], inner: np.ndarray, bias: np.ndarray, moved: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weighted least squares by Levenberg-Marquardt steps. The network is linear in its readout, which is solved exactly."""
        z, y, offsets = self._rows(j, parents, moved)
        p, h = inner.shape
        q = 1 + p + h
        design = _design(z, inner, bias)
        cost, readout = _read_out(design, y, offsets, inner)
        damping, idle = 1.0, 0
        for _ in range(_STEPS if p else 0):
            a, b = _normal(_tangent(design, p, readout), y, offsets)
            # The normal equations hold the readout too, because its optimum moves with the units. Only the step of the units is
            # used: `_read_out` then solves for the readout again.
            b -= a[:, :q] @ readout
            b[1:q] -= _RIDGE * readout[1:]
            b[q + h :] -= _RIDGE * inner.ravel()
            # Large damping shortens the step and turns it towards the gradient, so that some damping always lowers the cost.
            diagonal = a.diagonal() + _RIDGE
            for _ in range(_TRIALS):
                a.flat[:: len(a) + 1] = (1 + damping) * diagonal
                step = np.linalg.solve(a, b)
                new = inner + step[q + h :].reshape(p, h), bias + step[q : q + h]
                trial = _design(z, *new)
                less, weights = _read_out(trial, y, offsets, new[0])
                if less < cost:
                    break
                damping *= 10
            else:
                break
            gain = 0.5 * len(y) * math.log(cost / less)
            cost, readout, design, (inner, bias) = less, weights, trial, new
            damping, idle = max(damping / 3, 1e-6), idle + 1 if gain < _ENOUGH else 0
            if idle == 2:
                break
        return inner, bias, readout

    def _rows(self, j: int, parents: list[int], moved: np.ndarray) -> tuple[np.ndarray, np.ndarray, _Offsets | None]:
        """Cells to which gene ``j`` is fitted: values of the parents, values of the gene, and intercepts."""
        targeted = moved[self.code_fitted]
        rows, rest, offsets = np.flatnonzero(~targeted), np.flatnonzero(targeted), None
        # Cells of targets come last, so that each of their conditions is one contiguous block with an intercept of its own.
        if len(rest) and not self.hard:
            start = np.flatnonzero(np.diff(self.code_fitted[rest], prepend=-1))
            root = np.sqrt(np.diff(start, append=len(rest)).astype(self.fitted.dtype))
            rows, offsets = np.concatenate([rows, rest]), _Offsets(len(rows), start, root)
        return self.fitted[np.ix_(parents, rows)], self.fitted[j, rows], offsets

    # ---- candidates for further parents ------------------------------------------------------------------------------

    def promise(self, j: int, network: Network) -> np.ndarray:
        """Nats gained by regressing a network's residual on the basis functions of every other gene, ``(genes,)``."""
        r, targeted = (self.fitted[j] - network(self.fitted)).astype(np.float64), network.moved[self.code_fitted]
        mean = np.bincount(self.code_fitted, r) / np.maximum(np.bincount(self.code_fitted), 1)
        # Targets carry no information about further parents in their means (shift), or none at all (hard).
        r[targeted] = 0.0 if self.hard else r[targeted] - mean[self.code_fitted[targeted]]
        r -= r.mean()
        shared = np.einsum("cib,c->ib", self.basis, r)
        explained = np.einsum("ib,ibe,ie->i", shared, self.inverse, shared) / (r @ r)
        return -0.5 * self.cells * np.log1p(-np.clip(explained, 0, 1 - 1e-9))


def _design(z: np.ndarray, inner: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The constant 1, the parents and the units, ``(1 + parents + units, cells)``."""
    p, h = inner.shape
    out = np.empty((1 + p + h, z.shape[1]), dtype=z.dtype)
    out[0], out[1 : 1 + p] = 1, z
    np.tanh(inner.T.astype(z.dtype) @ z + bias.astype(z.dtype)[:, None], out=out[1 + p :])
    return out


def _tangent(design: np.ndarray, p: int, readout: np.ndarray) -> np.ndarray:
    """The design and, below it, the derivatives by the biases and weights of the units."""
    q, n = design.shape
    h = q - 1 - p
    out = np.empty((q + h + p * h, n), dtype=design.dtype)
    out[:q] = design
    slope = out[q : q + h]
    slope[:] = readout[1 + p :, None].astype(design.dtype) * (1 - design[1 + p :] ** 2)
    np.multiply(design[1 : 1 + p, None], slope, out=out[q + h :].reshape(p, h, n))
    return out


def _normal(columns: np.ndarray, y: np.ndarray, offsets: _Offsets | None) -> tuple[np.ndarray, np.ndarray]:
    """Normal equations, accumulated in double precision because the cells are in single precision."""
    a, b = (columns @ columns.T).astype(np.float64), (columns @ y).astype(np.float64)
    if offsets is not None:
        left = offsets.sums(columns)
        a -= left @ left.T
        b -= left @ offsets.sums(y)
    return a, b


def _read_out(
    design: np.ndarray, y: np.ndarray, offsets: _Offsets | None, inner: np.ndarray
) -> tuple[float, np.ndarray]:
    """Penalized sum of squares at the best readout, and this readout."""
    a, b = _normal(design, y, offsets)
    a.flat[:: len(a) + 1] += _RIDGE
    a[0, 0] += _LEVEL_RIDGE - _RIDGE
    # The intercept is nearly free: a ridge on it would shrink the mean of the gene.
    readout = np.linalg.solve(a, b)
    total = np.square(y, dtype=np.float64).sum()
    if offsets is not None:
        total -= (offsets.sums(y) ** 2).sum()
    return float(total - b @ readout + _RIDGE * np.square(inner).sum()), readout
