"""Rules of a split: which cells are held out, ``(cells,)`` bool.

``conditions`` has one row per cell: drug, treated, and the columns that the rule needs (compound, scaffold, line, dose).
Groups are drawn here, not by scikit-learn's ``GroupShuffleSplit``. With the same seed ``GroupShuffleSplit`` would hold out other
groups. It also rounds the share up instead of to the nearest whole number, and has no rule for sizes of scaffolds or doses of a drug.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scgim._checks import listed

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd

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
    """Hold out whole doses of each compound."""
    test = np.zeros(len(conditions), dtype=bool)
    for _, cells in conditions[conditions["treated"]].groupby("compound", sort=True):
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
    return test


SPLIT_RULES = {"drug": drugs, "dose": doses, "scaffold": scaffolds, "cell_line": lines}
