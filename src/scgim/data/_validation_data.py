"""Validation conditions: conditions of the training set that are not used in training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from scgim._combinations import parts_of
from scgim.module import MeasuredConditions

from ._condition_statistics import ConditionStatistics
from ._design import group_conditions, padded
from ._known_targets import target_prior
from ._reader import control_group_of, sample_cells
from ._training_summary import prior_arguments

if TYPE_CHECKING:
    import pandas as pd

    from scgim._combinations import Combinations
    from scgim.module import CellStore, TreatmentInputs

    from ._design import ScreenDesign
    from ._registered_screen import RegisteredScreen
    from ._requirements import DataRequirements
    from ._scaling import Scaling
    from ._training_summary import TrainingSummary


def read_validation_data(
    screen: RegisteredScreen,
    held: np.ndarray,
    summary: TrainingSummary,
    features: pd.DataFrame,
    scaling: Scaling,
    needs: DataRequirements,
    seed: int,
    known_targets: pd.DataFrame | None = None,
) -> tuple[MeasuredConditions, CellStore | None]:
    """Validation conditions on the training scale. The first condition of their cell store, the controls, is empty."""
    table, matrix = screen.conditions, screen.matrix()
    cells = ConditionStatistics.read(matrix, table, held, own=needs.own and not needs.cells)
    statistics = cells.standardized(scaling.standard, scaling.groups).merge(cells.label - 1)
    conditions = _encoded(summary.design, cells.conditions, features, screen.combinations)
    store, n = None, statistics.n
    if needs.cells:
        label, group = cells.label[cells.code], control_group_of(table[held], scaling.groups)
        store = sample_cells(matrix, np.flatnonzero(held), label, group, scaling.standard, seed, empty=1)
        n = store.size[1:].numpy().astype(float)
    own = None if statistics.own is None else torch.as_tensor(statistics.own)
    spread = statistics.squares / statistics.n[:, None]
    prior = target_prior(known_targets, cells.conditions["drug"].to_numpy(str), summary.genes, screen.combinations)
    arrays = map(torch.as_tensor, (n[:, None], statistics.mean, spread))
    return MeasuredConditions(*arrays, conditions, own, **prior_arguments(prior)), store


def _encoded(
    design: ScreenDesign, conditions: pd.DataFrame, features: pd.DataFrame, combinations: Combinations
) -> TreatmentInputs:
    """Inputs of the generator for conditions of any drugs and combinations."""
    names = conditions["drug"].to_numpy(str)
    line = np.searchsorted(design.lines, conditions["line"].to_numpy(str))
    if combinations:
        parts = [
            parts_of(name, dose, combinations)
            for name, dose in zip(names, conditions["dose"].to_numpy(float), strict=True)
        ]
        every = features.index.to_numpy(str)
        (row, dose), (index, _) = padded(parts, every), padded(parts, design.drugs)
        scaled = features.to_numpy(np.float64).reshape(len(every), -1)[row] / design.feature_scale
        return design.encode_parts(scaled, index, dose, line)
    known = np.searchsorted(design.drugs, names).clip(max=len(design.drugs) - 1)
    index = np.where(design.drugs[known] == names, known, -1)
    scaled = features.loc[names].to_numpy(np.float64) / design.feature_scale
    return design.encode(scaled, index, conditions["dose"].to_numpy(float), line)


def validation_cells(table: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    """Cells of a random share of whole training conditions, at least one condition and not all; ``(cells,)`` bool."""
    use = (table["train"] & ~table["control"]).to_numpy()
    conditions, code = group_conditions(table[use], ("drug", "dose", "line"))
    if len(conditions) < 2:
        raise ValueError("A validation set needs at least two conditions; train with train_size=1.")
    n = min(max(1, round(share * len(conditions))), len(conditions) - 1)
    chosen = np.random.default_rng(seed).choice(len(conditions), n, replace=False)
    held = np.zeros(len(table), dtype=bool)
    held[use] = np.isin(code, chosen)
    return held
