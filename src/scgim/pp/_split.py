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

from ._chemistry import standardise_all

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("scgim")

MIN_DRUGS = 5
NOT_YET = ("scaffold", "cell_line")


def split(
    adata: AnnData,
    *,
    unseen: Literal["drug", "dose"] = "drug",
    drug_key: str = "drug",
    dose_key: str = "dose",
    smiles_key: str | None = None,
    control: str | None = None,
    frac: float = 0.2,
    seed: int = 0,
    key_added: str = _keys.SPLIT,
) -> None:
    """Hold out whole conditions, so that a score on them says what a model knows about what it has not seen.

    Parameters
    ----------
    adata
        Cells; not a view.
    unseen
        ``"drug"``: all cells of some drugs; ``"dose"``: of every drug with two doses or more, all cells of some of its doses,
        at least one and never all.
    drug_key, dose_key
        Columns of ``obs``; `dose_key` is read for ``unseen="dose"`` only, and not for controls.
    smiles_key
        Column of ``obs`` with each drug's SMILES. With it, salts, stereoisomers and tautomers of one compound count as one drug and
        land on the same side: otherwise a twin in training gives the answer away.
    control
        The untreated cells' name in ``obs[drug_key]``; they are always ``"train"``. ``None``: ``uns["control"]`` or the one
        conventional name ("DMSO", "vehicle", ...) among the values, said in a warning.
    frac
        Share of the drugs, or of each drug's doses, to hold out (rounded; at least one).
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
        If there are too few drugs or doses, values are missing, `control` is missing or nobody's name, `adata` is a view,
        or `unseen`, `frac` or `key_added` is not one that works.

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
    if unseen in NOT_YET:
        raise ValueError(f"unseen={unseen!r} is not available yet; 'drug' and 'dose' are.")
    check_option("unseen", unseen, ["drug", "dose"])
    check_key_added(key_added)
    if key_added in (drug_key, dose_key, smiles_key):
        raise ValueError(
            f"key_added={key_added!r} would overwrite the column that the split is made from. Use {_keys.SPLIT!r}."
        )
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
    if smiles_key is not None:
        smiles = check_smiles(adata, smiles_key, names=drug, treated=treated)
        conditions["compound"] = conditions["drug"].map(_compounds(smiles))
    rng = np.random.default_rng(seed)
    if unseen == "drug":
        test = _unseen_drugs(conditions, frac, rng)
    else:
        conditions["dose"] = check_doses(adata, dose_key, treated=treated)
        test = _unseen_doses(conditions, frac, rng)
    adata.obs[key_added] = pd.Categorical(np.where(test, "test", "train"), categories=["train", "test"])
    n_drugs = conditions.loc[test, "drug"].nunique()
    logger.info(
        f"{key_added}: {test.sum():,} of {len(test):,} cells, of {n_drugs} drugs, are held out (unseen {unseen})"
    )


def _compounds(smiles: pd.Series) -> dict[str, str]:
    """The first name of each drug's compound."""
    structures = standardise_all(smiles)
    first: dict[str, str] = {}
    return {name: first.setdefault(structures[name].skeleton, name) for name in sorted(structures)}


def _n_held_out(n: int, frac: float) -> int:
    return min(max(1, round(frac * n)), n - 1)


def _unseen_drugs(conditions: pd.DataFrame, frac: float, rng: np.random.Generator) -> np.ndarray:
    """Which cells are held out; (cells,) bool."""
    compounds = sorted(set(conditions.loc[conditions["treated"], "compound"]))
    if len(compounds) < MIN_DRUGS:
        raise ValueError(
            f"You have {len(compounds)} drugs; an unseen-drug split needs at least {MIN_DRUGS}. Use unseen='dose' if they have several doses."
        )
    held_out = rng.choice(np.array(compounds, dtype=object), _n_held_out(len(compounds), frac), replace=False)
    return (conditions["compound"].isin(held_out) & conditions["treated"]).to_numpy()


def _unseen_doses(conditions: pd.DataFrame, frac: float, rng: np.random.Generator) -> np.ndarray:
    """Which cells are held out; (cells,) bool."""
    test = np.zeros(len(conditions), dtype=bool)
    for _, cells in conditions[conditions["treated"]].groupby("compound", sort=True):
        doses_of = [set(doses) for _, doses in cells.groupby("drug")["dose"]]
        doses = sorted(set.union(*doses_of))
        held_out: set[float] = set()
        for dose in rng.permutation(doses):
            # twins may have been given at different doses: each of them keeps one
            if len(held_out) < _n_held_out(len(doses), frac) and all(own - held_out - {dose} for own in doses_of):
                held_out.add(dose)
        test[cells.index[cells["dose"].isin(held_out)]] = True
    if not test.any():
        raise ValueError("No drug has two doses, so no dose can be held out. Use unseen='drug'.")
    return test
