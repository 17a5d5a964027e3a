"""Ranking of target genes, from the data of a measured context or from the drug's features alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from scgim.structure import Calls, decisive_edges

if TYPE_CHECKING:
    import pandas as pd

    from scgim.module import GIMModule

    from ._averaging import Averaging
    from ._fitted import Fitted

Evidence = Literal["auto", "data", "features"]
LEAST_VARIANCE = 0.01  # of psi around the generator's, in control variances


@torch.no_grad()
def posterior(module: GIMModule, fitted: Fitted) -> tuple[np.ndarray, ...]:
    """Probability, effect and its standard error in pooled control sd, ``(contexts, genes)`` each; see ``GIMModule.posterior``."""
    contexts, moments, features = fitted.contexts()
    # a generator that fits perfectly must not silence a context's own data
    prior = (module.generator.uncertainty(contexts.conditions) ** 2).clamp(min=LEAST_VARIANCE)
    unit = fitted.relative_scale(fitted.design.line)
    found = module.posterior(contexts, moments, prior, features, torch.as_tensor(unit))
    probability, psi, error = (a.numpy() for a in found)
    return probability, psi * unit, error * unit


def resting(
    module: GIMModule, fitted: Fitted, averaging: Averaging | None, probability: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The edge that every measured target hangs on most, as text, and the probability of its direction, ``(contexts, genes)``."""
    contexts, moments, _ = fitted.contexts()
    mechanism = module.mechanism
    weight = mechanism.effects(fitted.standardised_controls())[0].numpy() if mechanism.graph.any() else mechanism.graph
    variance, genes = mechanism.variance.numpy(), fitted.genes
    arrays = moments.value.numpy(), moments.residual.numpy(), variance / contexts.n.numpy()
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
    """Tidy frame: for every row of ``names`` all genes by score = probability x abs(effect), ties by name.

    ``genes`` are sorted by name; ``probability``, ``effect``, ``error``, the edge it ``rests_on``, the
    probability of that edge's ``direction`` and the measured ``change`` (NaN where there is none) are ``(rows, genes)``.
    """
    score = probability * np.abs(effect)
    # twice, because the first gives which gene has a rank, and the second which rank a gene has
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


def rank_genes_groups(table: pd.DataFrame, *, drug_key: str, control: str) -> dict:
    """A ranking in scanpy's ``rank_genes_groups`` format: a group per drug, best score over doses and lines.

    P-values are NaN: cells of one well are no replicates, so none could be computed honestly. The control's group of
    zeros is what scanpy's plots expect of a reference.
    """
    best = table.sort_values(["score", "gene"], ascending=[False, True], kind="stable").drop_duplicates(
        ["drug", "gene"]
    )
    fields = {"names": "gene", "scores": "score", "logfoldchanges": "effect", "probabilities": "probability"}
    fields |= {"doses": "dose"}
    if (best["cell_line"] != "").any():
        fields["cell_lines"] = "cell_line"
    groups = dict(iter(best.groupby("drug", sort=True)))
    drugs, genes = [*groups, control], np.sort(best["gene"].unique().astype(str))
    columns = {}
    for field, column in fields.items():
        # "-" for the control's line, because zarr cannot hold a field of empty strings only
        blank = (
            genes if field == "names" else np.full(len(genes), "-") if field == "cell_lines" else np.zeros(len(genes))
        )
        values = [*(group[column].to_numpy() for group in groups.values()), blank]
        columns[field] = _records(values, drugs, text=field in {"names", "cell_lines"})
    nothing = [np.full(len(genes), np.nan)] * len(drugs)
    params = {
        "groupby": drug_key,
        "reference": control,
        "method": "scgim",
        "use_raw": False,
        "layer": "",
        "corr_method": "",
    }
    return {"params": params, **columns, "pvals": _records(nothing, drugs), "pvals_adj": _records(nothing, drugs)}


def _records(values: list[np.ndarray], names: list[str], *, text: bool = False) -> np.ndarray:
    """A record array with one field a drug; field names are the one place where any name is safe in a file."""
    arrays = [np.asarray(v, dtype=object if text else np.float64) for v in values]
    return np.rec.fromarrays(arrays, dtype=[(name, "O" if text else "f8") for name in names])
