"""What CONTRIBUTING promises: a new generator or mechanism is one class and one entry."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import scgim
from scgim.module import GENERATORS, MECHANISMS

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTION = re.search(r"^## A new mechanism or generator\n(.*?)^## ", TEXT, flags=re.MULTILINE | re.DOTALL).group(1)
EXAMPLES = re.findall(r"^```python\n(.*?)^```", SECTION, flags=re.MULTILINE | re.DOTALL)
QUICK = {
    "enable_progress_bar": False,
    "plan_kwargs": {"mechanism_steps": 40, "generator_steps": 50, "search_rounds": 5},
}


@pytest.fixture
def example():
    """Runs one of the examples; what it registered is gone after the test."""
    before = {id(registry): dict(registry) for registry in (GENERATORS, MECHANISMS)}

    def run(number):
        exec(compile(EXAMPLES[number], "CONTRIBUTING.md", "exec"), {"__name__": "example"})
        return [name for registry in (GENERATORS, MECHANISMS) for name in registry if name not in before[id(registry)]]

    yield run
    for registry in (GENERATORS, MECHANISMS):
        registry.clear()
        registry.update(before[id(registry)])


@pytest.fixture
def adata():
    adata = scgim.datasets.simulate_screen(
        n_genes=6, n_drugs=10, n_cells=20, n_control=200, doses=(0.5, 1.0), n_new_drugs=2
    )
    scgim.setup_anndata(
        adata,
        drug_key="drug",
        control="DMSO",
        scale="continuous",
        dose_key="dose",
        dose_unit="uM",
        features_key="drug_features",
    )
    return adata


@pytest.fixture
def near(adata):
    """A drug that was not measured, closest to the first one that was."""
    features = adata.uns["drug_features"].iloc[[0]].rename(index=lambda _: "new").astype(float)
    return features + 0.01


def test_examples_are_short():
    assert len(EXAMPLES) == 2
    assert all(len(text.splitlines()) <= 30 for text in EXAMPLES)


@pytest.mark.parametrize("intervention", ["shift", "hard"])
def test_generator(example, adata, near, intervention, tmp_path):
    assert example(0) == ["nearest"]
    model = scgim.GIM(adata, generator="nearest", intervention=intervention)
    model.train(**QUICK)
    assert "nearest (as asked)" in repr(model)
    new = model.predict(drug="new", features=near, dose=1.0, as_="delta")
    known = model.predict(drug=model.drugs[0], dose=1.0, as_="delta", evidence="features")
    np.testing.assert_array_equal(new.X, known.X)
    assert np.abs(new.X).max() > 0.1
    others = [model.predict(drug=drug, dose=1.0, as_="delta").X for drug in model.drugs[1:]]
    assert not any(np.array_equal(new.X, other) for other in others)
    np.testing.assert_allclose(model.predict(drug="new", features=near, dose=0.0, as_="delta").X, 0, atol=1e-6)
    assert set(model.rank_targets()["evidence"]) == {"data"}

    model.save(tmp_path / "model")
    again = scgim.GIM.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(drug="new", features=near, dose=1.0, as_="delta").X, new.X)


def test_mechanism(example, adata, tmp_path):
    assert example(1) == ["wide"]
    model = scgim.GIM(adata, mechanism="wide", generator="mean")
    model.train(**QUICK)
    assert model.module.mechanism.outer.shape == (6, 32)
    moved = model.predict(drug=model.drugs[0], dose=1.0, as_="delta")
    model.save(tmp_path / "model")
    again = scgim.GIM.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(drug=model.drugs[0], dose=1.0, as_="delta").X, moved.X)


def test_examples_leave_nothing_behind(example, adata):
    assert not {"nearest", "wide"} & {*GENERATORS, *MECHANISMS}
    with pytest.raises(ValueError, match="nearest"):
        scgim.GIM(adata, generator="nearest")
