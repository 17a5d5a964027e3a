from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from scgim.pl import dose_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData


@pytest.fixture
def model(predict: Callable[..., AnnData]) -> Callable[..., Any]:
    """A model that answers with `fixed` where it is not asked for other, and notes what it was asked."""

    def build(**fixed: Any) -> SimpleNamespace:
        asked: list[dict] = []

        def answer(**options: Any) -> AnnData:
            asked.append(options)
            return predict(**(fixed | options))

        return SimpleNamespace(predict=answer, asked=asked)

    return build


def legend(ax: plt.Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("lines", [[""], ["A549", "K562"]], ids=["none", "two"])
def test_curves_pass_through_the_training_doses(model: Callable, lines: list[str]):
    ax = dose_response(model(cell_line=lines), drug="Akti-1/2", genes=["STAT1", "IRF1"], n_doses=11)
    assert legend(ax) == ["STAT1", "IRF1"]
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "dose (uM)"
    assert "log-normalized" in ax.get_ylabel()
    assert ax.get_title() == "Predicted dose response: Akti-1/2"
    _, curve, points, *_ = ax.lines
    dose = np.geomspace(0.1, 10, 11)
    np.testing.assert_allclose(curve.get_xydata(), np.c_[dose, -dose / (1 + dose)], rtol=1e-5)
    np.testing.assert_allclose(points.get_xdata(), [0.1, 1, 10])
    np.testing.assert_allclose(points.get_ydata(), curve.get_ydata()[[0, 5, 10]], rtol=1e-5)
    assert curve.get_color() == points.get_color()


@pytest.mark.parametrize(
    ("options", "genes"),
    [
        pytest.param({}, ["FOS", "JUN", "HEXIM1", "CDKN1A", "TP53"], id="default"),
        pytest.param({"n_genes": 2}, ["FOS", "JUN"], id="two"),
        pytest.param({"genes": "MYC"}, ["MYC"], id="a string is one gene"),
    ],
)
def test_which_genes(model: Callable, options: dict, genes: list[str]):
    assert legend(dose_response(model(), drug="Akti-1/2", **options)) == genes


@pytest.mark.parametrize(
    ("doses", "scale"),
    [([1.0, 2.0, 4.0], "linear"), ([0.0, 1.0, 100.0], "linear"), ([0.1, 1.0], "log"), ([5.0], "linear")],
)
def test_logarithmic_where_doses_span_a_decade(model: Callable, doses: list[float], scale: str):
    assert dose_response(model(dose=doses), drug="Akti-1/2").get_xscale() == scale


def test_passes_on_what_an_unmeasured_drug_needs(model: Callable):
    stub = model()
    dose_response(stub, drug="new", smiles="CCO", n_doses=3)
    assert [call["smiles"] for call in stub.asked] == ["CCO", "CCO"]
    assert [call["as_"] for call in stub.asked] == ["delta", "delta"]
    np.testing.assert_allclose(stub.asked[1]["dose"], [0.1, 1, 10])


@pytest.mark.parametrize(
    ("fixed", "options", "error", "message"),
    [
        pytest.param({"dose": np.nan}, {}, ValueError, "The model has no doses. Give `dose_key`", id="no doses"),
        pytest.param({}, {"genes": ["STAT3"]}, KeyError, "gene 'STAT3' not found. Did you mean 'STAT1'", id="gene"),
        pytest.param({}, {"n_genes": 0}, ValueError, "n_genes is 0", id="no genes"),
        pytest.param({}, {"n_doses": 0}, ValueError, "n_doses is 0", id="no curve"),
    ],
)
def test_errors_open_no_figure(model: Callable, fixed: dict, options: dict, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        dose_response(model(**fixed), drug="Akti-1/2", **options)
    assert plt.get_fignums() == []


def test_draws_where_it_is_told(model: Callable, shown: list[int]):
    ax = plt.subplots()[1]
    assert dose_response(model(), drug="Akti-1/2", ax=ax) is ax
    assert shown == []
    assert dose_response(model(), drug="Akti-1/2", ax=ax, show=True) is None
    assert shown == [1]
