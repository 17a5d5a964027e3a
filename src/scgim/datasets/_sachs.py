"""The protein-signaling cells of Sachs et al. (2005)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from scgim._checks import check_option

from ._resources import read_table, resource

if TYPE_CHECKING:
    from collections.abc import Sequence

_STIMULI = {"cd3cd28": ("CD3/CD28", "none"), "icam2": ("CD3/CD28+ICAM-2",)}
_OBS = ("drug", "smiles", "target", "target_sign", "mechanism", "condition", "stimulus")


def sachs(*, background: Literal["cd3cd28", "icam2"] = "cd3cd28") -> AnnData:
    """Eleven signaling proteins in single T cells treated with small molecules (Sachs et al. 2005).

    Primary human naive CD4+ T cells were stimulated, treated with one reagent at one dose, fixed after 15 minutes and measured by flow
    cytometry. Doses are not published. The measured phosphorylation of a target is not the activity on which the reagent acts: U0126
    blocks the activity of Mek, while p-Mek rises.

    Parameters
    ----------
    background
        ``"cd3cd28"``: 6,564 cells, control ``"cd3cd28"`` and 7 small molecules (PMA and b2cAMP were given without CD3/CD28).
        ``"icam2"``: 5,108 cells on CD3/CD28 + ICAM-2, control ``"cd3cd28+icam2"`` and 5 of the inhibitors. Of the drug effects in the
        first set, only that of Go6976 is repeated in the second.

    Returns
    -------
    AnnData
        cells x 11 proteins, a new copy at every call.

        - ``.X``: natural logarithm of the fluorescence, float32; ``.layers["raw"]``: the fluorescence (arbitrary units,
          >= 1)
        - ``.obs``: ``drug``, ``smiles`` (empty for the control), ``target`` (a protein; ``"none"`` for the control),
          ``target_sign`` (-1 inhibits, 1 activates, 0 control), ``mechanism``, ``condition``, ``stimulus``
        - ``.var["genes"]``: the gene symbols behind each protein
        - ``.varp``: three published graphs, sparse 0/1, row = source, column = target: ``graph17_sachs_inferred``,
          ``graph18_conventional_semgraph``, ``graph20_consensus``. The graphs disagree, so results should be reported against all three.
        - ``.uns``: ``control``, ``known_targets`` (DataFrame ``drug``, ``target``, ``sign``, ``mechanism``),
          ``source``, ``citation``, ``licence``, ``units``, ``notes``

    Raises
    ------
    ValueError
        If ``background`` is unknown.

    References
    ----------
    Sachs et al., Causal protein-signaling networks derived from multiparameter single-cell data, Science 308:523
    (2005).

    Examples
    --------
    >>> import scgim
    >>> adata = scgim.datasets.sachs()
    >>> adata.shape
    (6564, 11)
    >>> adata.uns["known_targets"][["drug", "target", "sign"]].head(3)
                drug target  sign
    0  AKT inhibitor    Akt    -1
    1         Go6976    PKC    -1
    2  psitectorigenin PIP2    -1
    """
    check_option("background", background, tuple(_STIMULI))
    conditions = read_table("sachs2005_conditions.csv")
    about = json.loads(resource("sachs2005.json").read_text(encoding="utf-8"))
    with resource("sachs2005.npz").open("rb") as file, np.load(file) as arrays:
        raw = arrays["raw"]

    control = conditions["drug"] == "none"
    conditions["drug"] = conditions["drug"].mask(control, conditions["condition"])
    chosen = conditions["stimulus"].isin(_STIMULI[background])
    cells = np.repeat(conditions.index, conditions["n_cells"])
    keep = chosen.to_numpy()[cells]

    obs = conditions.loc[cells, list(_OBS)].set_axis([f"cell{i:05d}" for i in range(len(cells))])[keep]
    for column in obs.columns.drop("target_sign"):
        obs[column] = pd.Categorical(obs[column], categories=conditions.loc[chosen, column].unique())
    proteins = about.pop("proteins")
    known = conditions.loc[chosen & ~control, ["drug", "target", "target_sign", "mechanism"]]
    return AnnData(
        np.log(raw[keep]),
        obs=obs,
        var=pd.DataFrame({"genes": proteins.values()}, index=proteins.keys()),
        layers={"raw": raw[keep]},
        varp=_graphs(list(proteins)),
        uns={
            "control": str(conditions.loc[chosen & control, "drug"].iloc[0]),
            "known_targets": known.rename(columns={"target_sign": "sign"}).set_axis(
                [str(i) for i in range(len(known))]
            ),
            **about,
        },
    )


def _graphs(proteins: Sequence[str]) -> dict[str, csr_matrix]:
    edges = read_table("sachs2005_graphs.csv")
    source, target = pd.Index(proteins).get_indexer(edges["source"]), pd.Index(proteins).get_indexer(edges["target"])
    shape = (len(proteins), len(proteins))
    graphs = {}
    for name in edges.columns.drop(["source", "target"]):
        on = edges[name].to_numpy() == 1
        graphs[name] = csr_matrix((np.ones(on.sum(), dtype=np.float32), (source[on], target[on])), shape=shape)
    return graphs
