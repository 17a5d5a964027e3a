"""Data and models are let go when nobody owns them, and repeated calls need no more memory."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest

import scgim
from scgim.model import _training_mixin


def alive(refs):
    gc.collect()
    return [ref() is not None for ref in refs]


def of_this_class():
    return len(scgim.GIM._setup_adata_manager_store), len(scgim.GIM._per_instance_manager_store)


def test_set_up_keeps_no_data_alive(screen, setup_kwargs):
    gc.collect()
    before, refs = of_this_class(), []
    for _ in range(5):
        adata = screen()
        refs.append(weakref.ref(adata))
        scgim.setup_anndata(adata, **setup_kwargs)
        scgim.setup_anndata(adata, **setup_kwargs)
        model = scgim.GIM(adata)
        refs.append(weakref.ref(model))
        del adata, model
    assert not any(alive(refs))
    assert of_this_class() == before


def test_a_model_keeps_its_data(screen, setup_kwargs):
    adata = screen()
    scgim.setup_anndata(adata, **setup_kwargs)
    model, ref = scgim.GIM(adata), weakref.ref(adata)
    del adata
    assert alive([ref]) == [True]
    model.train(max_epochs=20, enable_progress_bar=False)
    model.annotate()
    assert "scgim_shift" in ref().obsm


@pytest.mark.parametrize("way", ["load", "deepcopy", "pickle"])
def test_other_ways_to_a_model_keep_no_data_alive(way, screen, fit, tmp_path):
    gc.collect()
    before = of_this_class()
    model = fit(screen())
    model.save(tmp_path / "model")
    if way == "load":
        other = scgim.GIM.load(tmp_path / "model", screen())
    else:
        other = copy.deepcopy(model) if way == "deepcopy" else pickle.loads(pickle.dumps(model))
    refs = [weakref.ref(each) for each in (model, model.adata, other, other.adata)]
    del model, other
    assert not any(alive(refs))
    assert of_this_class() == before


@pytest.mark.parametrize(
    "gim", [{}, {"mechanism": "network"}, {"intervention": "hard"}], ids=["linear", "network", "hard"]
)
def test_a_trained_model_lets_its_training_data_go(gim, screen, fit, monkeypatch):
    refs, run = [], _training_mixin.run

    def spy(model, plan, data, trainer):
        refs.extend(weakref.ref(each) for each in (data, data.conditions.mean, plan.regression))
        refs.extend(weakref.ref(each) for each in (data.store,) if each is not None)
        run(model, plan, data, trainer)

    monkeypatch.setattr(_training_mixin, "run", spy)
    model = fit(screen(), gim=gim)
    assert not any(alive(refs))
    assert model.trainer.current_epoch > 0


@pytest.mark.parametrize("call", ["predict", "rank_targets", "train"])
def test_repeated_calls_need_no_more_memory(call, screen, fit):
    model = fit(screen())
    again = {
        "predict": lambda: model.predict(),
        "rank_targets": lambda: model.rank_targets(),
        "train": lambda: model.train(max_epochs=20, enable_progress_bar=False),
    }[call]
    for _ in range(3):
        again()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(5):
        again()
    gc.collect()
    assert len(gc.get_objects()) - before < 50  # a result or a training that is kept has hundreds
