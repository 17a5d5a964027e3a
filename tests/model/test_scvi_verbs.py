"""Verbs of scvi-tools' base class work on scgim's files, or refuse in a sentence; a former name stays."""

from __future__ import annotations

import pytest

import scgim


def test_the_registry_of_a_saved_model(model, tmp_path, capsys):
    model.save(tmp_path / "model")
    registry = scgim.GIM.load_registry(tmp_path / "model")
    assert registry["setup_args"] == model.registry_["setup_args"]
    scgim.GIM.view_setup_args(tmp_path / "model")
    assert "drug_key" in capsys.readouterr().out


@pytest.mark.parametrize(
    "verb",
    [
        "convert_legacy_save",
        "setup_annbatch",
        "setup_datamodule",
        "get_normalized_expression",
        "differential_abundance",
    ],
)
def test_verbs_without_meaning_refuse(model, verb):
    with pytest.raises(NotImplementedError, match=rf"GIM\.{verb} does not exist.*\."):
        getattr(model, verb)()


def test_the_model_stays_on_the_cpu(model):
    model.to_device("cpu")
    assert model.device.type == "cpu"
    with pytest.raises(NotImplementedError, match="CPU"):
        model.to_device("cuda")


def test_another_accelerator_is_answered_by_a_warning(screen, fit, assert_same_bits):
    expected = fit(screen(), train={"max_epochs": 30})
    with pytest.warns(UserWarning, match="accelerator='gpu'.*CPU"):
        found = fit(screen(), train={"max_epochs": 30, "accelerator": "gpu"})
    assert_same_bits(found, expected)


def test_the_former_name_of_the_summary(model):
    assert model.fitted is model.summary_
    with pytest.raises(AttributeError):
        model.fitted = None
