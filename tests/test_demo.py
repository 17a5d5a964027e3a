import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scgim.__main__ import main
from scgim._demo._words import about_graph, about_held_out, about_targets


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "new"
    main(["demo", "--out", str(folder)])
    return folder


def test_demo_writes_everything(out):
    names = {path.name for path in out.iterdir()}
    figures = {"graph.png", "targets.png", "held_out.png", "history.png"}
    assert names == figures | {"annotated.h5ad", "targets.csv", "graph.csv", "held_out.csv", "summary.txt"}
    assert all((out / name).stat().st_size > 10_000 for name in figures)


def test_tables_agree_with_the_annotated_data(out):
    adata, targets, graph = (
        ad.read_h5ad(out / "annotated.h5ad"),
        pd.read_csv(out / "targets.csv"),
        pd.read_csv(out / "graph.csv"),
    )
    assert len(targets) == 7 * 11
    assert adata.varp["scgim_graph"].nnz == len(graph)
    drug = targets["drug"].iloc[0]
    assert (
        targets.loc[(targets["drug"] == drug) & (targets["rank"] == 1), "gene"].item()
        == adata.uns["scgim_targets"]["names"][drug][0]
    )


def test_held_out_drugs_stand_beside_their_baselines(out):
    held = pd.read_csv(out / "held_out.csv")
    assert held["drug"].nunique() == 7
    assert set(held["method"]) >= {"scgim do()", "regression in controls", "mean of other drugs", "no change"}
    assert np.isfinite(held["RMSE"]).all()


def targets_table(ours, theirs, calls):
    table = pd.DataFrame({"rank by scgim": ours, "rank by |shift|": theirs, "called (p > .5)": calls})
    table.attrs["n_genes"] = 9
    return table


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [([1, 1], [1, 2], "is better than"), ([1, 2], [2, 1], "is no better than"), ([2, 2], [1, 3], "is worse than")],
)
def test_words_about_targets_follow_the_numbers(ours, theirs, said):
    text = " ".join(about_targets(targets_table(ours, theirs, [8, 8])))
    assert said in text
    assert "Ranks are more reliable than calls" in text
    assert "Read the ranks" not in " ".join(about_targets(targets_table(ours, theirs, [1, 1])))


@pytest.mark.parametrize(("ours", "said"), [(0.1, "beats"), (0.5, "cannot be told from"), (0.9, "does not beat")])
def test_words_about_held_out_drugs_follow_the_numbers(ours, said):
    rows = [("x", "scgim do()", ours, 3), ("x", "no change", 0.5, 0), ("x", "mean of other drugs", 0.6, 9)]
    text = " ".join(about_held_out(pd.DataFrame(rows, columns=["drug", "method", "RMSE", "moved"]), "x"))
    assert f"{said} the best baseline, 'no change'" in text
    assert "nothing downstream" not in text


def test_words_about_the_graph_count_what_is_nearer_than_chance():
    rows = {
        "SHD": [3, 9],
        "SHD, random DAG": [8.0, 8.0],
        "SHD, other published": ["2-4", "2-4"],
        "precision": [0.5, 0.1],
        "recall": [0.5, 0.1],
    }
    assert "to 1 of 2" in about_graph(pd.DataFrame(rows), 5)[0]
