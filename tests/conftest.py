from __future__ import annotations

from functools import cache, partialmethod
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import scgim
from scgim.inference._predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData

SMALL = {"n_genes": 6, "n_drugs": 10, "n_cells": 20, "n_control": 100, "doses": (0.5, 1.0, 2.0), "n_new_drugs": 3}
SETUP = {
    "drug_key": "drug",
    "control": "DMSO",
    "scale": "continuous",
    "dose_key": "dose",
    "dose_unit": "uM",
    "features_key": "drug_features",
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices of this size are slower on many threads, and much slower where others use them too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def _simulated(**options: object) -> AnnData:
    return scgim.datasets.simulate_screen(**options)


@pytest.fixture(scope="session")
def screen() -> Callable[..., AnnData]:
    """``screen(**options)``: a fresh small screen, options as for `simulate_screen`."""
    return lambda **options: _simulated(**(SMALL | options)).copy()


@pytest.fixture
def setup_kwargs() -> dict[str, object]:
    """What `setup_anndata` is told of ``screen()``; a dict of the test's own."""
    return dict(SETUP)


@pytest.fixture(scope="session")
def fit() -> Callable[..., scgim.GIM]:
    """``fit(adata, gim={...}, train={...}, **setup)``: a model of the test's own, trained for a few epochs."""

    def run(adata: AnnData, *, gim: dict | None = None, train: dict | None = None, **setup: object) -> scgim.GIM:
        scgim.setup_anndata(adata, **(SETUP | setup))
        model = scgim.GIM(adata, **(gim or {}))
        model.train(**({"max_epochs": 20, "enable_progress_bar": False} | (train or {})))
        return model

    return run


@pytest.fixture(scope="session")
def model(screen, fit) -> scgim.GIM:
    """Trained for a few epochs on ``screen()``: shared by all tests, so none may change it."""
    return fit(screen(), train={"max_epochs": 40})


@pytest.fixture(scope="session")
def in_lines(screen) -> Callable[..., AnnData]:
    """``in_lines(offset)``: a screen in two lines and two batches whose means differ by up to ``offset`` control sd."""

    def build(offset: float, **options: object) -> AnnData:
        adata, rng = screen(**options), np.random.default_rng(1)
        n, d = adata.shape
        control = (adata.obs["drug"] == "DMSO").to_numpy()
        line, batch = rng.integers(2, size=(2, n))
        shift = offset * rng.uniform(-1, 1, size=(2, 2, d))
        adata.X = adata.X + (shift[line, batch] * adata.X[control].std(0)).astype(np.float32)
        adata.obs["line"], adata.obs["plate"] = np.array(["A549", "K562"])[line], np.array(["p1", "p2"])[batch]
        return adata

    return build


@pytest.fixture(scope="session")
def assert_same_bits() -> Callable[..., None]:
    """``assert_same_bits(one, other)``: every parameter and buffer of two models is equal to the bit, or to a relative error ``rtol``."""

    def compare(one: scgim.GIM, other: scgim.GIM, rtol: float = 0.0) -> None:
        a, b = (model.module.state_dict() for model in (one, other))
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name].numpy(), b[name].numpy(), rtol=rtol, err_msg=name)

    return compare


@pytest.fixture
def generator_alone(monkeypatch):
    """Predictions rest on features and on the one graph found: for tests of generators, mechanisms and interventions."""
    monkeypatch.setattr(scgim.GIM, "predict", partialmethod(scgim.GIM.predict, evidence="features"))
    found = lambda self: [(self.module.mechanism, self._levels())]
    said = Predictor.interventions
    monkeypatch.setattr(Predictor, "_mechanisms", found)
    monkeypatch.setattr(Predictor, "_drug_mechanisms", found)
    monkeypatch.setattr("scgim.inference._gene_intervention.DOUBT", 0.0)
    monkeypatch.setattr(Predictor, "interventions", lambda self, query, line, module=None: said(self, query, line))
