"""Responses of measured drugs: smooth in log dose, and correlated between cell lines and between drugs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import logsumexp, softmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MANY_DRUGS = 24  # from this number on, the part common to all drugs is learned first and every drug's own part after it
# Grid of a gene's signal-to-noise ratio for its posterior.
RATIOS = np.concatenate([[0.0], 10.0 ** np.arange(-2, 4.1, 0.5)])
# Shares of the variance: common to all drugs, common to all drugs in a line, one drug in all lines, one drug in one line.
OWN = ((0.0, 0.0, 0.9, 0.1), (0.0, 0.0, 0.7, 0.3), (0.0, 0.0, 0.4, 0.6))
COMMON = ((0.9, 0.1, 0.0, 0.0), (0.6, 0.4, 0.0, 0.0), (0.2, 0.8, 0.0, 0.0))
BOTH = (
    (0.35, 0.15, 0.35, 0.15),
    (0.2, 0.1, 0.5, 0.2),
    (0.25, 0.25, 0.25, 0.25),
    (0.4, 0.3, 0.2, 0.1),
    (0.1, 0.1, 0.4, 0.4),
)
ROUGH = (0.01, 0.05, 0.2)  # share of the variance of a single condition, which no smooth curve explains
# Log half-maximal doses: their mean (0 = lowest dose, 1 = highest dose), their SD, and the width of the Hill curves.
CURVES = ((1.0, 8.0, 0.5), (1.0, 4.0, 0.3), (1.0, 4.0, 1.0), (0.5, 2.0, 0.5), (0.5, 2.0, 1.0))
MOST_GENES = 64  # number of genes used to choose shares and curves
DEGREES = 4.0  # prior degrees of freedom of the drugs' scales
_QUADRATURE = 120
_ROUNDS = 30


class Rows(NamedTuple):
    """Conditions: index of the drug (-1: unseen), log dose (-inf: no drug), index of the line (-1: unseen); ``(rows,)`` each."""

    drug: NDArray
    log_dose: NDArray
    line: NDArray

    def take(self, rows: NDArray) -> Rows:
        """Select rows."""
        return Rows(*(each[rows] for each in self))


class Covariance(NamedTuple):
    """Covariance of changes between conditions: four smooth shares, the rough share, and the dose-response curves."""

    shares: tuple[float, float, float, float]
    rough: float
    curves: tuple[float, float, float]

    def between(self, a: Rows, b: Rows, span: tuple[float, float], scale: NDArray) -> NDArray:
        r"""Covariance of rows, ``(a, b)``.

        A change is a mixture of Hill curves :math:`h` of width :math:`w`. Their log half-maximal doses :math:`c` are normal. For log
        doses :math:`x` and :math:`x'`,

        .. math:: k(x, x') = \frac{E_c[h(x - c)\, h(x' - c)]}{E_c[h(x_{max} - c)^2]}, \qquad h(u) = \frac{1}{1 + e^{-u / w}}

        Each share multiplies :math:`k` where the rows agree in its drug and line; ``scale``, ``(drugs,)``, scales single drugs.
        """
        drug, line = _same(a.drug, b.drug), _same(a.line, b.line)
        size = np.sqrt(scale[a.drug][:, None] * scale[b.drug])
        common, common_line, own, own_line = self.shares
        smooth = self._dose(a.log_dose, b.log_dose, span)
        alike = common + common_line * line + (own + own_line * line) * drug * size
        equal = drug * line * (a.log_dose[:, None] == b.log_dose)
        return (1 - self.rough) * smooth * alike + self.rough * equal * size * smooth

    def _dose(self, a: NDArray, b: NDArray, span: tuple[float, float]) -> NDArray:
        (low, high), (place, spread, width) = span, self.curves
        center = np.linspace(low - 12, high + 4, _QUADRATURE)
        weight = np.exp(-0.5 * ((center - low - place * (high - low)) / spread) ** 2)
        doses, back = np.unique(np.concatenate([a, b, [high]]), return_inverse=True)
        with np.errstate(over="ignore"):  # the overflow at log dose -inf gives a response of exactly 0
            curve = np.sqrt(weight) / (1 + np.exp((center - doses[:, None]) / width))
        table = curve @ curve.T
        table /= table[back[-1], back[-1]]
        return table[back[: len(a), None], back[len(a) : len(a) + len(b)]]


@dataclass(frozen=True)
class Process:
    """A Gaussian process conditioned on measured changes.

    Parameters
    ----------
    rows
        The measured conditions.
    weights
        Weights of the measured conditions in every prediction, ``(conditions, genes)``.
    covariance, span, scale
        The covariance, the lowest and highest log dose, and every drug's scale; the last scale is for an unseen drug.
    """

    rows: Rows
    weights: NDArray
    covariance: Covariance
    span: tuple[float, float]
    scale: NDArray

    def predict(self, rows: Rows) -> NDArray:
        """Expected changes, ``(rows, genes)``."""
        if any(self.covariance.shares[:2]):
            return self.covariance.between(rows, self.rows, self.span, self.scale) @ self.weights
        out = np.zeros((len(rows.drug), self.weights.shape[1]))
        # Without a common part, drugs are independent. Only a drug's own conditions enter its predictions.
        for drug in np.unique(rows.drug):
            query, known = np.flatnonzero(rows.drug == drug), np.flatnonzero(self.rows.drug == drug)
            if drug >= 0 and len(known):
                between = self.covariance.between(rows.take(query), self.rows.take(known), self.span, self.scale)
                out[query] = between @ self.weights[known]
        return out

    def state(self) -> dict:
        """Return plain values for :meth:`from_state`."""
        arrays = {"weights": self.weights, "scale": self.scale, "span": np.array(self.span)}
        kernel = np.array([*self.covariance.shares, self.covariance.rough, *self.covariance.curves])
        return self.rows._asdict() | arrays | {"covariance": kernel}

    @classmethod
    def from_state(cls, state: dict) -> Process:
        """Restore the process from the values of :meth:`state`."""
        *shares, rough, place, spread, width = state["covariance"].tolist()
        rows, covariance = (
            Rows(*(state[name] for name in Rows._fields)),
            Covariance(tuple(shares), rough, (place, spread, width)),
        )
        return cls(rows, state["weights"], covariance, tuple(state["span"].tolist()), state["scale"])


@dataclass(frozen=True)
class Responses:
    r"""Changes of measured drugs at any dose and in any line.

    The change :math:`y_{kj}` of gene :math:`j` in condition :math:`k` is a Gaussian process over conditions with known noise variance,

    .. math:: y_{kj} = b\, g_{kj} + f_j(k) + e_{kj}, \qquad f_j \sim GP(0, s_j C), \qquad e_{kj} \sim N(0, u_k \tau_j),

    Here :math:`g` is the change predicted from features. :math:`C` is a :class:`Covariance`, the same for all genes, and maximizes the
    marginal likelihood. The signal variance :math:`s_j` is averaged over its posterior on a grid. The prior of the grid is estimated
    from all genes (empirical Bayes), so that a gene without effects is shrunk towards 0. With 24 drugs or more, the common part is a
    process on the means over drugs, and every drug's own part uses the conditions of the drug alone. The cost is then linear in drugs.

    Parameters
    ----------
    processes
        Gaussian processes; their predictions are added.
    weight
        :math:`b`, the weight of the change predicted from features: 0 or 1.
    """

    processes: list[Process] = field(default_factory=list)
    weight: float = 0.0

    @classmethod
    def fit(
        cls, rows: Rows, change: NDArray, noise: NDArray, said: NDArray | None, held_out: NDArray | None
    ) -> Responses:
        """Learn from measured conditions.

        Parameters
        ----------
        rows
            The conditions.
        change, noise
            Mean change of every condition and the variance of its error, ``(conditions, genes)``.
        said, held_out
            Change predicted from features after training on all conditions, and without the condition's drug; or ``None``.
        """
        if said is None or held_out is None:
            return cls(_layers(rows, change, noise)[0])
        plain, evidence = _layers(rows, change, noise)
        # The held-out prediction decides, because the other prediction was trained on the change that it would explain.
        _, with_features = _layers(rows, change - held_out, noise)
        if with_features <= evidence:
            return cls(plain)
        return cls(_layers(rows, change - said, noise)[0], 1.0)

    def own(self, rows: Rows) -> NDArray:
        """Expected change beyond :attr:`weight` times the change predicted from features, ``(rows, genes)``."""
        return sum((process.predict(rows) for process in self.processes), np.zeros((len(rows.drug), 1)))

    def predict(self, rows: Rows, said: NDArray) -> NDArray:
        """Expected change, ``(rows, genes)``; ``said`` is the change predicted from features."""
        return self.weight * said + self.own(rows)

    def state(self) -> dict:
        """Return plain values for :meth:`from_state`."""
        return {"weight": self.weight} | {str(i): process.state() for i, process in enumerate(self.processes)}

    @classmethod
    def from_state(cls, state: dict) -> Responses:
        """Restore the responses from the values of :meth:`state`."""
        parts = {name: part for name, part in state.items() if name != "weight"}
        return cls(
            [Process.from_state(parts[name]) for name in sorted(parts, key=int)], float(state.get("weight", 0.0))
        )


def _layers(rows: Rows, change: NDArray, noise: NDArray) -> tuple[list[Process], float]:
    """Fit the processes of the changes; the log marginal likelihood of the last process is comparable between changes."""
    if len(np.unique(rows.drug)) < MANY_DRUGS:
        process, evidence = _fit(rows, change, noise, OWN + BOTH)
        return [process], evidence
    common = _common(rows, change, noise)
    own, evidence = _fit(rows, change - common.predict(rows), noise, OWN, by_drug=True)
    return [common, own], evidence


def _common(rows: Rows, change: NDArray, noise: NDArray) -> Process:
    """The part common to all drugs, from the means over drugs at every dose in every line."""
    groups, code = np.unique(np.stack([rows.log_dose, rows.line]), axis=1, return_inverse=True)
    code = code.ravel()
    n = np.bincount(code)[:, None]
    mean = np.zeros((len(n), change.shape[1]))
    np.add.at(mean, code, change)
    mean /= n
    spread = ((change - mean[code]) ** 2).sum(0) / max(len(change) - len(n), 1) + noise.mean(0)
    at = Rows(np.zeros(len(n), dtype=np.int64), groups[0], groups[1].astype(np.int64))
    process, _ = _fit(at, mean, spread / n, COMMON, rough=(0.0,))
    return replace(process, scale=np.ones(rows.drug.max() + 2))  # unused: no share belongs to a single drug


def _fit(
    rows: Rows,
    change: NDArray,
    noise: NDArray,
    shares: Sequence[tuple[float, float, float, float]],
    *,
    rough: Sequence[float] = ROUGH,
    by_drug: bool = False,
) -> tuple[Process, float]:
    """The process that maximizes the marginal likelihood, and its log; ``by_drug``: drugs are independent blocks."""
    doses = rows.log_dose[rows.log_dose > -np.inf]
    span = (float(doses.min(initial=0.0)), float(doses.max(initial=0.0)))
    dosed, lined = len(np.unique(rows.log_dose)) > 1, len(np.unique(rows.line)) > 1
    of_row = np.exp(np.log(noise).mean(1))
    # The noise variance is approximated by of_row * of_gene, so that one eigendecomposition of the whitened kernel serves all genes.
    # of_row has a geometric mean of 1, so the signal-to-noise ratio is the ratio of a typical condition.
    of_row /= np.exp(np.log(of_row).mean())
    of_gene = np.exp((np.log(noise) - np.log(of_row)[:, None]).mean(0))
    y = change / np.sqrt(of_row[:, None] * of_gene)
    scale = _drug_scale(rows.drug, y)
    place, size = _places(rows.drug if by_drug else np.zeros_like(rows.drug))
    strongest = np.argsort(-(y**2).sum(0), kind="stable")[:MOST_GENES]
    some = _padded(y[:, strongest], place, size)

    def spectrum(covariance: Covariance, y: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """Eigenvalues and eigenvectors of the whitened blocks, and ``y`` in their basis; padding has eigenvalue 0."""
        blocks = np.zeros((size[0], size[1], size[1]))
        if by_drug:
            for block, own in enumerate(_members(place[0], size[0])):
                part = rows.take(own)
                blocks[block, : len(own), : len(own)] = covariance.between(part, part, span, scale)
        else:
            blocks[0] = covariance.between(rows, rows, span, scale)
        white = _padded(1 / np.sqrt(of_row), place, size)
        values, vectors = np.linalg.eigh(blocks * white[:, :, None] * white[:, None, :])
        return values.clip(0), vectors, np.einsum("dba,dbj->daj", vectors, y)

    choices = {
        "curves": CURVES if dosed else CURVES[:1],
        "shares": shares if lined else _without_lines(shares),
        "rough": rough if dosed or lined else rough[:1],
    }
    best, evidence = Covariance(choices["shares"][0], choices["rough"][0], choices["curves"][0]), {}
    # Two rounds of coordinate ascent replace the full grid of curves, shares and rough shares.
    for name in (*choices, *choices):
        for value in choices[name]:
            candidate = best._replace(**{name: value})
            if candidate not in evidence:
                values, _, z = spectrum(candidate, some)
                evidence[candidate] = _posterior_ratio(values, z)[1]
        best = max(evidence, key=evidence.get)
    values, vectors, z = spectrum(best, _padded(y, place, size))
    posterior, total = _posterior_ratio(values, z)
    weight = np.zeros_like(z)
    for ratio, share in zip(RATIOS, posterior.T, strict=True):
        weight += share * (ratio / (1 + ratio * values))[:, :, None] * z
    weights = np.einsum("dab,dbj->daj", vectors, weight)[place] / np.sqrt(of_row)[:, None] * np.sqrt(of_gene)
    return Process(rows, weights, best, span, scale), total


def _posterior_ratio(values: NDArray, z: NDArray) -> tuple[NDArray, float]:
    """Posterior of every gene's signal-to-noise ratio, ``(genes, ratios)``, and the summed log marginal likelihood."""
    likelihood = np.empty((z.shape[2], len(RATIOS)))
    for i, ratio in enumerate(RATIOS):
        spectrum = 1 + ratio * values
        likelihood[:, i] = -0.5 * (np.log(spectrum).sum() + np.einsum("dbj,db->j", z**2, 1 / spectrum))
    # EM for the prior of the ratios. One pseudo-count keeps every ratio possible.
    prior = np.full(len(RATIOS), 1 / len(RATIOS))
    for _ in range(_ROUNDS):
        joint = likelihood + np.log(prior)
        posterior = softmax(joint, axis=1)
        prior = (posterior.sum(0) + 1 / len(RATIOS)) / (len(posterior) + 1)
    joint = likelihood + np.log(prior)
    return softmax(joint, axis=1), float(logsumexp(joint, axis=1).sum())


def _drug_scale(drug: NDArray, y: NDArray) -> NDArray:
    """Relative variance of every drug's changes beyond noise, shrunk towards 1 by the number of independent genes."""
    n_drugs = int(drug.max()) + 1
    n = np.bincount(drug, minlength=n_drugs)
    beyond = (y**2 - 1).sum(1)
    signal = np.bincount(drug, beyond, minlength=n_drugs).clip(0) / np.maximum(n, 1)
    average = signal[n > 0].mean()
    if average <= 0 or (n > 0).sum() < 4:
        return np.ones(n_drugs + 1)
    relative = y / np.sqrt((y**2).mean(0) + 1e-12)
    gram = relative @ relative.T if len(y) < y.shape[1] else relative.T @ relative  # both have the same trace and norm
    effective = float(np.trace(gram) ** 2 / (gram**2).sum())
    scale = (DEGREES + effective * signal / average) / (DEGREES + effective)
    return np.append(np.where(n > 0, scale, 1.0), 1.0)


def _places(block: NDArray) -> tuple[tuple[NDArray, NDArray], tuple[int, int]]:
    """Block of every row and its position in the block; number of blocks and size of the largest block."""
    _, code, n = np.unique(block, return_inverse=True, return_counts=True)
    order = np.argsort(code, kind="stable")
    place = np.empty(len(code), dtype=np.int64)
    place[order] = np.arange(len(code)) - np.repeat(np.cumsum(n) - n, n)
    return (code, place), (len(n), int(n.max()))


def _members(code: NDArray, n: int) -> list[NDArray]:
    """Rows of every block, in the order of their positions."""
    return np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code, minlength=n))[:-1])


def _padded(values: NDArray, place: tuple[NDArray, NDArray], size: tuple[int, int]) -> NDArray:
    """Values by block, padded with 0."""
    out = np.zeros((*size, *values.shape[1:]))
    out[place] = values
    return out


def _without_lines(shares: Sequence[tuple[float, ...]]) -> list[tuple[float, float, float, float]]:
    """Distinct shares for a single line: the shares of a line are added to the shares of all lines."""
    return list(dict.fromkeys((round(a + b, 3), 0.0, round(c + d, 3), 0.0) for a, b, c, d in shares))


def _same(a: NDArray, b: NDArray) -> NDArray:
    """1 where two labels are equal and known, else 0; ``(a, b)``."""
    return ((a[:, None] == b) & (a >= 0)[:, None]).astype(float)
