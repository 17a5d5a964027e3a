"""Models with prior knowledge of targets."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

import scgim
from scgim.data._design import condition_keys
from scgim.inference._combinations import measured_distribution
from scgim.module import CERTAIN, MeasuredConditions, Moments, marginal_log_likelihood

GENES = [f"G{i:04d}" for i in range(6)]
KINDS = {
    "linear shift": {},
    "linear hard": {"intervention": "hard"},
    "linear noise": {"scale_shift": True},
    "network shift": {"mechanism": "network"},
    "network hard": {"mechanism": "network", "intervention": "hard"},
}


def wrong_of(adata):
    """A target that the first drug does not have, and a target that it has."""
    truth = adata.uns["truth"]
    drug, row = str(truth["drugs"][0]), np.asarray(truth["targets"][0]) > 0
    return drug, adata.var_names[~row][0], adata.var_names[row][0]


def with_knowledge(adata, **options):
    drug, wrong, right = wrong_of(adata)
    rows = [(drug, wrong, "known"), (drug, right, "excluded")]
    return {"known_targets": pd.DataFrame(rows, columns=["drug", "gene", "kind"])} | options


def probability(model, drug):
    table = model.rank_targets(drug=drug)
    return table.groupby("gene", observed=True)["probability"].agg(["min", "max"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("generator", ["hill", "identity"])
def test_known_is_certain(screen, fit, kind, generator):
    adata = screen()
    drug, wrong, right = wrong_of(adata)
    model = fit(adata, gim=with_knowledge(adata, generator=generator) | KINDS[kind])
    found = probability(model, drug)
    assert found.loc[wrong].tolist() == [1, 1]
    assert found.loc[right].tolist() == [0, 0]
    table = model.rank_targets()
    assert np.isfinite(table[["probability", "effect", "score"]].to_numpy()).all()
    assert np.isfinite(model.predict(as_="delta").X).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("generator", ["hill", "kernel", "mean", "network", "identity"])
def test_known_is_certain_at_other_doses_and_lines(screen, fit, kind, generator):
    """Certain targets are those of the drug: at unmeasured doses, in a line without the drug, and by features alone."""
    adata = screen(n_cells=12, n_control=80)
    drug, wrong, right = wrong_of(adata)
    adata.obs["line"] = np.where(np.arange(adata.n_obs) % 2, "one", "two")
    adata = adata[~((adata.obs["drug"] == drug) & (adata.obs["line"] == "two"))].copy()
    options = with_knowledge(adata, generator=generator) | KINDS[kind]
    model = fit(adata, gim=options, cell_line_key="line", train={"max_epochs": 10})
    for evidence in ("auto", "features"):
        table = model.rank_targets(drug=drug, dose=[0.7, 1.0, 30.0], evidence=evidence)
        assert set(table["cell_line"]) == {"one", "two"}
        assert table["dose"].nunique() == 3
        assert (table.loc[table["gene"] == wrong, "probability"] == 1).all()
        assert (table.loc[table["gene"] == right, ["probability", "score"]] == 0).all(axis=None)
    other = model.rank_targets(drug=str(adata.uns["truth"]["drugs"][1]), dose=0.7)
    assert (other["probability"] < 1).sum() >= 5  # knowledge of a drug is none of the others


def test_an_excluded_target_is_not_predicted_to_change(screen, fit):
    """Without edges, only targets change at an unmeasured dose; known targets by their whole effect, excluded ones not at all."""
    adata = screen()
    drug, wrong, right = wrong_of(adata)
    options = {"structure": "none", "generator": "hill"}
    plain, informed = fit(adata.copy(), gim=options), fit(adata.copy(), gim=with_knowledge(adata, **options))
    asked = {"drug": drug, "dose": 0.7, "as_": "delta", "evidence": "features"}
    assert abs(plain.predict(**asked)[:, right].X[0, 0]) > 0.3
    found = informed.predict(**asked)
    assert found[:, right].X[0, 0] == 0
    effect = informed.rank_targets(drug=drug, dose=0.7, evidence="features").set_index("gene")["effect"]
    sd = informed.summary_.scale[informed.summary_.genes == wrong]
    np.testing.assert_allclose(found[:, wrong].X[0], effect[wrong] * sd, rtol=1e-5)


@pytest.mark.parametrize("combined", [False, True])
def test_measured_conditions_have_the_interventions_of_their_queries(screen, fit, combined):
    """Responses are learned beside the generated change of a condition, which must be that of a prediction of the condition."""
    adata = screen()
    drug, wrong, right = wrong_of(adata)
    setup = {}
    if combined:
        other = sorted(set(adata.obs["drug"]) - {drug, "DMSO"})[0]
        adata.obs["more"] = np.where(adata.obs["drug"].eq(drug) & (np.arange(adata.n_obs) % 2 > 0), other, "")
        setup = {"drug_key": ["drug", "more"]}
    model = fit(adata, gim=with_knowledge(adata, generator="hill"), train={"max_epochs": 10}, **setup)
    predictor, design = model._predictor(), model.summary_.design
    names = design.names()[["drug", "dose"]]
    conditions, _, _ = model.summary_.conditions()
    every = measured_distribution(model.module, design, conditions.inputs, predictor._certain)
    query = predictor.query_of(names, design.combinations())
    asked, rows = predictor.interventions(query, ""), list(condition_keys(names.assign(line="")))
    of_query = condition_keys(pd.DataFrame({"drug": query.treatments, "dose": query.dose, "line": ""}))
    place = {key: i for i, key in enumerate(of_query)}
    for one, two in zip(every, asked, strict=True):
        np.testing.assert_allclose(one, two[[place[row] for row in rows]], rtol=1e-6, atol=1e-9)
    own, alone = names["drug"].str.contains(drug).to_numpy(), names["drug"].eq(drug).to_numpy()
    assert (own & ~alone).any() == combined
    assert (every.probability[own][:, model.summary_.genes == wrong] == 1).all()
    assert (every.probability[alone][:, model.summary_.genes == right] == 0).all()


def test_known_targets_hold_in_unmeasured_combinations(screen, fit):
    """Noisy or: a known target of a drug is a target of its combinations, and an excluded one is a target by the other drug alone."""
    adata = screen()
    drug, wrong, right = wrong_of(adata)
    model = fit(adata, gim=with_knowledge(adata, generator="hill"), train={"max_epochs": 10})
    other = str(adata.uns["truth"]["drugs"][1])
    both, single = (
        model.rank_targets(drug=asked, dose=dose, evidence="features").set_index("gene")
        for asked, dose in (((drug, other), (0.7, 1.0)), (other, 1.0))
    )
    assert both.loc[wrong, "probability"] == 1
    np.testing.assert_allclose(both.loc[right, "probability"], single.loc[right, "probability"], rtol=1e-9)


def test_known_is_certain_for_counts(screen, fit):
    adata = screen(observation="counts", depth=20.0)
    drug, wrong, right = wrong_of(adata)
    model = fit(adata, gim=with_knowledge(adata), scale="counts", size_factor_key="n_counts")
    found = probability(model, drug)
    assert found.loc[wrong].tolist() == [1, 1]
    assert found.loc[right].tolist() == [0, 0]


def test_likely_targets_raise_the_probability_and_signs_decide(screen, fit):
    adata = screen(n_cells=10)
    truth = adata.uns["truth"]
    rows, columns = np.nonzero(np.asarray(truth["targets"]))
    frame = pd.DataFrame({"drug": truth["drugs"][rows], "gene": adata.var_names[columns], "kind": "likely"})
    sign = np.sign(np.asarray(truth["effect"])[rows, columns])
    mean = {}
    for name, table in {
        "nothing": None,
        "likely": frame,
        "with sign": frame.assign(sign=sign),
        "with the other sign": frame.assign(sign=-sign),
    }.items():
        found = fit(adata.copy(), gim={"generator": "identity", "known_targets": table}).rank_targets()
        pairs = pd.MultiIndex.from_frame(found[["drug", "gene"]].astype(str))
        mean[name] = found["probability"][pairs.isin(pd.MultiIndex.from_frame(frame[["drug", "gene"]]))].mean()
    assert mean["nothing"] < mean["likely"] <= mean["with sign"]
    assert mean["with the other sign"] < mean["nothing"]


def test_saved_models_keep_known_targets(screen, fit, tmp_path):
    adata = screen()
    model = fit(adata, gim=with_knowledge(adata))
    model.save(tmp_path / "model")
    for data in (None, screen()):
        again = scgim.GIM.load(tmp_path / "model", adata=data)
        pd.testing.assert_frame_equal(again.rank_targets(), model.rank_targets())
        pd.testing.assert_frame_equal(again.settings_["known_targets"], model.settings_["known_targets"])
        np.testing.assert_array_equal(again.predict(as_="mean").X, model.predict(as_="mean").X)
    again.train(max_epochs=5, enable_progress_bar=False)
    again.annotate()
    again.adata.write_h5ad(tmp_path / "annotated.h5ad")


def test_the_order_of_genes_and_rows_does_not_matter(screen, fit):
    adata = screen()
    options = with_knowledge(adata, generator="hill")
    one = fit(adata, gim=options)
    other = fit(screen()[:, ::-1].copy(), gim=options | {"known_targets": options["known_targets"][::-1]})
    pd.testing.assert_frame_equal(one.rank_targets(), other.rank_targets())


def test_an_empty_prior_has_the_bits_of_no_prior(screen, fit):
    adata = screen()
    drug, _, right = wrong_of(adata)
    table = pd.DataFrame({"drug": [drug], "gene": [right], "kind": "likely", "log_odds": 0.0})
    one, other = (fit(screen(), gim={"generator": "hill", "known_targets": t}) for t in (None, table))
    np.testing.assert_allclose(
        one.rank_targets()["probability"], other.rank_targets()["probability"], rtol=1e-9, atol=1e-12
    )


def test_prior_odds_are_one_factor_of_the_exact_likelihood():
    """The sum over all 2^d sets of targets, each weighted by its prior odds."""
    rng = np.random.default_rng(0)
    logits, residual, psi, odds = rng.normal(size=(4, 4))
    odds[0], odds[1] = CERTAIN, -CERTAIN
    one = [norm.logpdf(residual, psi, 0.5), norm.logpdf(residual, 0, 0.5)]
    total = -np.inf
    for targets in product([0, 1], repeat=4):
        t = np.array(targets)
        p = 1 / (1 + np.exp(-logits))
        term = np.log(np.where(t, p, 1 - p)).sum() + np.where(t, one[0] + odds, one[1]).sum() - 2.0 * t.sum()
        total = np.logaddexp(total, term)
    tensors = map(torch.as_tensor, (logits, one[0] + odds, one[1]))
    assert marginal_log_likelihood(*tensors, 2.0).sum().item() == pytest.approx(total, abs=1e-6)


def test_the_module_adds_prior_odds_to_the_gain(screen, fit):
    model = fit(screen(), gim={"generator": "hill"})
    conditions, moments, _ = model.summary_.conditions()
    odds = torch.as_tensor(np.random.default_rng(0).normal(size=tuple(conditions.mean.shape)))
    assert isinstance(conditions, MeasuredConditions)
    assert isinstance(moments, Moments)
    plain = model.module.profile_log_likelihood_ratio(conditions, moments)
    other = model.module.profile_log_likelihood_ratio(conditions._replace(target_log_odds=odds), moments)
    torch.testing.assert_close(other - plain, odds)


def test_evaluation_does_not_score_what_it_was_told(screen, fit):
    adata = screen()
    drug, wrong, right = wrong_of(adata)
    model = fit(adata, gim=with_knowledge(adata))
    known = pd.DataFrame({"drug": [drug, drug], "gene": [right, wrong]})
    with pytest.raises(ValueError, match="known_targets"):
        model.evaluate_targets(known[:1])


# ---- genetic arms ----------------------------------------------------------------------------------------------------------


def with_arms(adata):
    """The first two drugs as knock-outs of genes that they do not target, in a column beside missing values."""
    one, two = adata.uns["truth"]["drugs"].astype(str)[:2]
    gene = adata.obs["drug"].astype(str).map({one: GENES[0], two: GENES[5], "DMSO": "non-targeting"})
    adata.obs["perturbed"] = pd.Categorical(gene)
    return adata, {one: GENES[0], two: GENES[5]}


def test_the_gene_of_an_arm_is_its_only_target(screen, fit):
    adata, arms = with_arms(screen())
    model = fit(adata, gim={"generator": "hill"}, intervention_key="perturbed")
    for arm, gene in arms.items():
        found = probability(model, arm)["max"]
        assert found[gene] == 1
        assert (found.drop(gene) == 0).all()
    others = model.rank_targets().query("drug not in @arms")["probability"]
    assert ((others > 0) & (others < 1)).any()


def test_arms_are_saved_and_other_targets_may_be_known_too(screen, fit, tmp_path):
    adata, arms = with_arms(screen())
    third = adata.uns["truth"]["drugs"].astype(str)[2]
    table = pd.DataFrame({"drug": [third], "gene": [GENES[2]], "kind": ["known"]})
    model = fit(adata, gim={"known_targets": table}, intervention_key="perturbed")
    model.save(tmp_path / "model")
    again = scgim.GIM.load(tmp_path / "model", adata=with_arms(screen())[0])
    pd.testing.assert_frame_equal(again.rank_targets(), model.rank_targets())
    assert set(again.settings_["known_targets"]["drug"]) == {*arms, third}
    assert probability(again, third)["max"][GENES[2]] == 1


def test_arms_of_genes_that_are_not_measured_are_learned_like_drugs(screen, fit, caplog):
    adata, arms = with_arms(screen())
    arm = next(iter(arms))
    adata.obs["perturbed"] = adata.obs["perturbed"].cat.rename_categories({arms[arm]: "MYC"})
    with caplog.at_level("INFO", logger="scgim"):
        model = fit(adata, gim={"generator": "hill"}, intervention_key="perturbed")
    assert "the genes of 1 of 2 genetic arms are measured" in caplog.text
    assert arm not in set(model.settings_["known_targets"]["drug"])
    adata.obs["perturbed"] = np.where(adata.obs["perturbed"].notna(), "MYC", "")
    assert fit(adata, gim={"generator": "hill"}, intervention_key="perturbed").settings_["known_targets"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda obs, one: obs.where(obs.index % 2 == 0, "G0003"), "several genes for", id="two genes in an arm"
        ),
        pytest.param(
            lambda obs, one: obs.where(obs.index % 2 == 0, None), "several genes for.*none", id="half of an arm"
        ),
    ],
)
def test_arms_are_checked_at_set_up(screen, setup_kwargs, change, message):
    adata, arms = with_arms(screen())
    column = adata.obs["perturbed"].astype(object).reset_index(drop=True)
    adata.obs["perturbed"] = change(column, arms).to_numpy()
    with pytest.raises(ValueError, match=message):
        scgim.setup_anndata(adata, **setup_kwargs, intervention_key="perturbed")
    keys = {k: v for k, v in setup_kwargs.items() if k != "drug_key"}
    sheet = scgim.pp.check(adata, **keys, intervention_key="perturbed").set_index("check")
    assert sheet.loc["genetic arms", "status"] == "FAIL"


def test_a_column_without_genes_is_warned_of(screen, setup_kwargs):
    adata, _ = with_arms(screen())
    adata.obs["perturbed"] = ""
    with pytest.warns(UserWarning, match="no gene in any treated cell"):
        scgim.setup_anndata(adata, **setup_kwargs, intervention_key="perturbed")
    sheet = scgim.pp.check(adata, **setup_kwargs, intervention_key="perturbed").set_index("check")
    assert sheet.loc["genetic arms", "status"] == "WARN"


def test_arms_of_new_data_are_known_too(screen, fit, tmp_path):
    adata, arms = with_arms(screen())
    one, two = arms
    fit(adata[(adata.obs["drug"] != two).to_numpy()].copy(), intervention_key="perturbed").save(tmp_path / "model")
    again = scgim.GIM.load(tmp_path / "model", adata=adata)
    assert again.settings_["known_targets"]["drug"].tolist() == [one, two]


def test_ablations_of_a_model_on_other_drugs(screen, fit, tmp_path):
    adata = screen()
    drug, _, right = wrong_of(adata)
    fit(adata, gim=with_knowledge(adata)).save(tmp_path / "model")
    others = adata[(adata.obs["drug"] != drug).to_numpy()].copy()
    again = scgim.GIM.load(tmp_path / "model", adata=others)
    other = again._untrained(structure="none")
    pd.testing.assert_frame_equal(other.settings_["known_targets"], again.settings_["known_targets"])


def test_the_sheet_counts_the_arms(screen, setup_kwargs):
    adata, _ = with_arms(screen())
    sheet = scgim.pp.check(adata, **setup_kwargs, intervention_key="perturbed").set_index("check")
    assert sheet.loc["genetic arms", ["status", "finding"]].tolist() == [
        "PASS",
        "2 genetic arms; the perturbed genes of 2 are measured.",
    ]
    with pytest.raises(KeyError, match="'perturb'.*'perturbed'"):
        scgim.setup_anndata(adata, **setup_kwargs, intervention_key="perturb")
