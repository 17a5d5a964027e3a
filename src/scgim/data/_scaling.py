"""Control groups, and the standardized scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scgim._checks import listed
from scgim.statistics import relative_scales

from ._reader import Standardizer

if TYPE_CHECKING:
    import pandas as pd

    from scgim.statistics import SufficientStatistics

    from ._condition_statistics import ConditionStatistics


@dataclass(frozen=True)
class Scaling:
    """Control groups (line x batch) and the standardized scale."""

    groups: pd.DataFrame  # line and batch of every group
    mean: np.ndarray  # (groups, genes)
    size: np.ndarray  # (groups,)
    scale: np.ndarray  # (genes,) pooled control SD
    lines: np.ndarray  # names, sorted
    line_scale: np.ndarray  # (lines, genes) control SD relative to the pooled one
    standard: Standardizer

    @classmethod
    def of(cls, cells: ConditionStatistics, genes: np.ndarray, *, counts: bool) -> Scaling:
        """Estimate the scale from controls. Counts have one scale for all lines, because their rates determine their noise."""
        raw, control = cells.raw, cells.control
        groups = cells.parts.loc[control, ["line", "batch"]].reset_index(drop=True)
        scale = _control_scale(raw, control, genes)
        lines, line_of_group = np.unique(groups["line"].to_numpy(str), return_inverse=True)
        line_scale = np.ones((len(lines), len(genes)))
        if not counts:
            line_scale = _line_scale(raw, control, line_of_group, len(lines))
        standard = Standardizer(raw.mean[control], scale * line_scale[line_of_group])
        return cls(groups, raw.mean[control], raw.n[control], scale, lines, line_scale, standard)


def _control_scale(raw: SufficientStatistics, control: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Pooled SD of controls within groups, or the pooled SD within all conditions for genes that are constant in controls."""
    variance = raw.squares[control].sum(0) / raw.n[control].sum()
    within = raw.squares.sum(0) / raw.n.sum()
    # A variance below this bound is rounding error of sums of squares. The error grows with the distance between conditions.
    tiny = 1e-12 * ((raw.mean - raw.mean.mean(0)) ** 2).max(0) + 1e-28 * (raw.mean**2).max(0)
    variance = np.where(variance > tiny, variance, within)
    if (variance <= tiny).any():
        raise ValueError(
            f"{int((variance <= tiny).sum())} genes do not vary within any condition, e.g. {listed(genes[variance <= tiny])}, so nothing scales their "
            "effects. Drop them, or use more cells per condition."
        )
    return np.sqrt(variance)


def _line_scale(raw: SufficientStatistics, control: np.ndarray, line: np.ndarray, n_lines: int) -> np.ndarray:
    """Control SD of every line relative to the pooled control SD, ``(lines, genes)``; ``line`` is the line of every control group."""
    freedom, squares = np.zeros(n_lines), np.zeros((n_lines, raw.mean.shape[1]))
    np.add.at(
        freedom, line, raw.n[control] - 1
    )  # one degree of freedom per group, because squares are around the mean of the group
    np.add.at(squares, line, raw.squares[control])
    return relative_scales(squares / np.maximum(freedom, 1)[:, None], freedom)
