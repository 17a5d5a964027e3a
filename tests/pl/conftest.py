from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# the folders of tests are no packages, so that one's conftest cannot import another's
shared = runpy.run_path(str(Path(__file__).parents[1] / "get" / "conftest.py"))
adata, annotated, unchanged = shared["adata"], shared["annotated"], shared["unchanged"]


@pytest.fixture(autouse=True)
def _headless() -> Iterator[None]:
    plt.switch_backend("agg")
    plt.close("all")  # what examples left open
    yield
    plt.close("all")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the figures that were open at each call of `plt.show`."""
    calls: list[int] = []
    monkeypatch.setattr(plt, "show", lambda: calls.append(len(plt.get_fignums())))
    return calls


def predict(
    *,
    drug: str | list[str] = "Akti-1/2",
    dose: float | list[float] = (0.1, 1.0, 10.0),
    cell_line: list[str] = ("",),
    as_: str = "cells",
    genes: list[str] = tuple(shared["GENES"]),
    scale: str = "lognorm",
    smiles: str | None = None,
    features: pd.DataFrame | None = None,
    evidence: str = "auto",
) -> AnnData:
    """What `model.predict()` returns, with the change +-(1 + gene's number) * dose / (1 + dose)."""
    rng = np.random.default_rng(0)
    drugs = [drug] if isinstance(drug, str) else drug
    n_cells = 1 if as_ in {"mean", "delta"} else 4
    rows = [(d, s, c) for d in drugs for s in np.atleast_1d(dose).tolist() for c in cell_line for _ in range(n_cells)]
    obs = pd.DataFrame(rows, columns=["drug", "dose", "cell_line"], index=[f"p{i}" for i in range(len(rows))])
    effect = np.array([1.0 + i if i % 2 else -1.0 - i for i in range(len(genes))])
    response = (obs["dose"] / (1 + obs["dose"])).fillna(1).to_numpy()
    change = response[:, None] * effect
    control = rng.normal(size=change.shape)
    pred = AnnData((change if as_ == "delta" else control + change).astype("float32"), obs, pd.DataFrame(index=genes))
    pred.layers["control"] = control.astype("float32")
    pred.uns["scgim"] = {"settings": {"dose_unit": "uM"}, "prediction": {"kind": as_, "scale": scale}}
    return pred


@pytest.fixture(name="predict")
def _predict() -> Callable[..., AnnData]:
    return predict
