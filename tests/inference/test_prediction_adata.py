from __future__ import annotations

import re
import tracemalloc

import pytest

from scgim.inference import _prediction_adata


@pytest.fixture
def leave(monkeypatch):
    """``leave(n)``: the machine has ``n`` bytes of memory left."""

    def limit(n):
        for name in ("_memory", "inference._prediction_adata"):
            monkeypatch.setattr(f"scgim.{name}.available_memory", lambda: n)

    return limit


def test_cells_that_do_not_fit_are_refused_before_they_are_predicted(model, leave, monkeypatch):
    leave(1e6)
    monkeypatch.setattr("scgim.inference._counterfactuals.CounterfactualSampler.rows", None)  # not called
    with pytest.raises(MemoryError) as error:
        model.predict()
    assert "3,000 predicted rows x 6 genes need 1.4 MB of memory and 1.0 MB are available" in str(error.value)
    assert "as_='mean'" in str(error.value)
    assert "for drug in model.drugs: model.predict(drug=drug)" in str(error.value)


@pytest.mark.parametrize("as_", ["cells", "samples"])
def test_what_the_refusal_proposes_fits(model, leave, as_):
    leave(1e6)
    with pytest.raises(MemoryError) as error:
        model.predict(as_=as_)
    fewer = int(re.search(r"n_cells=(\d+)", str(error.value))[1])
    assert model.predict(as_=as_, n_cells=fewer).n_obs == fewer * 30
    assert model.predict(as_="mean").n_obs == 30
    assert sum(model.predict(drug=drug, as_=as_).n_obs for drug in model.drugs) == 3000


def test_means_and_interventions_are_refused_alike(model, leave):
    leave(1e3)
    with pytest.raises(MemoryError, match=r"30 predicted rows .*: predict some of the drugs at a time"):
        model.predict(as_="delta")
    with pytest.raises(MemoryError, match=r"100 predicted rows .*as_='mean'"):
        model.do({model.adata.var_names[0]: 1.0})


def test_the_estimate_covers_what_is_allocated(model, monkeypatch):
    asked = []
    monkeypatch.setattr(_prediction_adata, "require_memory", lambda needed, *words: asked.append(needed))
    model.predict(n_cells=2)  # parts that are computed once
    for options in ({}, {"as_": "samples", "n_cells": 500}):
        tracemalloc.start()
        model.predict(**options)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert asked[-1] / 2 < peak < 1.3 * asked[-1]
