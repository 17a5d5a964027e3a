from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scgim import _keys
from scgim._anndata import refuse_view
from scgim._checks import (
    check_key_added,
    check_names,
    check_option,
    check_whole,
    find_control,
    listed,
    warn,
)
from scgim._look_alikes import representatives

from ._cell_drugs import CellDrugs, drug_names
from ._chemistry import standardize_all
from ._duplicates import joined
from ._scaffold import compounds, scaffolds
from ._smiles import SmilesConflict, with_structure
from ._split_rules import SPLIT_RULES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

logger = logging.getLogger("scgim")


def split(
    adata: AnnData,
    *,
    unseen: Literal["drug", "dose", "scaffold", "cell_line", "combination"] = "drug",
    drug_key: str | Sequence[str] = "drug",
    dose_key: str | Sequence[str] = "dose",
    smiles_key: str | Sequence[str] | None = None,
    cell_line_key: str | None = None,
    control: str | Sequence[str] | None = None,
    frac: float = 0.2,
    seed: int = 0,
    key_added: str = _keys.SPLIT,
    smiles_conflict: SmilesConflict = "error",
    combination_sep: str | None = None,
) -> None:
    """Hold out whole conditions, so that scores on them measure prediction of unseen conditions.

    Parameters
    ----------
    adata
        Cells; not a view.
    unseen
        ``"drug"``: all cells of some drugs. ``"dose"``: all cells of some doses of every drug with two doses or more, at least one
        dose and never all. ``"scaffold"``: all drugs on some Bemis-Murcko scaffolds, so that test drugs resemble training drugs
        less (a drug without rings is a scaffold of its own). ``"cell_line"``: all treated cells of some cell lines; their controls
        stay ``"train"``, because prediction in a new cell line starts from its controls. ``"combination"``: some sets of drugs at all
        doses, such that every one of their drugs stays in training.

        In a screen with combinations, a cell is held out if one of its drugs is (``"drug"``, ``"scaffold"``), or if one of its drugs has
        a dose that is held out (``"dose"``; drawn from the doses of single drugs). So no held-out drug or dose is in training.
    drug_key, dose_key
        Columns of ``obs``, or lists of columns as in `scgim.setup_anndata`. `dose_key` is read for ``unseen="dose"`` only, and not for
        controls.
    smiles_key
        Column of ``obs`` with the SMILES of each drug. With it, salts, stereoisomers and tautomers of one compound count as one drug
        and stay on the same side: a duplicate in training would be leakage. Drugs without a SMILES stay in training, except for
        ``unseen="dose"``, because no model can predict them unmeasured. Required for scaffolds, not read for cell lines.
    cell_line_key
        Column of ``obs`` with the cell line of each cell, read for ``unseen="cell_line"`` only.
    control
        Name of the untreated cells in ``obs[drug_key]``, or a list of names; controls are always ``"train"``. ``None``:
        ``uns["control"]``, or the only conventional name ("DMSO", "vehicle", ...) among the values; a warning names it.
    frac
        Share of the drugs, of each drug's doses or of the cell lines to hold out (rounded; at least one, never all). For scaffolds
        the share of drugs is as close to `frac` as whole scaffolds, drawn at random, allow.
    seed
        Seed of the draw. The split does not depend on the order of the cells.
    key_added
        Column of ``obs`` to which the split is written.
    smiles_conflict
        Several SMILES of one drug: ``"error"``; ``"first"``, the most frequent SMILES, then the first in alphabetical order; or
        ``"same_parent"``, the same if all SMILES have one parent (`scgim.pp.standardize`), as salts of a compound have.
    combination_sep
        Separator of drugs in ``obs[drug_key]``, as in `scgim.setup_anndata`.

    Returns
    -------
    Nothing. Writes ``obs[key_added]``: categorical with the categories ``"train"`` and ``"test"``.

    Raises
    ------
    KeyError
        If a column does not exist. The message names the nearest one.
    ValueError
        If there are too few drugs, doses, scaffolds or cell lines, values are missing, the control cannot be inferred, no cell is
        called `control`, `adata` is a view, a column that `unseen` needs is not named, or `unseen`, `frac` or `key_added` is invalid.

    See Also
    --------
    audit_split : finds leakage between the two sides of a split.

    Examples
    --------
    >>> import anndata as ad, numpy as np, pandas as pd
    >>> obs = pd.DataFrame({"drug": ["DMSO", *"abcdef"] * 2}, index=[f"cell {i}" for i in range(14)])
    >>> adata = ad.AnnData(np.zeros((14, 2)), obs=obs)
    >>> split(adata, unseen="drug", control="DMSO", frac=1 / 3)
    >>> adata.obs["scgim_split"].value_counts().to_dict()
    {'train': 10, 'test': 4}
    """
    refuse_view(adata)
    check_option("unseen", unseen, list(SPLIT_RULES))
    check_key_added(key_added)
    several = (drug_key, dose_key, smiles_key, cell_line_key)
    if key_added in [name for key in several if key is not None for name in ([key] if isinstance(key, str) else key)]:
        raise ValueError(
            f"key_added={key_added!r} would overwrite the column that the split is made from. Use {_keys.SPLIT!r}."
        )
    for kind, argument, key in (("scaffold", "smiles_key", smiles_key), ("cell_line", "cell_line_key", cell_line_key)):
        if unseen == kind and key is None:
            raise ValueError(f"unseen={kind!r} needs {argument}=, one of the columns of obs: {listed(adata.obs, n=8)}.")
    check_whole("seed", seed)
    if not 0 < frac < 1:
        raise ValueError(f"frac={frac!r} must lie between 0 and 1, both excluded.")
    if control is None:
        names = drug_names(adata, drug_key, combination_sep)
        control = find_control(adata, names)
        if control is None:
            raise ValueError(
                f"split needs control=, the untreated cells' name in obs[{drug_key!r}], which holds {listed(names)}."
            )
        warn(f"{control!r} was taken for the control. Pass control={control!r} to say so.")
    cells = CellDrugs.read(
        adata, drug_key, control, sep=combination_sep, dose_key=dose_key if unseen == "dose" else None
    )
    conditions = cells.rows()
    # Names that look the same are probably one drug, which no split may part.
    alike = representatives(conditions["drug"])
    conditions["compound"] = conditions["drug"].map(alike)
    if smiles_key is not None and unseen != "cell_line":
        structures = standardize_all(with_structure(cells.smiles(smiles_key, smiles_conflict), str(smiles_key)))
        conditions["compound"] = conditions["drug"].map(joined(alike, compounds(structures)))
        # No model can predict an unmeasured drug without a structure, so these drugs are never held out.
        if unseen in ("drug", "scaffold"):
            conditions["treated"] &= conditions["drug"].isin(structures)
        if unseen == "scaffold":
            conditions["scaffold"] = conditions["drug"].map(scaffolds(structures))
    if unseen == "cell_line":
        conditions["line"] = check_names(adata, cell_line_key).to_numpy()[conditions["cell"]]
    held_out = SPLIT_RULES[unseen](conditions, frac, np.random.default_rng(seed))
    test = np.isin(np.arange(adata.n_obs), conditions.loc[held_out, "cell"])
    adata.obs[key_added] = pd.Categorical(np.where(test, "test", "train"), categories=["train", "test"])
    n_drugs = conditions.loc[held_out, "drug"].nunique()
    logger.info(
        f"{key_added}: {test.sum():,} of {len(test):,} cells, of {n_drugs} drugs, are held out (unseen {unseen})"
    )
