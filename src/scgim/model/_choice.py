"""Which generator predicts what was not measured best: cross-validation over drugs and doses on frozen mechanisms."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.func import functional_call, vmap

from scgim.module.likelihood import complete, mixture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from scgim.module import Conditions
    from scgim.module.generators import Generator

CANDIDATES = ("mean", "kernel", "hill", "network")
MIN_DRUGS = 8  # with fewer, folds say nothing
MOST_GENES = 32  # for generators that learn by gradient
MANY_FOLDS, MOST_CONTEXTS = 10, 1000  # of generators in closed form: folds, and contexts beyond which they have fewer
SCHEDULE = {"hill": (130, 0.3), "network": (80, 0.05)}  # steps and their size: about as good as 400 steps of 0.1 here
FORCED, PRUNED = 0.3, 0.6  # shares of the steps, as in training
CLEAR = 1.0  # nats beyond the charge that make a target clear


def choose_generator(
    build: Callable[[str, int], Generator],
    conditions: Conditions,
    residual: Tensor,
    gain: Tensor,
    n: Tensor,
    variance: Tensor,
    *,
    charge: Tensor | float,
    taught: Tensor | float | None = None,
    expected: Tensor | None = None,
    rest: Tensor | float = 0.0,
    candidates: Sequence[str] = CANDIDATES,
    folds: int = 4,
    seed: int = 0,
) -> tuple[str, pd.DataFrame]:
    r"""The generator that predicts held-out drugs and doses best, unless the first candidate is about as good.

    Drugs are held out whole, together with those of equal features; and, in two more folds, every other dose of each drug that has
    several, for what is known of a drug should not be lost where features say little. A drug's loss is the mean over its contexts and
    genes of :math:`(r_{kj} - p_{kj}\psi_{kj})^2 / \sigma_j^2` in the fold that did not see it, and in the one that saw other doses of it.

    First all candidates are compared, beyond 32 genes on those with the largest
    :math:`\sum_k n_k p_{kj} r_{kj}^2 / \sigma_j^2`. A generator that learns by gradient is taken if its mean loss is
    the least, and that of the first candidate exceeds it by more than one standard error of their difference,
    paired over drugs: features have to show that they tell something. (Folds are trained side by side, with a shorter
    schedule than in training.) Otherwise those in closed form are compared once more, on all genes and in ten folds
    (beyond 1,000 contexts in as many as before), for what structure tells may be little in every gene; they shrink to what the
    features tell by themselves, so the least loss decides. Where that of no effect at all comes within one standard error
    of the least, nothing has been learned and the first candidate is taken.

    Parameters
    ----------
    build
        A new generator from its name and a number of genes.
    conditions
        Of the training contexts.
    residual
        Observed psi of every gene: shift, or value for hard interventions; ``(contexts, genes)``.
    gain
        Nats by which a touched mechanism explains a context better, psi chosen at best; for shifts
        :math:`n_k r_{kj}^2 / 2 \sigma_j^2`; ``(contexts, genes)``.
    n, variance
        Cells that every mean is worth, ``(contexts, genes)`` or ``(contexts, 1)``, and noise variance of a cell ``(genes,)``.
    charge
        Occam charge in nats for a target, ``(genes,)`` or one for all.
    taught
        The same while a generator learns by gradient; `charge` unless given.
    expected
        What :math:`p \psi` is compared with, ``(contexts, genes)``; ``residual`` less ``rest`` unless given.
    rest
        What mechanisms leave of the controls, ``(genes,)``; generators in closed form learn shifts from there.
    candidates
        Names; the first is what is taken when in doubt.
    folds, seed
        Their number in the first comparison, and the seed that deals drugs and doses out to them.

    Returns
    -------
    The name, and a table by candidate: ``generator``, ``loss``, ``se`` (of the difference to the best), ``loss_all_genes`` (of the
    second comparison, NaN if there was none), ``chosen``.

    Raises
    ------
    ValueError
        If fewer than eight drugs differ in their features: nothing can be learned across drugs.
    """
    group = _equal_drugs(conditions)
    n_groups, n_features = int(group.max()) + 1, conditions.features.shape[1]
    if n_groups < MIN_DRUGS:
        raise ValueError(
            f"{n_groups} drugs that differ in their {n_features} features are too few for cross-validation over drugs: it takes "
            f"{MIN_DRUGS}. Name a generator instead of 'auto'."
        )
    charge = torch.as_tensor(charge, dtype=gain.dtype).expand(gain.shape[1])
    taught = charge if taught is None else torch.as_tensor(taught, dtype=gain.dtype).expand(gain.shape[1])
    shift = residual - rest
    expected = shift if expected is None else expected
    n = n.expand(-1, len(variance))
    doses = _deal_doses(conditions, seed)
    counts = torch.stack([torch.ones(len(group)), doses.any(0)])[..., None]  # with its drug every context was held out

    def by_drug(predicted: Tensor | float, use: Tensor | slice = slice(None)) -> np.ndarray:
        return _by_drug((counts * (expected[:, use] - predicted) ** 2).sum(0) / variance[use], conditions.drug)

    held = _Held(_deal(group, folds, seed), doses)
    genes, losses, closed = _strongest(gain, charge), {}, []
    some = residual[:, genes], gain[:, genes], n[:, genes], variance[genes], held
    for name in candidates:
        generator = build(name, len(genes))
        if generator.by_gradient:
            predicted = _descend(generator, conditions, *some, taught[genes], *SCHEDULE[name])
        else:
            closed.append(name)
            predicted = _solve(generator, conditions, shift[:, genes], *some[1:], charge[genes])
        losses[name] = by_drug(predicted, genes)
    table = _table(losses)
    chosen = _decide(losses, by_drug(0.0, genes))
    if chosen in closed and len(closed) > 1:
        if len(gain) <= MOST_CONTEXTS:
            held = _Held(_deal(group, MANY_FOLDS, seed), doses)
        every = shift, gain, n, variance, held, charge
        losses = {name: by_drug(_solve(build(name, len(variance)), conditions, *every)) for name in closed}
        chosen = _decide(losses, by_drug(0.0), privilege=False)
        table["loss_all_genes"] = table["generator"].map({name: loss.mean() for name, loss in losses.items()})
    return chosen, table.assign(chosen=table["generator"] == chosen)


def _equal_drugs(conditions: Conditions) -> Tensor:
    """Group of every context: its drug, and all drugs of the same features."""
    features = torch.nn.functional.pad(conditions.features, (0, 1))  # without any, all are equal
    return torch.unique(features, dim=0, return_inverse=True)[1]


def _deal(group: Tensor, folds: int, seed: int) -> Tensor:
    """Which contexts every fold holds out, ``(folds, contexts)`` bool; groups stay together."""
    fold = np.random.default_rng(seed).permutation(int(group.max()) + 1) % folds
    return torch.as_tensor(fold)[group] == torch.arange(folds)[:, None]


def _deal_doses(conditions: Conditions, seed: int) -> Tensor:
    """As :func:`_deal`, every other dose of each drug that has several; no fold if none has."""
    drug, dose = conditions.drug.numpy(), conditions.log_dose.numpy()
    (drugs, _), place = np.unique(np.stack([drug, dose]), axis=1, return_inverse=True)
    drugs = drugs.astype(int)  # of every drug and dose, sorted by both
    rank, several = np.arange(len(drugs)) - np.searchsorted(drugs, drugs), np.bincount(drugs)[drugs] > 1
    turn = np.random.default_rng(seed).integers(2, size=drugs.max() + 1)[drugs]
    held = (((rank + turn) % 2 == np.arange(2)[:, None]) & several)[:, place.ravel()]
    return torch.as_tensor(held[: 2 * int(several.any())])


class _Held(NamedTuple):
    """What folds hold out, ``(folds, contexts)`` bool: whole drugs, or doses of them."""

    drugs: Tensor
    doses: Tensor

    @property
    def all(self) -> Tensor:
        """Both."""
        return torch.cat(self)

    def by_kind(self, predicted: Tensor) -> Tensor:
        """Of predictions by fold, those of what was held out; ``(2, contexts, genes)``."""
        parts = torch.where(self.all[..., None], predicted, 0.0).split([len(each) for each in self])
        return torch.stack([part.sum(0) for part in parts])


def _strongest(gain: Tensor, charge: Tensor) -> Tensor:
    """Genes that decide, ascending."""
    strength = (torch.sigmoid(gain - charge) * gain).sum(0)
    return torch.argsort(strength, descending=True, stable=True)[:MOST_GENES].sort().values


def _solve(
    generator: Generator,
    conditions: Conditions,
    residual: Tensor,
    gain: Tensor,
    n: Tensor,
    variance: Tensor,
    held: _Held,
    charge: Tensor,
) -> Tensor:
    """Predictions of every context by the fold that holds its drug out, and by the one that holds its dose out, in closed form."""
    predicted, probability = residual.new_zeros(2, *residual.shape), torch.sigmoid(gain - charge)
    for kind, out in ((kind, out) for kind, folds in enumerate(held) for out in folds):
        known = type(conditions)(*(each[~out] for each in conditions))
        generator.reset()
        generator.solve(known, residual[~out], probability[~out], n[~out], variance)
        logits, psi = generator(type(conditions)(*(each[out] for each in conditions)))
        predicted[kind, out] = (torch.sigmoid(logits) * psi).detach()
    return predicted


class _Blind(nn.Module):
    """A generator that is not charged for what it says of contexts that are held out, ``(contexts,)`` bool."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, conditions: Conditions, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, psi and penalty."""
        logits, psi = self.generator(conditions)
        # where a mechanism is surely touched, its psi costs nothing
        return logits, psi, self.generator.penalty(torch.where(out[:, None], torch.inf, logits), psi)


def _descend(
    generator: Generator,
    conditions: Conditions,
    residual: Tensor,
    gain: Tensor,
    n: Tensor,
    variance: Tensor,
    held: _Held,
    charge: Tensor,
    steps: int,
    lr: float,
) -> Tensor:
    """As :func:`_solve`, by gradient: the folds side by side, each blind to what it holds out.

    In single precision, which ranks candidates as well and takes a third of the time.
    """
    module = _Blind(generator.float())
    conditions = type(conditions)(*(each.float() if each.is_floating_point() else each for each in conditions))
    residual, gain, n, variance, charge = (each.float() for each in (residual, gain, n, variance, charge))
    kinds, held = held, held.all
    parameters = {
        k: p.detach().expand(len(held), *p.shape).clone().requires_grad_() for k, p in module.named_parameters()
    }
    buffers = dict(module.named_buffers())
    per_fold = dict.fromkeys(buffers)  # the axis of folds, if they differ
    precision, targets, none = n / (2 * variance), gain > charge + CLEAR, torch.zeros_like(gain)
    use = ~held[..., None]

    def answer(parameters: dict, buffers: dict, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return functional_call(module, (parameters, buffers), (conditions, out))

    optimizer = torch.optim.Adam(parameters.values(), lr=lr, betas=(0.9, 0.99))
    for step in range(steps):
        if step == int(PRUNED * steps):
            buffers, per_fold = _prune(module, parameters), dict.fromkeys(buffers, 0)
        optimizer.param_groups[0]["lr"] = lr * min(1.0, 2 * (1 - step / steps))
        logits, psi, penalty = vmap(answer, in_dims=(0, per_fold, 0))(parameters, buffers, held)
        touched = gain - precision * (residual - psi) ** 2
        likelihood = (
            complete(logits, touched, none, charge, targets)
            if step < FORCED * steps
            else mixture(logits, touched, none, charge)
        )
        optimizer.zero_grad()
        (penalty.sum() - (likelihood * use).sum()).backward()
        optimizer.step()
    with torch.no_grad():
        logits, psi, _ = vmap(answer, in_dims=(0, per_fold, 0))(parameters, buffers, held)
        return kinds.by_kind(torch.sigmoid(logits) * psi)


@torch.no_grad()
def _prune(module: _Blind, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Buffers of every fold after pruning, stacked."""
    states = []
    for fold in range(len(next(iter(parameters.values())))):
        for name, parameter in module.named_parameters():
            parameter.copy_(parameters[name][fold])
        module.generator.prune()
        states.append({name: buffer.clone() for name, buffer in module.named_buffers()})
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def _by_drug(loss: Tensor, drug: Tensor) -> np.ndarray:
    """Mean over contexts and genes, ``(drugs,)``."""
    drug = drug.numpy()
    return np.bincount(drug, loss.mean(1).numpy()) / np.bincount(drug).clip(1)


def _table(losses: dict[str, np.ndarray]) -> pd.DataFrame:
    """The table of :func:`choose_generator` after its first comparison."""
    best = _best(losses)
    rows = [(name, loss.mean(), _excess(loss, losses[best])[1]) for name, loss in losses.items()]
    return pd.DataFrame(rows, columns=["generator", "loss", "se"]).assign(loss_all_genes=np.nan)


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
