from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgim._keys import TARGETS

from ._require import require, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

FIELDS = {"names": "gene", "scores": "score", "probabilities": "probability", "logfoldchanges": "effect"}
OPTIONAL = {"doses": ("dose", np.nan), "cell_lines": ("cell_line", "")}
COLUMNS = ["drug", "gene", "rank", "score", "probability", "effect", "direction", "dose", "cell_line"]


def targets_df(adata: AnnData, *, drug: str | Sequence[str] | None = None, key: str = TARGETS) -> pd.DataFrame:
    r"""The ranked targets of every drug as one tidy table.

    Reads ``adata.uns[key]``, which `model.annotate()` writes in the format of :func:`scanpy.tl.rank_genes_groups`. A gene is a target
    of a drug if the drug acts on the gene itself, not only through other genes. With the target indicator :math:`I` and the effect
    :math:`\psi` of the drug on the gene,

    .. math:: \text{score} = P(I = 1)\,|\psi| .

    Parameters
    ----------
    adata
        Annotated data.
    drug
        One drug or several, in the order of the result; by default all drugs except controls.
    key
        Key in ``adata.uns``.

    Returns
    -------
    One row per drug and gene, with the index 0, ..., n - 1 and the columns

    - ``drug``, ``gene``
    - ``rank``: rank of the gene within the drug by score, from 1
    - ``score``: probability times absolute effect
    - ``probability``: probability that the gene is a target, 0 to 1
    - ``effect``: :math:`\psi` in control SD, before it propagates to other genes
    - ``direction``: ``"up"`` or ``"down"``, the sign of the effect
    - ``dose``, ``cell_line``: condition with the highest score; NaN and ``""`` without doses or cell lines

    Raises
    ------
    KeyError
        If there is no such key, or no such drug.

    Examples
    --------
    >>> import numpy as np
    >>> import scgim
    >>> from anndata import AnnData
    >>> def groups(control, drug):
    ...     return np.rec.fromarrays([control, drug], names=["DMSO", "(+/-)-JQ1"])
    >>> adata = AnnData(np.zeros((3, 2), dtype="float32"))
    >>> adata.uns["scgim_targets"] = {
    ...     "params": {"groupby": "drug", "reference": "DMSO"},
    ...     "names": groups(["BRD4", "MYC"], ["MYC", "BRD4"]),
    ...     "scores": groups([0.0, 0.0], [1.8, 0.1]),
    ...     "probabilities": groups([0.0, 0.0], [0.9, 0.2]),
    ...     "logfoldchanges": groups([0.0, 0.0], [-2.0, 0.5]),
    ...     "doses": groups([np.nan, np.nan], [1.0, 10.0]),
    ...     "cell_lines": groups(["", ""], ["A549", "A549"]),
    ... }
    >>> scgim.get.targets_df(adata).drop(columns="drug")
       gene  rank  score  probability  effect direction  dose cell_line
    0   MYC     1    1.8          0.9    -2.0      down   1.0      A549
    1  BRD4     2    0.1          0.2     0.5        up  10.0      A549
    """
    tables = require(adata, "uns", key)
    if missing := [field for field in FIELDS if field not in tables]:
        raise KeyError(f"adata.uns[{key!r}] has no {missing}: it was not written by `model.annotate()`.")
    params = tables["params"]
    controls = list(params.get("controls", [params["reference"]]))
    groups = list(tables["groups"] if "groups" in tables else tables["names"].dtype.names)
    drugs = [name for name in groups if name not in controls]
    chosen = drugs if drug is None else [drug] if isinstance(drug, str) else list(drug)
    for name in chosen:
        if name in controls:
            raise KeyError(f"{name!r} is the control and has no targets. Ask for a drug.")
        if name not in drugs:
            raise unknown("drug", name, drugs)
    parts = [_group(tables, name, groups) for name in chosen] or [_group(tables, controls[0], groups).iloc[:0]]
    return pd.concat(parts, ignore_index=True)


def _group(tables: dict, drug: str, groups: list[str]) -> pd.DataFrame:
    # record arrays with a field per drug, or arrays with a column per drug where there are too many for h5ad
    of = lambda field: tables[field][:, groups.index(drug)] if "groups" in tables else tables[field][drug]
    table = pd.DataFrame({column: of(field) for field, column in FIELDS.items()})
    text, numbers = ("gene", "cell_line"), ("score", "probability", "effect", "dose")
    for field, (column, absent) in OPTIONAL.items():
        table[column] = of(field) if field in tables else absent
    table = table.astype(dict.fromkeys(text, str) | dict.fromkeys(numbers, float))
    table["drug"] = drug
    table["rank"] = np.arange(1, len(table) + 1)
    table["direction"] = np.where(table["effect"] < 0, "down", "up")
    return table[COLUMNS]
