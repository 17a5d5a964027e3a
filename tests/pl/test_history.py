from __future__ import annotations

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scgim.pl import history


def curve(name: str, values: list[float | None], first: int = 0) -> pd.DataFrame:
    index = pd.Index(range(first, first + len(values)), name="epoch")
    return pd.DataFrame({name: pd.Series(values, index=index, dtype=object)})


CURVES = {
    "structure_score": curve("structure_score", [9.0, 5.0, 4.0]),
    "mechanisms_nll": curve("mechanisms_nll", [2.5], first=3),
    "generator_nll": curve("generator_nll", [7.0, None, 6.0], first=4),
}


@pytest.mark.parametrize("wrap", [lambda h: h, lambda h: SimpleNamespace(history=h)], ids=["dict", "model"])
def test_a_panel_for_each_phase(wrap):
    axes = history(wrap(CURVES))
    assert isinstance(axes, np.ndarray)
    assert [ax.get_title() for ax in axes] == ["Structure search", "Mechanisms", "Generator"]
    assert axes[0].get_ylabel() == "score (nats)"
    assert {ax.get_ylabel() for ax in axes[1:]} == {"negative log-likelihood\n(nats)"}
    assert {ax.get_xlabel() for ax in axes} == {"epoch"}
    (line,) = axes[2].lines
    # the gap is bridged
    np.testing.assert_array_equal(line.get_xydata(), [[4, 7], [6, 6]])
    assert axes[1].lines[0].get_marker() == "o"


def test_curves_of_a_phase_share_its_panel():
    more = CURVES | {
        "nll_validation": curve("nll_validation", [8.0, 7.0]),
        "generator_penalty": curve("generator_penalty", [1.0, 1.0]),
        "lr": curve("lr", [0.1]),
    }
    axes = history(more)
    assert [ax.get_title() for ax in axes] == ["Structure search", "Mechanisms", "Generator", "Validation", "lr"]
    assert [len(ax.lines) for ax in axes] == [1, 1, 2, 1, 1]
    assert [t.get_text() for t in axes[2].get_legend().get_texts()] == ["generator_nll", "generator_penalty"]
    assert axes[4].get_ylabel() == "lr"
    assert [ax.get_legend() is None for ax in axes] == [True, True, False, True, True]


def test_a_curve_of_gaps_only_is_empty():
    (ax,) = history({"generator_nll": curve("generator_nll", [None, None])})
    assert len(ax.lines[0].get_xdata()) == 0


def test_draws_where_it_is_told(shown: list[int]):
    figure, axes = plt.subplots(1, 3)
    assert list(history(CURVES, ax=axes)) == list(axes)
    assert list(history({"structure_score": CURVES["structure_score"]}, ax=axes[1])) == [axes[1]]
    assert list(history(CURVES, ax=list(axes))) == list(axes)
    assert plt.get_fignums() == [figure.number]
    assert shown == []
    assert history(CURVES, ax=axes, show=True) is None
    assert shown == [1]


def test_the_wrong_number_of_axes():
    with pytest.raises(ValueError, match="ax holds 1 axes, but the history has 3 phases"):
        history(CURVES, ax=plt.subplots()[1])


@pytest.mark.parametrize("empty", [{}, SimpleNamespace(history=None), SimpleNamespace(history={})])
def test_not_trained(empty):
    with pytest.raises(ValueError, match=r"Run `model\.train\(\)` first"):
        history(empty)


def test_leaves_the_history_alone():
    before = {name: table.copy() for name, table in CURVES.items()}
    history(CURVES)
    for name, table in CURVES.items():
        pd.testing.assert_frame_equal(table, before[name])
