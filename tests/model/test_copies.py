"""Copies of a model, by copy, pickle and joblib, answer and train as the original."""

from __future__ import annotations

import copy
import pickle

import joblib
import numpy as np
import pytest

import scgim


def by_joblib(model, tmp_path):
    joblib.dump(model, tmp_path / "model.joblib")
    return joblib.load(tmp_path / "model.joblib")


WAYS = {
    "copy": lambda model, tmp_path: copy.copy(model),
    "deepcopy": lambda model, tmp_path: copy.deepcopy(model),
    "pickle": lambda model, tmp_path: pickle.loads(pickle.dumps(model)),
    "joblib": by_joblib,
}


@pytest.fixture
def original(screen, fit):
    return fit(screen(), gim={"generator": "hill"})


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("kind", ["trained", "loaded", "untrained"])
def test_copies_answer_as_the_original(way, kind, original, tmp_path):
    if kind == "loaded":
        original.save(tmp_path / "model")
        original = scgim.GIM.load(tmp_path / "model")
    if kind == "untrained":
        original = scgim.GIM(original.adata)
    copied = WAYS[way](original, tmp_path)
    assert repr(copied) == repr(original)
    if kind == "untrained":
        return
    for model in (copied, original):
        np.testing.assert_array_equal(model.predict(as_="mean").X, original.predict(as_="mean").X)
        model.save(tmp_path / "again", overwrite=True)


@pytest.mark.parametrize("way", list(WAYS))
def test_a_copy_has_a_life_of_its_own(way, original, tmp_path, assert_same_bits):
    want = original.predict(as_="mean").X
    copied = WAYS[way](original, tmp_path)
    copied.train(max_epochs=20, seed=3, enable_progress_bar=False)
    copied.annotate()
    assert copied.seed_ == 3
    assert original.seed_ == 0
    np.testing.assert_array_equal(original.predict(as_="mean").X, want)
    for model in (original, copied):  # both sets of data are still set up
        again = scgim.GIM(model.adata, generator="hill")
        again.train(max_epochs=20, enable_progress_bar=False)
        assert_same_bits(again, original)
    if way != "copy":
        assert "scgim_shift" not in original.adata.obsm
