from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import t, ttest_ind

from scgim.pp import check

LABELS = ["DMSO", "untreated"]


def screen(
    seed: int = 0, *, shift: float = 0.0, n: int = 60, n_genes: int = 8, lines: tuple[str, ...] = ("A", "B")
) -> ad.AnnData:
    """Two control labels and a drug in every line; ``shift`` moves gene 3 of the second label in the last line."""
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(
        [(drug, line) for line in lines for drug in [*LABELS, "a"] for _ in range(n)], columns=["drug", "line"]
    )
    x = 20 + rng.normal(size=(len(obs), n_genes)) * rng.uniform(0.5, 3, n_genes)
    moved = (obs["drug"] == LABELS[1]) & (obs["line"] == lines[-1])
    x[moved, 3] += shift * x[:, 3].std()
    obs.index = obs.index.map(str)
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"gene {i}" for i in range(n_genes)]))


def row(adata: ad.AnnData, **options) -> pd.Series:
    options = {"control": LABELS, "scale": "continuous", "cell_line_key": "line"} | options
    return check(adata, **options).set_index("check").loc["control labels"]


def test_a_single_label_has_nothing_to_compare():
    for control in ("DMSO", ["DMSO"]):
        assert row(screen(), control=control).tolist() == ["PASS", "One control label.", ""]


@pytest.mark.parametrize("make", [lambda x: x, sp.csr_matrix, sp.csc_matrix])
def test_the_difference_is_that_of_welch_with_bonferroni(make):
    adata = screen(shift=1.5)
    x = {key: adata.X[rows] for key, rows in adata.obs.reset_index().groupby(["line", "drug"]).groups.items()}
    p = np.array([ttest_ind(x[line, "DMSO"], x[line, "untreated"], equal_var=False).pvalue for line in "AB"])
    assert (p[1] * p.size < 0.05).tolist() == [False] * 3 + [True] + [False] * 4
    one, two = x["B", "DMSO"][:, 3], x["B", "untreated"][:, 3]
    sd = np.sqrt((one.var(ddof=1) + two.var(ddof=1)) / 2)
    found = ttest_ind(one, two, equal_var=False)
    bound = t.isf(0.05 / (2 * p.size), found.df) * abs((one.mean() - two.mean()) / found.statistic) / sd
    adata.X = make(adata.X)
    status, finding, fix = row(adata)
    assert status == "WARN"
    size = abs(one.mean() - two.mean()) / sd
    assert f"differ by up to {size:.2g} SD of their cells (gene 'gene 3', in line=B)" in finding
    assert f"chance allows {bound:.2g}; 1 of 2 comparisons" in finding
    assert "control='DMSO'" in fix


def test_equal_labels_are_rarely_told_apart():
    warned = sum(row(screen(seed, n=30, n_genes=5))["status"] == "WARN" for seed in range(60))
    assert warned <= 7  # 5 % of 60 screens are 3


def test_a_clear_difference_too_small_for_an_effect_passes():
    assert row(screen(shift=0.1, n=20_000, n_genes=4, lines=("A",)))["status"] == "PASS"
    assert row(screen(shift=0.3, n=20_000, n_genes=4, lines=("A",)))["status"] == "WARN"


def test_the_order_of_cells_and_labels_does_not_matter():
    adata = screen(shift=1.5)
    other = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    pd.testing.assert_series_equal(row(adata), row(other, control=LABELS[::-1]))


def test_counts_are_compared_on_the_training_scale():
    rng, adata = np.random.default_rng(0), screen(n=400, lines=("A",))
    depth = np.where(adata.obs["drug"] == "untreated", 5.0, 1.0)[:, None]  # depth alone is no difference
    adata.X = rng.poisson(depth * 40, size=adata.shape).astype(np.float32)
    adata.obs["size"] = depth.ravel() * 1000
    assert row(adata, scale="counts", size_factor_key="size")["finding"].startswith("2 control labels")
    moved = adata.copy()
    moved.X[(moved.obs["drug"] == "untreated").to_numpy(), 5] *= 2
    status, finding, _ = row(moved, scale="counts", size_factor_key="size")
    assert status == "WARN"
    assert "gene 5" in finding


def test_labels_that_never_meet_cannot_be_compared():
    adata = screen()
    adata.obs["line"] = np.where(adata.obs["drug"] == "untreated", "B", "A")
    status, finding, _ = row(adata)
    assert status == "PASS"
    assert "they cannot be compared" in finding


def test_a_label_without_cells_is_named():
    sheet = check(screen(), control=["DMSO", "vehicle"], scale="continuous").set_index("check")
    assert sheet.loc["controls", "status"] == "FAIL"
    assert "No cell equals control='vehicle'" in sheet.loc["controls", "finding"]
    assert sheet.loc["controls", "finding"].endswith("have usual names of controls.")  # the label that was not named
