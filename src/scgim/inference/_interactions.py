"""Deviations of measured combinations from additivity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, norm

from scgim.data._design import condition_keys

if TYPE_CHECKING:
    from scgim._combinations import Parts

    from ._predictor import Predictor

COLUMNS = "drug doses cell_line gene observed additive deviation se z p_value p_adjusted singles".split()


def interactions(predictor: Predictor) -> pd.DataFrame:
    """Table of :meth:`scgim.GIM.interactions`."""
    summary, design = predictor.summary, predictor.summary.design
    names, change, combinations = design.names(), predictor.measured_changes(), design.combinations()
    place = {key: i for i, key in enumerate(condition_keys(names))}
    tables = [pd.DataFrame(columns=COLUMNS)]
    for i in np.flatnonzero(design.drug >= len(design.drugs)):
        parts, line = combinations[names["drug"][i]], str(names["cell_line"][i])
        singles = [place.get((name, None if np.isnan(dose) else dose, line), -1) for name, dose in parts]
        measured = min(singles) >= 0
        additive = sum(
            change[k] if k >= 0 else _by_model(predictor, part, line) for k, part in zip(singles, parts, strict=True)
        )
        error = _error(predictor, i, singles) if measured else np.full(len(summary.genes), np.nan)
        tables.append(
            _table(parts, line, summary.genes, change[i], additive, error).assign(
                singles="data" if measured else "model"
            )
        )
    return pd.concat(tables[1:] or tables, ignore_index=True)[COLUMNS]


def _by_model(predictor: Predictor, part: tuple[str, float], line: str) -> np.ndarray:
    """Change by a single drug that was not measured at this dose in this line, by the model, in pooled control SD."""
    name, dose = part
    rows, change = predictor.changes(predictor.resolve(drug=name, dose=None if np.isnan(dose) else dose))
    return change[rows["cell_line"].to_numpy(str) == line][0] / predictor.summary.scale


def _error(predictor: Predictor, combination: int, singles: list[int]) -> np.ndarray:
    """Standard error of the deviation of a combination from the sum of its single drugs, ``(genes,)``."""
    summary = predictor.summary
    if not len(summary.change_variance):  # models of older versions
        return np.full(len(summary.genes), np.nan)
    statistics, line = summary.statistics, summary.design.line[combination]
    freedom = max(float(statistics.n_cells) - len(statistics.n), 1.0)
    n_controls = summary.group_size[summary.group_line == summary.design.lines[line]].sum()
    controls = np.diag(statistics.scatter) / freedom / n_controls * summary.relative_scale(line) ** 2
    # With k drugs, the mean of the controls enters k - 1 times, and once in each of the k + 1 variances.
    k = len(singles)
    total = summary.change_variance[[combination, *singles]].sum(0) + ((k - 1) ** 2 - (k + 1)) * controls
    return np.sqrt(np.maximum(total, 0.0))


def _table(
    parts: Parts, line: str, genes: np.ndarray, observed: np.ndarray, additive: np.ndarray, error: np.ndarray
) -> pd.DataFrame:
    """Rows of a combination in a line, the largest deviation relative to its error first."""
    deviation = observed - additive
    z = deviation / error
    p = 2 * norm.sf(np.abs(z))
    known = np.isfinite(p)
    adjusted = np.full(len(p), np.nan)
    adjusted[known] = false_discovery_control(p[known]) if known.any() else p[known]
    table = pd.DataFrame(
        {
            "drug": " + ".join(name for name, _ in parts),
            "doses": " + ".join(f"{dose:g}" for _, dose in parts if not np.isnan(dose)),
            "cell_line": line,
            "gene": genes,
            "observed": observed,
            "additive": additive,
            "deviation": deviation,
            "se": error,
            "z": z,
            "p_value": p,
            "p_adjusted": adjusted,
        }
    )
    size = np.abs(z) if known.all() else np.abs(deviation)
    return table.iloc[np.argsort(-size, kind="stable")]
