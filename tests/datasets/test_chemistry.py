from __future__ import annotations

import numpy as np
import pytest

from scgim.datasets import sciplex3_drugs
from scgim.datasets._chemistry import Drugs, Motifs, pick_dead
from scgim.datasets._compounds import sciplex_drugs
from scgim.datasets._motifs import motif_drugs

DOSES = np.array([0.5, 1, 1.5, 2])
MAKERS = [pytest.param(motif_drugs, id="motifs"), pytest.param(sciplex_drugs, id="sciplex")]


def make(maker, seed: int = 0, *, n: int = 40, new: int = 20, bits: int = 32, genes: int = 20, dead: float = 0.0):
    return maker(n, new, n_bits=bits, n_genes=genes, doses=DOSES, frac_dead=dead, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dead", [0.0, 0.3])
def test_new_drugs_are_made_of_what_training_drugs_show(maker, seed, dead):
    train, new = make(maker, seed, dead=dead)
    times = train.features.sum(axis=0)
    assert (times[new.features.any(axis=0)] >= 2).all()
    assert not set(train.names) & set(new.names)
    for drugs in (train, new):
        assert set(np.unique(drugs.features)) <= {0, 1}


@pytest.mark.parametrize("seed", range(5))
def test_motif_drugs_are_sparse_sums(seed):
    train, new = make(motif_drugs, seed)
    for drugs in (train, new):
        assert np.isin(drugs.features.sum(axis=1), [1, 2, 3]).all()
        assert ((drugs.effect != 0).sum(axis=1) <= 2 * drugs.features.sum(axis=1)).all()
    # Within a drug no two motifs share a target, so the effects of all drugs are one linear map of the features.
    features, effect = np.vstack([train.features, new.features]), np.vstack([train.effect, new.effect])
    solution, *_ = np.linalg.lstsq(features, effect, rcond=None)
    np.testing.assert_allclose(features @ solution, effect, atol=1e-9)


def test_new_motif_drugs_are_new():
    train, new = make(motif_drugs)
    rows = [tuple(row) for row in np.vstack([train.features, new.features])]
    assert len(set(rows[40:])) == 20
    assert not set(rows[:40]) & set(rows[40:])


@pytest.mark.parametrize("maker", MAKERS)
def test_effects_are_strong(maker):
    for drugs in make(maker):
        size = np.abs(drugs.effect[drugs.effect != 0])
        assert ((size >= 2) & (size <= 4)).all()
        assert 0.2 < (drugs.effect[drugs.effect != 0] > 0).mean() < 0.8
        ec50 = drugs.ec50[drugs.effect != 0]
        assert ((ec50 >= 0.25) & (ec50 <= 2)).all()
        assert np.isinf(drugs.ec50[drugs.effect == 0]).all()


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("dead", [0.0, 0.29, 0.5])
def test_dead_drugs(maker, dead):
    for drugs in make(maker, n=100, dead=dead):
        assert drugs.dead.sum() == int(round(dead * len(drugs.names), 6))
        assert not drugs.effect[drugs.dead].any()


def test_motifs_of_dead_drugs_are_inert():
    train, new = make(motif_drugs, dead=0.4)
    inert = train.features[train.dead].any(axis=0)
    assert inert.any()
    for drugs in (train, new):
        assert not (drugs.features[~drugs.dead][:, inert]).any()


@pytest.mark.parametrize("seed", range(5))
def test_sciplex_effects_follow_from_hidden_substructures(seed):
    train, new = make(sciplex_drugs, seed)
    library = sciplex3_drugs()
    features, effect = np.vstack([train.features, new.features]), np.vstack([train.effect, new.effect])
    for drugs in (train, new):
        np.testing.assert_array_equal(library.loc[drugs.names, "smiles"], drugs.smiles)
    _, group = np.unique(features, axis=0, return_inverse=True)
    for g in np.unique(group):
        assert len(np.unique(effect[np.ravel(group) == g], axis=0)) == 1
    assert (features.any(axis=1)).all()
    assert (effect != 0).sum(axis=1).mean() < 6


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    "size",
    [
        pytest.param({"n": 1, "new": 0}, id="one"),
        pytest.param({"n": 1, "new": 5, "bits": 1, "genes": 2}, id="least"),
        pytest.param({"n": 2, "new": 1, "bits": 100}, id="more motifs than drugs"),
        pytest.param({"n": 10, "new": 10, "dead": 0.99}, id="nearly all dead"),
        pytest.param({"n": 150, "new": 38}, id="all compounds"),
        pytest.param({"n": 30, "new": 10, "genes": 2}, id="two genes"),
    ],
)
def test_extreme_sizes(maker, size):
    train, new = make(maker, **size)
    assert len(train.names) == size["n"]
    assert len(new.names) == size["new"]
    assert not train.dead.all()
    assert train.features.any(axis=0)[new.features.any(axis=0)].all()


def test_the_stronger_motif_decides():
    motifs = Motifs(np.array([[2.0, 0.0, -3.0], [-4.0, 0.0, 2.5]]), np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    drugs = Drugs.of(
        ["a", "b", "c"], np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), motifs, dead=np.array([0, 0, 1], bool)
    )
    np.testing.assert_array_equal(drugs.effect, [[-4, 0, -3], [2, 0, -3], [0, 0, 0]])
    np.testing.assert_array_equal(drugs.ec50, [[4, np.inf, 3], [1, np.inf, 3], [np.inf] * 3])
    np.testing.assert_array_equal(drugs.dead, [False, False, True])


def test_hill_response():
    drugs, _ = make(motif_drugs)
    doses = np.array([0.01, 0.1, 1.0, 10.0, 1e9])
    response = np.abs(drugs.shift(doses).reshape(40, 5, 20))
    on = drugs.effect != 0
    assert (np.diff(response, axis=1)[:, :, :].transpose(0, 2, 1)[on] > 0).all()
    np.testing.assert_allclose(response[:, -1][on], np.abs(drugs.effect[on]), rtol=1e-6)
    half = np.array([drugs.shift(np.array([drugs.ec50[i, j]]))[i, j] for i, j in np.argwhere(on)])
    np.testing.assert_allclose(half, drugs.effect[on] / 2)


def test_dead_are_drawn_at_random():
    rng = np.random.default_rng(0)
    where = np.mean([pick_dead(10, 0.3, rng) for _ in range(500)], axis=0)
    np.testing.assert_allclose(where, 0.3, atol=0.08)
