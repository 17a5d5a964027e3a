from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from scgim.pl import shift
from scgim.pl._style import DOWN, UP

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

GENES_BY_CHANGE = ["FOS", "JUN", "HEXIM1", "CDKN1A", "TP53"]


def ticks(axis_labels: list[plt.Text]) -> list[str]:
    return [label.get_text() for label in axis_labels]


@pytest.mark.parametrize("kind", ["cells", "samples", "mean", "delta"])
def test_heatmap_of_the_mean_change(predict: Callable[..., AnnData], kind: str):
    pred = predict(drug=["(+/-)-JQ1", "Akti-1/2"], as_=kind)
    ax = shift(pred, n_genes=5)
    assert isinstance(ax, Axes)
    assert ticks(ax.get_xticklabels()) == GENES_BY_CHANGE
    conditions = [f"{drug}, {dose} uM" for drug in ("(+/-)-JQ1", "Akti-1/2") for dose in ("0.1", "1", "10")]
    assert ticks(ax.get_yticklabels()) == conditions
    (image,) = ax.images
    expected = np.array([0.1 / 1.1, 0.5, 10 / 11] * 2)[:, None] * [12, -11, 10, -9, 8]
    np.testing.assert_allclose(image.get_array(), expected, rtol=1e-4)
    assert image.get_cmap().name == "RdBu_r"
    assert image.norm.vmin == -image.norm.vmax
    assert "log-normalized" in image.colorbar.ax.get_ylabel()


@pytest.mark.parametrize(
    ("options", "title"),
    [
        pytest.param({"dose": 1.0}, "Predicted change\nAkti-1/2, 1 uM", id="dose"),
        pytest.param({"dose": np.nan}, "Predicted change\nAkti-1/2", id="no dose"),
        pytest.param({"dose": 1.0, "cell_line": ["A549"]}, "Predicted change\nAkti-1/2, 1 uM, A549", id="line"),
        pytest.param({"drug": "", "dose": np.nan}, "Predicted change", id="nothing"),
    ],
)
def test_bars_of_one_context(predict: Callable[..., AnnData], options: dict, title: str):
    ax = shift(predict(**options, scale="counts"), n_genes=5)
    assert ax.get_title() == title
    assert ticks(ax.get_yticklabels()) == GENES_BY_CHANGE
    assert [to_rgb(bar.get_facecolor()) for bar in ax.patches] == [to_rgb(c) for c in (UP, DOWN, UP, DOWN, UP)]
    assert "log1p of counts per 10,000" in ax.get_xlabel()


@pytest.mark.parametrize(
    ("lines", "labels"),
    [
        pytest.param([""], ["a, 1 uM", "b, 1 uM"], id="none"),
        pytest.param(["A549"], ["a, 1 uM", "b, 1 uM"], id="one"),
        pytest.param(["A", "B"], ["a, 1 uM, A", "a, 1 uM, B", "b, 1 uM, A", "b, 1 uM, B"], id="two"),
    ],
)
def test_cell_lines_are_named_where_they_differ(predict: Callable[..., AnnData], lines: list[str], labels: list[str]):
    ax = shift(predict(drug=["a", "b"], dose=1.0, cell_line=lines))
    assert ticks(ax.get_yticklabels()) == labels


def test_doses_known_and_unknown_stay_apart(predict: Callable[..., AnnData]):
    ax = shift(predict(drug=["b", "a"], dose=[np.nan, 3.0]))
    assert ticks(ax.get_yticklabels()) == ["b", "b, 3 uM", "a", "a, 3 uM"]


def test_categories_without_cells_are_no_contexts(predict: Callable[..., AnnData]):
    pred = predict(drug=["a", "b"], dose=1.0)
    pred.obs["drug"] = pd.Categorical(pred.obs["drug"], ["c", "b", "a"])
    assert ticks(shift(pred).get_yticklabels()) == ["a, 1 uM", "b, 1 uM"]


def test_rows_of_a_context_need_not_be_together(predict: Callable[..., AnnData]):
    pred = predict(drug=["a", "b"], dose=[1.0, np.nan])
    order = np.random.default_rng(0).permutation(pred.n_obs)
    straight = dict(zip(ticks((ax := shift(pred)).get_yticklabels()), ax.images[0].get_array(), strict=True))
    mixed = dict(zip(ticks((ax := shift(pred[order].copy())).get_yticklabels()), ax.images[0].get_array(), strict=True))
    assert set(straight) == set(mixed)
    for name, row in straight.items():
        np.testing.assert_allclose(mixed[name], row, rtol=1e-6)


def test_only_the_strongest_contexts(predict: Callable[..., AnnData]):
    ax = shift(predict(dose=[10.0, 0.1, 1.0]), n_conditions=2)
    assert ticks(ax.get_yticklabels()) == ["Akti-1/2, 10 uM", "Akti-1/2, 1 uM"]
    assert ax.get_title() == "Predicted change, 2 of 3 conditions"


def test_obs_need_not_say_anything(predict: Callable[..., AnnData]):
    pred = predict()
    pred.obs = pred.obs[[]]
    assert shift(pred).get_title() == "Predicted change"


def test_no_change_at_all(predict: Callable[..., AnnData]):
    pred = predict(as_="delta")
    pred.X[:] = 0
    (image,) = shift(pred).images
    assert (image.norm.vmin, image.norm.vmax) == (-1, 1)


@pytest.mark.parametrize("dose", [[1.0], [1.0, 10.0]], ids=["bars", "heatmap"])
def test_draws_where_it_is_told(predict: Callable[..., AnnData], shown: list[int], dose: list[float]):
    figure, ax = plt.subplots()
    assert shift(predict(dose=dose), ax=ax) is ax
    assert plt.get_fignums() == [figure.number]
    assert shown == []
    assert shift(predict(dose=dose), show=True) is None
    assert shown == [2]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"n_genes": 0}, "n_genes is 0"), ({"n_conditions": -3}, "n_conditions is -3")],
)
def test_bad_numbers(predict: Callable[..., AnnData], options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        shift(predict(), **options)


def test_not_a_prediction(adata: AnnData):
    with pytest.raises(KeyError, match=r"`prediction` not found in pred\.uns\['scgim'\]\. Pass what `model\.predict"):
        shift(adata)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("kind", ["cells", "delta"])
def test_leaves_the_prediction_alone(predict: Callable[..., AnnData], unchanged: Callable, kind: str):
    pred = predict(as_=kind)
    with unchanged(pred):
        shift(pred)
