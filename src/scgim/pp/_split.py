from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scgim import _keys
from scgim._checks import (
    check_control,
    check_doses,
    check_key_added,
    check_names,
    check_option,
    check_smiles,
    find_control,
    listed,
    refuse_view,
    warn,
)

from ._chemistry import standardize_all
from ._split_rules import SPLIT_RULES
from ._scaffold import compounds, scaffolds

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("scgim")


def split(
    adata: AnnData,
    *,
    unseen: Literal["drug", "dose", "scaffold", "cell_line"] = "drug",
    drug_key: str = "drug",
    dose_key: str = "dose",
    smiles_key: str | None = None,
    cell_line_key: str | None = None,
    control: str | None = None,
    frac: float = 0.2,
    seed: int = 0,
    key_added: str = _keys.SPLIT,
) -> None:
    """Hold out whole conditions, so that a score on them measures prediction of unseen conditions.

    Parameters
    ----------
    adata
        Cells; not a view.
    unseen
        ``"drug"``: all cells of some drugs; ``"dose"``: of every drug with two doses or more, all cells of some of its doses,
        at least one and never all; ``"scaffold"``: all drugs on some Bemis-Murcko scaffolds, so that test drugs resemble
        training drugs less (a drug without rings is a scaffold of its own); ``"cell_line"``: all treated cells of some lines.
        The controls of such a line stay ``"train"``, as all controls do: prediction in a new line starts from them.
    drug_key, dose_key
        Columns of ``obs``; `dose_key` is read for ``unseen="dose"`` only, and not for controls.
    smiles_key
        Column of ``obs`` with each drug's SMILES. With it, salts, stereoisomers and tautomers of one compound count as one drug and
        land on the same side: a duplicate in training would leak the answer. Needed for scaffolds, not read for lines.
    cell_line_key
        Column of ``obs`` with each cell's line, read for ``unseen="cell_line"`` only.
    control
        The untreated cells' name in ``obs[drug_key]``; they are always ``"train"``. ``None``: ``uns["control"]`` or the one
        conventional name ("DMSO", "vehicle", ...) among the values, said in a warning.
    frac
        Share of the drugs, of each drug's doses or of the lines to hold out (rounded; at least one, never all). With scaffolds
        the share of the drugs is met as nearly as whole scaffolds, drawn at random, allow.
    seed
        The same seed gives the same split, whatever the order of the cells.
    key_added
        Where in ``obs`` the split goes.

    Returns
    -------
    Nothing. Writes ``obs[key_added]``: categorical, ``"train"`` or ``"test"``.

    Raises
    ------
    KeyError
        If a column does not exist, naming the nearest.
    ValueError
        If there are too few drugs, doses, scaffolds or lines, values are missing, `control` is missing or nobody's name, `adata`
        is a view, a column that `unseen` needs is not named, or `unseen`, `frac` or `key_added` is not one that works.

    See Also
    --------
    audit_split : leakage between the two sides of a split.

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
    if key_added in (drug_key, dose_key, smiles_key, cell_line_key):
        raise ValueError(
            f"key_added={key_added!r} would overwrite the column that the split is made from. Use {_keys.SPLIT!r}."
        )
    for kind, argument, key in (("scaffold", "smiles_key", smiles_key), ("cell_line", "cell_line_key", cell_line_key)):
        if unseen == kind and key is None:
            raise ValueError(f"unseen={kind!r} needs {argument}=, one of the columns of obs: {listed(adata.obs, n=8)}.")
    if not 0 < frac < 1:
        raise ValueError(f"frac={frac!r} must lie between 0 and 1, both excluded.")
    drug = check_names(adata, drug_key)
    if control is None:
        control = find_control(adata, drug)
        if control is None:
            raise ValueError(
                f"split needs control=, the untreated cells' name in obs[{drug_key!r}], which holds {listed(sorted(set(drug)))}."
            )
        warn(f"{control!r} was taken for the control. Pass control={control!r} to say so.")
    check_control(drug, control, key=drug_key)
    treated = (drug != str(control)).to_numpy()
    conditions = pd.DataFrame({"drug": drug.to_numpy(), "treated": treated})
    conditions["compound"] = conditions["drug"]
    if smiles_key is not None and unseen != "cell_line":
        structures = standardize_all(check_smiles(adata, smiles_key, names=drug, treated=treated))
        conditions["compound"] = conditions["drug"].map(compounds(structures))
        if unseen == "scaffold":
            conditions["scaffold"] = conditions["drug"].map(scaffolds(structures))
    rng = np.random.default_rng(seed)
    if unseen == "dose":
        conditions["dose"] = check_doses(adata, dose_key, treated=treated)
    if unseen == "cell_line":
        conditions["line"] = check_names(adata, cell_line_key).to_numpy()
    test = SPLIT_RULES[unseen](conditions, frac, rng)
    adata.obs[key_added] = pd.Categorical(np.where(test, "test", "train"), categories=["train", "test"])
    n_drugs = conditions.loc[test, "drug"].nunique()
    logger.info(
        f"{key_added}: {test.sum():,} of {len(test):,} cells, of {n_drugs} drugs, are held out (unseen {unseen})"
    )
