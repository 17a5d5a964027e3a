"""A training that fails, is interrupted or is cut short gives no model, says why, and leaves the model before it whole."""

from __future__ import annotations

import os
import pickle
import signal

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

import scgim

QUIET = {"max_epochs": 20, "enable_progress_bar": False}
VERBS = {
    "predict": [],
    "rank_targets": [],
    "get_graph": [],
    "annotate": [],
    "do": [{"G0000": 1.0}],
    "stability": [],
    "save": ["nowhere"],
}


class At(pl.Callback):
    """Does something in the second epoch of a phase."""

    def __init__(self, phase, act):
        self.phase, self.act, self.seen = phase, act, 0

    def on_train_epoch_end(self, trainer, pl_module):
        self.seen += pl_module.phase == self.phase
        if self.seen == 2:
            self.act(trainer)


def power_cut(trainer):
    raise ZeroDivisionError("power cut")


def stop(trainer):
    trainer.should_stop = True


def ctrl_c(trainer):
    os.kill(os.getpid(), signal.SIGINT)


ENDINGS = {
    "error in a phase": ({"callbacks": [("mechanisms", power_cut)]}, ZeroDivisionError),
    "bad devices": ({"devices": "abc"}, TypeError),
    "no batches": ({"limit_train_batches": 0}, RuntimeError),
    "no time": ({"max_time": "00:00:00:00"}, RuntimeError),
    "few steps": ({"max_steps": 8}, RuntimeError),
    "stopped in the search": ({"callbacks": [("structure", stop)]}, RuntimeError),
    "stopped in the last phase": ({"callbacks": [("generator", stop)]}, RuntimeError),
    "interrupt in the search": ({"callbacks": [("structure", ctrl_c)]}, KeyboardInterrupt),
    "interrupt in the last phase": ({"callbacks": [("generator", ctrl_c)]}, KeyboardInterrupt),
    "infinite steps": ({"plan_kwargs": {"mechanism_lr": 1e300}}, RuntimeError),
    "no such checkpoint": ({"ckpt_path": "nowhere.ckpt"}, FileNotFoundError),
    "no such option": ({"plan_kwargs": {"search_rond": 3}}, ValueError),
}


def arguments(ending):
    train, error = ENDINGS[ending]
    callbacks = [At(*each) for each in train.get("callbacks", ())]
    return QUIET | train | ({"callbacks": callbacks} if callbacks else {}), error


@pytest.fixture
def untrained(screen, setup_kwargs):
    adata = screen()
    scgim.setup_anndata(adata, **setup_kwargs)
    return scgim.GIM(adata, generator="hill")


@pytest.fixture(scope="module")
def trained(screen, fit):
    return fit(screen(), gim={"generator": "hill"})


@pytest.mark.parametrize("ending", list(ENDINGS))
def test_the_model_trained_before_survives(trained, ending, capfd):
    want, state, history = trained.predict(as_="mean").X, pickle.dumps(trained.module.state_dict()), trained.history
    train, error = arguments(ending)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(error):
        trained.train(**train)
    assert signal.getsignal(signal.SIGINT) is handler
    assert trained.is_trained_
    assert trained.history is history
    np.testing.assert_array_equal(trained.predict(as_="mean").X, want)
    assert pickle.dumps(trained.module.state_dict()) == state
    assert "Exception raised" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("ending", [ending for ending in ENDINGS if ending != "no such option"])
def test_a_first_training_that_fails_gives_no_model_and_says_why(untrained, ending, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, error = arguments(ending)
    with pytest.raises(error) as caught:
        untrained.train(**train)
    assert not untrained.is_trained_
    for verb, args in VERBS.items():
        with pytest.raises(RuntimeError, match=f"not trained, because train.. ended with {caught.type.__name__}"):
            getattr(untrained, verb)(*args)
    assert not list(tmp_path.iterdir())
    assert f"no: train() ended with {caught.type.__name__}" in repr(untrained)


def test_after_a_failure_training_starts_afresh(untrained, trained, assert_same_bits):
    with pytest.raises(ZeroDivisionError):
        untrained.train(**QUIET, callbacks=[At("generator", power_cut)])
    untrained.train(**QUIET)
    assert_same_bits(untrained, trained)
    assert "trained        seed 0" in repr(untrained)


def test_the_best_weights_are_kept_on_an_interrupt(untrained):
    plan = {"steps_per_epoch": 1, "mechanism_steps": 60, "generator_steps": 400, "search_rounds": 3}
    losses = []

    class Interrupt(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if pl_module.memory.get("best") is not None:
                losses.append(pl_module.memory["best"])
                if pl_module.step_in_phase - losses[-1]["step"] > 3:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="in step .* of phase 'generator', epoch"):
        untrained.train(
            train_size=0.7,
            plan_kwargs=plan,
            early_stopping=True,
            early_stopping_patience=50,
            callbacks=[Interrupt()],
            enable_progress_bar=False,
        )
    for name, value in untrained.module.generator.state_dict().items():
        assert torch.equal(value, losses[-1]["state"][name])


@pytest.mark.parametrize("phase", ["mechanisms", "generator"])
def test_a_loss_that_is_not_finite(untrained, phase):
    rate = {"mechanisms": "mechanism_lr", "generator": "generator_lr"}[phase]
    plan = {"mechanism_steps": 0} if phase == "generator" else {}
    with pytest.raises(RuntimeError) as caught:
        untrained.train(plan_kwargs={rate: 1e200, **plan}, enable_progress_bar=False)
    message = str(caught.value)
    assert f"of phase {phase!r}, epoch" in message
    assert f"Suspects: plan_kwargs {rate}=1e+200 (default " in message
    assert "weights before this step are back" in message
    for name, value in untrained.module.named_parameters():
        assert torch.isfinite(value).all(), name


def test_a_score_that_is_not_finite_ends_the_search(untrained, monkeypatch):
    class Poison(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            statistics = pl_module.data.search
            statistics.scatter[:] = np.nan

    with pytest.raises(
        RuntimeError, match=r"in step \d of phase 'structure', epoch \d.*largest mean change.*gene 'G000"
    ):
        untrained.train(**QUIET, callbacks=[Poison()])


def test_a_training_cut_short_names_its_place(untrained):
    with pytest.raises(
        RuntimeError, match=r"cut short in step \d+ of phase 'generator', epoch \d+.*max_time, max_steps"
    ):
        untrained.train(**QUIET, callbacks=[At("generator", stop)])
