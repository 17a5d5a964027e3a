"""Choice of the generator by cross-validation on frozen mechanisms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from scgim.module import GENERATORS

from ._folds import Folds, ObservedEffects, answers, equal_drugs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from scgim.module import TreatmentInputs
    from scgim.module.generators import Generator

# `network` was worse than one of the candidates on every screen, and it took half of the time of cross-validation.
CANDIDATES = ("mean", "kernel", "hill")
MIN_DRUGS = 8  # fewer distinct drugs are too few for folds
MOST_GENES = 32  # most genes in the first comparison, which includes generators trained by gradient
MANY_FOLDS, MOST_CONTEXTS = 10, 1000  # folds of the second comparison, and most conditions for this number of folds


def cross_validate_generators(
    build: Callable[[str, int], Generator],
    inputs: TreatmentInputs,
    residual: Tensor,
    gain: Tensor,
    n: Tensor,
    variance: Tensor,
    *,
    target_penalty: Tensor | float,
    generator_penalty: Tensor | float | None = None,
    expected: Tensor | None = None,
    rest: Tensor | float = 0.0,
    candidates: Sequence[str] = CANDIDATES,
    folds: int = 4,
    seed: int = 0,
) -> tuple[str, pd.DataFrame]:
    r"""Choose the generator that predicts held-out drugs, doses and lines best, unless the first candidate is about as good.

    There are three kinds of folds: whole drugs, together with all drugs of equal features; every other dose of drugs with several doses;
    whole cell lines. The loss of a drug is the mean over its conditions and genes of :math:`(r_{kj} - p_{kj}\psi_{kj})^2 / \sigma_j^2`,
    summed over the kinds of folds.

    The first comparison includes all candidates, on the 32 genes with the largest :math:`\sum_k n_k p_{kj} r_{kj}^2 / \sigma_j^2`. A
    generator that is trained by gradient is chosen if its mean loss is the smallest and if the loss of the first candidate is larger by
    more than one standard error of the difference, paired over drugs. Features then carry information. The folds are trained in
    parallel, with fewer steps than in training.

    Otherwise the generators in closed form are compared again on all genes, because the information of features may be small in every
    gene. This comparison has ten folds of drugs, or as many as the first for more than 1,000 conditions. The smallest loss decides,
    because these generators shrink to the mean if features carry no information. The first candidate is chosen if the loss of
    predicting no effect is within one standard error of the smallest loss.

    Parameters
    ----------
    build
        Function that returns a new generator from its name and a number of genes.
    inputs
        Inputs of the training conditions.
    residual
        Observed psi of every gene: shift, or value for hard interventions; ``(conditions, genes)``.
    gain
        Log-likelihood gain of a target at its maximum-likelihood psi in nats, :math:`n_k r_{kj}^2 / 2 \sigma_j^2` for shifts;
        ``(conditions, genes)``.
    n, variance
        Effective cells, ``(conditions, genes)`` or ``(conditions, 1)``, and noise variance of a cell, ``(genes,)``.
    target_penalty
        Target penalty in nats, ``(genes,)`` or one number.
    generator_penalty
        Target penalty while a generator is trained by gradient; ``target_penalty`` by default.
    expected
        Values to predict by :math:`p \psi`, ``(conditions, genes)``; ``residual`` less ``rest`` by default.
    rest
        Mean residual of the controls, ``(genes,)``, from which generators in closed form measure shifts.
    candidates
        Names of the generators; the first is the default.
    folds, seed
        Number of folds of drugs in the first comparison, and seed of the folds.

    Returns
    -------
    Name of the chosen generator, and a table by candidate: ``generator``, ``loss``, ``se`` (of the difference to the best), the loss of
    each kind of folds (``loss unseen drugs``, ``loss unseen doses``, ``loss unseen lines``), ``loss_all_genes`` (of the second
    comparison, NaN without it), ``chosen``.

    Raises
    ------
    ValueError
        If fewer than eight drugs differ in their features.
    """
    n_groups, n_features = len(torch.unique(equal_drugs(inputs))), inputs.features.shape[1]
    if n_groups < MIN_DRUGS:
        raise ValueError(
            f"{n_groups} drugs that differ in their {n_features} features are too few for cross-validation over drugs: it takes "
            f"{MIN_DRUGS}. Name a generator instead of 'auto'."
        )
    target_penalty = torch.as_tensor(target_penalty, dtype=gain.dtype).expand(gain.shape[1])
    generator_penalty = (
        target_penalty
        if generator_penalty is None
        else torch.as_tensor(generator_penalty, dtype=gain.dtype).expand(gain.shape[1])
    )
    every = ObservedEffects(residual, gain, n.expand(-1, len(variance)), variance)
    expected = residual - rest if expected is None else expected

    def losses_of(names: Sequence[str], held: Folds, genes: Tensor) -> dict[str, Tensor]:
        """Squared errors of the candidates, mean over genes; ``(kinds, conditions)`` each."""
        out = {}
        for name in names:
            gradient = GENERATORS[name].by_gradient
            # Closed-form generators average all shifts, so they measure shifts from the mean residual of the controls.
            observed_effects = every if gradient else every._replace(observed=residual - rest)
            logits, psi = answers(
                name,
                build(name, len(genes)),
                inputs,
                observed_effects.of_genes(genes),
                held,
                (generator_penalty if gradient else target_penalty)[genes],
            )
            out[name] = _squared(torch.sigmoid(logits) * psi, expected[:, genes], variance[genes], held)
        return out

    def nothing(held: Folds, genes: Tensor) -> np.ndarray:
        zero = expected.new_zeros(len(held), len(expected), len(genes))
        return _by_drug(_squared(zero, expected[:, genes], variance[genes], held).sum(0), inputs.drug)

    def by_drug(losses: dict[str, Tensor]) -> dict[str, np.ndarray]:
        return {name: _by_drug(loss.sum(0), inputs.drug) for name, loss in losses.items()}

    held, genes = Folds.deal(inputs, folds, seed), _strongest(gain, target_penalty)
    parts = losses_of(candidates, held, genes)
    losses = by_drug(parts)
    table = _table(losses, parts, held)
    chosen = _decide(losses, nothing(held, genes))
    closed = [name for name in candidates if not GENERATORS[name].by_gradient]
    if chosen in closed and len(closed) > 1:
        if len(gain) <= MOST_CONTEXTS:
            held = Folds.deal(inputs, MANY_FOLDS, seed)
        genes = torch.arange(len(variance))
        losses = by_drug(losses_of(closed, held, genes))
        chosen = _decide(losses, nothing(held, genes), privilege=False)
        table["loss_all_genes"] = table["generator"].map({name: loss.mean() for name, loss in losses.items()})
    return chosen, table.assign(chosen=table["generator"] == chosen)


def _squared(predicted: Tensor, expected: Tensor, variance: Tensor, held: Folds) -> Tensor:
    """Squared errors of held-out conditions by kind of folds, mean over genes; ``(kinds, conditions)``."""
    tested = torch.stack([each.any(0) for each in held])
    return tested * ((expected - predicted) ** 2 / variance).mean(2)


def _strongest(gain: Tensor, target_penalty: Tensor) -> Tensor:
    """Indices of the genes of the first comparison, ascending."""
    strength = (torch.sigmoid(gain - target_penalty) * gain).sum(0)
    return torch.argsort(strength, descending=True, stable=True)[:MOST_GENES].sort().values


def _by_drug(loss: Tensor, drug: Tensor) -> np.ndarray:
    """Mean over the conditions of a drug, ``(drugs,)``; ``loss`` is ``(conditions,)``."""
    _, drug = np.unique(drug.numpy(), return_inverse=True)
    return np.bincount(drug, loss.numpy()) / np.bincount(drug)


def _table(losses: dict[str, np.ndarray], parts: dict[str, Tensor], held: Folds) -> pd.DataFrame:
    """The table of :func:`cross_validate_generators` after its first comparison."""
    best = _best(losses)
    rows = [(name, loss.mean(), _excess(loss, losses[best])[1]) for name, loss in losses.items()]
    table = pd.DataFrame(rows, columns=["generator", "loss", "se"])
    for kind, (name, tested) in enumerate(zip(held._fields, held, strict=True)):
        if (use := tested.any(0)).any():
            table[f"loss unseen {name}"] = [float(part[kind, use].mean()) for part in parts.values()]
    return table.assign(loss_all_genes=np.nan)


def _decide(losses: dict[str, np.ndarray], nothing: np.ndarray, *, privilege: bool = True) -> str:
    """The best candidate, or the first if the best is not better by one standard error.

    ``nothing`` is the loss of predicting no effect, ``(drugs,)``. With ``privilege`` the best is compared with the first candidate too.
    """
    best, first = _best(losses), next(iter(losses))
    rivals = (losses[first], nothing) if privilege else (nothing,)
    equal = any(gap <= se for gap, se in (_excess(loss, losses[best]) for loss in rivals))
    return first if equal else best


def _best(losses: dict[str, np.ndarray]) -> str:
    return min(losses, key=lambda name: losses[name].mean())


def _excess(loss: np.ndarray, least: np.ndarray) -> tuple[float, float]:
    """Mean over drugs of the difference of two losses, and its standard error."""
    gap = loss - least
    return float(gap.mean()), float(gap.std(ddof=1) / len(gap) ** 0.5)
