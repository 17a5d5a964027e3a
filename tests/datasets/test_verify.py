from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scgim.datasets._graphs import random_dag
from scgim.datasets._model import StructuralModel
from scgim.datasets._motifs import motif_drugs
from scgim.datasets._observe import Continuous
from scgim.datasets._truth import Oracle
from scgim.datasets._verify import r2_given_others, sortability, verify

DOSES = np.array([1.0, 2.0])


def build(mechanism: str = "linear"):
    rng = np.random.default_rng(0)
    graph = random_dag(12, kind="er", degree=2, rng=rng)
    model = StructuralModel.draw(graph, mechanism=mechanism, rng=rng)
    deals = (rng.permutation(np.linspace(0.5, 2, 12)) for _ in range(100))
    measure = Continuous(np.zeros(12), next(s for s in deals if abs(sortability(s, graph) - 0.5) < 0.05))
    oracle = Oracle(model, measure, intervention="shift", rng=rng)
    drugs, _ = motif_drugs(6, 0, n_bits=6, n_genes=12, doses=DOSES, frac_dead=0, rng=rng)
    return oracle, oracle.conditions(drugs, DOSES)


@pytest.mark.parametrize("mechanism", ["linear", "network"])
def test_accepts_the_truth(mechanism):
    oracle, table = build(mechanism)
    verify(oracle, [table])


def cycle(oracle, table):
    graph = oracle.model.graph.copy()
    i, j = np.argwhere(graph)[0]
    graph[j, i] = True
    oracle.model = replace(oracle.model, graph=graph)


def edge_too_many(oracle, table):
    graph, order = oracle.model.graph.copy(), list(oracle.model.order)
    i, j = next((i, j) for a, i in enumerate(order) for j in order[a + 1 :] if not graph[i, j] and graph[:, j].any())
    functions = list(oracle.model.functions)
    at = int(np.searchsorted(np.flatnonzero(graph[:, j]), i))
    functions[j] = replace(functions[j], coefficients=np.insert(functions[j].coefficients, at, 0.0))
    graph[i, j] = True
    oracle.model = replace(oracle.model, graph=graph, functions=tuple(functions))


def growing_variance(oracle, table):
    oracle.state[oracle.model.order[-1]] *= 2


def ordered_scales(oracle, table):
    oracle.control[list(oracle.model.order)] *= np.arange(1, 13)[:, None]


def silent_target(oracle, table):
    table["targets"][0, np.flatnonzero(table["shift"][0] == 0)[0]] = 1


def wrong_mean(oracle, table):
    table["change"][0, np.flatnonzero(table["targets"][0])[0]] += 0.1


def moved_bystander(oracle, table):
    table["change"][0, np.flatnonzero(table["change"][0] == 0)[0]] = 0.1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cycle, "cycle"),
        (edge_too_many, "do not have the same edges"),
        (growing_variance, "variances of genes differ"),
        (ordered_scales, "order of the measured variances"),
        (silent_target, "targets are not the genes with a shift"),
        (wrong_mean, "cannot be computed again"),
        (moved_bystander, "cannot be computed again"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_refuses_what_is_not_true(spoil, message):
    oracle, table = build()
    verify(oracle, [table])
    spoil(oracle, table)
    with pytest.raises(RuntimeError, match=message):
        verify(oracle, [table])


def test_refuses_a_gene_that_moves_without_cause(monkeypatch):
    oracle, table = build()
    bystander = np.flatnonzero(table["change"][0] == 0)[0]
    sample = StructuralModel.sample

    def leaky(self, noise, shift, **kwargs):
        x = sample(self, noise, shift, **kwargs)
        x[bystander] += 0.1
        return x

    monkeypatch.setattr(StructuralModel, "sample", leaky)
    table["change"][0, bystander] += 0.1
    with pytest.raises(RuntimeError, match="neither a target nor a descendant"):
        verify(oracle, [table])


def test_sortability():
    chain = np.diag(np.ones(3, dtype=bool), 1)
    assert sortability(np.array([1.0, 2, 3, 4]), chain) == 1
    assert sortability(np.array([4.0, 3, 2, 1]), chain) == 0
    assert sortability(np.ones(4), chain) == 0.5
    assert sortability(np.array([1.0, 4, 2, 3]), chain) == pytest.approx(4 / 6)
    assert sortability(np.arange(4.0), np.zeros((4, 4), dtype=bool)) == 0.5


def test_r2_given_others_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 4)) @ rng.normal(size=(4, 500))
    r2 = r2_given_others(x)
    for j in range(4):
        design = np.c_[np.ones(500), np.delete(x, j, 0).T]
        residual = x[j] - design @ np.linalg.lstsq(design, x[j], rcond=None)[0]
        assert r2[j] == pytest.approx(1 - residual.var() / x[j].var())
