from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from scgim._keys import UNS
from scgim.get._require import unknown

from ._style import SCALES, finish, new_axes, positive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes


def dose_response(
    model: Any,
    *,
    drug: str,
    genes: str | Sequence[str] | None = None,
    n_genes: int = 5,
    smiles: str | None = None,
    features: pd.DataFrame | None = None,
    evidence: Literal["auto", "data", "features"] = "auto",
    n_doses: int = 30,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes | None:
    """Plot the predicted change of genes over the dose of a drug.

    Parameters
    ----------
    model
        A trained model with a `dose_key`.
    drug
        The drug, measured or not.
    genes
        The genes; by default the genes with the largest absolute change at any training dose.
    n_genes
        Number of these default genes.
    smiles, features
        SMILES or features of an unmeasured drug, as `model.predict()` takes them.
    evidence
        As `model.predict()` takes it: ``"data"`` and ``"auto"`` draw the response of a measured drug itself, ``"features"`` the response
        predicted from its features.
    n_doses
        Number of doses on the curve, between the lowest and the highest training dose.
    ax
        Axes to draw on; a new figure by default.
    ax
        Where to draw; a new figure by default.
    show
        Show the figure and return nothing.

    Returns
    -------
    The axes: one curve per gene, the mean change from control on the training scale, averaged over cell lines. A point marks each
    training dose of the drug, or of all drugs if the drug was not measured. The dose axis is logarithmic if the doses span a factor of
    10 or more.

    Raises
    ------
    KeyError
        If a gene is unknown.
    ValueError
        If the model has no doses.

    Examples
    --------
    >>> import scgim
    >>> model = scgim.GIM.load("model")  # doctest: +SKIP
    >>> ax = scgim.pl.dose_response(model, drug="Vorinostat", genes=["CDKN1A", "MYC"])  # doctest: +SKIP
    """
    known = {"drug": drug, "smiles": smiles, "features": features, "as_": "delta"}
    points = model.predict(**known, evidence=evidence)
    # The curve passes through doses that were not measured: there evidence="data" has no answer, so "auto" is used.
    known["evidence"] = "features" if evidence == "features" else "auto"
    doses = np.unique(points.obs["dose"])
    if np.isnan(doses).any():
        raise ValueError("The model has no doses. Give `dose_key` to `scgim.setup_anndata()` and train again.")
    at_points = _mean_change(points)
    names = [genes] if isinstance(genes, str) else genes
    if names is None:
        names = at_points.abs().max().sort_values(ascending=False, kind="stable").index[: positive("n_genes", n_genes)]
    for name in names:
        if name not in at_points:
            raise unknown("gene", name, at_points.columns)

    logarithmic = doses[0] > 0 and doses[-1] >= 10 * doses[0]
    grid = (np.geomspace if logarithmic else np.linspace)(doses[0], doses[-1], positive("n_doses", n_doses))
    along = _mean_change(model.predict(**known, dose=np.unique(grid).tolist()))

    ax = new_axes(5.5, 3.6) if ax is None else ax
    ax.axhline(0, color="black", linewidth=0.8)
    for name in names:
        (line,) = ax.plot(along.index, along[name], label=name)
        ax.plot(at_points.index, at_points[name], "o", color=line.get_color())
    settings = points.uns[UNS]
    scale = settings["prediction"]["scale"]
    unit = settings.get("settings", {}).get("dose_unit", "")
    ax.set_xscale("log" if logarithmic else "linear")
    ax.set_xlabel(f"dose ({unit})" if unit else "dose")
    ax.set_ylabel(f"mean change\n({SCALES.get(scale, scale)})")
    ax.set_title(f"Predicted dose response: {drug}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return finish(ax, show)


def _mean_change(delta: Any) -> pd.DataFrame:
    """Mean change over cell lines, (doses, genes)."""
    return pd.DataFrame(delta.X, columns=delta.var_names).groupby(delta.obs["dose"].to_numpy()).mean()
