"""What is known of the graph beforehand."""

from __future__ import annotations

from itertools import combinations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata.tests.helpers import assert_equal

import scgim
from scgim.structure import edge_price, local_score
from scgim.structure.score import score_data
from scgim.train._edge_constraints import (
    LIKELY,
    EdgeConstraints,
    check_prior,
    check_regulators,
    edge_constraints,
)

GENES = [f"G{i:04d}" for i in range(6)]
KINDS = {
    "linear shift": {},
    "linear hard": {"intervention": "hard"},
    "linear noise": {"scale_shift": True},
    "network shift": {"mechanism": "network"},
    "network hard": {"mechanism": "network", "intervention": "hard"},
}


def prior(*rows):
    return pd.DataFrame(rows, columns=["source", "target", "kind"])


def required(*edges):
    return prior(*((*edge, "required") for edge in edges))


def forbidden(*edges):
    return prior(*((*edge, "forbidden") for edge in edges))


def edges(model):
    return set(model.get_graph()[["source", "target"]].itertuples(index=False, name=None))


def acyclic(found):
    import networkx as nx

    return nx.is_directed_acyclic_graph(nx.DiGraph(sorted(found)))


@pytest.fixture(scope="module")
def free(screen, fit):
    """``free(kind)``: the graph that is found if nothing is known."""
    done = {}

    def get(kind):
        if kind not in done:
            done[kind] = edges(fit(screen(), gim={"generator": "hill"} | KINDS[kind]))
        return done[kind]

    return get


@pytest.fixture(scope="module")
def informed(screen, fit):
    """Trained with priors and regulators; shared, so nothing may change it."""
    table = prior(("G0002", "G0000", "required"), ("G0004", "G0005", "forbidden"))
    return fit(screen(), gim={"generator": "hill", "prior_graph": table, "regulators": ["G0002", "G0004", "G0001"]})


# ---- obedience -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_known_is_obeyed(screen, fit, free, kind):
    found = free(kind)
    assert len(found) >= 3
    away = sorted(found)[:2]
    absent = [e for e in combinations(GENES, 2) if e not in found and e[::-1] not in found]
    turned = sorted(found)[2][::-1]
    demands = pd.concat([forbidden(*away), required(turned, *absent[:1])])
    model = fit(screen(), gim={"generator": "hill", "prior_graph": demands} | KINDS[kind])
    assert not edges(model) & set(away)
    assert {turned, *absent[:1]} <= edges(model)
    assert acyclic(edges(model))
    assert np.isfinite(model.predict(as_="delta").X).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_graph_may_be_known(screen, fit, kind):
    """All that is required and nothing else allowed: also where the data speak against it."""
    chain = [(a, b) for a, b in combinations(GENES[::-1], 2)]
    full = fit(screen(), gim={"generator": "hill", "prior_graph": required(*chain)} | KINDS[kind])
    assert edges(full) == set(chain)


@pytest.mark.parametrize("kind", KINDS)
def test_all_edges_may_be_forbidden(screen, fit, kind):
    table = forbidden(*((a, b) for a in GENES for b in GENES))
    model = fit(screen(), gim={"generator": "hill", "prior_graph": table} | KINDS[kind])
    assert edges(model) == set()
    assert np.isfinite(model.predict(as_="cells").X).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("structure", ["search", "none"])
def test_only_regulators_have_children(screen, fit, kind, structure):
    model = fit(
        screen(), gim={"generator": "hill", "structure": structure, "regulators": ["G0001", "G0003"]} | KINDS[kind]
    )
    assert {source for source, _ in edges(model)} <= {"G0001", "G0003"}
    assert bool(edges(model)) == (structure == "search")


@pytest.mark.parametrize("kind", KINDS)
def test_without_search_what_is_required_is_all_there_is(screen, fit, kind):
    chain = [("G0005", "G0000"), ("G0000", "G0003")]
    options = {"generator": "hill", "structure": "none", "prior_graph": required(*chain)}
    model = fit(screen(), gim=options | KINDS[kind])
    assert edges(model) == set(chain)
    assert (model.get_graph()["weight"] != 0).all()  # they are fitted
    alone = fit(screen(), gim={"generator": "hill", "structure": "none"} | KINDS[kind])
    assert edges(alone) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_required_edges_survive_that_carry_nothing(screen, fit, kind):
    """Two genes that are independent of everything: an edge between them explains nothing, and is there."""
    adata = screen(n_cells=40, n_control=1000, doses=(0.5, 2.0))
    adata.X[:, :2] = np.random.default_rng(0).normal(size=(adata.n_obs, 2))
    demand = required((GENES[0], GENES[1]))
    model = fit(adata, gim={"generator": "hill", "prior_graph": demand} | KINDS[kind], train={"max_epochs": 30})
    assert (GENES[0], GENES[1]) in edges(model)


def test_no_more_regulators_than_none(screen, fit):
    model = fit(screen(), gim={"generator": "hill", "regulators": []})
    assert edges(model) == set()


def test_an_empty_table_says_nothing(screen, fit, free):
    assert edges(fit(screen(), gim={"generator": "hill", "prior_graph": prior()})) == free("linear shift")


def test_what_is_found_anyway_may_be_required(screen, fit, free):
    model = fit(screen(), gim={"generator": "hill", "prior_graph": required(*free("linear shift"))})
    assert free("linear shift") <= edges(model)


def test_names_are_meant_whatever_the_order_of_genes(screen, fit):
    table = prior(("G0005", "G0000", "required"), ("G0000", "G0001", "forbidden"), ("G0002", "G0003", "forbidden"))
    options = {"generator": "hill", "prior_graph": table, "regulators": ["G0005", "G0000", "G0002"]}
    one = fit(screen(), gim=options)
    other = fit(screen()[:, ::-1].copy(), gim=options | {"prior_graph": table[::-1]})
    pd.testing.assert_frame_equal(one.get_graph(), other.get_graph())
    assert ("G0005", "G0000") in edges(other)


@pytest.mark.parametrize("form", [list, tuple, np.array, pd.Index, pd.Series, iter], ids=lambda f: f.__name__)
def test_regulators_in_any_list(screen, setup_kwargs, form):
    adata = screen()
    scgim.setup_anndata(adata, **setup_kwargs)
    model = scgim.GIM(adata, regulators=form(["G0003", "G0001", "G0003"]))
    assert model.settings_["regulators"] == ["G0003", "G0001"]


def test_columns_of_any_type_and_rows_of_any_number(screen, fit):
    table = prior(("G0005", "G0000", "required"), ("G0000", "G0001", "forbidden"))
    plain = fit(screen(), gim={"generator": "hill", "prior_graph": table})
    forms = {
        "categories": table.astype("category"),
        "further columns": table.assign(weight=1.0)[["weight", "target", "kind", "source"]],
        "rows twice": pd.concat([table, table]),
        "any index": table.set_axis(["x", "x"]),
        "loops forbidden": pd.concat([table, forbidden(("G0000", "G0000"))]),
    }
    for name, form in forms.items():
        model = fit(screen(), gim={"generator": "hill", "prior_graph": form})
        assert edges(model) == edges(plain), name


# ---- what the user keeps ---------------------------------------------------------------------------------------------------


def test_the_users_table_is_left_alone(screen, fit):
    table = prior(("G0002", "G0000", "required"), ("G0004", "G0005", "forbidden")).set_axis(["b", "a"])
    table["kind"] = table["kind"].astype("category")
    before, regulators = table.copy(), ["G0002", "G0004"]
    model = fit(screen(), gim={"generator": "hill", "prior_graph": table, "regulators": regulators})
    model.annotate()
    pd.testing.assert_frame_equal(table, before)
    assert regulators == ["G0002", "G0004"]
    # nor does the model change with it
    table["kind"], regulators[:] = "forbidden", []
    assert ("G0002", "G0000") in edges(model)
    assert model.settings_["prior_graph"]["kind"].tolist() == ["required", "forbidden"]
    assert model.settings_["regulators"] == ["G0002", "G0004"]


@pytest.mark.parametrize("bound", [False, True], ids=["without data", "with data"])
def test_saved_models_keep_priors(informed, screen, tmp_path, bound):
    informed.save(tmp_path / "model")
    again = scgim.GIM.load(tmp_path / "model", adata=screen() if bound else None)
    for name in ("prior_graph", "regulators"):
        one, other = informed.settings_[name], again.settings_[name]
        if name == "regulators":
            assert one == other
        else:
            assert one.astype(str).to_numpy().tolist() == other.astype(str).to_numpy().tolist()
            assert list(one) == list(other)
    pd.testing.assert_frame_equal(informed.get_graph(), again.get_graph())
    np.testing.assert_array_equal(informed.predict(as_="mean").X, again.predict(as_="mean").X)
    if bound:
        again.train(max_epochs=20, enable_progress_bar=False)
        assert edges(again) == edges(informed)
        again.save(tmp_path / "again")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"prior_graph": prior(("G0002", "G0000", "required")), "regulators": ["G0002", "G0004"]}, id="both"
        ),
        pytest.param({"prior_graph": prior(), "regulators": []}, id="empty"),
    ],
)
def test_provenance_tells_them_in_every_file(screen, fit, tmp_path, options):
    model = fit(screen(), gim={"generator": "hill"} | options, train={"max_epochs": 8})
    model.annotate()
    adata = model.adata
    told = adata.uns["scgim"]["settings"]
    assert list(told["regulators"]) == options["regulators"]
    assert told["prior_graph"][list(prior())].to_numpy().tolist() == options["prior_graph"].to_numpy().tolist()
    for kind in ("h5ad", "zarr"):
        getattr(adata, f"write_{kind}")(tmp_path / kind)
        assert_equal(getattr(ad, f"read_{kind}")(tmp_path / kind), adata)


# ---- refusals --------------------------------------------------------------------------------------------------------------

R, F = "required", "forbidden"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param({"prior_graph": required(("G0000", "G0001"), ("G0001", "G0002"), ("G0002", "G0000"))}, ValueError,
                     "form a cycle: G000. -> G000. -> G000. -> G000..*drop one.*kind='likely'", id="cycle"),
        pytest.param({"prior_graph": required(("G0000", "G0001"), ("G0001", "G0000"))}, ValueError,
                     "cycle: G0000 -> G0001 -> G0000", id="both directions"),
        pytest.param({"prior_graph": prior(("G0000", "G0001", R), ("G0000", "G0001", F))}, ValueError,
                     "both requires and forbids 'G0000' -> 'G0001'.*Keep one", id="both kinds"),
        pytest.param({"prior_graph": required(("G0000", "G00O1"))}, ValueError,
                     r"prior_graph\['target'\] contains 1 genes that are not in adata: 'G00O1'.*nearest to 'G00O1': 'G0001'", id="target"),
        pytest.param({"prior_graph": required(("G000", "G0001"))}, ValueError,
                     r"prior_graph\['source'\].*'G000'.*nearest to 'G000': 'G000.'", id="source"),
        pytest.param({"prior_graph": required(("nothing like it", "G0001"))}, ValueError, "'nothing like it'.*nearest", id="far"),
        pytest.param({"prior_graph": required((None, "G0001"))}, ValueError, "'None'|'nan'", id="missing value"),
        pytest.param({"prior_graph": required((0, 1))}, ValueError, "contains 1 genes.*'0'", id="positions"),
        pytest.param({"prior_graph": required(("G0003", "G0003"))}, ValueError,
                     "requires 'G0003' to cause itself. Drop", id="loop"),
        pytest.param({"prior_graph": prior(("G0000", "G0001", R)).rename(columns={"source": "sources"})}, ValueError,
                     "no column 'source' .nearest: 'sources'.*source, target, kind", id="column"),
        pytest.param({"prior_graph": prior(("STAT1", "IRF1", "likely"))}, ValueError,
                     "prior_graph contains 2 genes that are not in adata: 'STAT1', 'IRF1'", id="no likely edge left"),
        pytest.param({"prior_graph": prior(("G0000", "G0001", "likely")).assign(log_odds=np.inf)}, ValueError,
                     "'log_odds'. contains 'inf'. It must be a finite number.*'required'", id="infinite odds"),
        pytest.param({"prior_graph": prior(("G0000", "G0001", "likely")).assign(weight="high")}, ValueError,
                     "'weight'. contains 'high'", id="weight as text"),
        pytest.param({"prior_graph": pd.DataFrame({0: [1]})}, ValueError, "no column 'source' .nearest: '0'", id="int columns"),
        pytest.param({"prior_graph": prior(("G0000", "G0001", "Required"))}, ValueError,
                     "holds 'Required'; it may hold 'required', 'forbidden' and 'likely'", id="kind"),
        pytest.param({"prior_graph": prior(("G0000", "G0001", 1))}, ValueError, "holds '1'", id="kind as a number"),
        pytest.param({"prior_graph": {"source": ["G0000"]}}, TypeError, "is a DataFrame.*got a dict", id="dict"),
        pytest.param({"prior_graph": [("G0000", "G0001", R)]}, TypeError, "got a list", id="list"),
        pytest.param({"prior_graph": required(("G0000", "G0001")), "regulators": ["G0001"]}, ValueError,
                     "requires 'G0000' to have a child, but it is not among regulators. Add it", id="no regulator"),
        pytest.param({"prior_graph": required(("G0000", "G0001")), "regulators": []}, ValueError,
                     "'G0000'.*not among regulators", id="no regulators"),
        pytest.param({"regulators": ["G00O2"]}, ValueError,
                     "regulators contains 1 genes that are not in adata: 'G00O2'.*nearest.*'G0002'", id="regulator"),
        pytest.param({"regulators": "G0001"}, TypeError, "is a list of gene names, got 'G0001'", id="one name"),
        pytest.param({"regulators": 3}, TypeError, "is a list of gene names, got 3", id="number"),
        pytest.param({"regulators": [0, 1]}, ValueError, "'0'", id="regulators by position"),
    ],
)  # fmt: skip
def test_refused_before_training(screen, setup_kwargs, options, error, message):
    adata = screen()
    scgim.setup_anndata(adata, **setup_kwargs)
    with pytest.raises(error, match=message):
        scgim.GIM(adata, **options)


# ---- likely edges ----------------------------------------------------------------------------------------------------------


def likely(*edges, **columns):
    return prior(*((*edge, "likely") for edge in edges)).assign(**columns)


def test_likely_edges_may_form_cycles(screen, fit):
    cycle = list(zip(GENES, [*GENES[1:], GENES[0]], strict=True))
    model = fit(screen(), gim={"generator": "hill", "prior_graph": likely(*cycle, log_odds=1e4)})
    assert edges(model) & set(cycle)
    assert acyclic(edges(model))


@pytest.mark.parametrize("kind", KINDS)
def test_strong_odds_decide_a_direction_and_add_no_edge_without_effect(screen, fit, free, kind):
    found = free(kind)
    turned = sorted(found)[0][::-1]
    options = {"generator": "hill"} | KINDS[kind]
    strong = fit(screen(), gim=options | {"prior_graph": likely(turned, log_odds=1e5)})
    weak = fit(screen(), gim=options | {"prior_graph": likely(turned, log_odds=1e-9)})
    assert edges(weak) == found
    assert turned[::-1] not in edges(strong)
    adata = screen(n_cells=40, n_control=1000)
    adata.X[:, :2] = np.random.default_rng(0).normal(size=(adata.n_obs, 2))
    nothing = fit(adata, gim=options | {"prior_graph": likely((GENES[0], GENES[1]), log_odds=1e5)})
    assert (GENES[0], GENES[1]) not in edges(nothing)


def test_a_network_of_decoupler_is_taken_as_it_is(screen, fit, caplog):
    table = pd.DataFrame(
        {"source": ["G0001", "G0001", "MYC"], "target": ["G0004", "G0004", "G0000"], "weight": [-1.0, 0.5, 1.0]}
    )
    with caplog.at_level("INFO", logger="scgim"):
        model = fit(screen(), gim={"generator": "hill", "prior_graph": table})
    assert "2 of 3 edges join genes of adata" in caplog.text
    kept = model.settings_["prior_graph"]
    assert kept[["source", "target", "kind"]].to_numpy().tolist() == [["G0001", "G0004", "likely"]]
    assert kept["weight"].tolist() == [1.0]  # the sign is no evidence against the edge


def test_weights_beyond_one_are_relative_to_the_largest():
    table = pd.DataFrame({"source": ["A", "A"], "target": ["B", "C"], "weight": [20.0, -5.0]})
    genes = np.array(["A", "B", "C"])
    kept = check_prior(table, None, genes)
    assert kept["weight"].tolist() == [1.0, 0.25]
    odds = edge_constraints(kept, None, genes, price=8.0).edge_log_odds
    assert odds[0].tolist() == [0, LIKELY * 8, LIKELY * 2]
    assert not odds[1:].any()


def test_odds_in_nats_come_before_weights():
    table = likely(("A", "B"), ("A", "C"), log_odds=[3.0, np.nan], weight=[0.5, 0.5])
    genes = np.array(["A", "B", "C"])
    kept = check_prior(table, None, genes)
    odds = edge_constraints(kept, None, genes, price=8.0).edge_log_odds
    assert odds[0].tolist() == [0, 3, LIKELY * 4]
    pd.testing.assert_frame_equal(check_prior(kept, None, genes), kept)


def test_the_price_of_an_edge_is_the_score_of_an_edge_without_effect(screen, fit):
    model = fit(screen(), gim={"generator": "hill"})
    data = model._read(0)
    for penalty in (None, 3.0):
        price = edge_price(data.search, penalty=penalty)
        even, paid = (local_score(0, np.array([1]), 1, score_data(data.search, penalty=p)) for p in (0.0, penalty))
        assert paid - even == pytest.approx(price)


def test_names_of_mouse_and_human_are_recognized(screen, fit):
    adata = screen()
    adata.var_names = [f"Stat{i}" for i in range(6)]
    with pytest.warns(UserWarning, match="only up to case.*'STAT1' is taken for 'Stat1'"):
        found = check_regulators(["STAT1", "STAT5", "JAK2"], adata.var_names.to_numpy(str))
    assert found == ["Stat1", "Stat5"]


def test_of_two_genes_that_differ_in_case_the_exact_name_is_taken():
    genes = np.array(["STAT1", "Stat1"])
    assert check_regulators(["Stat1"], genes) == ["Stat1"]
    with pytest.raises(ValueError, match="'stat1'"):
        check_regulators(["stat1"], genes)


def test_regulators_outside_the_screen_are_counted(caplog):
    with caplog.at_level("INFO", logger="scgim"):
        assert check_regulators(["MYC", "G1", "G1"], np.array(["G1", "G2"])) == ["G1"]
    assert "1 of 2 names" in caplog.text


def test_many_unknown_genes_are_counted_and_not_listed(screen, setup_kwargs):
    adata = screen()
    scgim.setup_anndata(adata, **setup_kwargs)
    with pytest.raises(ValueError, match="contains 500 genes") as caught:
        scgim.GIM(adata, regulators=[f"X{i}" for i in range(500)])
    assert len(str(caught.value)) < 300


def test_genes_that_may_follow_lie_on_allowed_paths_and_above_nothing_required():
    import networkx as nx

    rng = np.random.default_rng(0)
    for _ in range(20):
        allowed = rng.random((7, 7)) < 0.2
        required = allowed & np.triu(rng.random((7, 7)) < 0.4, 1)
        found = EdgeConstraints(allowed, required).may_follow([2, 5], 7)
        down, up = (nx.from_numpy_array(mask, create_using=nx.DiGraph) for mask in (allowed, required))
        below = nx.descendants(down, 2) | nx.descendants(down, 5)
        above = nx.ancestors(up, 2) | nx.ancestors(up, 5)
        assert set(np.flatnonzero(found)) == below - above - {2, 5}
    assert EdgeConstraints().may_follow([1], 4).tolist() == [True, False, True, True]
