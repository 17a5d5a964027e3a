from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from scgim.statistics import denoise
from scgim.statistics._denoise import DOSE_WIDTH, EFFECT_VARIANCES, LINE_SHARE, LOWEST_DOSE, MOST_CONDITIONS


def design(drugs: int, doses: int = 3, lines: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Drug, log dose and line of every condition."""
    grid = np.meshgrid(np.arange(drugs), np.arange(doses, dtype=float), np.arange(lines), indexing="ij")
    return tuple(each.ravel() for each in grid)


def draw(seed: int, drugs: int = 40, genes: int = 30, noise: float = 0.3):
    """True changes, in which a tenth of drugs x genes have an effect that grows with the dose, and noisy changes."""
    rng = np.random.default_rng(seed)
    drug, dose, line = design(drugs)
    effect = np.where(rng.random((drugs, genes)) < 0.1, rng.normal(size=(drugs, genes)), 0)
    true = effect[drug] * (0.3 + 0.7 * dose[:, None] / 2)
    return true, true + noise * rng.normal(size=true.shape), np.full(true.shape, noise**2), (drug, dose, line)


def slow(y: np.ndarray, noise: np.ndarray, dose: np.ndarray, line: np.ndarray, prior: np.ndarray):
    """Posterior mean and variance of one drug and gene, from a joint normal distribution for each variance of the effect."""
    place = dose / 2
    smooth = np.exp(-0.5 * (np.subtract.outer(place, place) / DOSE_WIDTH) ** 2)
    size = LOWEST_DOSE + (1 - LOWEST_DOSE) * place
    c = np.outer(size, size) * smooth * (1 - LINE_SHARE + LINE_SHARE * np.equal.outer(line, line))
    moments, density = [], []
    for scale in EFFECT_VARIANCES:
        gain = scale * c @ np.linalg.inv(scale * c + np.diag(noise))
        moments.append((gain @ y, np.diag(scale * c - scale * gain @ c)))
        density.append(multivariate_normal.pdf(y, np.zeros(len(y)), scale * c + np.diag(noise)))
    share = prior * density / (prior @ density)
    mean = sum(s * m for s, (m, _) in zip(share, moments, strict=True))
    return mean, sum(s * (m**2 + v) for s, (m, v) in zip(share, moments, strict=True)) - mean**2, share


def test_is_the_posterior_under_the_weights_that_the_data_choose():
    _, y, noise, (drug, dose, line) = draw(0, drugs=6, genes=4)
    mean, variance = denoise(y, noise, drug, dose, line)
    prior = np.full(len(EFFECT_VARIANCES), 1 / len(EFFECT_VARIANCES))
    for _ in range(20):
        found = {}
        for k in range(6):
            rows = drug == k
            for j in range(4):
                found[k, j] = slow(y[rows, j], noise[rows, j], dose[rows], line[rows], prior)
        last, prior = found, np.mean([share for *_, share in found.values()], axis=0)
    for (k, j), (m, v, _) in last.items():
        np.testing.assert_allclose(mean[drug == k, j], m, atol=1e-4)
        np.testing.assert_allclose(variance[drug == k, j], v, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_is_closer_to_the_truth_and_does_not_attenuate_slopes(seed):
    true, y, noise, rows = draw(seed)
    mean, variance = denoise(y, noise, *rows)
    error = (mean - true) ** 2
    assert error.mean() < 0.25 * ((y - true) ** 2).mean()
    assert 0.3 < error.mean() / variance.mean() < 1.5
    moved = np.abs(true) > 0.3
    slope = (mean * true)[moved].sum() / (mean**2)[moved].sum()
    assert slope == pytest.approx(1, abs=0.12)  # the regression of true on denoised changes is not attenuated


def test_without_effects_nothing_is_left():
    rng = np.random.default_rng(0)
    rows = design(40)
    mean, _ = denoise(0.3 * rng.normal(size=(240, 20)), np.full((240, 20), 0.09), *rows)
    assert np.sqrt((mean**2).mean()) < 0.03  # a tenth of the noise


def test_a_strong_change_remains_as_it_was_measured():
    y = np.full((1, 1), 4.0)
    mean, variance = denoise(
        y, np.full((1, 1), 1e-4), np.zeros(1, dtype=int), np.full(1, -np.inf), np.zeros(1, dtype=int)
    )
    np.testing.assert_allclose((mean[0, 0], variance[0, 0]), (4.0, 1e-4), rtol=1e-3)


def test_order_of_conditions_and_genes_does_not_matter():
    rng = np.random.default_rng(1)
    _, y, noise, rows = draw(3)
    plain = denoise(y, noise, *rows)
    order, genes = rng.permutation(len(y)), rng.permutation(y.shape[1])
    moved = denoise(y[order][:, genes], noise[order][:, genes], *(each[order] for each in rows))
    for a, b in zip(plain, moved, strict=True):
        np.testing.assert_allclose(a[order][:, genes], b, atol=1e-10)


def test_a_drug_of_many_conditions_is_treated_in_parts():
    n = 2 * MOST_CONDITIONS + 5
    rng = np.random.default_rng(2)
    mean, variance = denoise(
        1 + 0.3 * rng.normal(size=(n, 3)),
        np.full((n, 3), 0.09),
        np.zeros(n, dtype=int),
        np.zeros(n),
        np.zeros(n, dtype=int),
    )
    np.testing.assert_allclose(mean, 1, atol=0.2)
    assert variance.max() < 0.01
