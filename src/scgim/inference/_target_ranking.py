"""Ranking of target genes, from the data of a measured condition or from the drug's features alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from scgim.structure import Calls, decisive_edges

if TYPE_CHECKING:
    import pandas as pd

    from scgim.data._training_summary import TrainingSummary
    from scgim.module import GIMModule
    from scgim.train._graph_averaging import Averaging

Evidence = Literal["auto", "data", "features"]
LEAST_VARIANCE = 0.01  # least prior variance of effects around the generator's psi, in control variances


@torch.no_grad()
def posterior(module: GIMModule, summary: TrainingSummary) -> tuple[np.ndarray, ...]:
    """Probability, effect and its standard error in pooled control SD by ``GIMModule.posterior``, ``(conditions, genes)`` each."""
    conditions, moments, features = summary.conditions()
    # A generator that fits the training conditions perfectly has a variance of 0, and the posterior would ignore the cells.
    known = module.generator.knows(conditions.inputs)
    prior = torch.full_like(moments.residual, LEAST_VARIANCE)
    prior[known] = (module.generator.uncertainty(conditions.inputs.take(known)) ** 2).clamp(min=LEAST_VARIANCE)
    unit = summary.relative_scale(summary.design.line)
    found = module.posterior(conditions, moments, prior, features, torch.as_tensor(unit))
    probability, psi, error = (a.numpy() for a in found)
    return probability, psi * unit, error * unit


def decisive_edges_of(
    module: GIMModule, summary: TrainingSummary, averaging: Averaging | None, probability: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The decisive edge of every measured target as text, and the probability of its direction, ``(conditions, genes)`` each."""
    conditions, moments, _ = summary.conditions()
    mechanism = module.mechanism
    weight = mechanism.effects(summary.standardized_controls())[0].numpy() if mechanism.graph.any() else mechanism.graph
    variance, genes = mechanism.variance.numpy(), summary.genes
    arrays = moments.value.numpy(), moments.residual.numpy(), variance / conditions.n.numpy()
    edge, source, target = decisive_edges(
        np.asarray(weight, dtype=float), variance, Calls(*np.broadcast_arrays(*arrays, probability))
    )
    text = np.array([f"{a} -> {b}" for a, b in zip(genes[source], genes[target], strict=True)] + [""], dtype=object)
    likely = np.full(len(source) + 1, np.nan)
    if averaging is not None and len(source):
        likely[:-1] = averaging.graphs.direction_probability(source, target)
    return text[edge], likely[edge]


def rank(
    names: pd.DataFrame,
    genes: np.ndarray,
    probability: np.ndarray,
    effect: np.ndarray,
    error: np.ndarray,
    evidence: np.ndarray,
    rests_on: np.ndarray,
    direction: np.ndarray,
    change: np.ndarray,
) -> pd.DataFrame:
    """Tidy table of all genes for every row of ``names``, sorted by score = probability x abs(effect), ties by name.

    ``genes`` are sorted by name. ``probability``, ``effect``, ``error``, the decisive edge ``rests_on``, the probability ``direction`` of the
    edge's direction and the measured ``change`` (NaN if not measured) are ``(rows, genes)``.
    """
    score = probability * np.abs(effect)
    # The first argsort gives the gene of every rank, the second the rank of every gene.
    by_change = np.argsort(np.argsort(-np.abs(change), axis=1, kind="stable"), axis=1) + 1.0
    order = np.argsort(-score, axis=1, kind="stable")
    rows = np.repeat(np.arange(len(names)), len(genes))
    flat = (rows, order.ravel())
    table = names.iloc[rows].reset_index(drop=True)
    return table.assign(
        gene=genes[order.ravel()],
        rank=np.tile(np.arange(1, len(genes) + 1), len(names)),
        score=score[flat],
        probability=probability[flat],
        effect=effect[flat],
        effect_se=error[flat],
        direction=np.where(effect[flat] < 0, "down", "up"),
        evidence=evidence.astype(object)[rows],
        rests_on=rests_on[flat],
        direction_probability=direction[flat],
        change=change[flat],
        rank_by_change=np.where(np.isnan(change), np.nan, by_change)[flat],
    )
