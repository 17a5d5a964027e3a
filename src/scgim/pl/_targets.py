from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.colors import Normalize

from scgim._keys import TARGETS, UNS
from scgim.get import targets_df

from ._style import condition_labels, finish, names_width, new_axes, positive

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


def targets(
    adata: AnnData,
    *,
    drug: str,
    n_genes: int = 15,
    key: str = TARGETS,
    cmap: str = "viridis_r",
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes | None:
    r"""Plot the likeliest targets of a drug: effects as bars, probabilities as colors.

    Genes are ranked from the top by the score :math:`P(I = 1)\,|\psi|`: the probability that the gene is a target times the absolute
    effect of the drug on it (:func:`scgim.get.targets_df`).

    Parameters
    ----------
    adata
        Annotated data.
    drug
        The drug.
    n_genes
        Largest number of genes.
    key
        Key in ``adata.uns``.
    cmap
        Colormap of the probabilities from 0 to 1.
    ax
        Axes to draw on; a new figure by default.
    show
        Show the figure and return nothing.

    Returns
    -------
    The axes. A bar is the effect :math:`\psi` in control SD, before it propagates to other genes. Dose and cell line are those with the
    highest score. They stand in the title if they are the same for all genes shown.

    Raises
    ------
    KeyError
        If there is no such key or drug, or if the drug is the control.

    Examples
    --------
    >>> import numpy as np
    >>> import scgim
    >>> from anndata import AnnData
    >>> def groups(control, drug):
    ...     return np.rec.fromarrays([control, drug], names=["DMSO", "Akti-1/2"])
    >>> adata = AnnData(np.zeros((3, 2), dtype="float32"))
    >>> adata.uns["scgim_targets"] = {
    ...     "params": {"groupby": "drug", "reference": "DMSO"},
    ...     "names": groups(["AKT1", "MYC"], ["AKT1", "MYC"]),
    ...     "scores": groups([0.0, 0.0], [1.8, 0.1]),
    ...     "probabilities": groups([0.0, 0.0], [0.9, 0.2]),
    ...     "logfoldchanges": groups([0.0, 0.0], [-2.0, 0.5]),
    ... }
    >>> ax = scgim.pl.targets(adata, drug="Akti-1/2")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['AKT1', 'MYC']
    """
    table = targets_df(adata, drug=drug, key=key).head(positive("n_genes", n_genes))
    unit = adata.uns.get(UNS, {}).get("settings", {}).get("dose_unit", "")
    conditions = condition_labels(table[["dose", "cell_line"]], unit)
    shared = len(set(conditions)) == 1
    labels = list(table["gene"]) if shared else [f"{g} ({c})" for g, c in zip(table["gene"], conditions, strict=True)]

    ax = new_axes(4.8 + names_width(labels), max(2.5, 1.3 + 0.25 * len(table))) if ax is None else ax
    colors = mpl.cm.ScalarMappable(Normalize(0, 1), cmap)
    ax.barh(range(len(table)), table["effect"], color=colors.to_rgba(table["probability"]))
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(table)), labels)
    ax.invert_yaxis()
    ax.set_xlabel("effect before it propagates (control SD)")
    ax.set_title(f"Targets of {drug}" + (f", {conditions[0]}" if shared and conditions[0] else ""))
    ax.spines[["top", "right"]].set_visible(False)
    ax.figure.colorbar(colors, ax=ax, label="probability", shrink=0.8)
    return finish(ax, show)
