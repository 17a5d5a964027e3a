from __future__ import annotations

import numpy as np
import pytest

from scgim.statistics import ConditionMeans, accumulate

FIELDS = ("n", "change", "variance", "line", "control", "correlation", "latent", "reliability")


def reduce(x: np.ndarray, code: np.ndarray):
    return accumulate([(x, code)], n_conditions=int(code.max()) + 1, n_genes=x.shape[1])


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_brute_force(cells, seed):
    x, code = cells(seed, sizes=(60, 40, 7, 90))
    line = np.array([0, 1, 0])
    means = ConditionMeans.of(reduce(x, code), line)
    own = [x[code == k] for k in range(4)]
    np.testing.assert_array_equal(means.n, [40, 7, 90])
    np.testing.assert_array_equal(means.line, line)
    np.testing.assert_allclose(means.change, [c.mean(0) - own[0].mean(0) for c in own[1:]], atol=1e-12)
    squares = np.array([((c - c.mean(0)) ** 2).sum(0) for c in own])
    pooled = squares.sum(0) / sum(len(c) - 1 for c in own)
    expected = [(q + 10 * pooled) / (len(c) + 9) / len(c) for q, c in zip(squares[1:], own[1:], strict=True)]
    np.testing.assert_allclose(means.variance, expected)
    # the latent covariance is that of cells within conditions, shrunk to its diagonal as if there were d cells more of none
    pooled = sum(np.cov(c.T, bias=True) * len(c) for c in own) / (197 - 4)
    share = (197 - 4) / (197 - 4 + 4)
    np.testing.assert_allclose(means.latent, share * pooled + (1 - share) * np.diag(np.diag(pooled)), atol=1e-12)
    sd = np.sqrt(np.diag(pooled))
    np.testing.assert_allclose(means.correlation, means.latent / np.outer(sd, sd), atol=1e-12)
    np.testing.assert_array_equal(means.reliability, np.ones(4))
    assert means.n_cells == 197
    assert means.dispersion is None


def test_the_controls_of_one_line_are_all_controls(cells):
    x, code = cells(sizes=(60, 40, 7))
    means = ConditionMeans.of(reduce(x, code), np.zeros(2, dtype=int))
    np.testing.assert_allclose(means.control, x[code == 0].var(0)[None] / 60, rtol=0.15)  # and a little of all cells'


def test_changes_without_an_effect_have_the_stated_variance():
    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(41), [200, *[50] * 40])
    z = []
    for _ in range(5):
        x = rng.normal(size=(len(code), 12)) @ rng.normal(size=(12, 12)) + 7
        means = ConditionMeans.of(reduce(x, code), np.zeros(40, dtype=int))
        z.append(means.change / np.sqrt(means.variance + means.control[means.line]))
    assert np.std(z) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("d", [1, 5, 40])
@pytest.mark.parametrize("sizes", [(30, 10, 10), (2, 2), (5, 1, 1, 1), (3, 4, 2)], ids=str)
def test_fewer_cells_than_genes_leave_it_positive_definite(sizes, d):
    code = np.repeat(np.arange(len(sizes)), sizes)
    x = np.random.default_rng(0).normal(size=(len(code), d))
    means = ConditionMeans.of(reduce(x, code), np.zeros(len(sizes) - 1, dtype=int))
    assert all(np.isfinite(getattr(means, name)).all() for name in FIELDS)
    assert np.linalg.eigvalsh(means.latent).min() > 1e-3
    assert np.linalg.eigvalsh(means.correlation).min() > 1e-3
    np.testing.assert_allclose(np.diag(means.correlation), 1)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_gene_that_does_not_vary_in_a_context_has_an_error_all_the_same(cells, offset):
    x, code = cells()
    x = x + offset
    x[code == 3, 1] = offset
    means = ConditionMeans.of(reduce(x, code), np.zeros(3, dtype=int))
    assert (means.variance > 0).all()
    assert np.isfinite(means.correlation).all()


def test_a_copy_of_a_gene_leaves_it_positive_definite(cells):
    x, code = cells()
    means = ConditionMeans.of(reduce(np.column_stack([x, x[:, 0], -x[:, 1]]), code), np.zeros(3, dtype=int))
    assert np.linalg.eigvalsh(means.latent).min() > 0


def test_order_of_genes_and_contexts(cells):
    x, code = cells(sizes=(60, 40, 7, 90))
    line, genes, order = np.array([0, 1, 0]), np.array([2, 0, 3, 1]), np.array([2, 0, 1])
    plain = ConditionMeans.of(reduce(x, code), line)
    by_gene = ConditionMeans.of(reduce(x[:, genes], code), line)
    by_context = ConditionMeans.of(reduce(x, np.r_[0, 1 + np.argsort(order)][code]), line[order])
    for name in ("change", "variance", "control"):
        np.testing.assert_allclose(getattr(by_gene, name), getattr(plain, name)[:, genes], atol=1e-12)
    for name in ("latent", "correlation"):
        np.testing.assert_allclose(getattr(by_gene, name), getattr(plain, name)[np.ix_(genes, genes)], atol=1e-12)
    for name in ("n", "change", "variance", "line"):
        np.testing.assert_allclose(getattr(by_context, name), getattr(plain, name)[order], atol=1e-12)


def test_units(cells):
    x, code = cells(sizes=(60, 40, 7, 90))
    unit = np.array([1e-3, 1.0, 50.0, 7.0])
    plain, scaled = (ConditionMeans.of(reduce(x * u, code), np.zeros(3, dtype=int)) for u in (1.0, unit))
    np.testing.assert_allclose(scaled.change, plain.change * unit)
    np.testing.assert_allclose(scaled.variance, plain.variance * unit**2)
    np.testing.assert_allclose(scaled.control, plain.control * unit**2)
    np.testing.assert_allclose(scaled.latent, plain.latent * np.outer(unit, unit))
    np.testing.assert_allclose(scaled.correlation, plain.correlation)
