"""Prior log odds of edges and targets in the score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scgim.statistics import ConditionMeans
from scgim.structure import fit_graph, local_score, search_dag
from scgim.structure.ensemble import resample
from scgim.structure.networks import NetworkScore
from scgim.structure.score import score_data

FORMS = ["cells", "hard", "means", "hard means"]


def with_prior(form, made, log_odds=None):
    """Statistics of a screen, with prior log odds ``(conditions, genes)`` of the treated conditions, and options of the score."""
    options = {"intervention": "hard"} if "hard" in form else {}
    s = made.statistics_of(own=form == "hard")
    if "means" in form:
        s = ConditionMeans.of(s, np.zeros(len(s.n) - 1, dtype=int))
        return replace(s, target_log_odds=log_odds), options
    return replace(s, target_log_odds=None if log_odds is None else np.pad(log_odds, ((1, 0), (0, 0)))), options


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_log_odds_of_edges_are_subtracted_from_the_score(screen, score, form, seed):
    s, options = with_prior(form, screen(seed))
    odds = np.random.default_rng(seed).normal(size=(6, 6))
    graph = screen(seed).graph
    assert score(graph, s, edge_log_odds=odds, **options) == pytest.approx(
        score(graph, s, **options) - odds[graph].sum()
    )


@pytest.mark.parametrize("form", FORMS)
def test_no_odds_change_nothing(screen, form):
    plain, options = with_prior(form, screen(1))
    even, _ = with_prior(form, screen(1), np.zeros((7, 6)))
    for j in range(6):
        parents = np.flatnonzero(screen(1).graph[:, j])
        one = local_score(j, parents, len(parents), score_data(plain, **options))
        assert local_score(j, parents, len(parents), score_data(even, **options)) == pytest.approx(one, rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_known_targets_are_targets_and_excluded_ones_are_not(screen, form, seed):
    made = screen(seed, hard="hard" in form)
    plain, options = with_prior(form, made)
    moved = fit_graph(made.graph, plain, **options).moved[-7:]
    turned, _ = with_prior(form, made, np.where(moved, -np.inf, np.inf))
    assert (fit_graph(made.graph, turned, **options).moved[-7:] == ~moved).all()


@pytest.mark.parametrize("form", FORMS)
def test_odds_of_targets_lower_the_penalty(screen, form):
    """A target of probability near one half is called with odds for it and is not called with odds against it."""
    made = screen(2)
    for odds, larger in ((3.0, True), (-3.0, False)):
        plain, options = with_prior(form, made)
        other, _ = with_prior(form, made, np.full((7, 6), odds))
        one, two = (fit_graph(made.graph, s, **options).moved for s in (plain, other))
        assert (two >= one).all() if larger else (two <= one).all()


def test_known_targets_price_equals_the_search_with_another_penalty(screen):
    made = screen(0)
    plain, _ = with_prior("cells", made)
    other, _ = with_prior("cells", made, np.full((7, 6), 2.0))
    for j in range(6):
        parents = np.flatnonzero(made.graph[:, j])
        cheap = local_score(j, parents, len(parents), score_data(plain, target_penalty=4.0))
        assert local_score(j, parents, len(parents), score_data(other, target_penalty=6.0)) == pytest.approx(cheap)


@pytest.mark.parametrize("form", ["cells", "means"])
def test_the_order_of_genes_does_not_matter(screen, form):
    made, genes = screen(3), np.random.default_rng(0).permutation(6)
    odds, edges = np.random.default_rng(1).normal(size=(7, 6)), np.random.default_rng(2).normal(size=(6, 6)) * 5
    one, _ = with_prior(form, made, odds)
    other, _ = with_prior(form, made._replace(x=made.x[:, genes]), odds[:, genes])
    *_, a = search_dag(one, edge_log_odds=edges, max_rounds=3)
    *_, b = search_dag(other, edge_log_odds=edges[np.ix_(genes, genes)], max_rounds=3)
    assert (a.graph[np.ix_(genes, genes)] == b.graph).all()


@pytest.mark.parametrize("form", ["cells", "means"])
def test_draws_of_conditions_keep_their_prior(screen, form):
    odds = np.arange(42.0).reshape(7, 6)
    s, _ = with_prior(form, screen(0), odds)
    drawn = resample(s, np.arange(7), np.zeros(7, dtype=int), np.random.default_rng(0))
    mean, prior = (
        (drawn.change, drawn.target_log_odds) if form == "means" else (drawn.mean[1:], drawn.target_log_odds[1:])
    )
    every = s.change if form == "means" else s.mean[1:]
    for row, own in zip(mean, prior, strict=True):
        assert (odds[np.flatnonzero((every == row).all(1))[0]] == own).all()


def test_networks_have_the_same_prior(screen):
    made = screen(0)
    x, size = made.x.astype(np.float32), np.bincount(made.code)
    edges, targets = np.random.default_rng(0).normal(size=(6, 6)), np.zeros((8, 6))
    targets[3, 2], targets[4, 2] = np.inf, -np.inf
    plain, other = NetworkScore(x, size), NetworkScore(x, size, edge_log_odds=edges, target_log_odds=targets)
    none = np.zeros(8, dtype=bool)
    for j in (0, 1):
        parents = np.array([4, 5])
        gap = plain.first(j, parents, none).score - other.first(j, parents, none).score
        assert gap == pytest.approx(edges[[4, 5], j].sum())
    moved = other.first(2, np.array([], dtype=int), none).moved
    assert moved[3]
    assert not moved[4]


def test_beyond_all_pairs_likely_edges_are_candidates(monkeypatch, screen):
    from scgim.structure import candidates

    monkeypatch.setattr(candidates, "ALL_PAIRS", 3)
    monkeypatch.setattr(candidates, "neighbors", lambda *_: np.zeros((6, 6), dtype=bool))
    odds = np.zeros((6, 6))
    odds[0, 1] = 1e6
    *_, last = search_dag(screen(0).statistics, edge_log_odds=odds, max_rounds=1)
    assert np.argwhere(last.graph).tolist() == [[0, 1]]
