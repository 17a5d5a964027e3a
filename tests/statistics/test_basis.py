from __future__ import annotations

import numpy as np
import pytest

from scgim.statistics import BASIS_CENTERS, BASIS_SLOPE, expand


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
def test_columns_are_the_formula_gene_by_gene(layout):
    x = layout(np.random.default_rng(0).normal(size=(20, 3)))
    out = expand(x)
    assert out.shape == (20, 12)
    for j in range(3):
        np.testing.assert_array_equal(out[:, 4 * j], x[:, j])
        for b, c in enumerate((-1.2, 0.0, 1.2), start=1):
            np.testing.assert_allclose(out[:, 4 * j + b], np.tanh(1.5 * (x[:, j] - c)), rtol=1e-15)
    assert (BASIS_CENTERS, BASIS_SLOPE) == ((-1.2, 0.0, 1.2), 1.5)


@pytest.mark.parametrize(("given", "returned"), [(np.float32, np.float32), (np.float64, np.float64), (int, float)])
def test_type_is_kept(given, returned):
    assert expand(np.zeros((2, 3), given)).dtype == returned


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1)])
def test_any_size(shape):
    assert expand(np.zeros(shape)).shape == (shape[0], 4 * shape[1])


def test_mirrored_cells_mirror_the_columns():
    x = np.random.default_rng(1).normal(size=(10, 2))
    np.testing.assert_allclose(expand(-x), -expand(x).reshape(10, 2, 4)[:, :, [0, 3, 2, 1]].reshape(10, 8))
