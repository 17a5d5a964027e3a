from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scgim.evaluation import EMPTY, SCGIM, SHIFT, score_targets, targets_verdict

DRUGS = np.array([f"drug {i}" for i in range(12)])
RNG = np.random.default_rng(0)
TRUTH = np.zeros((12, 6), dtype=bool)
TRUTH[np.arange(12), RNG.integers(6, size=12)] = True


def table(**noise: float) -> pd.DataFrame:
    """Methods whose scores are the truth plus so much noise."""
    rng, parts = np.random.default_rng(1), []
    for method, sd in noise.items():
        score = TRUTH + sd * rng.normal(size=TRUTH.shape)
        parts.append(score_targets(method, score, TRUTH, DRUGS, k=2, called=score > 0.5))
    return pd.concat(parts)


def test_perfect_scores_are_perfect_and_reversed_ones_are_the_worst() -> None:
    best = score_targets("a", TRUTH.astype(float), TRUTH, DRUGS, k=1).set_index("drug")
    assert (best[["ap", "f1", "recall", "best_rank"]] == 1).all(axis=None)
    worst = score_targets("a", -TRUTH.astype(float), TRUTH, DRUGS, k=1).set_index("drug")
    np.testing.assert_allclose(worst["best_rank"], 6)
    np.testing.assert_allclose(worst["ap"], 1 / 6)
    assert (worst[["f1", "recall"]] == 0).all(axis=None)


def test_ties_are_ranked_in_the_middle_and_calls_are_as_many_as_targets() -> None:
    flat = score_targets("a", np.zeros(TRUTH.shape), TRUTH, DRUGS, k=3).set_index("drug")
    np.testing.assert_allclose(flat["best_rank"], 3.5)
    np.testing.assert_allclose(flat["recall"], 0.5)
    assert (flat["n_called"] == flat["n_targets"]).all()


@pytest.mark.parametrize(
    ("own", "other", "word"), [(0.0, 2.0, "beats"), (2.0, 0.0, "does not beat"), (1.0, 1.0, "cannot be told from")]
)
def test_words_follow_the_interval(own, other, word) -> None:
    said = targets_verdict(table(**{SCGIM: own, SHIFT: other}), "measured")
    assert said[0].startswith(
        f"On 12 measured drugs with 12 known targets, scgim {word} the best baseline (largest |shift|): average precision "
    )
    low, high = map(float, said[0].split("[")[1].rstrip("].").split(","))
    assert {"beats": low > 0, "does not beat": high < 0, "cannot be told from": low <= 0 <= high}[word]


@pytest.mark.parametrize(("empty", "words"), [(2.0, "improves the result"), (0.5, "makes no measurable difference")])
def test_the_graph_has_to_earn_its_place(empty, words) -> None:
    said = " ".join(targets_verdict(table(**{SCGIM: 0.5, EMPTY: empty, SHIFT: 1.0}), "measured"))
    assert f"The graph {words}" in said


def test_no_call_is_called_so() -> None:
    silent = score_targets(SCGIM, TRUTH * 0.1, TRUTH, DRUGS, k=1, called=np.zeros_like(TRUTH))
    said = targets_verdict(pd.concat([silent, table(**{SHIFT: 1.0})]), "measured")
    assert "It calls no target: no probability exceeds .5." in said
