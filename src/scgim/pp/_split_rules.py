"""Rules of a split: which rows are held out, ``(rows,)`` bool. A cell is held out if one of its rows is.

``conditions`` has one row per cell and drug: treatment, drug, single, treated, and the columns that the rule needs (compound, scaffold,
line, dose).
Groups are drawn here, not by scikit-learn's ``GroupShuffleSplit``. With the same seed ``GroupShuffleSplit`` would hold out other
groups. It also rounds the share up instead of to the nearest whole number, and has no rule for sizes of scaffolds or doses of a drug.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgim._checks import listed

if TYPE_CHECKING:
    from collections.abc import Collection

MIN_DRUGS, MIN_LINES, MIN_SCAFFOLDS = 5, 2, 2


def _n_held_out(n: int, frac: float) -> int:
    return min(max(1, round(frac * n)), n - 1)


def _in_some(conditions: pd.DataFrame, column: str, held_out: Collection[str]) -> np.ndarray:
    return (conditions[column].isin(held_out) & conditions["treated"]).to_numpy()


def _levels(conditions: pd.DataFrame, column: str) -> np.ndarray:
    return np.array(sorted(set(conditions.loc[conditions["treated"], column])), dtype=object)


def drugs(conditions: pd.DataFrame, frac: float, rng: np.random.Generator) -> np.ndarray:
    """Hold out whole compounds."""
    found = _levels(conditions, "compound")
    if len(found) < MIN_DRUGS:
        raise ValueError(
            f"You have {len(found)} drugs; an unseen-drug split needs at least {MIN_DRUGS}. Use unseen='dose' if they have several doses."
        )
    held_out = rng.choice(found, _n_held_out(len(found), frac), replace=False)
    return _in_some(conditions, "compound", held_out)


def lines(conditions: pd.DataFrame, frac: float, rng: np.random.Generator) -> np.ndarray:
    """Hold out whole cell lines."""
    found = _levels(conditions, "line")
    if len(found) < MIN_LINES:
        raise ValueError(
            f"An unseen-line split needs treated cells in at least {MIN_LINES} lines; only {listed(found) or 'none'} has treated cells. "
            "Use unseen='drug'."
        )
    return _in_some(conditions, "line", rng.choice(found, _n_held_out(len(found), frac), replace=False))


def scaffolds(conditions: pd.DataFrame, frac: float, rng: np.random.Generator) -> np.ndarray:
    """Hold out all compounds of some scaffolds; their share is as close to ``frac`` as the sizes of scaffolds allow."""
    treated = conditions[conditions["treated"]]
    size = treated.groupby("scaffold", sort=True)["compound"].nunique().to_dict()
    n = sum(size.values())
    if n < MIN_DRUGS or len(size) < MIN_SCAFFOLDS:
        raise ValueError(
            f"You have {n} drugs on {len(size)} scaffolds; an unseen-scaffold split needs at least {MIN_DRUGS} drugs on {MIN_SCAFFOLDS}. "
            "Use unseen='dose' if they have several doses."
        )
    aim, held_out, n_held = _n_held_out(n, frac), set(), 0
    order = rng.permutation(np.array(list(size), dtype=object))
    for name in order:
        if abs(n_held + size[name] - aim) < abs(n_held - aim) and n_held + size[name] < n:
            held_out.add(name)
            n_held += size[name]
    # Every scaffold may be far larger than the share: then the smallest one is held out.
    return _in_some(conditions, "scaffold", held_out or {min(order, key=size.get)})


def doses(conditions: pd.DataFrame, frac: float, rng: np.random.Generator) -> np.ndarray:
    """Hold out whole doses of each compound, drawn from its doses as a single drug."""
    test = np.zeros(len(conditions), dtype=bool)
    known = conditions["treated"] & conditions["single"]
    for _, cells in conditions[known].groupby("compound", sort=True):
        doses_of = [set(doses) for _, doses in cells.groupby("drug")["dose"]]
        doses = sorted(set.union(*doses_of))
        held_out: set[float] = set()
        for dose in rng.permutation(doses):
            # Duplicates may have been given at different doses: each of them keeps at least one dose in training.
            if len(held_out) < _n_held_out(len(doses), frac) and all(own - held_out - {dose} for own in doses_of):
                held_out.add(dose)
        test[cells.index[cells["dose"].isin(held_out)]] = True
    if not test.any():
        raise ValueError("No drug has two doses, so no dose can be held out. Use unseen='drug'.")
    if conditions["single"].all():
        return test
    of_compound = pd.MultiIndex.from_frame(conditions[["compound", "dose"]])
    return of_compound.isin(of_compound[test])


def drug_sets(conditions: pd.DataFrame) -> pd.Series:
    """The compounds of every treatment, sorted, index = treatments; controls are left out."""
    pairs = conditions.loc[conditions["treated"], ["treatment", "compound"]].drop_duplicates()
    return pairs.groupby("treatment")["compound"].agg(lambda names: tuple(sorted(names)))


def combinations(conditions: pd.DataFrame, frac: float, rng: np.random.Generator) -> np.ndarray:
    """Hold out whole combinations of compounds at all doses; every compound stays in training."""
    sets = drug_sets(conditions)
    measured = Counter(name for names in set(sets) for name in names)
    found = sorted(names for names in set(sets) if len(names) > 1)
    held_out: set[tuple[str, ...]] = set()
    for i in rng.permutation(len(found)):
        names = found[i]
        if len(held_out) < max(1, round(frac * len(found))) and all(measured[name] > 1 for name in names):
            held_out.add(names)
            measured.subtract(names)
    if not held_out:
        raise ValueError(
            f"There are {len(found)} combinations, and none can be held out such that all of its drugs stay in training. "
            + (
                "Use unseen='drug'."
                if found
                else "Pass drug_key as a list of columns, or combination_sep, if cells have several drugs."
            )
        )
    return conditions["treatment"].isin(sets.index[sets.isin(held_out)]).to_numpy()


SPLIT_RULES = {"drug": drugs, "dose": doses, "scaffold": scaffolds, "cell_line": lines, "combination": combinations}
