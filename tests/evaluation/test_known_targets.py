from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind_from_stats
from sklearn.metrics import average_precision_score, f1_score

import scgim
from scgim.evaluation import EMPTY, PREDICTED_SHIFT, SCGIM, SHIFT, Z
from scgim.evaluation._known_targets import _moved_most

METHODS = [SCGIM, EMPTY, SHIFT, Z]


def truth_of(adata) -> pd.DataFrame:
    """True targets, drugs x genes, bool."""
    truth = adata.uns["truth"]
    return pd.DataFrame(truth["targets"], truth["drugs"], adata.var_names) > 0


def known_of(adata) -> pd.DataFrame:
    drug, gene = np.nonzero(truth_of(adata).to_numpy())
    return pd.DataFrame({"drug": truth_of(adata).index[drug], "gene": adata.var_names[gene]})


@pytest.fixture(scope="module")
def fitted(screen, fit) -> scgim.GIM:
    """Trained in full on a screen that shows its targets; shared, so no test may change it."""
    adata = screen(n_genes=8, n_drugs=14, n_cells=40, n_control=300, seed=2)
    scgim.pp.split(adata, control="DMSO")
    return fit(adata, gim={"generator": "hill"}, train={"max_epochs": None}, split_key="scgim_split")


@pytest.fixture(scope="module")
def scores(fitted) -> pd.DataFrame:
    return fitted.evaluate_targets(known_of(fitted.adata))


def overall(scores: pd.DataFrame, evidence: str) -> pd.DataFrame:
    return scores[(scores["drug"] == "(all)") & (scores["evidence"] == evidence)].set_index("method")


def of_drugs(scores: pd.DataFrame, method: str, evidence: str = "data") -> pd.DataFrame:
    rows = scores[(scores["method"] == method) & (scores["evidence"] == evidence) & (scores["drug"] != "(all)")]
    return rows.set_index("drug")


def test_every_drug_is_scored_by_every_method(fitted, scores) -> None:
    trained = set(fitted.summary_.design.drugs)
    for evidence, methods in (("data", METHODS), ("features", [SCGIM, EMPTY, PREDICTED_SHIFT])):
        rows = scores[(scores["evidence"] == evidence) & (scores["drug"] != "(all)")]
        wanted = trained if evidence == "data" else set(fitted.drugs) - trained
        assert wanted
        assert list(rows["method"].unique()) == methods
        for _, own in rows.groupby("method"):
            assert sorted(own["drug"]) == sorted(wanted & set(known_of(fitted.adata)["drug"]))


@pytest.mark.parametrize("evidence", ["data", "features"])
def test_scores_are_those_of_rank_targets(fitted, scores, evidence) -> None:
    own, truth = of_drugs(scores, SCGIM, evidence), truth_of(fitted.adata)
    ranked = fitted.rank_targets(drug=list(own.index), evidence=evidence)
    best = ranked.groupby(["drug", "gene"])[["score", "probability"]].max()
    called = []
    for drug, row in own.iterrows():
        of_drug = best.loc[drug].loc[truth.columns]
        true = truth.loc[drug].to_numpy()
        assert row["ap"] == pytest.approx(average_precision_score(true, of_drug["score"]))
        order = of_drug["score"].sort_values(ascending=False).index
        assert row["best_rank"] == 1 + min(order.get_loc(gene) for gene in truth.columns[true])
        assert row["recall"] == pytest.approx(truth.loc[drug, order[:5]].sum() / true.sum())
        called.append(of_drug["probability"].to_numpy() > 0.5)
        assert row["f1"] == pytest.approx(f1_score(true, called[-1]))
        assert (row["n_targets"], row["n_called"]) == (true.sum(), called[-1].sum())
    total = overall(scores, evidence).loc[SCGIM]
    assert total["ap"] == pytest.approx(own["ap"].mean())
    assert total["f1"] == pytest.approx(f1_score(truth.loc[own.index].to_numpy().ravel(), np.ravel(called)))


def test_shifts_and_z_are_those_of_the_cells_against_their_own_controls(screen, fit) -> None:
    adata, rng = screen(), np.random.default_rng(0)
    line = rng.integers(2, size=adata.n_obs)
    adata.obs["line"] = np.array(["A549", "K562"])[line]
    adata.X = adata.X + (5 * line[:, None] * adata.X.std(0)).astype(np.float32)
    # far fewer controls of one line
    adata = adata[(adata.obs["drug"] != "DMSO") | (line == 0) | (rng.random(adata.n_obs) < 0.3)].copy()
    model = fit(adata, train={"max_epochs": 5}, cell_line_key="line")
    drugs = model.summary_.design.drugs[:4]
    found = _moved_most(model.summary_, drugs)
    x, obs = pd.DataFrame(adata.X, columns=adata.var_names)[model.summary_.genes].to_numpy(float), adata.obs
    # cells are in control sd of their own line
    x = x / model.summary_.relative_scale(np.searchsorted(model.summary_.design.lines, obs["line"].to_numpy(str)))
    control = {line: x[((obs["drug"] == "DMSO") & (obs["line"] == line)).to_numpy()] for line in ("A549", "K562")}
    # and on that scale the sd of controls is pooled over lines
    pooled = np.concatenate([own - own.mean(0) for own in control.values()]).std(0, ddof=1)
    for i, drug in enumerate(drugs):
        shift, z = [], []
        for (_, line), rows in obs[obs["drug"] == drug].groupby(["dose", "line"]):
            cells, own = x[obs.index.get_indexer(rows.index)], control[line]
            shift.append(np.abs(cells.mean(0) - own.mean(0)) / model.summary_.scale)
            mine, theirs = (cells.mean(0), cells.std(0, ddof=1), len(cells)), (own.mean(0), pooled, len(own))
            z.append(np.abs(ttest_ind_from_stats(*mine, *theirs, equal_var=False).statistic))
        np.testing.assert_allclose(found[SHIFT][i], np.max(shift, 0), rtol=1e-4)
        np.testing.assert_allclose(found[Z][i], np.max(z, 0), rtol=1e-4)


def test_z_is_finite_where_nothing_varies(screen, fit) -> None:
    adata = screen()
    first = adata.obs["drug"] == sorted(set(adata.obs["drug"]) - {"DMSO"})[0]
    adata = adata[~first | (first.cumsum() <= 1)].copy()  # one cell of that drug
    adata.X[(adata.obs["drug"] != "DMSO").to_numpy(), 0] = 0.0
    model = fit(adata, train={"max_epochs": 5})
    found = _moved_most(model.summary_, model.summary_.design.drugs)[Z]
    assert np.isfinite(found).all()
    assert found.max() < 1e3


def test_baselines_call_as_many_genes_as_there_are_targets(scores) -> None:
    for method, evidence in ((SHIFT, "data"), (Z, "data"), (PREDICTED_SHIFT, "features")):
        rows = of_drugs(scores, method, evidence)
        assert (rows["n_called"] == rows["n_targets"]).all()


def test_on_the_models_own_simulator_the_graph_finds_targets(scores) -> None:
    total = overall(scores, "data")
    assert total.loc[SCGIM, "f1"] > 0.95
    assert total.loc[SCGIM, "ap"] >= total["ap"].max()
    # without a graph what drugs do downstream counts as misfit, and is called less often: F1 .84, where it was .65
    assert total.loc[SCGIM, "f1"] > total.loc[EMPTY, "f1"] + 0.15
    said = scores.attrs["verdict"]
    assert said[0].startswith("On 11 measured drugs with ")
    assert sum("unseen drugs" in sentence for sentence in said) == 1
    assert any("The graph" in sentence for sentence in said)


def test_order_and_repeats_of_what_is_known_are_of_no_account(fitted) -> None:
    known = known_of(fitted.adata)
    again = pd.concat([known, known]).sample(frac=1, random_state=0).assign(note="x")
    mine, other = (fitted.evaluate_targets(table, refit=False) for table in (known, again))
    pd.testing.assert_frame_equal(mine, other)
    assert EMPTY not in set(mine["method"])


def test_drugs_that_are_not_known_are_not_judged(fitted, scores) -> None:
    known = known_of(fitted.adata)
    some = known[known["drug"].isin(fitted.summary_.design.drugs[:3])]
    few = fitted.evaluate_targets(some, refit=False)
    assert set(few["evidence"]) == {"data"}
    assert set(few["drug"]) == {*some["drug"], "(all)"}
    for method in few["method"].unique():
        mine, all_of = of_drugs(few, method), of_drugs(scores, method)
        pd.testing.assert_frame_equal(mine, all_of.loc[mine.index], check_dtype=False)


def test_a_loaded_model_needs_no_data(fitted, scores, tmp_path) -> None:
    fitted.save(tmp_path / "m")
    model, known = scgim.GIM.load(tmp_path / "m"), known_of(fitted.adata)
    pd.testing.assert_frame_equal(
        model.evaluate_targets(known, refit=False), fitted.evaluate_targets(known, refit=False)
    )
    with pytest.raises(ValueError, match="loaded without data"):
        model.evaluate_targets(known)


def test_a_model_without_graph_has_no_twin_without_one(screen, fit) -> None:
    model = fit(screen(), gim={"structure": "none"})
    assert set(model.evaluate_targets(known_of(model.adata))["method"]) == {SCGIM, SHIFT, Z}


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda t: t.to_numpy(), TypeError, "known is a DataFrame with columns 'drug' and 'gene', not a ndarray"),
        (lambda t: t.rename(columns={"gene": "target"}), KeyError, "known has no column 'gene'; its columns: 'drug', 'target'"),
        (lambda t: t.iloc[:0], ValueError, "known is empty"),
        (lambda t: t.assign(gene=None), ValueError, r"\['gene'\] is missing"),
        (lambda t: t.assign(gene=t["gene"] + "x"), KeyError, r"known\['gene'\] holds names that the model does not have: 'G0000x', .* and 4 more. Nearest to 'G0000x': 'G0000'"),
        (lambda t: t.assign(drug=t["drug"].str.upper() + "s"), KeyError, r"known\['drug'\] holds names that .* Nearest to 'DRUG"),
        (lambda t: t.assign(drug="DMSO"), KeyError, "the model does not have: 'DMSO'"),
    ],
)  # fmt: skip
def test_mistakes_are_named(fitted, change, error, match) -> None:
    with pytest.raises(error, match=match):
        fitted.evaluate_targets(change(known_of(fitted.adata)))


@pytest.mark.parametrize("k", [0, 9, 1.5])
def test_recall_counts_a_possible_number_of_genes(fitted, k) -> None:
    with pytest.raises(ValueError, match=f"k={k} must be a whole number from 1 to 8"):
        fitted.evaluate_targets(known_of(fitted.adata), k=k, refit=False)


def test_identity_cannot_rank_targets_of_unseen_drugs(screen, fit) -> None:
    adata = screen()
    scgim.pp.split(adata, control="DMSO")
    model = fit(adata, gim={"generator": "identity"}, split_key="scgim_split")
    with pytest.raises(ValueError, match="generator='identity' knows nothing of"):
        model.evaluate_targets(known_of(adata), refit=False)


def test_it_needs_a_trained_model(screen, setup_kwargs) -> None:
    adata = screen()
    scgim.setup_anndata(adata, **setup_kwargs)
    with pytest.raises(RuntimeError, match="not trained yet"):
        scgim.GIM(adata).evaluate_targets(known_of(adata))
