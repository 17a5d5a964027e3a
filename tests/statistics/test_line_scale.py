from __future__ import annotations

import numpy as np
import pytest

import scgim
from scgim.statistics import relative_scales


def variances(rng: np.random.Generator, scale: np.ndarray, n: int) -> np.ndarray:
    """Sample variances of normal values of some SD, ``(lines, genes)``."""
    return scale**2 * rng.chisquare(n - 1, scale.shape) / (n - 1)


def test_lines_of_one_noise_are_exactly_equal() -> None:
    rng = np.random.default_rng(0)
    same = [relative_scales(variances(rng, np.ones((4, 60)), 50), np.full(4, 50)) for _ in range(10)]
    assert np.mean([(scales == 1).all() for scales in same]) >= 0.4  # by chance they differ a little,
    assert max(np.abs(np.log(scales)).max() for scales in same) < 0.15  # and are drawn together


def test_lines_of_different_noise_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    scale = np.exp(rng.normal(scale=0.5, size=(6, 40)))
    variance = variances(rng, scale, 400)
    found = relative_scales(variance, np.full(6, 400))
    error = np.log(found) - np.log(scale)
    assert (error - error.mean(0)).std() < 0.06
    np.testing.assert_allclose((variance / found**2).mean(0) / variance.mean(0), 1)  # pooled control variance stays


def test_one_line_and_constant_genes_are_left_alone() -> None:
    assert (relative_scales(np.array([[2.0, 3.0]]), np.array([50])) == 1).all()
    variance = np.array([[0.0, 1.0, 4.0], [0.0, 9.0, 1.0]])
    found = relative_scales(variance, np.array([500, 500]))
    assert (found[:, 0] == 1).all()
    assert np.isfinite(found).all()
    assert found[1, 1] > 2 * found[0, 1]


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_units_of_a_gene_do_not_matter(factor: float) -> None:
    rng = np.random.default_rng(2)
    variance = variances(rng, np.exp(rng.normal(scale=0.5, size=(5, 8))), 100)
    unit = np.where(np.arange(8) % 2, factor, 1.0)
    n = np.full(5, 100)
    np.testing.assert_allclose(relative_scales(variance * unit, n), relative_scales(variance, n))


@pytest.mark.filterwarnings("ignore:Only 3 control cells")
def test_many_small_batches_are_no_other_noise() -> None:
    adata = scgim.datasets.simulate_screen(n_genes=60, n_drugs=8, n_cells=6, n_control=180, doses=(1.0,), n_new_drugs=2)
    obs, control = adata.obs, (adata.obs["drug"] == "DMSO").to_numpy()
    line = np.arange(len(obs)) % 2
    plate = np.where(line == 0, 0, np.arange(len(obs)) // 2 % 30)  # 90 controls on one plate, and three on each of 30
    obs["line"], obs["plate"] = np.array(["a", "b"])[line], plate.astype(str)
    treated = obs[~control].index
    obs.loc[treated, "plate"] = "0"
    columns = {"cell_line_key": "line", "batch_key": "plate", "features_key": "drug_features"}
    scgim.setup_anndata(adata, drug_key="drug", control="DMSO", scale="continuous", **columns)
    model = scgim.GIM(adata, structure="none")
    model.train(max_epochs=10, enable_progress_bar=False)
    ratio = model.summary_.line_scale[1] / model.summary_.line_scale[0]
    assert abs(np.log(ratio).mean()) < 0.05
