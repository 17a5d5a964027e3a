"""What a prediction is worth: baselines, scores of every method, and the verdict. Arrays and tables only."""

from ._baselines import BASELINES, Baseline
from ._conditions import ConditionTable
from ._etest import e_test
from ._scores import score
from ._verdict import DUPLICATE, EMPTY, SCGIM, SHUFFLED, ZEROED, Comparison, compare, verdict

__all__ = [
    "BASELINES",
    "DUPLICATE",
    "EMPTY",
    "SCGIM",
    "SHUFFLED",
    "ZEROED",
    "Baseline",
    "Comparison",
    "ConditionTable",
    "compare",
    "e_test",
    "score",
    "verdict",
]
