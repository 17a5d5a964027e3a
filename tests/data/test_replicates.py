"""Replicates from set-up to the errors of measured conditions."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scgim
from scgim.module import Readout
from scgim.statistics._moderation import moderated_variance
from scgim.train._calibration import change_error, replicate_variance

SETUP = {"drug_key": "drug", "control": "DMSO", "scale": "continuous"}
GENES = 25


def wells(spread: float = 0.5, per_condition: int = 2, cells: int = 15, drugs: int = 6, seed: int = 0) -> ad.AnnData:
    """Independent genes in wells with an effect of their own; no drug does anything."""
    rng = np.random.default_rng(seed)
    names = ["DMSO"] * 12 + [f"drug {i}" for i in range(drugs) for _ in range(per_condition)]
    obs = pd.DataFrame(
        {"drug": np.repeat(names, cells), "well": np.repeat([f"W{i}" for i in range(len(names))], cells)}
    )
    x = rng.normal(size=(len(obs), GENES)) + np.repeat(rng.normal(0, spread, (len(names), GENES)), cells, 0)
    genes = pd.DataFrame(index=[f"g{j:02}" for j in range(GENES)])
    return ad.AnnData(x, obs.set_index(obs.index.astype(str)), genes)


def data(adata: ad.AnnData, **setup: object):
    scgim.setup_anndata(adata, **(SETUP | setup))
    return scgim.GIM(adata)._read(0)


def train(adata: ad.AnnData, **setup: object) -> scgim.GIM:
    scgim.setup_anndata(adata, **(SETUP | setup))
    model = scgim.GIM(adata, generator="identity")
    model.train(max_epochs=20, enable_progress_bar=False)
    return model


# ---- errors ------------------------------------------------------------------------------------------------------------


def by_hand(adata: ad.AnnData, key: str) -> np.ndarray:
    """Moderated variance of a mean over replicates of equal size, in control variances; a row for a drug and one for controls."""
    means = adata.to_df().groupby([adata.obs["drug"], adata.obs[key]], observed=True).mean()
    drug = means.index.get_level_values(0)
    squares = ((means - means.groupby(drug).transform("mean")) ** 2).sum().to_numpy()
    control = adata.to_df()[(adata.obs["drug"] == "DMSO").to_numpy()].var(ddof=0).to_numpy()
    freedom, n = len(means) - drug.nunique(), (drug == "drug 0").sum()
    cell = adata.to_df().groupby(adata.obs["drug"], observed=True).transform("mean")
    cell = ((adata.to_df() - cell) ** 2).sum().to_numpy() / (adata.n_obs - drug.nunique())
    size = adata.n_obs / len(means)
    moderated, _ = moderated_variance(squares / freedom / (cell / size), freedom)
    return np.maximum(moderated, 1) * cell / size / control * (1 / n + 1 / (drug == "DMSO").sum())


@pytest.mark.parametrize("per_condition", [2, 3])
def test_the_error_of_a_change_is_that_of_means_of_wells(per_condition):
    adata = wells(per_condition=per_condition)
    found = change_error(data(adata, replicate_key="well"))
    np.testing.assert_allclose(found, np.repeat([by_hand(adata, "well")], 6, 0), rtol=1e-6)


def test_rows_that_are_wells_have_the_error_of_rows():
    adata = wells()
    adata.obs["row"] = adata.obs_names
    found = change_error(data(adata, unit="well"))
    np.testing.assert_allclose(found, np.repeat([by_hand(adata, "row")], 6, 0), rtol=1e-6)
    np.testing.assert_allclose(found, change_error(data(adata, replicate_key="row")))


def test_conditions_of_one_well_get_their_error_from_vehicle():
    found = data(wells(per_condition=1, drugs=12, cells=60), replicate_key="well")
    said = replicate_variance(found)
    assert said.variance.mean() == pytest.approx(0.25 / 1.25, rel=0.3)  # in control variances
    mean = found.conditions.mean.numpy() - found.controls.mean.numpy()
    z = mean / np.sqrt(change_error(found))
    assert (z**2).mean() == pytest.approx(1, abs=0.25)


def test_without_replicates_nothing_is_read():
    adata = wells()
    plain = data(adata)
    assert plain.fine.replicates is None
    assert plain.summary.control_replicate.size == 0
    assert (change_error(plain) < change_error(data(adata, replicate_key="well"))).all()


def test_wells_on_plates_are_no_plates():
    """What differs between wells of a plate is not taken for a difference between plates as well."""
    adata = wells(spread=0.4, per_condition=8, cells=10, drugs=10)
    number = adata.obs.groupby("drug", observed=True)["well"].transform(lambda w: pd.factorize(w)[0])
    adata.obs["plate"] = (number % 2).astype(int).astype(str)
    one = change_error(data(adata, replicate_key="well"))
    both = change_error(data(adata, replicate_key="well", batch_key="plate"))
    assert both.mean() == pytest.approx(one.mean(), rel=0.25)


def test_names_that_recur_in_batches_are_one_replicate():
    """A position on all plates, or a guide in all batches, does not become surer with more of them."""
    adata = wells(spread=0.4, per_condition=1, cells=40, drugs=10)
    adata.obs["plate"] = np.tile(["a", "b"], adata.n_obs // 2)
    adata.obs["own"] = adata.obs["well"] + adata.obs["plate"]
    spans = change_error(data(adata, replicate_key="well", batch_key="plate"))
    nested = change_error(data(adata, replicate_key="own", batch_key="plate"))
    plain = change_error(data(adata, replicate_key="well"))
    assert spans.mean() == pytest.approx(plain.mean(), rel=0.15)
    assert nested.mean() < 0.75 * spans.mean()


# ---- end to end --------------------------------------------------------------------------------------------------------


def test_wells_without_an_effect_get_no_target_and_the_model_keeps_that(tmp_path):
    adata = wells(spread=0.5, per_condition=1, cells=60, drugs=3)  # too few drugs to be taken for misfit
    plain, model = train(adata), train(adata, replicate_key="well")
    called = [(m.rank_targets()["probability"] > 0.5).sum() for m in (plain, model)]
    assert called[0] > 10
    assert called[1] == 0
    model.save(tmp_path / "m")
    again = scgim.GIM.load(tmp_path / "m", adata=adata)
    pd.testing.assert_frame_equal(again.rank_targets(), model.rank_targets())
    np.testing.assert_array_equal(again.summary_.control_replicate, model.summary_.control_replicate)
    assert again.registry_["setup_args"]["replicate_key"] == "well"
    assert again.calibration_["replicate_sd_median"] == pytest.approx(0.5 / 1.25**0.5, rel=0.25)
    assert "replicate_sd_median" not in plain.calibration_
    again.train(max_epochs=20, enable_progress_bar=False)
    pd.testing.assert_frame_equal(again.rank_targets(), model.rank_targets())


def test_data_without_replicates_load_for_prediction(tmp_path):
    adata = wells(per_condition=2, drugs=3)
    model = train(adata, replicate_key="well")
    model.annotate()
    model.save(tmp_path / "m")
    plain = ad.AnnData(adata.X, adata.obs[["drug"]], adata.var[[]])
    unnamed = ad.AnnData(adata.X, adata.obs.assign(well=np.nan), adata.var[[]])
    for new in (plain, unnamed, plain[adata.obs["well"].isin(["W0", "W12"])].copy()):
        again = scgim.GIM.load(tmp_path / "m", adata=new)
        pd.testing.assert_frame_equal(again.rank_targets(), model.rank_targets())
        for as_ in ("cells", "delta"):
            np.testing.assert_array_equal(again.predict(as_=as_).X, model.predict(as_=as_).X)
        again.annotate()
        shift = adata[new.obs_names].obsm["scgim_shift"]
        np.testing.assert_array_equal(new.obsm["scgim_shift"], shift)
        again.save(tmp_path / "again", overwrite=True)
        assert scgim.GIM.load(tmp_path / "again").registry_["setup_args"]["replicate_key"] == "well"
    whole = scgim.GIM.load(tmp_path / "m", adata=plain)
    for verb in (whole.train, whole.stability):
        with pytest.raises(
            ValueError, match="need the replicates of replicate_key='well', and obs has no such column. Add it"
        ):
            verb()
    with pytest.raises(ValueError, match="obs\\['well'\\] is missing"):
        scgim.GIM.load(tmp_path / "m", adata=unnamed).train()
    with pytest.raises(KeyError, match="well"):  # set-up for training still needs the column
        scgim.setup_anndata(plain, replicate_key="well", **SETUP)


def test_a_single_well_per_condition_loads_for_prediction_and_not_for_training(tmp_path):
    adata = wells(per_condition=2, drugs=3, cells=1)
    model = train(adata, unit="well")
    model.save(tmp_path / "m")
    few = adata[adata.obs["well"].isin(["W0", "W12", "W14"])].copy()
    again = scgim.GIM.load(tmp_path / "m", adata=few)  # without a warning of its one control
    np.testing.assert_array_equal(again.predict(as_="delta").X, model.predict(as_="delta").X)
    with pytest.raises(ValueError, match="have two rows, so the variance"):
        again.train()


def test_evaluation_without_the_column_of_replicates_is_refused(tmp_path):
    adata = wells(per_condition=2, drugs=6)
    adata.obs["side"] = np.where(adata.obs["drug"] == "drug 5", "test", "train")
    model = train(adata, replicate_key="well", split_key="side")
    model.save(tmp_path / "m")
    again = scgim.GIM.load(tmp_path / "m", adata=ad.AnnData(adata.X, adata.obs[["drug", "side"]], adata.var))
    with pytest.raises(ValueError, match="Training and evaluation need the replicates"):
        again.evaluate(refit=False, distributions=False)


def test_wells_alone_are_no_detectable_effect_in_evaluate():
    adata = wells(spread=0.6, per_condition=3, cells=20, drugs=9)
    adata.obs["side"] = np.where(adata.obs["drug"].isin([f"drug {i}" for i in range(6)]), "test", "train")
    p = []
    for setup in ({}, {"replicate_key": "well"}):
        scgim.setup_anndata(adata, split_key="side", **(SETUP | setup))
        model = scgim.GIM(adata, generator="mean", structure="none")
        model.train(max_epochs=20, enable_progress_bar=False)
        scores = model.evaluate(refit=False, distributions=False)
        p.append(scores.loc[(scores["method"] == "scgim") & (scores["drug"] != "(all)"), "p_moved"].dropna())
    assert (p[0] < 0.01).all()
    assert (p[1] > 0.01).sum() >= 5
    assert len(p[1]) >= 6


def test_order_and_names_of_replicates_do_not_matter():
    adata = wells(spread=0.3)
    one = change_error(data(adata, replicate_key="well"))
    adata.obs["well"] = adata.obs["well"].map({f"W{i}": f"{37 * i % 101}" for i in range(24)})
    other = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    np.testing.assert_allclose(change_error(data(other, replicate_key="well")), one, rtol=1e-6)


def test_counts_of_wells():
    """Rates that differ between wells are no effect of a drug; their variance is recovered on the scale of log rates."""
    rng, plain = np.random.default_rng(0), wells(spread=0.0, per_condition=1, cells=60, drugs=12)
    rate = np.exp(rng.normal(1, 0.5, GENES))
    effect = pd.DataFrame(rng.normal(0, 0.3, (24, GENES)), [f"W{i}" for i in range(24)])
    size = rng.lognormal(0, 0.2, plain.n_obs)
    x = rng.poisson(size[:, None] * rate * np.exp(effect.loc[plain.obs["well"]].to_numpy()))
    adata = ad.AnnData(x.astype(np.float32), plain.obs.assign(size=1e3 * size), plain.var)
    counts = {"scale": "counts", "size_factor_key": "size"}
    found, without = data(adata, replicate_key="well", **counts).means.means, data(adata, **counts).means.means
    assert found.replicates.variance.mean() == pytest.approx(0.09, rel=0.3)
    np.testing.assert_allclose(found.variance - without.variance, np.repeat([found.replicates.variance], 12, 0))
    z = found.change / np.sqrt(found.variance + found.control)
    assert (z**2).mean() == pytest.approx(1, abs=0.3)
    assert (without.change**2 / (without.variance + without.control)).mean() > 3


def test_means_of_other_scales_have_the_same_error():
    adata = wells()
    scgim.setup_anndata(adata, replicate_key="well", **SETUP)
    found = scgim.GIM(adata, likelihood="means")._read(0)
    error = found.means.means.variance + found.means.means.control
    assert error.mean() == pytest.approx(change_error(found).mean(), rel=0.05)


# ---- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setup", "change", "error", "match"),
    [
        ({"unit": "plate"}, {}, ValueError, "unit='plate' does not exist"),
        ({"replicate_key": "wel"}, {}, KeyError, "Nearest: 'well'"),
        ({"replicate_key": "well"}, {"well": np.nan}, ValueError, "obs\\['well'\\] is missing"),
        ({"replicate_key": "drug"}, {}, ValueError, "have two values of obs\\['drug'\\], so the variance"),
        ({"replicate_key": "well", "batch_key": "well"}, {}, ValueError, "No control cells"),
        (
            {"replicate_key": "plate", "batch_key": "plate"},
            {"plate": "1"},
            ValueError,
            "in a batch \\(obs\\['plate'\\]\\)",
        ),
    ],
)
def test_set_up_refuses_what_shows_no_replicates(setup, change, error, match):
    adata = wells().copy()
    for key, value in change.items():
        adata.obs[key] = adata.obs[key].where(np.arange(adata.n_obs) > 3, value) if key in adata.obs else value
    with pytest.raises(error, match=match):
        scgim.setup_anndata(adata, **(SETUP | setup))


def test_the_noise_of_cells_is_refused_beside_replicates():
    adata = wells()
    scgim.setup_anndata(adata, replicate_key="well", **SETUP)
    with pytest.raises(ValueError, match="Leave out one of them"):
        scgim.GIM(adata, scale_shift=True)


@pytest.mark.filterwarnings("ignore:Only 1 control well")
def test_wells_of_which_none_is_repeated_are_refused():
    adata = wells(per_condition=1, cells=1)[11:].copy()
    with pytest.raises(ValueError, match="have two rows, so the variance .* Add wells of the controls at least"):
        scgim.setup_anndata(adata, unit="well", **SETUP)


def test_replicates_of_test_rows_alone_are_refused():
    adata = wells(per_condition=2)
    one = adata.obs["well"].isin(["W0", "W12", "W14"])
    adata.obs["side"] = np.where(one, "train", "test")
    adata = adata[one | ~adata.obs["drug"].isin(["DMSO", "drug 0", "drug 1"])].copy()
    with pytest.raises(ValueError, match="No condition and no line's controls have two"):
        scgim.setup_anndata(adata, replicate_key="well", split_key="side", **SETUP)


def test_the_order_of_wells_does_not_matter(screen):
    adata = screen(n_cells=6, n_control=60)
    other = adata[np.random.default_rng(3).permutation(adata.n_obs)].copy()
    keys = {"drug_key": "drug", "control": "DMSO", "scale": "continuous", "dose_key": "dose", "dose_unit": "uM"}
    found = []
    for each in (adata, other):
        scgim.setup_anndata(each, **keys, unit="well")
        data = scgim.GIM(each)._read(0)
        found.append(data.placebos.member @ data.summary.standardized_controls().numpy())
    assert len(found[0]) == 200
    np.testing.assert_allclose(*found, atol=1e-6)


# ---- readout genes -----------------------------------------------------------------------------------------------------


def with_readout(own: float = 0.0, spread: float = 0.3, **options) -> ad.AnnData:
    """The last 20 genes of wells as readout; every drug moves the first three of them by ``own``."""
    adata = wells(spread=spread, **options)
    adata.var["rest"] = np.arange(GENES) >= GENES - 20
    effect = np.random.default_rng(5).normal(0, own, (adata.obs["drug"].nunique(), 3))
    adata.X[:, GENES - 20 : GENES - 17] += (
        effect[adata.obs["drug"].factorize()[0]] * (adata.obs["drug"] != "DMSO").to_numpy()[:, None]
    )
    return adata


def readout_of(adata: ad.AnnData, **setup: object):
    scgim.setup_anndata(adata, **(SETUP | {"readout": "rest"} | setup))
    return scgim.GIM(adata)._read(0, readout=True).readout


def test_means_of_readout_genes_by_replicate():
    adata = with_readout()[::-1].copy()
    found = readout_of(adata, replicate_key="well").replicates
    expected = adata.to_df().groupby([adata.obs["drug"], adata.obs["well"]], observed=True).mean()
    scale = adata[adata.obs["drug"] == "DMSO"].to_df().std(ddof=0)
    together = np.hstack([found.panel, found.readout])
    expected = (expected / scale).to_numpy()
    assert found.replicates.n.tolist() == [15.0] * 24
    np.testing.assert_allclose(together[np.lexsort(together.T)], expected[np.lexsort(expected.T)], atol=1e-6)


@pytest.mark.parametrize("per_condition", [2, 3])
def test_the_error_of_a_readout_gene_is_that_of_means_of_wells(per_condition):
    """With equal wells the variance of a change is the moderated mean square between wells over their number."""
    adata = with_readout(per_condition=per_condition)
    data, no_slopes = readout_of(adata, replicate_key="well"), np.zeros((5, 20))
    cell = data.squares / data.freedom
    error = (1 / data.n + 1 / data.controls)[:, None] * cell + data.replicates.error(no_slopes, cell, len(data.n))
    np.testing.assert_allclose(error[0], by_hand(adata[:, adata.var["rest"]].copy(), "well"), rtol=0.02)


def test_wells_are_no_own_changes_of_readout_genes():
    """Most own changes of readout genes without any disappear, and those of the others are kept."""
    adata = with_readout(own=1.0, per_condition=2, cells=30, drugs=12)
    models = [train(adata, readout="rest", replicate_key=key) for key in (None, "well")]
    plain, found = (
        np.abs(Readout.from_state(m.summary_.readout["model"]).responses.own(m.summary_.rows())) for m in models
    )
    assert (plain[:, 3:] > 0.1).mean() > 0.3
    assert (found[:, 3:] > 0.1).mean() < 0.1
    assert found[:, :3].mean() > 0.8 * plain[:, :3].mean()


def test_replicates_change_no_own_change_where_wells_do_not_differ():
    adata = with_readout(own=1.0, spread=0.0, per_condition=3, cells=30, drugs=12)
    models = [train(adata, readout="rest", replicate_key=key) for key in (None, "well")]
    plain, found = (Readout.from_state(m.summary_.readout["model"]).responses.own(m.summary_.rows()) for m in models)
    np.testing.assert_allclose(found, plain, atol=0.05)
    assert readout_of(adata).replicates is None
