"""Intervals and sentences that summarize a table of scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binom

SCGIM, EMPTY, SHUFFLED, DUPLICATE = "scgim", "scgim, empty graph", "scgim, shuffled features", "duplicate"
ZEROED, MEAN = "scgim, zeroed features", "training mean"
N_BOOTSTRAP = 4000
# Least difference that counts, as a share of the other error: a difference may be significant but negligible.
TRIVIAL = 1e-3
_ROUNDING = 1e-6
LITTLE = 0.02  # explained share of the training mean's squared error below which the verdict says so
STRONG = 0.05  # p-value of the permutation test below which a condition is distinguishable from controls
EARNED = {
    "beats": "improves the result",
    "does not beat": "worsens the result",
    "cannot be told from": "makes no measurable difference",
}


class Comparison(NamedTuple):
    """Mean difference of two methods' errors over drugs, its 95 % bootstrap interval, and the least difference that counts."""

    difference: float
    low: float
    high: float
    least: float = 0.0

    @property
    def word(self) -> str:
        """The comparison in words, from the view of the first method: smaller errors are better."""
        if abs(self.difference) < self.least:
            return "cannot be told from"
        if self.high < 0:
            return "beats"
        return "does not beat" if self.low > 0 else "cannot be told from"


def compare(error: pd.Series, other: pd.Series, drug: pd.Series, *, seed: int = 0) -> Comparison:
    """Compare two errors, paired by condition and resampled over drugs, because conditions of one drug are not independent.

    With a single drug its conditions are resampled; a single condition has no interval. Conditions without a prediction of either method
    are left out. Differences below a thousandth of the other error do not count.
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
    r"""Squared error as a share of another, :math:`\sum e^2 / \sum o^2`, and its 95 % interval, bootstrapped over drugs."""
    squares = (pd.DataFrame({"error": error, "other": other}) ** 2).dropna()
    squares = squares.groupby(drug[squares.index].to_numpy(str)).sum().to_numpy()
    draws = np.random.default_rng(seed).integers(0, len(squares), (N_BOOTSTRAP, len(squares)))
    left, before = np.vstack([squares[draws].sum(1), squares.sum(0)]).T
    share = left / before
    return float(share[-1]), *map(float, np.quantile(share[:-1], [0.025, 0.975]))


def best_baseline(scores: pd.DataFrame, baselines: list[str]) -> str:
    """The baseline with the smallest mean error among those with a prediction for every condition (row)."""
    complete = [name for name in baselines if scores[name].notna().all()]
    return str(scores[complete].mean().idxmin())


def verdict(table: pd.DataFrame, baselines: list[str], metric: str = "rmse") -> list[str]:
    """Sentences that summarize a table of scores with one row for each method and condition."""
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
        f"{scores[best].mean():.3f} control SD, difference {interval(against)}."
    ]
    if MEAN in scores and (scores[MEAN] > 0).all():
        share, low, high = remaining(scores[SCGIM], scores[MEAN], drug)
        little = ": almost none of the difference between drugs is explained" if share > 1 - LITTLE else ""
        said.append(f"Its squared error is {share:.1%} [{low:.1%}, {high:.1%}] of the {MEAN}'s{little}.")
    if "strong" in table:
        said += _unmoved(table.loc[table["method"] == SCGIM, "strong"])
    if DUPLICATE in scores and "control" in scores:
        room = scores["control"].mean() - scores[DUPLICATE].mean()
        if room > 0:
            share = (scores["control"].mean() - scores[SCGIM].mean()) / room
            said.append(
                f"It explains {share:.0%} of the difference in error between no change and the technical duplicate."
            )
        else:
            said.append(
                "Half of a condition's cells predict the other half no better than no change does: effects are hardly measurable "
                "with so few cells."
            )
    if EMPTY in scores:
        graph = compare(scores[SCGIM], scores[EMPTY], drug)
        said.append(f"The graph {EARNED[graph.word]}: against an empty graph, difference {interval(graph)}.")
    if SHUFFLED in scores:
        chemistry = compare(scores[SCGIM], scores[SHUFFLED], drug)
        effect = {
            "beats": "improve the result",
            "does not beat": "worsen the result",
            "cannot be told from": "make no measurable difference",
        }
        said.append(f"Drug features {effect[chemistry.word]}: against shuffled ones, difference {interval(chemistry)}.")
    size = table.loc[table["method"] == SCGIM, "size_ratio"].median()
    if size < 0.1:
        said.append(
            f"Predicted changes have {size:.0%} of the size of observed ones (median): the model predicts close to no effect."
        )
    return said


def _unmoved(strong: pd.Series) -> list[str]:
    """How many test conditions are distinguishable from controls, and whether chance alone would explain this number."""
    n, k = len(strong), int(strong.sum())
    if k == 0:
        return [
            f"No test condition is distinguishable from controls (energy-distance test, p < {STRONG}), so there is no effect to predict."
        ]
    if binom.sf(k - 1, n, STRONG) > 0.05:
        return [
            f"{k} of {n} test conditions are distinguishable from controls (energy-distance test, p < {STRONG}), no more than expected by "
            "chance, so there is hardly an effect to predict."
        ]
    return [f"{n - k} of {n} test conditions are not distinguishable from controls."] if k < n else []


def interval(c: Comparison) -> str:
    """A difference and its interval as text."""
    return f"{c.difference:+.3f} [{c.low:+.3f}, {c.high:+.3f}]"
