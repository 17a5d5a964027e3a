"""Similarity of drugs by their features, of doses by their logarithm, and of cell lines by their identity."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

MOST_COUNTS = 100
DOSE_SHARE = 0.2  # share of a drug's covariance that depends on the distance between two doses
LINE_SHARE = 0.2  # share of a drug's covariance that is specific to a line


class Similarity(nn.Module):
    r"""Positive definite similarity of drugs to training drugs, 1 for equal drugs.

    A feature is a count if its values in the training drugs are non-negative whole numbers up to 100, possibly divided by a common
    number. Counts enter by the count-Tanimoto similarity :math:`\sum \min(a, b) / \sum \max(a, b)`, defined as 1 for two drugs without
    counts. The other features, in SD of the training drugs, enter by :math:`\exp(-\lVert a - b \rVert^2 / 2 \ell^2)`, where
    :math:`\ell` is the median distance between training drugs. With both kinds of features, the weight of the counts is their share of
    the features, at most 0.5.

    Parameters
    ----------
    n_features
        Number of features.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.n_features = n_features
        self.reset()

    def reset(self) -> None:
        """Forget the training drugs."""
        zeros = torch.zeros(self.n_features, dtype=torch.float64)
        self.register_buffer("reference", torch.zeros(0, self.n_features, dtype=torch.float64))
        self.register_buffer("unit", zeros.clone())  # unit of counts; 0 for other features
        self.register_buffer("centre", zeros.clone())
        self.register_buffer("scale", zeros.clone())  # 0 for counts and constant features
        self.register_buffer("length", torch.ones((), dtype=torch.float64))

    def fit(self, features: Tensor) -> None:
        """Store the distinct training drugs, ``(drugs, features)``, as the reference."""
        self.unit = torch.as_tensor([count_unit(column) for column in features.T.numpy()], dtype=torch.float64)
        real = self.unit == 0
        self.centre, scale = features.mean(0), features.std(0, unbiased=False)
        self.scale = torch.where(real & (scale > 1e-12 * self.centre.abs()), scale, 0.0)
        self.reference = features.clone()
        far = torch.pdist(self._standard(features))
        self.length = far[far > 0].median() if (far > 0).any() else torch.ones((), dtype=torch.float64)

    def forward(self, features: Tensor) -> Tensor:
        """Similarity of rows to the reference, ``(rows, drugs)``."""
        n_counts, n_real = int((self.unit > 0).sum()), int((self.scale > 0).sum())
        share = min(0.5, n_counts / (n_counts + n_real)) if n_real else 1.0
        similarity = torch.zeros(len(features), len(self.reference), dtype=torch.float64)
        if share > 0:
            similarity += share * count_tanimoto(self._counts(features), self._counts(self.reference))
        if share < 1:
            # The expanded form of the squared distance is inexact for similar drugs because of cancellation.
            exact = {"compute_mode": "donot_use_mm_for_euclid_dist"}
            far = torch.cdist(self._standard(features), self._standard(self.reference), **exact)
            similarity += (1 - share) * torch.exp(-(far**2) / (2 * self.length**2))
        return similarity

    def _counts(self, features: Tensor) -> Tensor:
        use = self.unit > 0
        return features[:, use] / self.unit[use]

    def _standard(self, features: Tensor) -> Tensor:
        use = self.scale > 0
        return (features[:, use] - self.centre[use]) / self.scale[use]

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        self.reference = self.reference.new_empty(state_dict[prefix + "reference"].shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


def count_unit(values: np.ndarray) -> float:
    """The unit of a column of counts, 0 if the column has no counts. Features may be scaled by their largest value.

    Examples
    --------
    >>> [count_unit(np.array(values)) for values in ([0, 2, 3.0], [0, 0.25, 1], [0, 0.3, 1.1], [-1, 0, 1])]
    [1.0, 0.25, 0.0, 0.0]
    """
    if values.min(initial=0.0) < 0:
        return 0.0
    distinct = np.unique(values)
    if (distinct == np.round(distinct)).all():
        return float(distinct[-1] <= MOST_COUNTS)
    if distinct[-1] > 1:
        return 0.0
    parts = np.arange(2, MOST_COUNTS + 1)
    whole = (np.abs(distinct[:, None] * parts - np.round(distinct[:, None] * parts)) < 1e-6).all(0)
    return float(1.0 / parts[whole.argmax()]) if whole.any() else 0.0


def count_tanimoto(a: Tensor, b: Tensor) -> Tensor:
    """Tanimoto similarity of counts, ``(rows of a, rows of b)``."""
    most = int(torch.ceil(b.max() - 1e-6)) if b.numel() else 0
    shared = torch.zeros(len(a), len(b), dtype=torch.float64)
    # The minimum of two counts is the number of levels that both reach, so a matrix product per level sums the minima.
    for level in range(most):
        use = (b > level).any(0)
        shared += (a[:, use] - level).clamp(0, 1) @ (b[:, use] - level).clamp(0, 1).T
    joint = a.sum(1)[:, None] + b.sum(1) - shared
    return torch.where(joint > 0, shared / torch.where(joint > 0, joint, 1.0), 1.0)


def dose_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Similarity of log doses, ``(len(a), len(b))``: 1 for equal doses, and at least 0.8."""
    distance = a[:, None] - b
    return 1 - DOSE_SHARE + DOSE_SHARE * torch.exp(-(distance**2) / (2 * np.log(10) ** 2))


def line_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Similarity of cell lines, given as indices: 1 for the same line and 0.8 for different lines; ``(len(a), len(b))``."""
    return 1 - LINE_SHARE * ((a[:, None] != b) & (b >= 0)).to(torch.float64)
