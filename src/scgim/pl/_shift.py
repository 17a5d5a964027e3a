from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scgim._checks import check_option
from scgim._keys import CONTROL_LAYER, UNS

from ._style import SCALES, condition_labels, finish, names_width, new_axes, positive, sign_colors

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


def shift(
    pred: AnnData,
    *,
    evidence: Literal["auto", "data", "features"] = "auto",
    n_genes: int = 20,
    n_conditions: int = 40,
    cmap: str = "RdBu_r",
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes | None:
    """Plot the mean predicted change of the genes that change most.

    Parameters
    ----------
    pred
        Result of `model.predict()` or `model.do()`, with any ``as_``.
    evidence
        ``"data"`` or ``"features"``: show only conditions whose prediction rests on this evidence (``pred.obs["evidence"]``).
        ``"auto"``: show all conditions.
    n_genes
        Largest number of genes: those with the largest absolute mean change in any condition, largest first.
    n_conditions
        Largest number of conditions (drug, dose, cell line): those with the largest absolute mean change, in the order of `pred`.
    cmap
        Diverging colormap, centered at 0.
    ax
        Axes to draw on; a new figure by default.
    show
        Show the figure and return nothing.

    Returns
    -------
    The axes: a heatmap (conditions, genes) of the mean over cells of predicted minus control expression, on the training scale. With a
    single condition, bars.

    Raises
    ------
    KeyError
        If `pred` is not a prediction.
    ValueError
        If no condition rests on this `evidence`.

    Examples
    --------
    >>> import numpy as np
    >>> import scgim
    >>> from anndata import AnnData
    >>> pred = AnnData(np.array([[0.2, -1.0]], dtype="float32"))
    >>> pred.var_names = ["MYC", "STAT1"]
    >>> pred.obs["drug"] = ["Akti-1/2"]
    >>> pred.uns["scgim"] = {"prediction": {"kind": "delta", "scale": "lognorm"}}
    >>> ax = scgim.pl.shift(pred)
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['STAT1', 'MYC']
    """
    n_genes, n_conditions = positive("n_genes", n_genes), positive("n_conditions", n_conditions)
    means, labels = _mean_changes(_resting_on(pred, evidence))
    n_all = len(means)
    kept = np.sort(np.argsort(-np.abs(means).max(axis=1), kind="stable")[:n_conditions])
    means, labels = means[kept], [labels[i] for i in kept]
    moved = np.argsort(-np.abs(means).max(axis=0), kind="stable")[:n_genes]
    means, genes = means[:, moved], list(pred.var_names[moved])

    scale = pred.uns[UNS]["prediction"]["scale"]
    unit = f"mean change\n({SCALES.get(scale, scale)})"
    if len(means) == 1:
        ax = _bars(means[0], genes, labels[0], unit, ax)
    else:
        ax = _heatmap(means, genes, labels, unit, cmap, ax)
        ax.set_title("Predicted change" + (f", {len(means)} of {n_all} conditions" if len(means) < n_all else ""))
    return finish(ax, show)


def _resting_on(pred: AnnData, evidence: str) -> AnnData:
    """The rows of a prediction that rest on the given evidence."""
    check_option("evidence", evidence, ["auto", "data", "features"])
    if evidence == "auto":
        return pred
    rows = (pred.obs["evidence"] == evidence).to_numpy() if "evidence" in pred.obs else np.zeros(pred.n_obs, dtype=bool)
    if not rows.any():
        raise ValueError(
            f"No row of pred rests on evidence={evidence!r}. Predict with model.predict(..., evidence={evidence!r})."
        )
    return pred[rows]


def _mean_changes(pred: AnnData) -> tuple[np.ndarray, list[str]]:
    settings = pred.uns.get(UNS, {})
    if "prediction" not in settings:
        raise KeyError(
            f"`prediction` not found in pred.uns[{UNS!r}]. Pass what `model.predict()` or `model.do()` returned."
        )
    change = np.asarray(pred.X, dtype=np.float64)
    if settings["prediction"]["kind"] != "delta":
        change = change - pred.layers[CONTROL_LAYER]
    absent = {"drug": "", "dose": np.nan, "cell_line": ""}
    conditions = pd.DataFrame({c: pred.obs.get(c, a) for c, a in absent.items()}, index=pred.obs_names)
    # By default, groupby drops conditions without a dose (NaN).
    groups = conditions.groupby(list(absent), dropna=False, observed=True, sort=False)
    first = groups.head(1)
    code = groups.ngroup().to_numpy()
    means = pd.DataFrame(change).groupby(code).mean().loc[pd.unique(code)].to_numpy()
    if first["cell_line"].nunique() == 1 and len(first) > 1:
        first = first.drop(columns="cell_line")
    return means, condition_labels(first, settings.get("settings", {}).get("dose_unit", ""))


def _bars(means: np.ndarray, genes: list[str], condition: str, unit: str, ax: Axes | None) -> Axes:
    ax = new_axes(4.3 + names_width(genes), max(2.5, 1.4 + 0.25 * len(genes))) if ax is None else ax
    ax.barh(range(len(genes)), means, color=sign_colors(means))
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(genes)), genes)
    ax.invert_yaxis()
    ax.set_xlabel(unit)
    ax.set_title(f"Predicted change\n{condition}" if condition else "Predicted change", fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _heatmap(means: np.ndarray, genes: list[str], labels: list[str], unit: str, cmap: str, ax: Axes | None) -> Axes:
    ax = (
        new_axes(max(3.5, 1.6 + 0.26 * len(genes)) + names_width(labels), max(3, 1.6 + 0.22 * len(labels)))
        if ax is None
        else ax
    )
    limit = np.abs(means).max() or 1
    image = ax.imshow(means, cmap=cmap, vmin=-limit, vmax=limit, aspect="auto", interpolation="none")
    ax.set_xticks(range(len(genes)), genes, rotation=90)
    ax.set_yticks(range(len(labels)), labels)
    ax.tick_params(length=0)
    ax.figure.colorbar(image, ax=ax, label=unit, shrink=min(1, 12 / len(labels)))
    return ax
