from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ._combinations import sum_by_row
from ._drug_kernel import Similarity, dose_similarity, line_similarity
from ._gp_shrinkage import SHARES, noise_squares, shrink, smooth
from ._mean import LEAST_PROBABILITY, MeanGenerator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scgim.module._treatment_inputs import TreatmentInputs

    from ._base import DoseResponse

OWN = (0.0, 0.3, 0.6, 0.9)  # grid of rho, the share of the covariance that is peculiar to a drug
DEGREES = 4.0  # prior degrees of freedom of the drugs' scales
ROUNDS = 4  # EM rounds for the drugs' scales
MOST_ROWS = 1000  # with more conditions, rho and the scales are learned from the averages of drugs


class KernelGenerator(MeanGenerator):
    r"""A Gaussian process around the training mean: drugs with similar features have similar effects.

    Let :math:`s_{kj}` be the observed shift of gene :math:`j` in condition :math:`k` (for hard interventions :math:`p_{kj} r_{kj}`), and
    :math:`m` the mean of :class:`MeanGenerator` at dose :math:`c_k`. Then

    .. math:: s_{kj} = m_j(c_k, \text{line}_k) + f_j(k) + e_{kj}, \qquad
        f_j \sim GP(0, t_j h_j K), \qquad e_{kj} \sim N(0, t_j (1 - h_j)\, u_k)

    The kernel is :math:`K = ((1 - \rho) S + \rho\, [\text{same drug}]) \cdot D \cdot L`. :math:`S` is the :class:`Similarity` of drugs by
    their features, :math:`D` a weak RBF kernel of log doses, and :math:`L` is 0.8 between two lines and 1 within a line. The average of
    :math:`f_j` over the training conditions is constrained to 0, because :math:`m` is this average. Without the constraint, the
    similarity that all drugs have in common would make most of a prediction for new drugs a constant offset.

    The share :math:`h_j` is averaged over its posterior on a grid, with a prior that is estimated from all genes (empirical Bayes). The
    prediction is the mean where features carry no information. The share :math:`\rho` is the same for all genes and maximizes the
    marginal likelihood. The scale :math:`u_k` of a condition has two parts: the sampling variance :math:`\sigma_j^2/n_k` averaged over
    genes, and a factor of the drug. The factor has an inverse gamma prior with four degrees of freedom and is estimated by EM, so that
    strong drugs do not dominate the fit.

    The process of a combination is the sum of the processes of its drugs, and so is its :math:`e` (an additive Gaussian process): its
    covariances are sums over its drugs.

    Probabilities are smoothed in the same way. :math:`\psi = s / p`, so that :math:`p\,\psi` is the predicted shift. :math:`p` is raised
    where :math:`\psi` would exceed the largest observed shift of the gene.

    Parameters
    ----------
    n_features, n_genes, n_drugs, n_lines, dosed, baseline, dose_response, log_doses
        Parameters of :class:`Generator`. The dose response option is ignored, because the mean contains the dose response.
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
        """Set the buffers to their state without training conditions."""
        f64 = torch.float64
        for name, empty in {
            "own": torch.zeros((), dtype=f64),  # rho
            # Drug of every training condition; the drugs of combinations are stored one by one.
            "drug": torch.zeros(0, dtype=torch.int64),
            "row": torch.zeros(0, dtype=torch.int64),  # row of the drug in the reference of the similarity
            "log_dose": torch.zeros(0, dtype=f64),
            "line": torch.zeros(0, dtype=torch.int64),
            # Weights of stored drugs in predictions of shifts (first half) and probabilities (second half).
            "weight": torch.zeros(0, 2 * self.n_genes, dtype=f64),
            "average": torch.zeros(0, dtype=f64),  # weights of the conditions' average, scaled to variance 1
            # Eigenvectors divided by the square root of the conditions' scale, orthogonal to the average.
            "root": torch.zeros(0, 0, dtype=f64),
            "eigenvalues": torch.zeros(0, dtype=f64),
            "variance": torch.zeros(len(SHARES), self.n_genes, dtype=f64),  # t_j times the posterior of the share
            # Scale of every drug's e without sampling noise; the last entry is for a new drug.
            "scale": torch.ones(self.n_drugs + 1, dtype=f64),
        }.items():
            self.register_buffer(name, empty)

    def reset(self) -> None:
        """Return to the untrained state."""
        super().reset()
        self.similarity.reset()
        self._forget()

    @torch.no_grad()
    def solve(
        self, inputs: TreatmentInputs, residual: Tensor, probability: Tensor, n: Tensor, variance: Tensor
    ) -> None:
        """Fit the mean and the process around it. :meth:`Generator.solve` describes the arguments."""
        self.reset()
        super().solve(inputs, residual, probability, n, variance)
        mean = self._mean_of_rows(inputs)
        share = self.share(probability)
        y = torch.cat([share * residual, probability], dim=1) - mean
        noise = share**2 * variance / n
        drugs, row = inputs.parts()
        self._remember(drugs)
        self._fit(y, noise, row)
        self.calibrate(inputs, residual, probability, n, variance)

    def _mean_of_rows(self, inputs: TreatmentInputs) -> Tensor:
        """Mean shifts and probabilities of drugs and combinations, ``(rows, 2 genes)``."""
        drugs, row = inputs.parts()
        expected, probability = self.means(drugs)
        if inputs.more is not None:
            expected = sum_by_row(expected, row, len(inputs.drug))
            probability = 1 - torch.exp(
                sum_by_row(torch.log1p(-probability.clamp(max=1 - 1e-12)), row, len(inputs.drug))
            )
        return torch.cat([expected, probability], dim=1)

    def _remember(self, inputs: TreatmentInputs) -> None:
        """Store the drugs of the training conditions for covariances with new rows."""
        drugs, self.row = torch.unique(inputs.drug, return_inverse=True)
        first = (self.row[None, :] == torch.arange(len(drugs))[:, None]).to(torch.int8).argmax(1)
        self.similarity.fit(inputs.features[first])
        self.drug, self.log_dose, self.line = (each.clone() for each in (inputs.drug, inputs.log_dose, inputs.line))

    def _fit(self, y: Tensor, noise: Tensor, row: Tensor) -> None:
        """Fit the process to the deviations ``y`` of shifts and probabilities from their mean, given the shifts' sampling noise.

        ``row`` is the condition of every stored drug.
        """
        d = self.n_genes
        parts = self._parts(self.similarity.reference[self.row], self.drug, self.log_dose, self.line)
        if len(row) > len(y):  # the covariance of two sums is the sum of the covariances
            parts = tuple(sum_by_row(sum_by_row(part, row, len(y)).T, row, len(y)).T for part in parts)
        # Sampling noise as a share of every gene's variance, averaged over genes: one noise variance per condition serves all genes,
        # which therefore share an eigendecomposition.
        total = (y[:, :d] ** 2).mean(0) + 1e-300
        sampled = (noise / total).mean(1).clamp(max=1.0)
        left = max(1 - float(sampled.mean()), 0.05)
        rows = _Rows(y, parts, (row, self.drug), left * torch.ones_like(sampled), sampled)
        # The cost of an eigendecomposition is cubic in the number of rows. The averages of drugs determine rho and the scales too,
        # so with many conditions the repeated decompositions of the search use the averages.
        own, of_drug = self._learn(rows if len(y) <= MOST_ROWS else rows.by_drug())
        scale = rows.scale(of_drug)
        (average, common), values, vectors, z, fit = self._decompose(own, rows, scale)
        self.own = torch.tensor(own, dtype=torch.float64)
        probability_fit = shrink(z[:, d:], values)
        root = vectors / scale.sqrt()[:, None]
        # A contiguous layout, as in a loaded file. Matrix products of other layouts differ in the last bit.
        root = (root - torch.outer(average, common @ root)).contiguous()
        weight = root @ torch.cat([smooth(fit, z[:, :d], values), smooth(probability_fit, z[:, d:], values)], 1)
        # The drugs of a combination share its weights, so that a sum over stored drugs is a sum over conditions.
        self.root, self.average, self.weight = root[row], average[row], weight[row]
        self.eigenvalues = values
        self.variance = fit.posterior * fit.variance
        self.scale = left * torch.cat([of_drug, torch.ones(1, dtype=torch.float64)])

    def _learn(self, rows: _Rows) -> tuple[float, Tensor]:
        """The share rho of the covariance that is peculiar to a drug, and the scale of every drug's noise."""
        # Only the first and last round search over rho. The rounds between update the scales at a fixed rho, to save decompositions.
        of_drug = torch.ones(self.n_drugs, dtype=torch.float64)
        own = OWN[0]
        for i in range(ROUNDS):
            scale = rows.scale(of_drug)
            fits = {each: self._decompose(each, rows, scale) for each in (OWN if i in (0, ROUNDS - 1) else (own,))}
            own = max(fits, key=lambda each: fits[each][-1].evidence)
            if i < ROUNDS - 1:
                _, values, vectors, z, fit = fits[own]
                white = (_centered(rows.y, scale) / scale.sqrt()[:, None])[:, : self.n_genes]
                squares = noise_squares(fit, z[:, : self.n_genes], values, vectors)
                of_drug = self._drug_scale(of_drug, rows.drugs, squares, white)
        return own, of_drug

    def _decompose(self, own: float, rows: _Rows, scale: Tensor) -> tuple:
        """Average of the rows, eigenvalues and eigenvectors of the whitened kernel, outputs in their basis, shrinkage of shifts."""
        kernel = (1 - own) * rows.parts[0] + own * rows.parts[1]
        # Conditioning on a known average of 0 subtracts the outer product of the covariances with the average.
        average, common = _average(kernel, scale)
        kernel = (kernel - torch.outer(common, common)) / torch.outer(scale.sqrt(), scale.sqrt())
        values, vectors = torch.linalg.eigh(kernel)
        values, z = values.clamp(min=0), vectors.T @ (_centered(rows.y, scale) / scale.sqrt()[:, None])
        return (average, common), values, vectors, z, shrink(z[:, : self.n_genes], values)

    def _drug_scale(self, before: Tensor, drugs: tuple[Tensor, Tensor], squares: Tensor, y: Tensor) -> Tensor:
        """Posterior scale of every drug, with mean 1. The relative square of a combination counts for each of its drugs."""
        # Genes are correlated. The participation ratio of the eigenvalues of their Gram matrix is the effective number of independent
        # genes, and a drug's mean square counts as this number of observations.
        gram = y / (y**2).mean(0).sqrt().clamp(min=1e-150)
        gram = gram @ gram.T
        effective = float(gram.trace() ** 2 / (gram**2).sum().clamp(min=1e-300))
        sums, (row, drug) = torch.zeros(self.n_drugs, 2, dtype=torch.float64), drugs
        sums.index_add_(0, drug, torch.stack([squares.mean(1), torch.ones(len(y), dtype=torch.float64)], 1)[row])
        square = before * torch.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1].clamp(min=1), 1.0)
        after = (DEGREES + effective * square) / (DEGREES + effective)
        return after / after[sums[:, 1] > 0].mean()

    def _parts(self, features: Tensor, drug: Tensor, log_dose: Tensor, line: Tensor) -> tuple[Tensor, Tensor]:
        """Covariances of rows with training conditions, by the similarity of features and by the identity of the drug."""
        # Doses outside the measured range are treated as the nearest measured dose, as in the mean.
        near = dose_similarity(*(each.clamp(self.knots[0], self.knots[-1]) for each in (log_dose, self.log_dose)))
        near = near * line_similarity(line, self.line)
        same = (drug[:, None] == self.drug).to(torch.float64)
        return self.similarity(features)[:, self.row] * near, same * near

    def _covariance(self, inputs: TreatmentInputs) -> Tensor:
        structure, same = self._parts(*inputs[:4])
        return (1 - self.own) * structure + self.own * same

    def of_drugs(self, inputs: TreatmentInputs) -> tuple[Tensor, Tensor]:
        """Logits and psi of rows of single drugs, ``(rows, genes)`` each."""
        shift, p = (self._covariance(inputs) @ self.weight).chunk(2, dim=1)
        expected, base = self.means(inputs)
        expected = torch.where((inputs.log_dose > -torch.inf)[:, None], expected + shift, 0.0)
        return self.as_intervention(expected, base + p, inputs.log_dose)

    @torch.no_grad()
    def uncertainty_of_drugs(self, inputs: TreatmentInputs) -> Tensor:
        """SD of psi of single drugs given that the gene is a target, ``(rows, genes)``.

        It is the predictive SD of the shift divided by the probability. The predictive variance is the posterior variance of the
        process and the variance that features do not explain. The scale of a new drug is the mean of the training drugs.
        """
        covariance = self._covariance(inputs)
        # The prior variance is 1, less the part that is known because the average over the training conditions is 0.
        before = 1 - (covariance @ self.average)[:, None] ** 2
        spectrum = SHARES * self.eigenvalues[:, None] + 1 - SHARES
        process = SHARES * before - (covariance @ self.root) ** 2 @ (SHARES**2 / spectrum)
        noise = (1 - SHARES) * self.scale[inputs.drug][:, None]
        probability = torch.sigmoid(self(inputs)[0]).clamp(min=LEAST_PROBABILITY)
        there = (inputs.log_dose > -torch.inf)[:, None]
        return torch.where(there, ((process.clamp(min=0) + noise) @ self.variance).sqrt() / probability, 0.0)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        if prefix + "drug" in state_dict:  # models of older versions have no cell lines
            state_dict.setdefault(prefix + "line", torch.full_like(state_dict[prefix + "drug"], -1))
        for name, buffer in list(self.named_buffers(recurse=False)):
            if prefix + name in state_dict:
                setattr(self, name, buffer.new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


class _Rows(NamedTuple):
    """Data of the process: conditions, or the averages of single drugs over their conditions, and combinations."""

    y: Tensor  # (rows, outputs) deviations from the mean
    parts: tuple[Tensor, Tensor]  # (rows, rows) each: covariances by features and by the identity of the drug
    drugs: tuple[Tensor, Tensor]  # (parts,) each: row and index of every drug of every row
    own: Tensor  # (rows,) noise variance of the drug, without the factor of the drug
    sampled: Tensor  # (rows,) sampling variance

    def scale(self, of_drug: Tensor) -> Tensor:
        """Noise variance of every row, ``(rows,)``, given the scale of every drug's noise."""
        row, drug = self.drugs
        return self.own * sum_by_row(of_drug[drug], row, len(self.y)) + self.sampled

    def by_drug(self) -> _Rows:
        """Precision-weighted average of every single drug; averages of a Gaussian process are jointly Gaussian too."""
        row, drug = self.drugs
        single = torch.bincount(row) == 1
        group = torch.arange(len(self.y)) + drug.max() + 1  # a combination is a group of its own
        group[row[single[row]]] = drug[single[row]]
        groups, index = torch.unique(group, return_inverse=True)
        weight = torch.zeros(len(groups), len(index), dtype=torch.float64)
        weight[index, torch.arange(len(index))] = 1 / (self.own + self.sampled)
        weight /= weight.sum(1, keepdim=True)
        parts = tuple(weight @ part @ weight.T for part in self.parts)
        drugs = torch.unique(torch.stack([index[row], drug]), dim=1).unbind()
        return _Rows(weight @ self.y, parts, drugs, weight**2 @ self.own, weight**2 @ self.sampled)


def _centered(y: Tensor, scale: Tensor) -> Tensor:
    """Outputs less their mean, weighted by precision."""
    # Strong drugs have a smaller weight here than in the mean generator. Without centering, the process would model the difference.
    return y - (y / scale[:, None]).sum(0) / (1 / scale).sum()


def _average(kernel: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the conditions' average, scaled to variance 1, and every condition's covariance with the average."""
    weight = 1 / scale
    covariance = kernel @ weight
    deviation = (weight @ covariance).sqrt()
    return weight / deviation, covariance / deviation
