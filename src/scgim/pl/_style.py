from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

UP, DOWN = "#b2182b", "#2166ac"  # the ends of RdBu_r

SCALES = {
    "counts": "log1p of counts per 10,000",
    "lognorm": "log-normalized expression",
    "continuous": "units of the data",
}


def new_axes(width: float, height: float) -> Axes:
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def names_width(names: Sequence[str]) -> float:
    """Width (inches) of the longest name as a tick label."""
    return 0.08 * max(map(len, names), default=0)


def finish(axes: Axes | np.ndarray, show: bool | None) -> Any:
    """Show the figure and return nothing, or return the axes for further changes."""
    if not show:
        return axes
    plt.show()
    return None


def positive(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} is {value!r}, but must be at least 1.")
    return value


def sign_colors(values: np.ndarray | pd.Series) -> list[str]:
    return [DOWN if v < 0 else UP for v in values]


def condition_labels(table: pd.DataFrame, unit: str) -> list[str]:
    """One label per row, such as "JQ1, 10 uM, A549", from the columns drug, dose and cell_line as far as they exist."""
    return [condition_label(row, unit) for row in table.to_dict("records")]


def condition_label(row: Mapping[str, Any], unit: str) -> str:
    dose = row.get("dose", np.nan)
    parts = [
        str(row.get("drug", "")),
        "" if np.isnan(dose) else f"{dose:g} {unit}".strip(),
        str(row.get("cell_line", "")),
    ]
    return ", ".join(part for part in parts if part)
