"""The SMILES of every drug, from a column of obs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import pandas as pd

from scgim._checks import check_obs_column, check_option, listed, warn

from ._chemistry import standardize
from ._mixtures import mixtures

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from anndata import AnnData

    from scgim._combinations import Treatments

SmilesConflict = Literal["error", "first", "same_parent"]
MIXTURE = (
    "{what} look like combinations of drugs, with several components that are no known counter-ions: {names}. Features describe all "
    "components together. Name the drugs of a combination separately (setup_anndata with drug_key as a list of columns, or "
    "combination_sep), or write the SMILES of the active component."
)


def check_smiles(
    adata: AnnData | pd.DataFrame,
    key: str,
    *,
    names: pd.Series,
    treated: np.ndarray,
    conflict: SmilesConflict = "error",
) -> pd.Series:
    """The SMILES of every drug of the treated cells, sorted by name; ``""`` if a drug has none in any of its cells.

    Parameters
    ----------
    adata, key
        AnnData, or its ``obs``, and the column of SMILES.
    names, treated
        Drug of every cell, and whether the cell is treated, ``(cells,)`` each.
    conflict
        ``"error"``: a drug may have one SMILES only. ``"first"``: of several SMILES, the most frequent, then the first in alphabetical
        order; empty values are ignored. ``"same_parent"``: the same, if all of them have one parent (`scgim.pp.standardize`).

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If a drug has several SMILES and `conflict` does not permit them.
    """
    check_option("smiles_conflict", conflict, get_args(SmilesConflict))
    smiles = check_obs_column(adata, key, allow_missing=True).astype(object)
    cells = pd.DataFrame({"drug": names.to_numpy(), "smiles": smiles.to_numpy()})[treated]
    counts = cells.groupby(["drug", "smiles"], sort=False, dropna=False).size().reset_index(name="n")
    counts["smiles"] = ["" if pd.isna(value) or not str(value).strip() else value for value in counts["smiles"]]
    counts = counts.assign(none=counts["smiles"] == "", text=counts["smiles"].astype(str))
    counts = counts.sort_values(["drug", "none", "n", "text"], ascending=[True, True, False, True])
    found = counts.drop_duplicates(["drug", "smiles"]).set_index("drug")["smiles"]
    if conflict != "error":  # the empty value of a drug comes last
        found = found[(found != "") | ~found.index.duplicated()]
    several = found[found.index.duplicated(keep=False)]
    if conflict == "same_parent":
        several = several[several.map(_parent).groupby(level=0).transform("nunique") > 1]
    if len(several) and conflict != "first":
        name, *others = several.index.unique()
        forms = " and ".join(repr(value) for value in several[[name]].iloc[:2])
        what, fix = (
            (
                "more than one SMILES",
                "Give all of its cells the same one, or pass smiles_conflict='same_parent' or 'first'.",
            )
            if conflict == "error"
            else (
                "SMILES of different parents",
                "Correct them, or pass smiles_conflict='first' for the most frequent one.",
            )
        )
        raise ValueError(
            f"Drug {name!r} has {what} in obs[{key!r}]: {forms}. {fix}"
            + (f" The same holds for {listed(others)}." if others else "")
        )
    return found[~found.index.duplicated()]


def read_smiles(
    adata: AnnData,
    key: str | Sequence[str],
    names: pd.Series,
    treated: np.ndarray,
    treatments: Treatments | None,
    conflict: SmilesConflict,
) -> pd.Series:
    """The SMILES of every drug; in a screen with combinations from a column for each of their drugs, or from cells of single drugs.

    ``names`` and ``treated`` are those of `check_smiles`, and ``treatments`` the treatments of a screen with combinations.
    """
    if isinstance(key, str):
        if treatments is not None:
            treated = treated & ~names.isin(list(treatments.combinations)).to_numpy()
        return check_smiles(adata, key, names=names, treated=treated, conflict=conflict)
    if treatments is None or len(key) != treatments.drugs.shape[1]:
        raise ValueError(
            f"smiles_key={list(key)!r} needs a drug_key of as many columns. With one column, SMILES come from cells of single drugs."
        )
    columns = [check_obs_column(adata, each, allow_missing=True).astype(object) for each in key]
    values = pd.concat(columns, ignore_index=True).rename(", ".join(key))
    of = pd.Series(treatments.drugs.T.ravel())
    return check_smiles(values.to_frame(), str(values.name), names=of, treated=(of != "").to_numpy(), conflict=conflict)


def _parent(smiles: object) -> str:
    """The parent of a structure, or the SMILES itself if it cannot be read."""
    try:
        return standardize(smiles).parent
    except (ValueError, RuntimeError):
        return str(smiles)


def with_structure(smiles: pd.Series, key: str) -> pd.Series:
    """The drugs with a SMILES, from the values of `check_smiles`.

    Raises
    ------
    ValueError
        If no drug has a SMILES.
    """
    if (smiles == "").all():
        raise ValueError(
            f"obs[{key!r}] holds no SMILES of any drug. Leave smiles_key out: every drug is then learned on its own."
        )
    return smiles[smiles != ""]


def warn_of_mixtures(smiles: pd.Series) -> None:
    """Warn of structures with several active components; ``smiles`` by drug."""
    if names := mixtures(smiles):
        warn(MIXTURE.format(what=f"{len(names)} of {len(smiles)} structures", names=listed(names)))
