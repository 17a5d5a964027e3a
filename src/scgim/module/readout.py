"""The readout: genes that are regressed on the panel, beside a direct change of their own under every drug."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .responses import Responses

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scgim.statistics import Replicates

    from .responses import Rows

PENALTIES = 10.0 ** np.arange(-4, 3.1, 0.5)  # grid of ridge penalties, in units of the mean eigenvalue
MOST_READOUTS = 512  # number of readout genes that choose the penalty between conditions
LEAST_DRUGS = 5  # with fewer drugs, slopes come from cells alone
MOST_ATTENUATION = 10.0  # largest factor of the slopes within conditions
_LEAST_VARIANCE = 1e-8


class ReadoutReplicates(NamedTuple):
    """Replicates and their means in control SD, ``panel`` (units, panel) and ``readout`` (units, readout).

    ``condition`` is the condition of every treated part of ``replicates``, as in :class:`~scgim.statistics.Replicates`.
    """

    replicates: Replicates
    condition: NDArray
    panel: NDArray
    readout: NDArray

    def error(self, slopes: NDArray, noise: NDArray, k: int) -> NDArray:
        r"""Variance of every condition's change given the panel beyond sampling, ``(k, readout)``.

        It is :math:`\omega_j^2 (\sum_r a_{kr}^2 + \sum_r c_{kr}^2)`, with the variance :math:`\omega_j^2` of the residuals
        :math:`r_j - \sum_i B_{ij} p_i` between replicates of a condition and the shares :math:`a` and :math:`c` of replicates in the
        condition and in its controls.
        """
        known = self.replicates
        found = known.variance(self.readout - self.panel @ slopes, noise / known.n[:, None])
        return found.variance * known.concentration(self.condition, k).sum(0)


class ReadoutData(NamedTuple):
    """Statistics of panel and readout in their control SD.

    ``scatter`` (panel, panel), ``cross`` (panel, readout) and ``squares`` (readout,) are pooled within conditions, with ``freedom`` degrees
    of freedom. ``panel`` (conditions, panel) and ``readout`` (conditions, readout) are mean changes; ``n`` and ``controls`` are effective
    numbers of cells of every condition and of its controls. ``replicates`` are the replicates, if they are declared.
    """

    scatter: NDArray
    cross: NDArray
    squares: NDArray
    freedom: float
    panel: NDArray
    readout: NDArray
    n: NDArray
    controls: NDArray
    replicates: ReadoutReplicates | None = None


@dataclass(frozen=True)
class Readout:
    r"""Readout genes given the panel.

    The change :math:`r_{kj}` of readout gene :math:`j` in condition :math:`k` is

    .. math:: r_{kj} = \sum_i B_{ij} p_{ki} + u_{kj} + e_{kj},

    with the change :math:`p_k` of the panel, the gene's own change :math:`u_{kj}` and the error :math:`e_{kj}` of sampling and, if
    replicates are declared, of replicates (:meth:`ReadoutReplicates.error`).

    :math:`B = a B_w + B_b`. :math:`B_w` is the ridge regression on the panel within conditions, with the penalty of least generalized
    cross-validation (Golub, Heath and Wahba 1979). Measurement noise in the panel attenuates it. :math:`B_b` is the ridge regression of
    the remaining changes of conditions. The factor :math:`a` and the penalty of :math:`B_b` minimize the squared error of left-out drugs,
    which follows without refitting from the hat matrix :math:`H`: the error of the rows :math:`D` of a drug is
    :math:`(I - H_{DD})^{-1} (y - H y)_D`. Without a penalty that helps, :math:`B_b = 0`.

    The own change is a posterior mean by :class:`Responses`, whose variances are estimated from all genes: genes without an own change are
    shrunk to 0.

    Parameters
    ----------
    slopes
        :math:`B` in control SD, ``(panel, readout)`` float32.
    noise
        Variance of a readout gene within conditions given the panel, in control variances, ``(readout,)``.
    responses
        Own changes of measured drugs.
    attenuation, within, between
        :math:`a` and the penalties of :math:`B_w` and :math:`B_b` (infinity: none).
    """

    slopes: NDArray
    noise: NDArray
    responses: Responses
    attenuation: float = 1.0
    within: float = 0.0
    between: float = np.inf

    @classmethod
    def fit(cls, data: ReadoutData, rows: Rows) -> Readout:
        """Fit to the measured conditions ``rows``."""
        inner, within = _ridge_within(data)
        attenuation, between, slopes = _ridge_between(data, inner, rows.drug)
        explained = np.einsum("ij,ij->j", slopes, data.scatter @ slopes - 2 * data.cross)
        noise = np.maximum((data.squares + explained) / data.freedom, _LEAST_VARIANCE)
        error = (1 / data.n + 1 / data.controls)[:, None] * noise
        if data.replicates is not None:
            error = error + data.replicates.error(slopes, noise, len(data.n))
        responses = Responses.fit(rows, data.readout - data.panel @ slopes, error, None, None)
        return cls(slopes.astype(np.float32), noise, responses, attenuation, within, between)

    def change(self, panel: NDArray) -> NDArray:
        """Change of the readout genes for a change of the panel, in control SD, ``(rows, readout)``."""
        return panel.astype(np.float32) @ self.slopes

    def state(self) -> dict:
        """Return plain values for :meth:`from_state`."""
        chosen = {name: float(getattr(self, name)) for name in ("attenuation", "within", "between")}
        return {"slopes": self.slopes, "noise": self.noise, "responses": self.responses.state()} | chosen

    @classmethod
    def from_state(cls, state: dict) -> Readout:
        """Restore the readout from the values of :meth:`state`."""
        return cls(**(state | {"responses": Responses.from_state(state["responses"])}))


def _ridge_within(data: ReadoutData) -> tuple[NDArray, float]:
    """Ridge regression within conditions, with the penalty of least generalized cross-validation."""
    values, vectors = np.linalg.eigh(data.scatter)
    values, cross = values.clip(0), vectors.T @ data.cross
    varies = data.squares > 0
    share = (cross[:, varies] ** 2 / data.squares[varies]).sum(1)
    best, penalty = np.inf, 0.0
    for each in PENALTIES * max(values.mean(), 1e-300):
        shrunk = values + each
        left = varies.sum() - (share * (values + 2 * each) / shrunk**2).sum()
        error = left / max(data.freedom - (values / shrunk).sum(), 1.0) ** 2
        if error < best:
            best, penalty = error, float(each)
    return vectors @ (cross / (values + penalty)[:, None]), penalty


def _ridge_between(data: ReadoutData, inner: NDArray, drug: NDArray) -> tuple[float, float, NDArray]:
    """Factor of the slopes within conditions, penalty of the slopes between conditions, and the sum of both."""
    if len(np.unique(drug)) < LEAST_DRUGS:
        return 1.0, np.inf, inner
    weight = np.sqrt(_weights(data))[:, None]
    left, values, right = np.linalg.svd(weight * data.panel, full_matrices=False)
    some = np.argsort(-(data.readout**2).mean(0), kind="stable")[:MOST_READOUTS]
    y, said = weight * data.readout[:, some], weight * (data.panel @ inner[:, some])
    drugs = [np.flatnonzero(drug == each) for each in np.unique(drug)]
    best, factor, penalty = np.inf, 1.0, np.inf
    for each in [*(PENALTIES * max((values**2).mean(), 1e-300)), np.inf]:
        share = values**2 / (values**2 + each)
        missed, missed_said = (_left_out(left, share, target, drugs) for target in (y, said))
        a = float(np.clip((missed * missed_said).sum() / max((missed_said**2).sum(), 1e-300), 0, MOST_ATTENUATION))
        error = ((missed - a * missed_said) ** 2).sum()
        if error < best:
            best, factor, penalty = error, a, float(each)
    slopes = factor * inner
    if np.isfinite(penalty):
        rest = weight * (data.readout - data.panel @ slopes)
        slopes = slopes + right.T @ ((values / (values**2 + penalty))[:, None] * (left.T @ rest))
    return factor, penalty, slopes


def _weights(data: ReadoutData) -> NDArray:
    """Weight of every condition, ``(conditions,)``: the share of the variance of its changes that is not sampling error."""
    sampling = 1 / data.n + 1 / data.controls
    beyond = max(float((data.panel**2).mean(1).mean() - sampling.mean()), 0.01 * float(sampling.mean()))
    return beyond / (beyond + sampling)


def _left_out(left: NDArray, share: NDArray, y: NDArray, drugs: list[NDArray]) -> NDArray:
    """Errors of the rows of every drug in a regression without this drug; ``left`` and ``share`` give the hat matrix."""
    missed = y - left @ (share[:, None] * (left.T @ y))
    for rows in drugs:
        own = left[rows]
        missed[rows] = np.linalg.solve(
            np.eye(len(rows)) - (own * share) @ own.T + 1e-9 * np.eye(len(rows)), missed[rows]
        )
    return missed
