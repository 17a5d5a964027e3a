"""Predictions of held-out training conditions by a generator that is trained on the other folds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap

from scgim.module import GENERATORS
from scgim.module.likelihood import CLEAR_MARGIN, complete_log_likelihood, marginal_log_likelihood

if TYPE_CHECKING:
    from torch import Tensor

    from scgim.module import TreatmentInputs
    from scgim.module.generators import Generator

STEPS = 130, 0.3  # gradient steps and their size; about as accurate as 400 steps of size 0.1
SCHEDULE = {"network": (80, 0.05)}
TEACHER_FORCED, PRUNED = 0.3, 0.6  # share of the steps with teacher forcing, and share before pruning, as in training
LINE_FOLDS = 3  # most folds of whole cell lines


class Folds(NamedTuple):
    """Held-out conditions of every fold, ``(folds, conditions)`` bool: whole drugs, doses of drugs, or whole cell lines."""

    drugs: Tensor
    doses: Tensor
    lines: Tensor

    @classmethod
    def deal(cls, inputs: TreatmentInputs, folds: int, seed: int) -> Folds:
        """Folds of every kind. Drugs of equal features are in the same fold. There are no folds of doses or lines without several."""
        return cls(
            deal_groups(equal_drugs(inputs), folds, seed),
            deal_doses(inputs, seed),
            deal_lines(inputs, LINE_FOLDS, seed),
        )

    @classmethod
    def of_conditions(cls, inputs: TreatmentInputs, folds: int, seed: int) -> Folds:
        """Folds that hold out every condition once.

        The conditions of a drug with several conditions alternate between two folds. A drug with one condition is in the fold of the
        drugs with equal features.
        """
        none = torch.zeros(0, len(inputs.drug), dtype=torch.bool)
        held_out = deal_groups(equal_drugs(inputs), folds, seed)
        drug = inputs.drug.numpy()
        order = np.lexsort((inputs.line.numpy(), inputs.log_dose.numpy(), drug))
        rank = np.empty(len(drug), dtype=np.int64)
        rank[order] = np.arange(len(drug)) - np.searchsorted(drug[order], drug[order])
        turn = np.random.default_rng([seed, 1]).integers(folds, size=drug.max() + 1)[drug]
        alternate = torch.as_tensor((rank % 2 * (folds // 2) + turn) % folds == np.arange(folds)[:, None])
        return cls(torch.where(torch.as_tensor(np.bincount(drug)[drug] > 1), alternate, held_out), none, none)

    @property
    def all(self) -> Tensor:
        """Folds of all kinds, ``(folds, conditions)``."""
        return torch.cat(self)

    @property
    def kinds(self) -> dict[str, Tensor]:
        """Conditions that are held out by each kind of folds, ``(conditions,)`` bool, for kinds with folds."""
        return {f"unseen {kind}": held_out.any(0) for kind, held_out in self._asdict().items() if held_out.any()}

    def by_kind(self, answers: Tensor) -> Tensor:
        """Predictions of the held-out conditions from predictions by fold; ``(kinds, conditions, genes)``."""
        parts = torch.where(self.all[..., None], answers, 0.0).split([len(each) for each in self])
        return torch.stack([part.sum(0) for part in parts])


class ObservedEffects(NamedTuple):
    """Training data of a generator: observed effects of the conditions, with their gain and precision."""

    observed: Tensor  # (conditions, genes) maximum-likelihood psi
    gain: Tensor  # (conditions, genes) log-likelihood gain of a target at that psi
    n: Tensor  # (conditions, genes) effective cells
    variance: Tensor  # (genes,) noise variance of a cell

    def of_genes(self, genes: Tensor) -> ObservedEffects:
        """Select genes."""
        return ObservedEffects(self.observed[:, genes], self.gain[:, genes], self.n[:, genes], self.variance[genes])

    def of_conditions(self, rows: Tensor) -> ObservedEffects:
        """Select conditions."""
        return ObservedEffects(self.observed[rows], self.gain[rows], self.n[rows], self.variance)


def answers(
    name: str,
    generator: Generator,
    inputs: TreatmentInputs,
    observed_effects: ObservedEffects,
    folds: Folds,
    penalty: Tensor,
    *,
    share: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Logits and psi of every condition by the fold of each kind that holds it out, ``(kinds, conditions, genes)`` each.

    They are 0 if no fold of the kind holds the condition out. ``penalty`` is the target penalty, ``(genes,)``. ``share`` is the share of
    the gradient steps, for a shortened training.
    """
    if GENERATORS[name].by_gradient:
        steps, lr = SCHEDULE.get(name, STEPS)
        return _descend(generator, inputs, observed_effects, folds, penalty, max(int(share * steps), 1), lr)
    return _solve(generator, inputs, observed_effects, folds, penalty)


def equal_drugs(inputs: TreatmentInputs) -> Tensor:
    """Group of every condition: all drugs of equal features form a group."""
    features = torch.nn.functional.pad(
        inputs.features, (0, 1)
    )  # a constant column, because `unique` needs at least one
    return torch.unique(features, dim=0, return_inverse=True)[1]


def deal_groups(group: Tensor, folds: int, seed: int) -> Tensor:
    """Held-out conditions of every fold, ``(folds, conditions)`` bool. A group is in one fold."""
    fold = np.random.default_rng(seed).permutation(int(group.max()) + 1) % folds
    return torch.as_tensor(fold)[group] == torch.arange(folds)[:, None]


def deal_doses(inputs: TreatmentInputs, seed: int) -> Tensor:
    """Held-out conditions of two folds, ``(folds, conditions)`` bool: every other dose of drugs with several doses.

    There is no fold if no drug has several doses.
    """
    drug, dose = inputs.drug.numpy(), inputs.log_dose.numpy()
    (drugs, _), place = np.unique(np.stack([drug, dose]), axis=1, return_inverse=True)
    drugs = drugs.astype(int)  # drug of every pair of drug and dose, sorted by drug and dose
    rank, several = np.arange(len(drugs)) - np.searchsorted(drugs, drugs), np.bincount(drugs)[drugs] > 1
    turn = np.random.default_rng(seed).integers(2, size=drugs.max() + 1)[drugs]
    held_out = (((rank + turn) % 2 == np.arange(2)[:, None]) & several)[:, place.ravel()]
    return torch.as_tensor(held_out[: 2 * int(several.any())])


def deal_lines(inputs: TreatmentInputs, folds: int, seed: int) -> Tensor:
    """Held-out conditions of every fold of whole cell lines, ``(folds, conditions)`` bool; no fold with a single line."""
    line = torch.unique(inputs.line, return_inverse=True)[1]
    n_lines = int(line.max()) + 1
    if n_lines < 2:
        return torch.zeros(0, len(line), dtype=torch.bool)
    return deal_groups(line, min(folds, n_lines), seed)


def _solve(
    generator: Generator, inputs: TreatmentInputs, observed_effects: ObservedEffects, folds: Folds, penalty: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits and psi of held-out conditions by a generator in closed form, ``(kinds, conditions, genes)`` each."""
    observed, gain, n, variance = observed_effects
    out, probability = observed.new_zeros(2, len(folds), *observed.shape), torch.sigmoid(gain - penalty)
    for kind, held_out in ((kind, held_out) for kind, each in enumerate(folds) for held_out in each):
        known = inputs.take(~held_out)
        generator.reset()
        generator.solve(known, observed[~held_out], probability[~held_out], n[~held_out], variance)
        predicted = generator(inputs.take(held_out))
        out[:, kind, held_out] = torch.stack([each.detach() for each in predicted])
    return out[0], out[1]


class _FoldGenerator(nn.Module):
    """A generator whose penalty on psi ignores held-out conditions."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, inputs: TreatmentInputs, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, psi and penalty; ``out`` are the held-out conditions, ``(conditions,)`` bool."""
        logits, psi = self.generator(inputs)
        # The penalty on psi applies to genes that are not targets. An infinite logit removes held-out conditions from this penalty.
        return logits, psi, self.generator.penalty(torch.where(out[:, None], torch.inf, logits), psi)


def _descend(
    generator: Generator,
    inputs: TreatmentInputs,
    observed_effects: ObservedEffects,
    folds: Folds,
    penalty: Tensor,
    steps: int,
    lr: float,
) -> tuple[Tensor, Tensor]:
    """Logits and psi of held-out conditions by a generator trained by gradient, ``(kinds, conditions, genes)`` each.

    All folds are trained in parallel, with a likelihood that ignores held-out conditions. Single precision ranks generators equally well
    in a third of the time.
    """
    module, held_out = _FoldGenerator(generator.float()), folds.all
    inputs = inputs.map(lambda each: each.float() if each.is_floating_point() else each)
    residual, gain, n, variance = (each.float() for each in observed_effects)
    penalty = penalty.float()
    parameters = {
        k: p.detach().expand(len(held_out), *p.shape).clone().requires_grad_() for k, p in module.named_parameters()
    }
    buffers = dict(module.named_buffers())
    per_fold = dict.fromkeys(buffers)  # axis of the folds in buffers that differ between folds
    precision, targets, none = n / (2 * variance), gain > penalty + CLEAR_MARGIN, torch.zeros_like(gain)
    use = ~held_out[..., None]

    def answer(parameters: dict, buffers: dict, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return functional_call(module, (parameters, buffers), (inputs, out))

    optimizer = torch.optim.Adam(parameters.values(), lr=lr, betas=(0.9, 0.99))
    for step in range(steps):
        if step == int(PRUNED * steps):
            buffers, per_fold = _prune(module, parameters), dict.fromkeys(buffers, 0)
        optimizer.param_groups[0]["lr"] = lr * min(1.0, 2 * (1 - step / steps))
        logits, psi, cost = vmap(answer, in_dims=(0, per_fold, 0))(parameters, buffers, held_out)
        with_target = gain - precision * (residual - psi) ** 2
        likelihood = (
            complete_log_likelihood(logits, with_target, none, penalty, targets)
            if step < TEACHER_FORCED * steps
            else marginal_log_likelihood(logits, with_target, none, penalty)
        )
        optimizer.zero_grad()
        (cost.sum() - (likelihood * use).sum()).backward()
        optimizer.step()
    with torch.no_grad():
        logits, psi, _ = vmap(answer, in_dims=(0, per_fold, 0))(parameters, buffers, held_out)
        return folds.by_kind(logits).double(), folds.by_kind(psi).double()


@torch.no_grad()
def _prune(module: _FoldGenerator, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stacked buffers of all folds after pruning."""
    states = []
    for fold in range(len(next(iter(parameters.values())))):
        for name, parameter in module.named_parameters():
            parameter.copy_(parameters[name][fold])
        module.generator.prune()
        states.append({name: buffer.clone() for name, buffer in module.named_buffers()})
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}
