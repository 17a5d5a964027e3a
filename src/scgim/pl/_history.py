from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from ._style import finish

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

PHASES = {"structure": "Structure search", "mechanisms": "Mechanisms", "generator": "Generator", "nll": "Validation"}
UNITS = {"score": "score (nats)", "nll": "negative log-likelihood\n(nats)"}


def history(model: Any, *, ax: Axes | Sequence[Axes] | None = None, show: bool | None = None) -> np.ndarray | None:
    """Plot the history of training, one panel per phase.

    Parameters
    ----------
    model
        A trained model, or its ``history``: a mapping of names to DataFrames with one column, indexed by epoch. The part of a name before
        the first underscore is the phase, the rest is the quantity. Curves of one phase share a panel.
    ax
        Axes to draw on, as many as there are phases; a new figure by default.
    show
        Show the figure and return nothing.

    Returns
    -------
    The axes in a one-dimensional array, one per phase, in the order of `history`.

    Raises
    ------
    ValueError
        If the model is not trained, or `ax` does not have the right number of axes.

    Examples
    --------
    >>> import pandas as pd
    >>> import scgim
    >>> score = pd.DataFrame({"structure_score": [9.0, 4.0, 3.5]})
    >>> axes = scgim.pl.history({"structure_score": score})
    >>> axes[0].get_title(), axes[0].get_ylabel()
    ('Structure search', 'score (nats)')
    """
    curves = getattr(model, "history", model)
    if not curves:
        raise ValueError("There is no history to draw. Run `model.train()` first.")
    phases: dict[str, dict[str, pd.Series]] = {}
    for name, table in curves.items():
        # scvi-tools stores object columns with missing values where a quantity was not logged.
        curve = table.iloc[:, 0].astype(float).dropna()
        phases.setdefault(name.partition("_")[0], {})[name] = curve

    axes = _panels(len(phases), ax)
    for panel, (phase, named) in zip(axes, phases.items(), strict=True):
        _panel(panel, phase, named)
    return finish(axes, show)


def _panels(n: int, ax: Axes | Sequence[Axes] | None) -> np.ndarray:
    if ax is None:
        return plt.subplots(1, n, figsize=(3.6 * n, 3), layout="constrained", squeeze=False)[1][0]
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(axes) != n:
        raise ValueError(f"ax holds {len(axes)} axes, but the history has {n} phases: pass {n}, or none.")
    return axes


def _panel(ax: Axes, phase: str, curves: Mapping[str, pd.Series]) -> None:
    for name, curve in curves.items():
        # A line with a single epoch is invisible, so it gets a marker.
        ax.plot(curve.index, curve, label=name, marker="o" if len(curve) == 1 else None)
    quantities = {UNITS[word] for name in curves for word in name.split("_") if word in UNITS}
    ax.set_title(PHASES.get(phase, phase if len(curves) > 1 else next(iter(curves))))
    ax.set_ylabel(" / ".join(sorted(quantities)) or next(iter(curves)))
    ax.set_xlabel("epoch")
    ax.spines[["top", "right"]].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    if len(curves) > 1:
        ax.legend(frameon=False)
