from __future__ import annotations

import numpy as np
import pytest

from scgim.statistics import misfit_variance

DRUGS, DOSES, GENES = 40, 4, 12
DRUG = np.repeat(np.arange(DRUGS), DOSES)
NOISE, VARIANCE = np.ones(GENES), np.full((DRUGS * DOSES, GENES), 0.02)


def screen(seed: int, share: float = 0.1, wrong: float = 0.0, back: float = 0.0, plate: float = 0.0) -> dict:
    """A chain of genes in which some share of drugs shift each: what the graph leaves, and how genes moved.

    ``wrong`` is added to the slope into gene 5 that the graph does not know of; ``back`` is the slope of an edge 6 -> 5 against the
    graph's 5 -> 6; ``plate`` is what drugs' plates add to every gene.
    """
    rng = np.random.default_rng(seed)
    weight = np.zeros((GENES, GENES))
    weight[np.arange(GENES - 1), np.arange(1, GENES)] = 0.7
    weight[0, 4] = weight[3, 8] = -0.6
    truth = weight.copy()
    truth[4, 5] += wrong
    truth[6, 5] = back
    hit = rng.random((DRUGS, GENES)) < share
    dose = rng.uniform(0.3, 1, (DRUGS * DOSES, GENES))
    shift = (hit * rng.normal(0, 2, (DRUGS, GENES)))[DRUG] * dose
    noise = rng.normal(size=shift.shape) * np.sqrt(VARIANCE)
    offset = rng.normal(0, plate, (4, GENES))[DRUG % 4]
    change = (shift + noise + offset) @ np.linalg.inv(np.eye(GENES) - truth)
    return {"residual": change - change @ weight, "change": change, "weight": weight, "shift": shift}


def found(made: dict, drug: np.ndarray = DRUG) -> np.ndarray:
    return misfit_variance(made["residual"], made["change"], VARIANCE, made["weight"], NOISE, drug)


def kept(made: dict) -> float:
    """Share of the clear targets that stay clear."""
    gain = lambda v: made["residual"] ** 2 / (2 * v) > 6
    return float(gain(VARIANCE + found(made)).sum() / gain(VARIANCE).sum())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("share", "least"), [(0.02, 0.98), (0.1, 0.95), (0.4, 0.85)])
def test_where_the_graph_is_right_targets_stay_clear_however_many(seed, share, least):
    made = screen(seed, share)
    assert kept(made) > least
    assert ((found(made) > VARIANCE / 5).any(0)).mean() <= 2 * share


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_misfit_where_nothing_moves(seed):
    assert found(screen(seed, share=0.0)).max() < 0.01


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("how", [{"wrong": 0.6}, {"back": -0.6}], ids=["slope", "feedback"])
def test_a_wrong_slope_and_a_feedback_are_found_in_their_gene_and_grow_with_what_moves_it(seed, how):
    made = screen(seed, **how)
    out = found(made)
    assert out[:, 5].max() > 5 * VARIANCE[0, 0]
    assert out[:, 5].mean() > 5 * out[:, [0, 1, 2, 9, 10, 11]].mean()
    source = made["change"][:, 4 if "wrong" in how else 6] ** 2
    quiet, loud = source < np.quantile(source, 0.3), source > np.quantile(source, 0.9)
    assert out[loud, 5].mean() > 5 * out[quiet, 5].mean()


@pytest.mark.parametrize(("how", "least"), [({"wrong": 0.6}, 0.7), ({"back": -0.6}, 0.7), ({"plate": 0.6}, 0.25)])
def test_most_false_calls_go_and_true_ones_as_far_as_they_stand_out(how, least):
    """Calls at six nats over five screens of which one thing is not as the graph says; plates hide most targets."""
    false, true = np.zeros(2), np.zeros(2)
    for seed in range(5):
        made = screen(seed, **how)
        target = made["shift"] != 0
        for i, v in enumerate((VARIANCE, VARIANCE + found(made))):
            called = made["residual"] ** 2 / (2 * v) > 6
            false[i] += (called & ~target).sum()
            true[i] += (called & target).sum()
    assert false[1] < 0.3 * false[0]
    assert true[1] > least * true[0]


@pytest.mark.parametrize("seed", range(5))
def test_what_plates_share_is_misfit_of_most_genes(seed):
    out = found(screen(seed, plate=0.6))
    assert ((out > VARIANCE).mean(0) > 0.5).mean() > 0.4


def test_the_order_of_genes_does_not_matter():
    made, order = screen(0, wrong=0.6), np.random.default_rng(1).permutation(GENES)
    other = {name: made[name][:, order] for name in ("residual", "change")}
    other["weight"] = made["weight"][np.ix_(order, order)]
    np.testing.assert_allclose(found(other), found(made)[:, order], rtol=1e-6, atol=1e-9)


def test_with_few_drugs_targets_that_they_share_are_no_misfit():
    made = screen(0, wrong=0.6)
    assert not found(made, DRUG % 3).any()
    assert found(made, DRUG).any()


def test_it_is_finite_without_edges_and_where_a_gene_never_moves():
    made = screen(0)
    made["weight"] = np.zeros((GENES, GENES))
    made["residual"] = made["change"].copy()
    made["residual"][:, 3] = made["change"][:, 3] = 0.0
    out = found(made)
    assert np.isfinite(out).all()
    assert (out >= 0).all()


def test_of_many_conditions_some_are_enough():
    made = screen(0, wrong=0.6)
    repeat = {name: np.concatenate([made[name]] * 5) for name in ("residual", "change")} | {"weight": made["weight"]}
    out = misfit_variance(
        repeat["residual"],
        repeat["change"],
        np.concatenate([VARIANCE] * 5),
        made["weight"],
        NOISE,
        np.concatenate([DRUG + 100 * i for i in range(5)]),
    )
    assert out[:, 5].mean() > 5 * out[:, [0, 1, 2, 9, 10, 11]].mean()
