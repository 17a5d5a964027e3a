"""Evaluation of predictions: baselines, scores of every method, and the verdict. Arrays and tables only."""

from ._baselines import BASELINES, Baseline
from ._conditions import ConditionTable
from ._etest import e_test
from ._scores import score
from ._summary import summarize
from ._target_scores import PREDICTED_SHIFT, SHIFT, Z, score_targets, targets_verdict
from ._verdict import DUPLICATE, EMPTY, SCGIM, SHUFFLED, STRONG, ZEROED, Comparison, compare, remaining, verdict

__all__ = [
    "BASELINES",
    "DUPLICATE",
    "EMPTY",
    "PREDICTED_SHIFT",
    "SCGIM",
    "SHIFT",
    "SHUFFLED",
    "STRONG",
    "ZEROED",
    "Z",
    "Baseline",
    "Comparison",
    "ConditionTable",
    "compare",
    "e_test",
    "remaining",
    "score",
    "score_targets",
    "summarize",
    "targets_verdict",
    "verdict",
]
