"""Folds of cells in whole groups, so that no drug, dose, scaffold or cell line is in both training and test."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold

from scgim._anndata import in_memory
from scgim._checks import check_names, check_option
from scgim._look_alikes import representatives
from scgim.pp._cell_drugs import CellDrugs
from scgim.pp._chemistry import standardize_all
from scgim.pp._duplicates import joined
from scgim.pp._leaks import morgan
from scgim.pp._scaffold import compounds, scaffolds
from scgim.pp._split_rules import MIN_DRUGS, drug_sets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from scgim.pp import StandardizedMolecule

UNSEEN = ("drug", "dose", "scaffold", "cell_line", "combination")
NEEDS = {"dose": "dose_key", "scaffold": "smiles_key", "cell_line": "cell_line_key"}


def deal(adata: AnnData, unseen: str, n_splits: int, columns: Mapping[str, Any], seed: int) -> np.ndarray:
    """The cells that are held out in each fold, ``(cells, n_splits)`` bool.

    Controls are never tested. Drugs without features among drugs with features are tested at unseen doses and in unseen lines only. A
    combination is held out in every fold that tests one of its drugs (or of their doses), so that no fold trains on them.

    Parameters
    ----------
    columns
        Arguments of `setup_anndata`: drug_key and control, and, if they exist, dose_key, smiles_key, smiles_conflict, features_key,
        cell_line_key, combination_sep.

    Raises
    ------
    KeyError, ValueError
        If `unseen` or `n_splits` is invalid, or a required column is not named.
    """
    check_option("unseen", unseen, UNSEEN)
    if isinstance(n_splits, bool) or not isinstance(n_splits, Integral) or n_splits < 2:
        raise ValueError(
            f"n_splits={n_splits!r} must be a whole number from 2 up: every fold is trained on the others."
        )
    need = NEEDS.get(unseen)
    if need and columns.get(need) is None:
        raise ValueError(f"unseen={unseen!r} needs {need}: name the column in setup_anndata, or in setup_kwargs.")
    dose_key = columns["dose_key"] if unseen == "dose" else None
    cells = CellDrugs.read(
        adata, columns["drug_key"], columns["control"], sep=columns.get("combination_sep"), dose_key=dose_key
    )
    rows = cells.rows()
    if unseen == "cell_line":
        rows["line"] = check_names(adata, columns["cell_line_key"]).to_numpy()[rows["cell"]]
    structures: dict[str, StandardizedMolecule] = {}
    featureless: set[str] = set()
    if columns.get("smiles_key") is not None and unseen != "cell_line":
        smiles = cells.smiles(columns["smiles_key"], columns.get("smiles_conflict", "error"))
        structures = standardize_all(smiles[smiles != ""])
        featureless = set(smiles.index[smiles == ""])
    if columns.get("features_key") is not None:
        table = in_memory(adata.uns[columns["features_key"]])
        featureless = set(table.index[table.isna().all(axis=1)])
    if unseen in {"drug", "scaffold"}:  # unmeasured, these drugs could not be predicted
        rows["treated"] &= ~rows["drug"].isin(featureless)
    rows = rows[rows["treated"]]
    fold = _dealt(unseen, rows, structures, n_splits, np.random.default_rng([seed, 0xF01D]))
    test = np.zeros((adata.n_obs, n_splits), dtype=bool)
    test[rows["cell"].to_numpy()[fold >= 0], fold[fold >= 0]] = True
    return test


def _dealt(
    unseen: str,
    cells: pd.DataFrame,
    structures: Mapping[str, StandardizedMolecule],
    n_splits: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Folds of the rows of treated cells, one per drug of a cell; -1 for rows that are never tested.

    Rows have drug and, if `unseen` needs it, dose or line. Drugs without a structure are distinguished by name.
    """
    if unseen == "cell_line":
        return _whole(cells["line"], cells["line"], n_splits, "treated cell lines", rng)
    names = representatives(cells["drug"])
    # These are the duplicates that `scgim.pp.audit_split` finds: forms of one compound, and compounds with one fingerprint.
    compound = joined(names, compounds(structures), morgan(structures))
    if unseen == "combination":
        return _combinations(cells.assign(compound=cells["drug"].map(compound)), n_splits, rng)
    if unseen == "dose":
        return _doses(cells.assign(compound=cells["drug"].map(compound)), n_splits, rng)
    if (n := len(set(compound.values()))) < MIN_DRUGS:
        raise ValueError(
            f"You have {n} drugs; folds of unseen ones need at least {MIN_DRUGS}. Use unseen='dose' if they have several doses."
        )
    group = compound if unseen == "drug" else joined(compound, scaffolds(structures))
    return _whole(cells["drug"], cells["drug"].map(group), n_splits, f"{unseen}s", rng)


def _whole(item: pd.Series, group: pd.Series, n_splits: int, what: str, rng: np.random.Generator) -> np.ndarray:
    """Folds of whole groups with numbers of items as equal as the groups permit. Which groups share a fold is random."""
    items = pd.Series(group.to_numpy(), item.to_numpy()).groupby(level=0).first()
    names, code = np.unique(items.to_numpy(str), return_inverse=True)
    _enough(n_splits, len(names), what)
    fold = pd.Series(-1, items.index)
    # GroupKFold balances sizes but takes groups of equal size in the order of their labels. Random numbers as labels randomize this
    # order. GroupKFold's own shuffle=True would not balance sizes.
    number = rng.permutation(len(names))[code]
    for k, (_, test) in enumerate(GroupKFold(n_splits).split(items, groups=number)):
        fold.iloc[test] = k
    return item.map(fold).to_numpy()


def _doses(cells: pd.DataFrame, n_splits: int, rng: np.random.Generator) -> np.ndarray:
    """Folds of the doses of every compound as a single drug. No fold takes all doses of a drug; a drug's only dose is in no fold."""
    size, where = np.zeros(n_splits, dtype=int), {}
    for compound, rows in cells[cells["single"]].groupby("compound", sort=True):
        own = [set(doses) for _, doses in rows.groupby("drug")["dose"]]
        taken: list[set[float]] = [set() for _ in range(n_splits)]
        for dose in rng.permutation(sorted(set.union(*own))):
            # Duplicates may have been given at different doses: each of them keeps at least one dose in training.
            free = [k for k in range(n_splits) if all(doses - taken[k] - {dose} for doses in own if dose in doses)]
            if free:
                k = min(free, key=lambda k: (len(taken[k]), size[k]))
                taken[k].add(dose)
                size[k] += 1
                where[compound, dose] = k
    _enough(n_splits, len(where), "doses of drugs with two or more")
    keys = pd.MultiIndex.from_frame(cells[["compound", "dose"]])
    return pd.Series(where).reindex(keys, fill_value=-1).to_numpy()


def _combinations(rows: pd.DataFrame, n_splits: int, rng: np.random.Generator) -> np.ndarray:
    """Folds of whole sets of compounds. Sets with a compound that is measured in no other fold are never tested."""
    sets = drug_sets(rows)
    several = sorted(names for names in set(sets) if len(names) > 1)
    _enough(n_splits, len(several), "combinations")
    fold = dict(
        zip((several[i] for i in rng.permutation(len(several))), np.arange(len(several)) % n_splits, strict=True)
    )
    where: dict[str, set[int]] = {}
    for names in set(sets):
        for name in names:
            where.setdefault(name, set()).add(int(fold.get(names, -1)))  # -1: in training always
    tested = {names: k for names, k in fold.items() if all(len(where[name]) > 1 for name in names)}
    return rows["treatment"].map(sets.map(lambda names: tested.get(names, -1))).to_numpy(dtype=int)


def _enough(n_splits: int, n: int, what: str) -> None:
    if n_splits > n:
        fix = f"Use n_splits={n} or fewer." if n >= 2 else "Hold out something else."
        raise ValueError(f"n_splits={n_splits}, but there are {n} {what} to deal (duplicates count once). {fix}")
