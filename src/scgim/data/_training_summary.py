"""Summary of the training data in plain arrays, sufficient for all methods of a trained model without the AnnData."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import torch

from scgim.module import CERTAIN, FeatureEvidence, MeasuredConditions, Moments, Rows

from ._known_targets import TargetPrior

if TYPE_CHECKING:
    import scipy.sparse as sp

    from scgim.statistics import SufficientStatistics

    from ._design import ScreenDesign


@dataclass(frozen=True)
class TrainingSummary:
    """Scaling, design, sufficient statistics and control cells of the training rows.

    Parameters
    ----------
    genes
        Names of the genes, sorted; the order of all arrays.
    scale
        Pooled control SD on the training scale, ``(genes,)``.
    group_line, group_batch, group_mean, group_size
        Control groups (line x batch): names, control means ``(groups, genes)`` and number of cells.
    design, statistics
        Design of the treated conditions, and their standardized statistics with the controls as condition 0.
    controls, control_group, control_names
        Up to 10,000 control cells per line on the training scale, sparse, and their groups and names.
    data_hash
        Hash of the statistics and the features.
    measured
        Moments of every treated condition under the trained mechanisms: ``n`` ``(conditions, 1)`` and the arrays of
        :class:`~scgim.module.Moments`. ``features`` contains the arrays of :class:`~scgim.module.FeatureEvidence`, if there are
        cross-fitted predictions. Empty before training.
    responses
        State of :class:`~scgim.module.Responses`, the responses of measured drugs; empty before training.
    known_targets
        Prior log odds and signs of targets, the arrays of :class:`TargetPrior`; empty without prior knowledge.
    line_scale
        Control SD of every line relative to ``scale``, ``(lines, genes)``, for the standardization of its cells. Empty in models of older
        versions, in which it is 1.
    control_replicate
        Replicate of every stored control cell, ``(cells,)`` int; empty without replicates.
    readout
        Names ``genes``, ``group_mean``, ``scale`` (control SD) and stored ``controls`` of the readout genes, and after training the state
        ``model`` of :class:`~scgim.module.Readout`; empty without readout.
    covariates
        ``keys`` and ``levels`` of the covariates, ``slopes`` of genes and readout genes on them, and their values in the stored ``controls``
        less the mean of the group; empty without covariates.
    change_variance
        Variance of the error of every condition's mean change, in squared pooled control SD, ``(conditions, genes)``. Empty before
        training and in models of older versions.
    """

    genes: np.ndarray
    scale: np.ndarray
    group_line: np.ndarray
    group_batch: np.ndarray
    group_mean: np.ndarray
    group_size: np.ndarray
    design: ScreenDesign
    statistics: SufficientStatistics
    controls: sp.csr_matrix
    control_group: np.ndarray
    control_names: np.ndarray
    data_hash: str
    measured: dict = field(default_factory=dict)
    responses: dict = field(default_factory=dict)
    line_scale: np.ndarray = field(default_factory=lambda: np.ones((0, 0)))
    known_targets: dict = field(default_factory=dict)
    control_replicate: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    readout: dict = field(default_factory=dict)
    covariates: dict = field(default_factory=dict)
    change_variance: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def line_mean(self, line: str, group_mean: np.ndarray | None = None) -> np.ndarray:
        """Control mean of a line over its batches, training scale, ``(genes,)``; ``group_mean`` are those of other genes."""
        rows = self.group_line == line
        of_groups = self.group_mean if group_mean is None else group_mean
        return np.average(of_groups[rows], axis=0, weights=self.group_size[rows])

    def relative_scale(self, line: np.ndarray | int) -> np.ndarray:
        """Control SD of lines, by index, relative to the pooled control SD; 1 for an unseen line (-1)."""
        one = np.ones((1, len(self.genes)))
        known = self.line_scale if len(self.line_scale) else np.repeat(one, len(self.design.lines), 0)
        return np.concatenate([known, one])[line]

    def standardized_controls(self) -> torch.Tensor:
        """Control cells less the mean of their group and the effect of covariates, in control SD of their line, ``(cells, genes)``."""
        line = np.searchsorted(self.design.lines, self.group_line)[self.control_group]
        return torch.as_tensor(self.controls_in_sd() / self.relative_scale(line))

    def controls_in_sd(self) -> np.ndarray:
        """Control cells less the mean of their group and the effect of covariates, in pooled control SD, ``(cells, genes)``."""
        x = self.controls.toarray().astype(np.float64)
        return (x - self.control_centers(np.arange(len(x)))) / self.scale

    def control_centers(self, rows: np.ndarray) -> np.ndarray:
        """Expected value of stored control cells given their group and covariates, training scale, ``(rows, genes)``."""
        center = self.group_mean[self.control_group[rows]]
        if not self.covariates:
            return center
        return center + self.covariates["controls"][rows] @ self.covariates["slopes"][:, : len(self.genes)]

    def measure(self, conditions: MeasuredConditions, moments: Moments, features: FeatureEvidence | None) -> Self:
        """Add moments of the conditions under the trained mechanisms, and cross-fitted predictions from features."""
        measured: dict = {"n": conditions.n.numpy(), **_arrays(moments)}
        return replace(self, measured=measured | ({} if features is None else {"features": _arrays(features)}))

    def conditions(self) -> tuple[MeasuredConditions, Moments, FeatureEvidence | None]:
        """Measured conditions, moments and predictions from features, the arguments of the module's posterior."""
        parts = dict(self.measured)
        features, n = parts.pop("features", None), torch.as_tensor(parts.pop("n"))
        moments = Moments(**_tensors(parts))
        predicted = None if features is None else FeatureEvidence(**_tensors(features))
        inputs, prior = self.design.inputs(), self.prior_arguments()
        conditions = MeasuredConditions(n, moments.value, moments.spread, inputs, **prior)
        return conditions, moments, predicted

    def prior_arguments(self) -> dict[str, torch.Tensor]:
        """Prior knowledge of targets as arguments of :class:`~scgim.module.MeasuredConditions`."""
        return prior_arguments(TargetPrior(**self.known_targets) if self.known_targets else None)

    def rows(self) -> Rows:
        """The measured conditions as arguments of :class:`~scgim.module.Responses`."""
        inputs = self.design.inputs()
        return Rows(self.design.drug, inputs.log_dose.numpy(), self.design.line)


def prior_arguments(prior: TargetPrior | None) -> dict[str, torch.Tensor]:
    """Prior knowledge of targets as arguments of :class:`~scgim.module.MeasuredConditions`."""
    if prior is None:
        return {}
    log_odds = torch.as_tensor(prior.log_odds).clamp(-CERTAIN, CERTAIN)
    return {"target_log_odds": log_odds, "target_sign": torch.as_tensor(prior.sign)}


def _arrays(tensors: NamedTuple) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in tensors._asdict().items()}


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(array) for name, array in arrays.items()}
