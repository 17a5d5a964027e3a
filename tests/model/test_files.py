"""Saved models: replaced in one step, checked to the bit, and refused in one sentence if they are damaged."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import scgim
from scgim.model import _io

FIXTURES = Path(__file__).parent / "formats"


@pytest.fixture(scope="module")
def two(screen, fit):
    """Two models of different genes, so that a mixture would be seen."""
    other = screen(seed=5)
    other.var_names = ["NEW" + name for name in other.var_names]
    return fit(screen(), gim={"generator": "hill"}), fit(other, gim={"generator": "hill"})


def same(one, other):
    a, b = (model.predict(as_="mean") for model in (one, other))
    return list(a.var_names) == list(b.var_names) and np.array_equal(a.X, b.X)


@pytest.fixture
def folder(two, tmp_path):
    two[0].save(tmp_path / "model")
    return tmp_path / "model"


# ---- one step --------------------------------------------------------------------------------------------------------

STEPS = {"_write_file": _io, "_sync": _io, "rename": Path, "replace": Path, "rmdir": Path, "mkdir": Path}


def failing(monkeypatch, name, number, failure):
    """The call ``number`` of a step does half of its work and fails."""
    real, seen = getattr(STEPS[name], name), []

    def fails(path, *args, **kwargs):
        seen.append(path)
        if len(seen) == number:
            if name == "_write_file":
                Path(path).write_bytes(args[0][: len(args[0]) // 2])
            failure()
        return real(path, *args, **kwargs)

    monkeypatch.setattr(STEPS[name], name, fails)
    return seen


def no_space():
    raise OSError(errno.ENOSPC, "No space left on device")


CALLS = [("_write_file", 1), ("_write_file", 2), ("_sync", 1), ("_sync", 2), ("rename", 1)]
CALLS += [("replace", 1), ("replace", 2), ("rmdir", 1), ("mkdir", 2)]


@pytest.mark.parametrize(("name", "number"), CALLS)
def test_a_process_killed_at_any_step_leaves_the_old_model_or_the_new_one(name, number, two, folder, monkeypatch):
    child = _fork()
    if child == 0:
        failing(monkeypatch, name, number, lambda: os._exit(9))
        two[1].save(folder, overwrite=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    found = scgim.GIM.load(folder)
    assert same(found, two[name in ("replace", "rmdir") or (name, number) == ("_sync", 2)])
    two[1].save(folder, overwrite=True)  # a later save ends what was begun
    assert same(scgim.GIM.load(folder), two[1])
    assert not (folder / ".scgim-new").exists()


def _fork():
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of threads, which save does not use
        return os.fork()


@pytest.mark.parametrize(("name", "number"), [each for each in CALLS if each[0] in ("_write_file", "rename", "mkdir")])
def test_a_full_disk_leaves_the_old_model(name, number, two, folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with monkeypatch.context() as patch:
        failing(patch, name, number, no_space)
        with pytest.raises(OSError, match="No space left.*folder is as before") as caught:
            two[1].save(folder, overwrite=True)
    assert caught.value.errno == errno.ENOSPC
    assert str(folder) in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert same(scgim.GIM.load(folder), two[0])


def test_a_first_save_that_fails_leaves_nothing(two, tmp_path, monkeypatch):
    failing(monkeypatch, "_write_file", 2, no_space)
    with pytest.raises(OSError, match="No space left"):
        two[0].save(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_a_folder_without_permission(two, folder, monkeypatch):
    def refused():
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        failing(patch, "mkdir", 2, refused)
        with pytest.raises(PermissionError, match="Permission denied.*check permissions"):
            two[1].save(folder, overwrite=True)
    assert same(scgim.GIM.load(folder), two[0])


def test_files_of_others_in_the_folder_stay(two, folder):
    (folder / "notes.txt").write_text("mine")
    two[1].save(folder, overwrite=True)
    assert {path.name for path in folder.iterdir()} == {"model.json", "model.safetensors", "notes.txt"}


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_permissions_follow_the_umask(two, tmp_path, mask):
    before = os.umask(mask)
    try:
        two[0].save(tmp_path / "new" / "model")
    finally:
        os.umask(before)
    mode = lambda path: stat.S_IMODE(path.stat().st_mode)
    assert mode(tmp_path / "new" / "model") == 0o777 & ~mask
    for file in (tmp_path / "new" / "model").iterdir():
        assert mode(file) == 0o666 & ~mask


def test_only_the_first_of_several_processes_saves(two, tmp_path, monkeypatch):
    monkeypatch.setattr(two[0], "_process", 1)
    two[0].save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_two_processes_that_save_at_once_leave_one_whole_model(two, tmp_path):
    child = _fork()
    for _ in range(15):
        two[child > 0].save(tmp_path / "model", overwrite=True)
    if child == 0:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    found = scgim.GIM.load(tmp_path / "model")
    assert same(found, two[0]) or same(found, two[1])
    assert len(list((tmp_path / "model").iterdir())) == 2


# ---- damage ----------------------------------------------------------------------------------------------------------


def unchecked(folder):
    """The same model as older versions wrote it, without checksum."""
    saved = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({"format": 1, "state": saved["state"]}))


def damaged(folder):
    return pytest.raises(ValueError, match=rf"^{folder} is damaged \(.+\), so no model was loaded: copy the folder")


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_every_flipped_bit_is_found(name, folder):
    good, rng = (folder / name).read_bytes(), np.random.default_rng(0)
    for place in rng.integers(len(good), size=25):
        content = bytearray(good)
        content[place] ^= 1 << int(rng.integers(8))
        (folder / name).write_bytes(bytes(content))
        with damaged(folder):
            scgim.GIM.load(folder)


FILES = {
    "no tensors": lambda f: (f / "model.safetensors").unlink(),
    "tensors cut": lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-7]),
    "tensors empty": lambda f: (f / "model.safetensors").write_bytes(b""),
    "tensors are text": lambda f: (f / "model.safetensors").write_text("hello"),
    "json cut": lambda f: (f / "model.json").write_text((f / "model.json").read_text()[:-7]),
    "json empty": lambda f: (f / "model.json").write_text(""),
    "json not utf-8": lambda f: (f / "model.json").write_bytes(b"\xff\xfe{}"),
    "json deep": lambda f: (f / "model.json").write_text("[" * 100_000),
    "json a list": lambda f: (f / "model.json").write_text("[]"),
    "json of nothing": lambda f: (f / "model.json").write_text("{}"),
    "format 0": lambda f: _json(f, "format", 0),
    "format NaN": lambda f: _json(f, "format", float("nan")),
    "format text": lambda f: _json(f, "format", "2"),
    "no checksum": lambda f: _json(f, "sha256", None),
    "other checksum": lambda f: _json(f, "sha256", "0" * 64),
    "state a list": lambda f: _json(f, "state", []),
}


def _json(folder, key, value):
    saved = json.loads((folder / "model.json").read_text()) | {key: value}
    (folder / "model.json").write_text(json.dumps(saved))


@pytest.mark.parametrize("name", list(FILES))
def test_damaged_files(name, folder):
    FILES[name](folder)
    with damaged(folder):
        scgim.GIM.load(folder)
    with damaged(folder):
        scgim.GIM.load_registry(folder)


def put(key, value, at=...):
    def change(tensors):
        tensors[key][at] = value

    return change


def shorter(key):
    def change(tensors):
        tensors[key] = tensors[key][:-1].copy()

    return change


TENSORS = {
    "column beyond the genes": put("/fitted/controls/indices", 10**6),
    "negative column": put("/fitted/controls/indices", -1, 0),
    "pointer beyond the data": put("/fitted/controls/indptr", 10**6, 1),
    "pointer that falls": put("/fitted/controls/indptr", 0, 5),
    "NaN weight": put("/module/mechanism.skip", np.nan),
    "infinite control": put("/fitted/controls/data", np.inf, 3),
    "scale 0": put("/fitted/scale", 0.0, 0),
    "NaN mean": put("/fitted/group_mean", np.nan),
    "cycle": put("/module/mechanism.graph", True),
    "drug beyond the drugs": put("/fitted/design/drug", 99, 0),
    "negative line": put("/fitted/design/line", -1, 0),
    "control group beyond the groups": put("/fitted/control_group", 7, 0),
    "graph of an ensemble beyond the genes": put("/averaging/graphs/source", 99, 0),
    "a gene less": shorter("/fitted/scale"),
    "a condition less": shorter("/fitted/design/dose"),
    "a bias less": shorter("/module/mechanism.bias"),
    "a feature less": shorter("/fitted/design/feature_scale"),
    "effects of another size": shorter("/module/generator.effect"),
    "no tensor": lambda tensors: tensors.pop("/module/generator.logit"),
    "text for numbers": lambda tensors: tensors.update({"/fitted/scale": np.zeros((2, 2, 2))}),
}


@pytest.mark.parametrize("name", list(TENSORS))
def test_tensors_of_models_without_checksum(name, folder):
    unchecked(folder)
    assert scgim.GIM.load(folder).is_trained
    tensors = {key: value.copy() for key, value in load_file(folder / "model.safetensors").items()}
    TENSORS[name](tensors)
    save_file(tensors, folder / "model.safetensors")
    with damaged(folder):
        scgim.GIM.load(folder)


@pytest.mark.parametrize("key", ["registry", "table", "settings", "generator", "choice", "fitted", "module", "seed"])
def test_entries_of_models_without_checksum(key, folder):
    unchecked(folder)
    saved = json.loads((folder / "model.json").read_text())
    for broken in (
        {k: v for k, v in saved["state"].items() if k != key},
        saved["state"] | {key: {"_tensor": "nowhere"}},
    ):
        (folder / "model.json").write_text(json.dumps({"format": 1, "state": broken}))
        with damaged(folder):
            scgim.GIM.load(folder)


def test_a_mixture_of_two_models_is_found(two, folder, tmp_path):
    two[1].save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    with damaged(folder):
        scgim.GIM.load(folder)


@pytest.mark.parametrize("version", sorted(path.name for path in FIXTURES.iterdir()))
def test_models_of_every_format_load(version, tmp_path):
    model = scgim.GIM.load(FIXTURES / version)
    np.testing.assert_allclose(model.predict(as_="mean").X, np.load(FIXTURES / version / "mean.npy"), rtol=1e-5)
    model.save(tmp_path / "again")
    assert same(scgim.GIM.load(tmp_path / "again"), model)


def without_features(adata):
    adata.uns["drug_features"].iloc[0] = np.nan


def in_pairs(adata):
    names = adata.obs["drug"].astype(str).to_numpy()
    second = np.where((np.arange(len(names)) % 7 == 0) & ~np.isin(names, ["DMSO", "drug-003"]), "drug-003", "")
    adata.obs["second"] = second
    adata.obs["second dose"] = np.where(second == "", np.nan, 1.0)


NO_DOSE = {"dose_key": None, "dose_unit": None}
PAIRS = {"drug_key": ["drug", "second"]}
SETTINGS = {
    "identity": {"features_key": None},
    "no doses": NO_DOSE,
    "few drugs": {"screen": {"n_drugs": 3}},
    "one drug averaged": {"gim": {"generator": "mean"}, "screen": {"doses": (1.0,)}},
    "kernel": {"gim": {"generator": "kernel"}, "change": without_features},
    "network": {"gim": {"generator": "network", "dose_response": "free"}, "change": without_features},
    "network mechanisms": {"gim": {"mechanism": "network", "intervention": "hard"}},
    "scales": {"gim": {"scale_shift": True}},
    "means": {"gim": {"likelihood": "means"}},
    "more genes than cells": {"screen": {"n_genes": 120, "n_drugs": 8, "n_cells": 1, "n_control": 20, "doses": (1.0,)}},
    "combinations": {**PAIRS, "dose_key": ["dose", "second dose"], "change": in_pairs},
    "combinations without doses": {**PAIRS, **NO_DOSE, "change": in_pairs},
}


@pytest.mark.parametrize("name", list(SETTINGS))
@pytest.mark.parametrize("checked", [True, False])
def test_no_whole_model_is_refused(name, checked, screen, fit, tmp_path):
    setting = dict(SETTINGS[name])
    adata = screen(**setting.pop("screen", {}))
    setting.pop("change", lambda adata: None)(adata)
    with warnings.catch_warnings(action="ignore"):
        model = fit(adata, gim=setting.pop("gim", {}), **setting)
    model.save(tmp_path / "model")
    if not checked:
        unchecked(tmp_path / "model")
    assert same(scgim.GIM.load(tmp_path / "model"), model)
