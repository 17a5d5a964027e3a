"""A training that is resumed from a checkpoint gives the model and the history of an uninterrupted training."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch

from scgim.train import Checkpoint

PLAN = {"search_rounds": 12, "search_patience": 4, "steps_per_epoch": 7}
SETTINGS = {
    "linear": {"gim": {"generator": "hill"}},
    "cross-validated": {"gim": {}},
    "hard": {"gim": {"intervention": "hard", "generator": "network"}},
    "network": {
        "gim": {"mechanism": "network", "generator": "hill"},
        "plan": {"mechanism_steps": 260, "generator_steps": 60, "search_rounds": 3},
    },
    "gradient": {
        "gim": {"structure": "gradient", "generator": "hill"},
        "plan": {"gradient_steps": 30, "search_rounds": 4, "mechanism_steps": 30, "generator_steps": 60},
    },
    "means": {"gim": {"likelihood": "means", "generator": "hill"}},
    "early stopping": {
        "gim": {"generator": "hill"},
        "train": {"train_size": 0.7, "early_stopping": True, "early_stopping_patience": 20},
        "plan": {"mechanism_steps": 30, "generator_steps": 400},
    },
}


class Keep(Checkpoint):
    """Checkpoints after every epoch, by phase, with the step in the phase."""

    def __init__(self, folder):
        super().__init__(None)
        self.folder, self.paths = folder, {}

    def on_train_epoch_end(self, trainer, pl_module):
        self.path = self.folder / f"{trainer.current_epoch}.ckpt"
        super().on_train_epoch_end(trainer, pl_module)
        self.paths.setdefault(pl_module.phase, []).append((pl_module.step_in_phase, self.path))


def train_options(setting, **more):
    plan = PLAN | {"mechanism_steps": 60, "generator_steps": 90} | setting.get("plan", {})
    return {"max_epochs": None, "plan_kwargs": plan, **setting.get("train", {}), **more}


def assert_same_history(one, other, rtol=0.0):
    assert list(one.history) == list(other.history)
    for name in one.history:
        pd.testing.assert_frame_equal(one.history[name], other.history[name], rtol=rtol, atol=0.0)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_resumes_at_any_step_of_any_phase(name, screen, fit, tmp_path, assert_same_bits):
    setting, keep = SETTINGS[name], Keep(tmp_path)
    whole = fit(screen(n_genes=8), gim=setting["gim"], train=train_options(setting, callbacks=[keep]))
    for phase, paths in keep.paths.items():
        places = {0, len(paths) // 2, len(paths) - 1}
        if (name, phase) == ("network", "mechanisms"):  # before and after the second E step
            places |= {next(i for i, (step, _) in enumerate(paths) if step > 200)}
        for place in sorted(places):
            path = paths[place][1]
            resumed = fit(screen(n_genes=8), gim=setting["gim"], train=train_options(setting, ckpt_path=str(path)))
            assert_same_bits(whole, resumed)
            assert_same_history(whole, resumed)
            np.testing.assert_array_equal(resumed.predict(as_="mean").X, whole.predict(as_="mean").X)
            assert repr(resumed) == repr(whole)


KILLED = """
import sys
import scgim

adata = scgim.datasets.simulate_screen(
    n_genes=6, n_drugs=10, n_cells=20, n_control=100, doses=(0.5, 1.0, 2.0), n_new_drugs=3
)
scgim.setup_anndata(
    adata, drug_key="drug", control="DMSO", scale="continuous", dose_key="dose", dose_unit="uM",
    features_key="drug_features",
)
model = scgim.GIM(adata, generator="hill")
model.train(callbacks=[scgim.train.Checkpoint(sys.argv[1])], enable_progress_bar=False)
"""


def test_a_killed_process_is_resumed(screen, fit, tmp_path, assert_same_bits):
    """As the user guide shows it: SIGKILL at a moment of its own, then `ckpt_path`."""
    last = tmp_path / "training.ckpt"
    script = subprocess.Popen([sys.executable, "-c", KILLED, str(last)], cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not last.exists() and script.poll() is None:
        time.sleep(0.01)
    time.sleep(0.2)
    script.kill()
    script.wait()
    train = {"max_epochs": None}
    resumed = fit(screen(), gim={"generator": "hill"}, train=train | {"ckpt_path": str(last)})
    whole = fit(screen(), gim={"generator": "hill"}, train=train)
    assert_same_bits(whole, resumed, rtol=1e-9)  # processes differ in last bits
    assert_same_history(whole, resumed, rtol=1e-9)


class Once(pl.Callback):
    """A checkpoint of the third epoch, within the epoch or at its end."""

    def __init__(self, path, hook):
        self.path = path
        setattr(self, hook, self._save)

    def _save(self, trainer, pl_module, *args):
        if trainer.current_epoch == 3:
            trainer.save_checkpoint(self.path)


def checkpoint(fit, adata, path, hook="on_train_epoch_end", **train):
    return fit(adata, gim={"generator": "hill"}, train={"callbacks": [Once(path, hook)], **train})


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_train_batch_end", "on_train_epoch_start"])
def test_checkpoints_within_an_epoch(hook, screen, fit, tmp_path, assert_same_bits):
    path = tmp_path / "x.ckpt"
    whole = checkpoint(fit, screen(), path, hook)
    resumed = fit(screen(), gim={"generator": "hill"}, train={"ckpt_path": path})
    assert_same_bits(whole, resumed)
    assert_same_history(whole, resumed)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        pytest.param({"train": {"seed": 3}}, r"\(seed: 0 there and 3 here\)", id="seed"),
        pytest.param({"train": {"max_epochs": 30}}, r"\(search_rounds: \d+ there and \d+ here\)", id="schedule"),
        pytest.param({"gim": {"generator": "network"}}, r"\(generator: 'hill' there and 'network' here\)", id="model"),
        pytest.param({"screen": {"n_genes": 7}}, r"\(genes: other names\)", id="genes"),
        pytest.param({"screen": {"n_cells": 21}}, r"\(cells: 700.0 there and 730.0 here\)", id="cells"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(other, message, screen, fit, tmp_path):
    path = tmp_path / "x.ckpt"
    checkpoint(fit, screen(), path)
    train = {"ckpt_path": path} | other.get("train", {})
    with pytest.raises(ValueError, match="belongs to another training " + message):
        fit(screen(**other.get("screen", {})), gim={"generator": "hill"} | other.get("gim", {}), train=train)


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("code-ran"),)


@pytest.mark.parametrize("damage", ["code", "cut", "empty", "text", "byte", "other", "bare"])
def test_damaged_checkpoints_run_no_code(damage, screen, fit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.ckpt"
    checkpoint(fit, screen(), path)
    good = path.read_bytes()
    if damage == "code":
        torch.save({"state_dict": {}, "scgim_schedule": Evil()}, path)
    elif damage in ("other", "bare"):
        torch.save({"state_dict": {}} if damage == "other" else [1, 2], path)
    else:
        broken = {"cut": good[: len(good) // 2], "empty": b"", "text": b"hello", "byte": b"\0" + good[1:]}
        path.write_bytes(broken[damage])
    with pytest.raises(ValueError, match=r"ckpt_path='.*x.ckpt' is .*Resume from another checkpoint, or train without"):
        fit(screen(), train={"ckpt_path": path})
    assert not (tmp_path / "code-ran").exists()
