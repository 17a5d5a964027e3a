"""Which generator predicts what was not measured best: cross-validation on frozen mechanisms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from scgim.module import GENERATORS

from ._folds import Evidence, Folds, answers, equal_drugs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from scgim.module import TreatmentInputs
    from scgim.module.generators import Generator

CANDIDATES = ("mean", "kernel", "hill")  # `network` lost to one of them on every screen, at half of the time of all
MIN_DRUGS = 8  # with fewer, folds say nothing
MOST_GENES = 32  # for generators that learn by gradient
MANY_FOLDS, MOST_CONTEXTS = 10, 1000  # of generators in closed form: folds, and conditions beyond which they have fewer


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
    r"""The generator that predicts held-out drugs and doses best, unless the first candidate is about as good.

    What a screen has to predict is held out in turn: drugs, whole and together with those of equal features; in two more folds every
    other dose of each drug that has several; and whole cell lines where there are several. A drug's loss is the mean over its
    conditions and genes of :math:`(r_{kj} - p_{kj}\psi_{kj})^2 / \sigma_j^2`, summed over the kinds of folds that hold the condition out.

    First all candidates are compared, beyond 32 genes on those with the largest
    :math:`\sum_k n_k p_{kj} r_{kj}^2 / \sigma_j^2`. A generator that learns by gradient is taken if its mean loss is
    the least, and that of the first candidate exceeds it by more than one standard error of their difference,
    paired over drugs: features have to show that they tell something. (Folds are trained side by side, with a shorter
    schedule than in training.) Otherwise those in closed form are compared once more, on all genes and in ten folds
    (beyond 1,000 conditions in as many as before), for what structure tells may be little in every gene; they shrink to what the
    features tell by themselves, so the least loss decides. Where that of no effect at all comes within one standard error
    of the least, nothing has been learned and the first candidate is taken.

    Parameters
    ----------
    build
        A new generator from its name and a number of genes.
    conditions
        Of the training conditions.
    residual
        Observed psi of every gene: shift, or value for hard interventions; ``(conditions, genes)``.
    gain
        Nats by which a touched mechanism explains a condition better, psi chosen at best; for shifts
        :math:`n_k r_{kj}^2 / 2 \sigma_j^2`; ``(conditions, genes)``.
    n, variance
        Cells that every mean is worth, ``(conditions, genes)`` or ``(conditions, 1)``, and noise variance of a cell ``(genes,)``.
    charge
        Occam charge in nats for a target, ``(genes,)`` or one for all.
    taught
        The same while a generator learns by gradient; `charge` unless given.
    expected
        What :math:`p \psi` is compared with, ``(conditions, genes)``; ``residual`` less ``rest`` unless given.
    rest
        What mechanisms leave of the controls, ``(genes,)``; generators in closed form learn shifts from there.
    candidates
        Names; the first is what is taken when in doubt.
    folds, seed
        Their number in the first comparison, and the seed that deals drugs and doses out to them.

    Returns
    -------
    The name, and a table by candidate: ``generator``, ``loss``, ``se`` (of the difference to the best), the part of each kind of
    folds (``loss unseen drugs``, ``loss unseen doses``, ``loss unseen lines``, where the screen has them), ``loss_all_genes`` (of the
    second comparison, NaN if there was none), ``chosen``.

    Raises
    ------
    ValueError
        If fewer than eight drugs differ in their features: nothing can be learned across drugs.
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
    every = Evidence(residual, gain, n.expand(-1, len(variance)), variance)
    expected = residual - rest if expected is None else expected

    def losses_of(names: Sequence[str], held: Folds, genes: Tensor) -> dict[str, Tensor]:
        """Squared errors ``(kinds, conditions)`` of candidates, mean over genes."""
        out = {}
        for name in names:
            gradient = GENERATORS[name].by_gradient
            # those in closed form learn every shift from where the controls are
            seen = every if gradient else every._replace(observed=residual - rest)
            logits, psi = answers(
                name,
                build(name, len(genes)),
                inputs,
                seen.of_genes(genes),
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
    """Squared errors of what folds of every kind hold out, mean over genes; ``(kinds, conditions)``."""
    tested = torch.stack([each.any(0) for each in held])
    return tested * ((expected - predicted) ** 2 / variance).mean(2)


def _strongest(gain: Tensor, target_penalty: Tensor) -> Tensor:
    """Genes that decide, ascending."""
    strength = (torch.sigmoid(gain - target_penalty) * gain).sum(0)
    return torch.argsort(strength, descending=True, stable=True)[:MOST_GENES].sort().values


def _by_drug(loss: Tensor, drug: Tensor) -> np.ndarray:
    """Mean over the conditions of a drug, ``(drugs,)``; ``loss`` is ``(conditions,)``."""
    drug = drug.numpy()
    return np.bincount(drug, loss.numpy()) / np.bincount(drug).clip(1)


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
    """The best, or the first in doubt; ``nothing`` is the loss of predicting no effect, ``(drugs,)``."""
    best, first = _best(losses), next(iter(losses))
    rivals = (losses[first], nothing) if privilege else (nothing,)
    doubt = any(gap <= se for gap, se in (_excess(loss, losses[best]) for loss in rivals))
    return first if doubt else best


def _best(losses: dict[str, np.ndarray]) -> str:
    return min(losses, key=lambda name: losses[name].mean())


def _excess(loss: np.ndarray, least: np.ndarray) -> tuple[float, float]:
    """Mean over drugs and its standard error."""
    gap = loss - least
    return float(gap.mean()), float(gap.std(ddof=1) / len(gap) ** 0.5)
