from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ._drug_kernel import Similarity, dose_similarity, line_similarity
from ._gp_shrinkage import SHARES, noise_squares, shrink, smooth
from ._mean import LEAST_PROBABILITY, MeanGenerator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scgim.module._treatment_inputs import TreatmentInputs

    from ._base import DoseResponse

OWN = (0.0, 0.3, 0.6, 0.9)  # shares of the covariance that may be the drug's own, structure aside
DEGREES = 4.0  # of freedom of the drugs' scale
ROUNDS = 4
MOST_ROWS = 1000  # from which the drugs' own share and scales are learned one by one


class KernelGenerator(MeanGenerator):
    r"""A Gaussian process around the training mean: drugs of similar structure have similar effects.

    For every gene, with :math:`s_{kj}` the shift that was seen (of hard interventions :math:`p_{kj} r_{kj}`) and :math:`m` the mean
    of :class:`MeanGenerator`,

    .. math:: s_{kj} = m_j(c_k, \text{line}_k) + f_j(k) + e_{kj}, \qquad
        f_j \sim GP(0, t_j h_j K), \qquad e_{kj} \sim N(0, t_j (1 - h_j)\, u_k)

    :math:`K = ((1 - \rho) S + \rho\, [\text{same drug}]) \cdot D \cdot L`, with the similarity :math:`S` of structures (half
    count-Tanimoto of the features that are counts, half RBF of the others) a weak RBF :math:`D` of log doses, and :math:`L` .8 between two lines and 1 within a line, given that
    :math:`f_j` averages to zero over the training conditions, for that average is :math:`m`: all structures have something in
    common, and without this condition most of what the process says of new drugs is one offset for all of them. The
    share :math:`h_j` is averaged over its posterior on a grid whose prior is the genes' own (empirical Bayes): where
    structure says nothing, the prediction is the mean. The share :math:`\rho` of what structure does not tell, one for
    all genes, maximises the evidence. :math:`u_k` is the scale of a condition: sampling noise :math:`\sigma_j^2/n_k`
    averaged over genes, and a heavy-tailed factor of the drug (inverse gamma with four degrees of freedom, by EM), so that
    strong drugs do not dominate the fit. Probabilities are smoothed in the same way, and :math:`\psi = s / p`, so that
    :math:`p\,\psi` is the prediction (where psi would exceed all that was seen of the gene, p is raised).

    Parameters
    ----------
    n_features, n_genes, n_drugs, n_lines, dosed, baseline, dose_response, log_doses
        See :class:`Generator`. The dose response option is ignored: the mean carries the dose.
    """

    needs_features = True

    def __init__(
        self,
        n_features: int,
        n_genes: int,
        *,
        n_drugs: int,
        n_lines: int = 1,
        dosed: bool,
        baseline: bool = False,
        dose_response: DoseResponse = "none",
        log_doses: Sequence[float] = (),
    ) -> None:
        super().__init__(
            n_features, n_genes, n_drugs=n_drugs, n_lines=n_lines, dosed=dosed, baseline=baseline, log_doses=log_doses
        )
        self.similarity = Similarity(n_features)
        self._forget()

    def _forget(self) -> None:
        """The state without training conditions."""
        f64 = torch.float64
        for name, empty in {
            "own": torch.zeros((), dtype=f64),  # rho
            "drug": torch.zeros(0, dtype=torch.int64),  # of training conditions
            "row": torch.zeros(0, dtype=torch.int64),  # their place in the similarity's reference
            "log_dose": torch.zeros(0, dtype=f64),
            "line": torch.zeros(0, dtype=torch.int64),
            "weight": torch.zeros(
                0, 2 * self.n_genes, dtype=f64
            ),  # of conditions, for expected shifts and probabilities
            "average": torch.zeros(0, dtype=f64),  # weights of the conditions' average, of variance 1
            "root": torch.zeros(
                0, 0, dtype=f64
            ),  # eigenvectors over the root of the conditions' scale, given the average
            "eigenvalues": torch.zeros(0, dtype=f64),
            "variance": torch.zeros(len(SHARES), self.n_genes, dtype=f64),  # t_j times the posterior of the share
            "scale": torch.ones(
                self.n_drugs + 1, dtype=f64
            ),  # of every drug's e without sampling noise; last: of a new one
        }.items():
            self.register_buffer(name, empty)

    def reset(self) -> None:
        """Start over."""
        super().reset()
        self.similarity.reset()
        self._forget()

    @torch.no_grad()
    def solve(
        self, inputs: TreatmentInputs, residual: Tensor, probability: Tensor, n: Tensor, variance: Tensor
    ) -> None:
        """As in the class above."""
        self.reset()
        super().solve(inputs, residual, probability, n, variance)
        mean = torch.cat(self.means(inputs), dim=1)
        share = self.share(probability)
        y = torch.cat([share * residual, probability], dim=1) - mean
        noise = share**2 * variance / n
        self._remember(inputs)
        self._fit(y, noise)
        self.calibrate(inputs, residual, probability, n, variance)

    def _remember(self, inputs: TreatmentInputs) -> None:
        """What covariances with new rows need."""
        drugs, self.row = torch.unique(inputs.drug, return_inverse=True)
        first = (self.row[None, :] == torch.arange(len(drugs))[:, None]).to(torch.int8).argmax(1)
        self.similarity.fit(inputs.features[first])
        self.drug, self.log_dose, self.line = (each.clone() for each in (inputs.drug, inputs.log_dose, inputs.line))

    def _fit(self, y: Tensor, noise: Tensor) -> None:
        """Weights of training conditions from their deviations ``y`` of shifts and probabilities, and shifts' noise."""
        d = self.n_genes
        parts = self._parts(self.similarity.reference[self.row], self.drug, self.log_dose, self.line)
        total = (y[:, :d] ** 2).mean(0) + 1e-300
        sampled = (noise / total).mean(1).clamp(max=1.0)
        left = max(1 - float(sampled.mean()), 0.05)
        rows = _Rows(y, parts, self.drug, left * torch.ones_like(sampled), sampled)
        # an eigendecomposition takes the cube of the rows: drugs' averages tell what all drugs share
        own, of_drug = self._learn(rows if len(y) <= MOST_ROWS else rows.by_drug())
        scale = left * of_drug[self.drug] + sampled
        (average, common), values, vectors, z, fit = self._decompose(own, rows, scale)
        self.own = torch.tensor(own, dtype=torch.float64)
        probability_fit = shrink(z[:, d:], values)
        root = vectors / scale.sqrt()[:, None]
        # rows side by side, as they come back from a file: products of other layouts differ in the last bit
        self.root = (root - torch.outer(average, common @ root)).contiguous()
        self.average, self.eigenvalues = average, values
        self.weight = self.root @ torch.cat(
            [smooth(fit, z[:, :d], values), smooth(probability_fit, z[:, d:], values)], 1
        )
        self.variance = fit.posterior * fit.variance
        self.scale = left * torch.cat([of_drug, torch.ones(1, dtype=torch.float64)])

    def _learn(self, rows: _Rows) -> tuple[float, Tensor]:
        """The drugs' own share of the covariance, and the scale of every drug's noise."""
        of_drug = torch.ones(self.n_drugs, dtype=torch.float64)
        own = OWN[0]
        for i in range(ROUNDS):
            scale = rows.own * of_drug[rows.drug] + rows.sampled
            fits = {each: self._decompose(each, rows, scale) for each in (OWN if i in (0, ROUNDS - 1) else (own,))}
            own = max(fits, key=lambda each: fits[each][-1].evidence)
            if i < ROUNDS - 1:
                _, values, vectors, z, fit = fits[own]
                white = (_centred(rows.y, scale) / scale.sqrt()[:, None])[:, : self.n_genes]
                squares = noise_squares(fit, z[:, : self.n_genes], values, vectors)
                of_drug = self._drug_scale(of_drug, rows.drug, squares, white)
        return own, of_drug

    def _decompose(self, own: float, rows: _Rows, scale: Tensor) -> tuple:
        """The rows' average, eigenvalues and vectors of the whitened kernel given it, outputs in them, shares of the shifts."""
        kernel = (1 - own) * rows.parts[0] + own * rows.parts[1]
        average, common = _average(kernel, scale)
        kernel = (kernel - torch.outer(common, common)) / torch.outer(scale.sqrt(), scale.sqrt())
        values, vectors = torch.linalg.eigh(kernel)
        values, z = values.clamp(min=0), vectors.T @ (_centred(rows.y, scale) / scale.sqrt()[:, None])
        return (average, common), values, vectors, z, shrink(z[:, : self.n_genes], values)

    def _drug_scale(self, before: Tensor, drug: Tensor, squares: Tensor, y: Tensor) -> Tensor:
        """Posterior scale of every drug, mean 1, if its genes count for as many as vary independently."""
        gram = y / (y**2).mean(0).sqrt().clamp(min=1e-150)
        gram = gram @ gram.T
        effective = float(gram.trace() ** 2 / (gram**2).sum().clamp(min=1e-300))
        sums = torch.zeros(self.n_drugs, 2, dtype=torch.float64)
        sums.index_add_(0, drug, torch.stack([squares.mean(1), torch.ones(len(y), dtype=torch.float64)], 1))
        square = before * torch.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1].clamp(min=1), 1.0)
        after = (DEGREES + effective * square) / (DEGREES + effective)
        return after / after[sums[:, 1] > 0].mean()

    def _parts(self, features: Tensor, drug: Tensor, log_dose: Tensor, line: Tensor) -> tuple[Tensor, Tensor]:
        """Covariances of rows with training conditions through structure, and through the drug's own."""
        # beyond the measured doses as at their end, like the mean
        near = dose_similarity(*(each.clamp(self.knots[0], self.knots[-1]) for each in (log_dose, self.log_dose)))
        near = near * line_similarity(line, self.line)
        same = (drug[:, None] == self.drug).to(torch.float64)
        return self.similarity(features)[:, self.row] * near, same * near

    def _covariance(self, inputs: TreatmentInputs) -> Tensor:
        structure, same = self._parts(*inputs)
        return (1 - self.own) * structure + self.own * same

    def forward(self, inputs: TreatmentInputs) -> tuple[Tensor, Tensor]:
        """As in the class above."""
        shift, p = (self._covariance(inputs) @ self.weight).chunk(2, dim=1)
        expected, base = self.means(inputs)
        expected = torch.where((inputs.log_dose > -torch.inf)[:, None], expected + shift, 0.0)
        return self.as_intervention(expected, base + p, inputs.log_dose)

    @torch.no_grad()
    def uncertainty(self, inputs: TreatmentInputs) -> Tensor:
        """Standard deviation of psi given that the mechanism is touched, ``(rows, genes)``.

        Of the expected shift, over the probability: what the process does not know, and what no structure tells. A new
        drug's scale is the training drugs' average.
        """
        covariance = self._covariance(inputs)
        before = 1 - (covariance @ self.average)[:, None] ** 2
        spectrum = SHARES * self.eigenvalues[:, None] + 1 - SHARES
        explained = SHARES * before - (covariance @ self.root) ** 2 @ (SHARES**2 / spectrum)
        rest = (1 - SHARES) * self.scale[inputs.drug][:, None]
        probability = torch.sigmoid(self(inputs)[0]).clamp(min=LEAST_PROBABILITY)
        there = (inputs.log_dose > -torch.inf)[:, None]
        return torch.where(there, ((explained.clamp(min=0) + rest) @ self.variance).sqrt() / probability, 0.0)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        if prefix + "drug" in state_dict:  # models of older versions knew no lines
            state_dict.setdefault(prefix + "line", torch.full_like(state_dict[prefix + "drug"], -1))
        for name, buffer in list(self.named_buffers(recurse=False)):
            if prefix + name in state_dict:
                setattr(self, name, buffer.new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


class _Rows(NamedTuple):
    """What the process is fitted to: conditions, or drugs' averages over them."""

    y: Tensor  # (rows, outputs) deviations from the mean
    parts: tuple[Tensor, Tensor]  # covariances through structure and through the drug's own, (rows, rows)
    drug: Tensor  # (rows,)
    own: Tensor  # (rows,) noise variance that is the drug's, before its scale
    sampled: Tensor  # (rows,) noise variance by sampling

    def by_drug(self) -> _Rows:
        """Every drug's average, weighted by precision: of a Gaussian process again values of one."""
        drugs, index = torch.unique(self.drug, return_inverse=True)
        weight = torch.zeros(len(drugs), len(index), dtype=torch.float64)
        weight[index, torch.arange(len(index))] = 1 / (self.own + self.sampled)
        weight /= weight.sum(1, keepdim=True)
        parts = tuple(weight @ part @ weight.T for part in self.parts)
        return _Rows(weight @ self.y, parts, drugs, weight**2 @ self.own, weight**2 @ self.sampled)


def _centred(y: Tensor, scale: Tensor) -> Tensor:
    """Outputs less their weighted mean: strong drugs count less here than in the mean, and the process must not make up for it."""
    return y - (y / scale[:, None]).sum(0) / (1 / scale).sum()


def _average(kernel: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The conditions' average as weights, scaled to variance 1, and every condition's covariance with it."""
    weight = 1 / scale
    covariance = kernel @ weight
    deviation = (weight @ covariance).sqrt()
    return weight / deviation, covariance / deviation
