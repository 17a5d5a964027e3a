from __future__ import annotations

import numpy as np
import pytest

from scgim.module import Readout, ReadoutData, Rows
from scgim.module.readout import _left_out

N, K, D, R = 4000, 40, 6, 30


def screen(seed: int = 0, *, noise: float = 0.0, own: float = 0.0) -> tuple[ReadoutData, dict, Rows]:
    """Cells of drugs whose readout is linear in the panel; measured panel with noise, own changes of a third of the readout genes."""
    rng = np.random.default_rng(seed)
    slopes = rng.normal(size=(D, R)) * (rng.random((D, R)) < 0.5)
    drug = np.arange(K) // 2
    change, direct = rng.normal(size=(K, D)), own * rng.normal(size=(K, R))[drug] * (np.arange(R) < R // 3)
    panel = rng.normal(size=(N, D))
    readout = panel @ slopes + rng.normal(size=(N, R))
    measured = panel + noise * rng.normal(size=(N, D))
    n = np.full(K, 50.0)
    # The mean of the panel varies by sampling; the readout follows it. Measurement noise is in the measured panel alone.
    mean, error, at = (rng.normal(size=(K, width)) / np.sqrt(n[0]) for width in (D, D, R))
    mean += change
    data = ReadoutData(
        scatter=measured.T @ measured,
        cross=measured.T @ readout,
        squares=(readout**2).sum(0),
        freedom=float(N),
        panel=mean + noise * error,
        readout=mean @ slopes + direct + at,
        n=n,
        controls=np.full(K, 1e6),
    )
    rows = Rows(drug, np.zeros(K), np.zeros(K, dtype=np.int64))
    return data, {"slopes": slopes, "own": direct}, rows


def test_slopes_and_noise_of_a_linear_readout_are_found():
    data, truth, rows = screen()
    found = Readout.fit(data, rows)
    np.testing.assert_allclose(found.slopes, truth["slopes"], atol=0.1)
    np.testing.assert_allclose(found.noise, 1, atol=0.15)
    np.testing.assert_array_equal(found.change(data.panel), data.panel.astype(np.float32) @ found.slopes)


def test_noise_in_the_panel_attenuates_cells_and_conditions_correct_it():
    data, truth, rows = screen(noise=1.5)
    found = Readout.fit(data, rows)
    cells = np.linalg.solve(data.scatter, data.cross)
    error = lambda slopes: np.sqrt(((slopes - truth["slopes"]) ** 2).mean())
    assert found.attenuation > 2
    assert error(found.slopes) < 0.4 * error(cells)


def test_own_changes_are_kept_where_there_are_any():
    data, truth, rows = screen(own=1.5)
    found = Readout.fit(data, rows).responses.own(rows)
    third = R // 3
    assert np.corrcoef(found[:, :third].ravel(), truth["own"][:, :third].ravel())[0, 1] > 0.7
    assert np.abs(found[:, third:]).max() < 0.5 * np.abs(found[:, :third]).max()


def test_without_own_changes_next_to_nothing_is_left_of_the_residuals():
    data, _, rows = screen()
    model = Readout.fit(data, rows)
    left = data.readout - model.change(data.panel)
    assert (model.responses.own(rows) ** 2).mean() < 0.1 * (left**2).mean()


@pytest.mark.parametrize("penalty", [0.3, 10.0, np.inf])
def test_errors_of_left_out_drugs_are_those_of_refits_without_them(penalty):
    rng = np.random.default_rng(0)
    x, y, drug = rng.normal(size=(20, 4)), rng.normal(size=(20, 3)), rng.integers(5, size=20)
    left, values, _ = np.linalg.svd(x, full_matrices=False)
    found = _left_out(left, values**2 / (values**2 + penalty), y, [np.flatnonzero(drug == k) for k in range(5)])
    for k in range(5):
        own = drug == k
        slopes = np.zeros((4, 3))
        if np.isfinite(penalty):
            slopes = np.linalg.solve(x[~own].T @ x[~own] + penalty * np.eye(4), x[~own].T @ y[~own])
        np.testing.assert_allclose(found[own], y[own] - x[own] @ slopes, atol=1e-6)


def test_with_few_drugs_slopes_are_those_within_conditions():
    data, _, rows = screen()
    one = Readout.fit(data, rows._replace(drug=np.zeros(K, dtype=np.int64)))
    assert (one.attenuation, one.between) == (1.0, np.inf)
    np.testing.assert_allclose(
        one.slopes, np.linalg.solve(data.scatter + one.within * np.eye(D), data.cross), rtol=1e-4, atol=1e-5
    )


def test_the_order_of_readout_genes_changes_nothing():
    data, _, rows = screen(own=1.0)
    order = np.random.default_rng(1).permutation(R)
    turned = data._replace(cross=data.cross[:, order], squares=data.squares[order], readout=data.readout[:, order])
    one, other = Readout.fit(data, rows), Readout.fit(turned, rows)
    np.testing.assert_allclose(other.slopes, one.slopes[:, order], atol=1e-5)
    np.testing.assert_allclose(other.responses.own(rows), one.responses.own(rows)[:, order], atol=1e-6)


def test_constant_genes_have_no_change():
    data, _, rows = screen()
    data.cross[:, 0], data.squares[0], data.readout[:, 0] = 0, 0, 0
    model = Readout.fit(data, rows)
    np.testing.assert_array_equal(model.slopes[:, 0], 0)
    assert np.abs(model.responses.own(rows)[:, 0]).max() < 1e-6
    assert np.isfinite(model.slopes).all()


def test_state_restores_the_bits():
    data, _, rows = screen(own=1.0)
    model = Readout.fit(data, rows)
    again = Readout.from_state(model.state())
    np.testing.assert_array_equal(again.change(data.panel), model.change(data.panel))
    np.testing.assert_array_equal(again.responses.own(rows), model.responses.own(rows))
