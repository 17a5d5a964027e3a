"""Intervals and sentences: what a table of scores says."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binom

SCGIM, EMPTY, SHUFFLED, DUPLICATE = "scgim", "scgim, empty graph", "scgim, shuffled features", "duplicate"
ZEROED, MEAN = "scgim, zeroed features", "training mean"
N_BOOTSTRAP = 4000
# least difference that counts, as a share of the other's error: two graphs may differ reliably by nothing to speak of
TRIVIAL = 1e-3
_ROUNDING = 1e-6
LITTLE = 0.02  # of the training mean's squared error
STRONG = 0.05  # p-value of the permutation test below which a condition moves cells
EARNED = {
    "beats": "earns its place",
    "does not beat": "does harm",
    "cannot be told from": "does not earn its place",
}


class Comparison(NamedTuple):
    """Mean difference of two methods' errors over drugs, its 95 % bootstrap interval, the least that counts, and what that is in words."""

    difference: float
    low: float
    high: float
    least: float = 0.0

    @property
    def word(self) -> str:
        """Of the first method: smaller errors are better."""
        if abs(self.difference) < self.least:
            return "cannot be told from"
        if self.high < 0:
            return "beats"
        return "does not beat" if self.low > 0 else "cannot be told from"


def compare(error: pd.Series, other: pd.Series, drug: pd.Series, *, seed: int = 0) -> Comparison:
    """Paired over conditions, resampled over drugs: conditions of one drug are no independent witnesses.

    With a single drug its conditions are resampled; a single one has no interval. Conditions without an answer of either are
    left out. A difference counts from a thousandth of the other's error on.
    """
    gap = (error - other).to_numpy(float)
    known = np.isfinite(gap)
    gap, group = gap[known], drug.to_numpy(str)[known]
    if not len(gap):
        return Comparison(np.nan, np.nan, np.nan)
    if len(np.unique(group)) > 1:
        gap = pd.Series(gap).groupby(group).mean().to_numpy()
    least = max(TRIVIAL * float(np.abs(other[known]).mean()), _ROUNDING)
    if len(gap) == 1:
        return Comparison(float(gap[0]), -np.inf, np.inf, least)
    draws = np.random.default_rng(seed).integers(0, len(gap), (N_BOOTSTRAP, len(gap)))
    low, high = np.quantile(gap[draws].mean(1), [0.025, 0.975])
    return Comparison(float(gap.mean()), float(low), float(high), least)


def remaining(error: pd.Series, other: pd.Series, drug: pd.Series, *, seed: int = 0) -> tuple[float, float, float]:
    r"""Squared error as a share of the other's, :math:`\sum e^2 / \sum o^2`, and its 95 % interval, bootstrapped over drugs."""
    squares = (pd.DataFrame({"error": error, "other": other}) ** 2).dropna()
    squares = squares.groupby(drug[squares.index].to_numpy(str)).sum().to_numpy()
    draws = np.random.default_rng(seed).integers(0, len(squares), (N_BOOTSTRAP, len(squares)))
    left, before = np.vstack([squares[draws].sum(1), squares.sum(0)]).T
    share = left / before
    return float(share[-1]), *map(float, np.quantile(share[:-1], [0.025, 0.975]))


def best_baseline(scores: pd.DataFrame, baselines: list[str]) -> str:
    """The baseline of least mean error among those with an answer for every condition (row)."""
    complete = [name for name in baselines if scores[name].notna().all()]
    return str(scores[complete].mean().idxmin())


def verdict(table: pd.DataFrame, baselines: list[str], metric: str = "rmse") -> list[str]:
    """Sentences on the conditions of a table of scores, one row for each method and condition."""
    scores = table.pivot(index=["drug", "dose", "cell_line"], columns="method", values=metric)
    scores = scores[scores[SCGIM].notna()]
    drug = scores.index.to_frame()["drug"]
    best = best_baseline(scores, baselines)
    against = compare(scores[SCGIM], scores[best], drug)
    n = f"{len(scores)} test conditions of {drug.nunique()} drugs"
    if "fold" in table:
        n += f" in {table['fold'].nunique()} folds"
    said = [
        f"On {n}, scgim {against.word} the best baseline ({best}): {metric} {scores[SCGIM].mean():.3f} against "
        f"{scores[best].mean():.3f} control sd, difference {interval(against)}."
    ]
    if MEAN in scores and (scores[MEAN] > 0).all():
        share, low, high = remaining(scores[SCGIM], scores[MEAN], drug)
        little = ": next to nothing of what tells drugs apart is explained" if share > 1 - LITTLE else ""
        said.append(f"Its squared error is {share:.1%} [{low:.1%}, {high:.1%}] of the {MEAN}'s{little}.")
    if "strong" in table:
        said += _unmoved(table.loc[table["method"] == SCGIM, "strong"])
    if DUPLICATE in scores and "control" in scores:
        room = scores["control"].mean() - scores[DUPLICATE].mean()
        if room > 0:
            share = (scores["control"].mean() - scores[SCGIM].mean()) / room
            said.append(f"Of what lies between no change and the technical duplicate it explains {share:.0%}.")
        else:
            said.append(
                "Half of a condition's cells predict the other half no better than no change does: with so few cells, little of any "
                "effect can be seen."
            )
    if EMPTY in scores:
        graph = compare(scores[SCGIM], scores[EMPTY], drug)
        said.append(f"The graph {EARNED[graph.word]}: against an empty graph, difference {interval(graph)}.")
    if SHUFFLED in scores:
        chemistry = compare(scores[SCGIM], scores[SHUFFLED], drug)
        matter = {"beats": "matter", "does not beat": "mislead", "cannot be told from": "cannot be seen to matter"}
        said.append(f"Drug features {matter[chemistry.word]}: against shuffled ones, difference {interval(chemistry)}.")
    size = table.loc[table["method"] == SCGIM, "size_ratio"].median()
    if size < 0.1:
        said.append(
            f"Predicted changes are {size:.0%} of the size of the observed ones (median): the model predicts close to no effect."
        )
    return said


def _unmoved(strong: pd.Series) -> list[str]:
    """How many conditions do not move cells; whether the others are more than so many tests bring about by chance."""
    n, k = len(strong), int(strong.sum())
    if k == 0:
        return [
            "Nothing moved: no test condition can be told from control cells, so there is no effect to predict and nothing to win."
        ]
    if binom.sf(k - 1, n, STRONG) > 0.05:
        return [
            f"Close to nothing moved: {k} of {n} test conditions can be told from control cells (p < {STRONG}), no more than chance may "
            "bring about, so there is hardly an effect to predict."
        ]
    return [f"{n - k} of {n} test conditions cannot be told from control cells."] if k < n else []


def interval(c: Comparison) -> str:
    """Difference and interval as text."""
    return f"{c.difference:+.3f} [{c.low:+.3f}, {c.high:+.3f}]"
