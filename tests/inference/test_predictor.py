from __future__ import annotations

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

pytestmark = pytest.mark.usefixtures("generator_alone")

COLUMNS = ["drug", "dose", "cell_line", "gene", "rank", "score", "probability", "effect"]
COLUMNS += ["effect_se", "direction", "evidence", "rests_on", "direction_probability", "change", "rank_by_change"]


@pytest.fixture(scope="module")
def thorough(screen, fit):
    """A model of a screen with enough cells, trained to the end."""
    adata = screen(n_genes=10, n_drugs=20, n_cells=50, n_control=500, doses=(0.5, 2.0), n_new_drugs=5)
    return fit(adata, train={"max_epochs": None})


@pytest.fixture(scope="module")
def lines(in_lines, fit):
    adata = in_lines(1.0)
    gone = (adata.obs["line"] == "K562") & (adata.obs["drug"] == "drug-001") & (adata.obs["dose"] == 2.0)
    return fit(adata[~gone].copy(), cell_line_key="line", batch_key="plate")


def controls(model):
    x = np.asarray(model.adata[model.adata.obs["drug"] == "DMSO"].X, dtype=float)
    return pd.DataFrame(x, columns=model.adata.var_names)


def matrix(model, table, values="weight"):
    genes = model.adata.var_names
    wide = table.pivot(index="source", columns="target", values=values)
    return wide.reindex(index=genes, columns=genes).fillna(0).to_numpy()


def test_annotate_asks_only_for_what_is_there(in_lines, fit):
    adata = in_lines(1.0)
    adata = adata[~((adata.obs["line"] == "K562") & (adata.obs["drug"] == "drug-001")).to_numpy()].copy()
    model = fit(adata, cell_line_key="line", batch_key="plate")
    model.annotate(evidence="data")
    assert np.isfinite(adata.obsm["scgim_shift"]).all()
    with pytest.raises(ValueError, match="is none"):
        model.predict(drug="drug-001", evidence="data", as_="mean")


# ---- rank_targets ----------------------------------------------------------------------------------------------------


def test_the_rank_without_a_graph_is_that_of_the_measured_change(lines):
    table, obs, genes = lines.rank_targets(), lines.adata.obs, list(lines.adata.var_names)
    x = pd.DataFrame(np.asarray(lines.adata.X, dtype=float), obs.index, genes)
    control = obs["drug"] == "DMSO"
    plate = pd.MultiIndex.from_frame(obs[["line", "plate"]].astype(str))
    x = x - x[control].groupby(plate[control]).mean().reindex(plate.to_flat_index()).to_numpy()
    names = [obs["drug"].astype(str), obs["dose"], obs["line"].astype(str)]
    mean = x[~control].groupby([name[~control] for name in names]).mean()
    unit = pd.Series(lines.summary_.scale, lines.summary_.genes)
    seen = table[table["evidence"] == "data"]
    for key, part in seen.groupby(["drug", "dose", "cell_line"]):
        wanted = mean.loc[key, part["gene"]] / unit[part["gene"]].to_numpy()
        np.testing.assert_allclose(part["change"], wanted, rtol=1e-3, atol=1e-4)
        by_size = part["change"].abs().rank(ascending=False, method="first")
        assert (part["rank_by_change"] == by_size).all()
    told = lines.rank_targets(drug=lines.drugs[0], evidence="features")
    assert told[["change", "rank_by_change"]].isna().all(axis=None)


def test_every_measured_context_and_every_gene(model):
    table = model.rank_targets()
    assert list(table) == COLUMNS
    assert table.index.equals(pd.RangeIndex(len(table)))
    assert "DMSO" not in set(table["drug"])
    conditions = list(table[["drug", "dose"]].drop_duplicates().itertuples(index=False, name=None))
    assert conditions == [(drug, dose) for drug in model.drugs for dose in (0.5, 1.0, 2.0)]
    for _, part in table.groupby(["drug", "dose"]):
        assert set(part["gene"]) == set(model.adata.var_names)
        assert part["rank"].tolist() == list(range(1, 7))
        assert part["score"].is_monotonic_decreasing
    assert table["probability"].between(0, 1).all()
    assert np.isfinite(table["effect"]).all()
    assert (table["effect_se"] >= 0).all()
    assert (table.loc[table["evidence"] == "data", "effect_se"] > 0).all()
    np.testing.assert_allclose(table["score"], table["probability"] * table["effect"].abs())
    assert (table["direction"] == np.where(table["effect"] < 0, "down", "up")).all()
    assert set(table["evidence"]) == {"data"}
    assert set(table["cell_line"]) == {""}


def test_ties_go_by_name(screen, fit):
    adata = screen(n_drugs=10)
    adata.uns["drug_features"].loc["blank"] = 0.0  # without a feature there is no effect on any gene
    table = fit(adata).rank_targets(drug="blank", dose=1.0)
    assert table["score"].eq(0).all()
    assert table["gene"].tolist() == sorted(adata.var_names)


def test_order_asked(model):
    table = model.rank_targets(drug=["drug-005", "drug-002"], dose=[2.0, 0.5])
    asked = list(table[["drug", "dose"]].drop_duplicates().itertuples(index=False, name=None))
    assert asked == [("drug-005", 2.0), ("drug-005", 0.5), ("drug-002", 2.0), ("drug-002", 0.5)]


def test_evidence(model):
    query = {"drug": "drug-000", "dose": [1.0, 1.5]}
    auto, features = model.rank_targets(**query), model.rank_targets(**query, evidence="features")
    assert auto.groupby("dose")["evidence"].unique().map(list).to_dict() == {1.0: ["data"], 1.5: ["features"]}
    assert set(features["evidence"]) == {"features"}
    pd.testing.assert_frame_equal(auto[auto["dose"] == 1.5], features[features["dose"] == 1.5])
    assert not np.array_equal(auto["score"][:6], features["score"][:6])
    data = model.rank_targets(drug="drug-000", dose=1.0, evidence="data")
    pd.testing.assert_frame_equal(data, auto[auto["dose"] == 1.0])
    with pytest.raises(ValueError, match="'drug-000' at 1.5 is none. Use evidence='auto'"):
        model.rank_targets(**query, evidence="data")
    with pytest.raises(ValueError, match="evidence='feature' does not exist. Did you mean 'features'"):
        model.rank_targets(**query, evidence="feature")


def test_features_evidence_of_a_measured_drug_is_that_of_its_twin(model):
    row = model.adata.uns["drug_features"].loc[["drug-004"]].rename(index={"drug-004": "twin"})
    twin = model.rank_targets(drug="twin", features=row)
    assert set(twin["evidence"]) == {"features"}
    own = model.rank_targets(drug="drug-004", evidence="features")
    pd.testing.assert_frame_equal(twin.drop(columns="drug"), own.drop(columns="drug"))


def test_all_drugs_at_a_dose_that_was_not_measured(model):
    table = model.rank_targets(dose=1.5)
    assert len(table) == 10 * 6
    assert set(table["evidence"]) == {"features"}
    with pytest.raises(ValueError, match="evidence='data' needs a measured condition"):
        model.rank_targets(dose=1.5, evidence="data")


def test_by_line(lines):
    table = lines.rank_targets()
    conditions = table[["drug", "dose", "cell_line"]].drop_duplicates()
    measured = lines.adata.obs.loc[lines.adata.obs["drug"] != "DMSO", ["drug", "dose", "line"]].drop_duplicates()
    assert set(conditions.itertuples(index=False, name=None)) == set(measured.itertuples(index=False, name=None))
    assert ("drug-001", 2.0, "K562") not in set(conditions.itertuples(index=False, name=None))
    asked = lines.rank_targets(drug="drug-001", dose=2.0)
    assert asked.groupby("cell_line")["evidence"].first().to_dict() == {"A549": "data", "K562": "features"}
    with pytest.raises(ValueError, match="'drug-001' at 2 in 'K562' is none"):
        lines.rank_targets(drug="drug-001", dose=2.0, evidence="data")


def test_finds_the_targets_where_the_largest_change_does_not(thorough):
    adata, truth = thorough.adata, thorough.adata.uns["truth"]
    hits = pd.DataFrame(truth["targets"], index=truth["drugs"], columns=adata.var_names).stack()
    z = (adata.to_df() - controls(thorough).mean()) / controls(thorough).std(ddof=0)
    change = z.groupby([adata.obs["drug"].astype(str), adata.obs["dose"]]).mean().abs().stack()
    for evidence in ("data", "features"):
        table = thorough.rank_targets(evidence=evidence)
        hit = hits.loc[list(zip(table["drug"], table["gene"], strict=True))].to_numpy()
        rival = change.loc[list(zip(table["drug"], table["dose"], table["gene"], strict=True))].to_numpy()
        ours, theirs = (average_precision_score(hit, score) for score in (table["score"], rival))
        assert ours > 0.95
        assert ours > theirs + 0.1


def test_effects_are_the_true_shifts(thorough):
    truth = thorough.adata.uns["truth"]["unseen_dose"]
    drug, dose = str(truth["drug"][0]), float(truth["dose"][1])
    table = thorough.rank_targets(drug=drug, dose=dose).set_index("gene").loc[thorough.adata.var_names]
    hit = truth["targets"][1] > 0
    np.testing.assert_allclose(table["effect"][hit], truth["shift"][1][hit], atol=0.35)
    assert (table["probability"][hit] > 0.9).all()
    assert (table["probability"][~hit] < 0.1).all()


# ---- get_graph -------------------------------------------------------------------------------------------------------


def test_edges(model):
    table = model.get_graph()
    assert list(table) == ["source", "target", "weight", "sign", "strength"]
    assert table.index.equals(pd.RangeIndex(len(table)))
    assert len(table) == int(model.module.mechanism.graph.sum()) > 0
    assert not table[["source", "target"]].duplicated().any()
    assert set(table["source"]) | set(table["target"]) <= set(model.adata.var_names)
    graph = nx.from_pandas_edgelist(table, create_using=nx.DiGraph)
    assert nx.is_directed_acyclic_graph(graph)
    assert (table["sign"] == np.sign(table["weight"])).all()
    assert table["strength"].is_monotonic_decreasing
    assert (table["strength"] >= 0).all()


def test_strength_is_the_loss_of_permuting_the_source(thorough):
    table, x = thorough.get_graph(), controls(thorough)
    z = ((x - x.mean()) / x.std(ddof=0)).to_numpy()
    w = matrix(thorough, table)
    noise, rng = thorough.module.mechanism.variance.numpy(), np.random.default_rng(0)
    position = {gene: i for i, gene in enumerate(x.columns)}
    for edge in table.itertuples():
        i, j = position[edge.source], position[edge.target]
        lost = [np.mean((w[i, j] * (z[:, i] - rng.permutation(z[:, i]))) ** 2) for _ in range(20)]
        assert edge.strength == pytest.approx(np.mean(lost) / (2 * noise[j]), rel=0.1)


def test_total_effects_invert_the_direct_ones(model):
    direct, total = model.get_graph(), model.get_graph(kind="total")
    assert list(total) == ["source", "target", "weight", "sign"]
    assert total.index.equals(pd.RangeIndex(len(total)))
    w = matrix(model, direct)
    expected = np.linalg.inv(np.eye(len(w)) - w) - np.eye(len(w))
    np.testing.assert_allclose(matrix(model, total), expected, atol=1e-10)
    graph = nx.from_pandas_edgelist(direct, create_using=nx.DiGraph)
    pairs = {(a, b) for b in graph for a in nx.ancestors(graph, b)}
    assert set(zip(total["source"], total["target"], strict=True)) == pairs
    with pytest.raises(ValueError, match="kind='totl' does not exist. Did you mean 'total'"):
        model.get_graph(kind="totl")


def test_the_true_graph_is_found(thorough):
    truth = thorough.adata.varp["true_graph"].toarray() > 0
    strength = matrix(thorough, thorough.get_graph(), "strength")
    off = ~np.eye(len(truth), dtype=bool)
    assert average_precision_score(truth[off], strength[off]) > 0.9


# ---- do --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["shift", "set"])
@pytest.mark.parametrize("as_", ["cells", "samples", "mean", "delta"])
def test_do_moves_descendants_only(model, kind, as_):
    table = model.get_graph(kind="total")
    gene = table["source"].iloc[0]
    below = set(table.loc[table["source"] == gene, "target"])
    pred = model.do({gene: 1.7}, kind=kind, as_=as_, n_cells=50_000 if as_ == "samples" else None)
    base = 0 if as_ == "delta" else pred.layers["control"]
    moved = np.abs((pred.X - base).mean(0)) / controls(model).std(ddof=0).to_numpy()
    others = [g not in below | {gene} for g in pred.var_names]
    assert moved[others].max() < (0.03 if as_ == "samples" else 1e-6)
    assert moved[[g in below for g in pred.var_names]].max() > 0.1
    assert pred.obs["drug"].unique().tolist() == [f"do({gene}{'+=' if kind == 'shift' else '='}1.7)"]
    assert pred.obs["dose"].isna().all()
    assert pred.uns["scgim"]["prediction"]["intervention"] == kind


def test_shift_adds_sd_units_and_spreads_by_total_effects(model):
    total, sd = model.get_graph(kind="total"), controls(model).std(ddof=0)
    w = pd.DataFrame(matrix(model, total), index=sd.index, columns=sd.index) + np.eye(len(sd))
    shifts = {sd.index[1]: -2.0, sd.index[4]: 0.5}
    expected = sum(value * w.loc[gene] for gene, value in shifts.items()) * sd
    np.testing.assert_allclose(model.do(shifts, as_="delta").X[0], expected, atol=1e-5)


def test_set_is_control_mean_plus_sd_units_in_every_cell(model):
    x = controls(model)
    genes = {x.columns[0]: -1.5, x.columns[3]: 0.0}
    pred = model.do(genes, kind="set")
    for gene, value in genes.items():
        expected = x[gene].mean() + value * x[gene].std(ddof=0)
        np.testing.assert_allclose(pred[:, gene].X, expected, rtol=1e-5, atol=1e-5)
    both = model.do(genes, kind="set", as_="samples", n_cells=10)
    np.testing.assert_allclose(both[:, list(genes)].X, pred[:10, list(genes)].X, rtol=1e-5, atol=1e-5)


def test_set_within_lines(lines):
    pred = lines.do({"G0002": 1.0}, kind="set", as_="cells")
    sd = lines.summary_.scale[2]
    x = pd.Series(np.asarray(lines.adata[:, "G0002"].X, dtype=float).ravel(), index=lines.adata.obs_names)
    obs = lines.adata.obs
    means = x[obs["drug"] == "DMSO"].groupby([obs["line"], obs["plate"]]).mean()
    sources = pred.obs["source_cell"].to_numpy()
    at = list(zip(obs["line"][sources], obs["plate"][sources], strict=True))
    np.testing.assert_allclose(pred[:, "G0002"].X.ravel(), means.loc[at].to_numpy() + sd, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("interventions", "options", "error", "message"),
    [
        pytest.param(
            {"G002": 1.0}, {}, KeyError, "'G002' is not among the 6 modelled genes. Nearest: .'G0002'", id="gene"
        ),
        pytest.param({}, {}, ValueError, "No intervention was asked for", id="nothing"),
        pytest.param("G0002", {}, TypeError, r"a dict \{gene: value\}, got 'G0002'", id="no dict"),
        pytest.param({"G0002": np.nan}, {}, ValueError, "'G0002' cannot be moved by nan", id="NaN"),
        pytest.param({"G0002": "1"}, {}, ValueError, "'G0002' cannot be moved by '1'", id="text"),
        pytest.param({"G0002": 1.0}, {"kind": "sett"}, ValueError, "Did you mean 'set'", id="kind"),
        pytest.param({"G0002": 1.0}, {"as_": "sample"}, ValueError, "Did you mean 'samples'", id="as_"),
    ],
)
def test_do_refusals(model, interventions, options, error, message):
    with pytest.raises(error, match=message):
        model.do(interventions, **options)
