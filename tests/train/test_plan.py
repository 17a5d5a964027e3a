from __future__ import annotations

import anndata as ad
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import scvi
from anndata.tests.helpers import assert_equal
from lightning.pytorch.loggers import CSVLogger
from scvi.train import SaveCheckpoint

import scgim
from scgim.data._training_data import read_training_data
from scgim.data._validation_data import validation_cells

PHASES = ["structure_score", "mechanisms_nll", "generator_nll"]
QUIET = {"enable_progress_bar": False}


def untrained(adata, setup, **options):
    scgim.setup_anndata(adata, **setup)
    return scgim.GIM(adata, **options)


# ---- history and schedule --------------------------------------------------------------------------------------------


def test_history_tells_of_all_phases(model):
    assert list(model.history) == list(PHASES)
    start = 0
    for phase in PHASES:
        frame = model.history[phase]
        assert list(frame) == [phase]
        assert frame.index.tolist() == list(range(frame.index[0], frame.index[0] + len(frame)))
        assert frame.index[0] in (start, start - 1)  # an epoch of several steps may see the end of a phase
        assert np.isfinite(frame[phase].astype(float)).all()
        start = frame.index[-1] + 1
    assert start <= 40
    score = model.history["structure_score"]["structure_score"].astype(float)
    assert (score.diff().dropna() <= 1e-9).all()
    mechanisms, generator = (model.history[p][p].astype(float) for p in PHASES[1:])
    assert mechanisms.iloc[-1] < mechanisms.iloc[0]
    assert generator.iloc[-1] < generator.iloc[0]


@pytest.mark.parametrize("max_epochs", [4, 5, 11, 60])
def test_max_epochs_shortens_every_phase(screen, fit, max_epochs):
    model = fit(screen(), gim={"generator": "hill"}, train={"max_epochs": max_epochs})
    assert list(model.history) == PHASES
    assert model.trainer.current_epoch <= max_epochs
    assert model.history["generator_nll"].index[-1] < max_epochs


@pytest.mark.parametrize("max_epochs", [0, 1, 3, -1])
def test_too_few_epochs(screen, setup_kwargs, max_epochs):
    model = untrained(screen(), setup_kwargs)
    with pytest.raises(ValueError, match=f"max_epochs={max_epochs} is too few for three phases"):
        model.train(max_epochs=max_epochs, **QUIET)


def test_plan_kwargs_reach_the_plan(screen, fit):
    plan = {"search_rounds": 3, "mechanism_steps": 40, "generator_steps": 60, "steps_per_epoch": 20}
    model = fit(screen(), train={"max_epochs": None, "plan_kwargs": plan})
    assert len(model.history["structure_score"]) <= 4
    assert [len(model.history[phase]) for phase in PHASES[1:]] == [3, 4]


def test_a_second_call_starts_afresh(screen, fit, assert_same_bits):
    once, twice = fit(screen()), fit(screen(), train={"max_epochs": 30, "seed": 5})
    twice.train(max_epochs=20, **QUIET)
    assert_same_bits(once, twice)
    for phase in PHASES:
        pd.testing.assert_frame_equal(once.history[phase], twice.history[phase])


def test_no_structure(screen, fit, tmp_path):
    model = fit(screen(), gim={"structure": "none", "generator": "hill"})
    assert list(model.history) == PHASES[1:]
    for kind, columns in (
        ("direct", ["source", "target", "weight", "sign", "strength"]),
        ("total", ["source", "target", "weight", "sign"]),
    ):
        table = model.get_graph(kind=kind)
        assert table.empty
        assert list(table) == columns
    moved = model.do({"G0002": 1.0}, as_="delta").X[0]
    assert np.flatnonzero(moved).tolist() == [2]
    model.annotate()
    model.adata.write_h5ad(tmp_path / "screen.h5ad")
    assert_equal(ad.read_h5ad(tmp_path / "screen.h5ad"), model.adata)
    assert scgim.get.graph_df(model.adata).empty


# ---- the trainer -----------------------------------------------------------------------------------------------------


class Count(pl.Callback):
    def __init__(self):
        self.epochs = 0

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs += 1


@pytest.mark.parametrize("bar", [False, True])
def test_callbacks(screen, fit, bar):
    callbacks = [Count()]
    model = fit(screen(), train={"callbacks": callbacks, "enable_progress_bar": bar})
    assert len(callbacks) == 1
    assert callbacks[0].epochs == model.trainer.current_epoch > 0


def test_the_bar_is_one_line(screen, fit, capfd):
    fit(screen(), train={"enable_progress_bar": True})
    out, err = capfd.readouterr()
    assert (out + err).strip("\r\n").count("\n") == 0
    fit(screen())
    out, err = capfd.readouterr()
    assert out == err == ""


def test_logger(screen, fit, tmp_path):
    model = fit(screen(), train={"logger": CSVLogger(tmp_path)})
    table = pd.read_csv(next(tmp_path.rglob("metrics.csv")))
    assert set(PHASES) <= set(table)
    assert table["generator_nll"].notna().any()
    model.save(tmp_path / "model")
    assert scgim.GIM.load(tmp_path / "model").is_trained


def test_without_a_logger(screen, fit):
    fit(screen(), train={"logger": False}).predict(as_="mean")


@pytest.mark.parametrize("own", [False, True])
def test_checkpoints_of_scvi(screen, fit, tmp_path, monkeypatch, own):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scvi.settings, "logging_dir", tmp_path)
    callback = SaveCheckpoint("checkpoints", filename="best", monitor="mechanisms_nll")
    model = fit(screen(), train={"callbacks": [callback]} if own else {"enable_checkpointing": True})
    with pytest.warns(UserWarning, match="saved during training. Its predictions are those of an unfinished model"):
        best = scgim.GIM.load(model.trainer.checkpoint_callback.best_model_path)
    assert best.predict(as_="mean").shape == model.predict(as_="mean").shape
    assert (model.module.mechanism.graph == best.module.mechanism.graph).all()
    if not own:
        score = model.history["generator_nll"]["generator_nll"].astype(float)
        assert float(model.trainer.checkpoint_callback.best_model_score) == pytest.approx(score.min())


# ---- validation conditions ---------------------------------------------------------------------------------------------


def test_validation_contexts_are_held_out_whole(screen, fit, assert_same_bits):
    model = fit(screen(), train={"train_size": 0.8})
    assert list(model.history) == [*PHASES, "nll_validation"]
    assert len(model.history["nll_validation"]) == len(model.history["generator_nll"])
    measured = set(model.rank_targets()[["drug", "dose"]].drop_duplicates().itertuples(index=False, name=None))
    assert len(measured) == 24
    obs = model.adata.obs
    asked = list(zip(obs["drug"], obs["dose"], strict=True))
    held = np.array([drug != "DMSO" and (drug, dose) not in measured for drug, dose in asked])
    assert held.sum() == 6 * 20
    assert int(model.summary_.statistics.n_cells) == 700 - 120
    other = screen()
    other.X[held] = np.random.default_rng(0).normal(size=(held.sum(), 6)).astype(np.float32)
    assert_same_bits(model, fit(other, train={"train_size": 0.8}))
    drug, dose = asked[int(np.flatnonzero(held)[0])]
    assert set(model.rank_targets(drug=drug, dose=dose)["evidence"]) == {"features"}


def validation_loss(model, train_size):
    """`nll_validation` of a trained model, computed anew."""
    screen = model._screen()
    held = validation_cells(screen.conditions, 1 - train_size, seed=0)
    data = read_training_data(screen, model.drug_table_.frame, seed=0, held=held)
    moments = model.module.mechanism.moments(data.held, data.controls)
    return -model.module.log_likelihood(
        data.held, moments, target_penalty=model.module.generator_penalty
    ).sum().item() / len(data.held.n)


@pytest.mark.parametrize("patience", [20, 10_000])
def test_early_stopping_restores_the_best(screen, fit, patience):
    plan = {"steps_per_epoch": 1, "mechanism_steps": 60, "generator_steps": 400, "search_rounds": 3}
    train = {"max_epochs": None, "train_size": 0.7, "plan_kwargs": plan, "early_stopping": True}
    model = fit(screen(), gim={"generator": "hill"}, train=train | {"early_stopping_patience": patience})
    loss = model.history["nll_validation"]["nll_validation"].astype(float).to_numpy()
    assert len(loss) < 400 if patience == 20 else len(loss) == 400
    free = loss[120:]  # the first 0.3 of the steps are told the targets
    assert validation_loss(model, 0.7) == pytest.approx(free.min(), rel=1e-6)
    if patience == 20:
        assert len(free) - 1 - free.argmin() == 20


def test_without_early_stopping_the_last_weights_stay(screen, fit):
    model = fit(screen(), gim={"generator": "hill"}, train={"train_size": 0.7})
    loss = model.history["nll_validation"]["nll_validation"].astype(float).to_numpy()
    assert validation_loss(model, 0.7) == pytest.approx(loss[-1], rel=1e-6)


def test_validation_in_lines(in_lines, fit):
    model = fit(in_lines(2.0), train={"train_size": 0.8}, cell_line_key="line", batch_key="plate")
    assert len(model.summary_.design.drug) == 48
    assert np.isfinite(model.history["nll_validation"]["nll_validation"].astype(float)).all()


@pytest.mark.parametrize(
    ("train", "message"),
    [
        pytest.param({"early_stopping": True}, "needs validation conditions: pass train_size < 1", id="no validation"),
        pytest.param({"train_size": 0}, r"a share of conditions in \(0, 1\], got 0", id="train_size 0"),
        pytest.param({"train_size": 1.2}, "got 1.2", id="train_size above 1"),
        pytest.param({"train_size": np.nan}, "got nan", id="train_size NaN"),
    ],
)
def test_train_refusals(screen, setup_kwargs, train, message):
    model = untrained(screen(), setup_kwargs)
    with pytest.raises(ValueError, match=message):
        model.train(**train, **QUIET)


def test_validation_needs_two_contexts(screen, setup_kwargs):
    adata = screen(n_drugs=8, doses=(1.0, 2.0))
    adata = adata[
        (adata.obs["drug"] == "DMSO") | ((adata.obs["drug"] == "drug-001") & (adata.obs["dose"] == 1.0))
    ].copy()
    with pytest.raises(ValueError, match="at least two conditions"):
        untrained(adata, setup_kwargs).train(train_size=0.5, **QUIET)


# ---- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            {"mechanism": "lineer"}, "mechanism='lineer' does not exist. Did you mean 'linear'", id="mechanism"
        ),
        pytest.param({"intervention": "shifts"}, "Did you mean 'shift'", id="intervention"),
        pytest.param({"generator": "hil"}, "Did you mean 'hill'", id="generator"),
        pytest.param({"structure": "serach"}, "Did you mean 'search'", id="structure"),
    ],
)
def test_unknown_options(screen, setup_kwargs, options, message):
    adata = screen()
    with pytest.raises(ValueError, match=message):
        untrained(adata, setup_kwargs, **options)


def test_unknown_plan_kwargs(screen, setup_kwargs):
    model = untrained(screen(), setup_kwargs)
    with pytest.raises((TypeError, ValueError), match="serach_rounds.*search_rounds"):
        model.train(plan_kwargs={"serach_rounds": 3}, **QUIET)


@pytest.mark.parametrize("ask", ["predict", "rank_targets", "get_graph", "annotate", "do", "save"])
def test_an_untrained_model_names_train(screen, setup_kwargs, ask):
    model = untrained(screen(), setup_kwargs)
    args = {"do": [{"G0000": 1.0}], "save": ["nowhere"]}.get(ask, [])
    with pytest.raises(RuntimeError, match=r"not trained yet. Run model\.train\(\) first"):
        getattr(model, ask)(*args)


@pytest.mark.parametrize(
    ("n_drugs", "features", "reason"),
    [
        pytest.param(10, "drug_features", "cross-validated over unseen drugs", id="enough"),
        pytest.param(7, "drug_features", "7 drugs of different features are too few", id="too few"),
        pytest.param(10, None, "no drug features", id="no features"),
    ],
)
def test_auto_generator_says_what_it_took_and_why(screen, fit, n_drugs, features, reason, caplog):
    with caplog.at_level("INFO", logger="scgim"):
        model = fit(screen(n_drugs=n_drugs), features_key=features)
    model.annotate()
    provenance = model.adata.uns["scgim"]["generator_choice"]
    for text in (caplog.text, repr(model), provenance["reason"]):
        assert reason in text
    assert provenance["asked"] == "auto"
    if "cross" not in reason:
        assert model.generator_ == "identity"
        assert model.generator_scores_ is None
        return
    scores = model.generator_scores_
    assert scores.index[scores["chosen"] == 1].tolist() == [model.generator_]
    assert set(scores.index) == {"mean", "kernel", "hill"}
    assert provenance["loss"].tolist() == scores["loss"].tolist()


def test_auto_takes_hill_where_the_drugs_were_made_by_it(screen, fit):
    model = fit(screen(n_drugs=40, n_cells=50), train={"max_epochs": None})
    assert model.generator_ == "hill"


def test_drugs_of_the_same_features_are_one(screen, fit):
    adata = screen()
    table = adata.uns["drug_features"]
    adata.uns["drug_features"] = pd.DataFrame(table.to_numpy()[[0, 1, 2] * 3 + [0]], table.index, table.columns)
    assert fit(adata).generator_ == "identity"


def test_hill_needs_features(screen, setup_kwargs):
    with pytest.raises(ValueError, match="generator='hill' needs drug features.*features_key or smiles_key"):
        untrained(screen(), setup_kwargs | {"features_key": None}, generator="hill")


def test_repr(screen, setup_kwargs, model):
    before = untrained(screen(), setup_kwargs)
    lines = repr(model).splitlines()
    assert lines[0] == "GIM"
    facts = {line[2:17].strip(): line[17:].strip() for line in lines[1:]}
    assert facts["screen"] == "6 genes, 10 drugs, 30 conditions, control 'DMSO'"
    assert facts["scale"] == "continuous, dose in uM"
    assert facts["generator"] == f"{model.generator_} (auto: cross-validated over unseen drugs, unseen doses)"
    assert facts["trained"] == f"seed 0, {len(model.get_graph())} edges"
    assert "trained        no" in repr(before)
    html = model._repr_html_()
    assert html.count("<tr>") == len(facts)
    for fact in ("auto: cross-validated", "control &#x27;DMSO&#x27;"):
        assert fact in html


def test_repr_escapes(screen, fit):
    adata = screen()
    adata.obs["drug"] = adata.obs["drug"].cat.rename_categories({"DMSO": "<b>DMSO</b>"})
    assert "<b>" not in fit(adata, control="<b>DMSO</b>")._repr_html_()
