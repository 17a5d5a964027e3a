"""A generator on folds of the training conditions: what it says of conditions that it has not seen."""

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

STEPS = 130, 0.3  # gradient steps and their size: about as good as 400 steps of 0.1 here
SCHEDULE = {"network": (80, 0.05)}
TEACHER_FORCED, PRUNED = 0.3, 0.6  # shares of the steps, as in training
LINE_FOLDS = 3  # of whole cell lines, at most


class Folds(NamedTuple):
    """What folds hold out, ``(folds, conditions)`` bool: whole drugs, doses of drugs, or whole cell lines."""

    drugs: Tensor
    doses: Tensor
    lines: Tensor

    @classmethod
    def deal(cls, inputs: TreatmentInputs, folds: int, seed: int) -> Folds:
        """Drugs of equal features stay together; no fold of a kind that the screen does not have."""
        return cls(
            deal_groups(equal_drugs(inputs), folds, seed),
            deal_doses(inputs, seed),
            deal_lines(inputs, LINE_FOLDS, seed),
        )

    @classmethod
    def of_conditions(cls, inputs: TreatmentInputs, folds: int, seed: int) -> Folds:
        """Every condition is held out once: every other one of a drug that has several, together with drugs of equal features else."""
        none = torch.zeros(0, len(inputs.drug), dtype=torch.bool)
        held = deal_groups(equal_drugs(inputs), folds, seed)
        drug = inputs.drug.numpy()
        order = np.lexsort((inputs.line.numpy(), inputs.log_dose.numpy(), drug))
        rank = np.empty(len(drug), dtype=np.int64)
        rank[order] = np.arange(len(drug)) - np.searchsorted(drug[order], drug[order])
        turn = np.random.default_rng([seed, 1]).integers(folds, size=drug.max() + 1)[drug]
        alternate = torch.as_tensor((rank % 2 * (folds // 2) + turn) % folds == np.arange(folds)[:, None])
        return cls(torch.where(torch.as_tensor(np.bincount(drug)[drug] > 1), alternate, held), none, none)

    @property
    def all(self) -> Tensor:
        """Of every kind, ``(folds, conditions)``."""
        return torch.cat(self)

    @property
    def kinds(self) -> dict[str, Tensor]:
        """Which conditions each kind of folds tests, ``(conditions,)`` bool; kinds that test none are left out."""
        return {f"unseen {kind}": held.any(0) for kind, held in self._asdict().items() if held.any()}

    def by_kind(self, answers: Tensor) -> Tensor:
        """Of answers by fold, those to what was held out; ``(kinds, conditions, genes)``."""
        parts = torch.where(self.all[..., None], answers, 0.0).split([len(each) for each in self])
        return torch.stack([part.sum(0) for part in parts])


class Evidence(NamedTuple):
    """What a generator learns from: observed psi and its gain ``(conditions, genes)``, effective cells, noise variance."""

    observed: Tensor
    gain: Tensor
    n: Tensor
    variance: Tensor

    def of_genes(self, genes: Tensor) -> Evidence:
        """The same of some genes."""
        return Evidence(self.observed[:, genes], self.gain[:, genes], self.n[:, genes], self.variance[genes])


def answers(
    name: str,
    generator: Generator,
    inputs: TreatmentInputs,
    evidence: Evidence,
    folds: Folds,
    penalty: Tensor,
    *,
    share: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Logits and psi of every condition by the fold of each kind that holds it out, ``(kinds, conditions, genes)`` each.

    ``penalty`` is what a target costs, ``(genes,)``, ``share`` the part of the gradient steps that is taken. 0 where no fold of the kind
    holds the condition out.
    """
    if GENERATORS[name].by_gradient:
        steps, lr = SCHEDULE.get(name, STEPS)
        return _descend(generator, inputs, evidence, folds, penalty, max(int(share * steps), 1), lr)
    return _solve(generator, inputs, evidence, folds, penalty)


def equal_drugs(inputs: TreatmentInputs) -> Tensor:
    """Group of every condition: its drug, and all drugs of the same features."""
    features = torch.nn.functional.pad(inputs.features, (0, 1))  # without any, all are equal
    return torch.unique(features, dim=0, return_inverse=True)[1]


def deal_groups(group: Tensor, folds: int, seed: int) -> Tensor:
    """Which conditions every fold holds out, ``(folds, conditions)`` bool; groups stay together."""
    fold = np.random.default_rng(seed).permutation(int(group.max()) + 1) % folds
    return torch.as_tensor(fold)[group] == torch.arange(folds)[:, None]


def deal_doses(inputs: TreatmentInputs, seed: int) -> Tensor:
    """As :func:`deal_groups`, every other dose of each drug that has several; no fold if none has."""
    drug, dose = inputs.drug.numpy(), inputs.log_dose.numpy()
    (drugs, _), place = np.unique(np.stack([drug, dose]), axis=1, return_inverse=True)
    drugs = drugs.astype(int)  # of every drug and dose, sorted by both
    rank, several = np.arange(len(drugs)) - np.searchsorted(drugs, drugs), np.bincount(drugs)[drugs] > 1
    turn = np.random.default_rng(seed).integers(2, size=drugs.max() + 1)[drugs]
    held = (((rank + turn) % 2 == np.arange(2)[:, None]) & several)[:, place.ravel()]
    return torch.as_tensor(held[: 2 * int(several.any())])


def deal_lines(inputs: TreatmentInputs, folds: int, seed: int) -> Tensor:
    """As :func:`deal_groups`, whole cell lines; no fold where there is one line."""
    line = torch.unique(inputs.line, return_inverse=True)[1]
    n_lines = int(line.max()) + 1
    if n_lines < 2:
        return torch.zeros(0, len(line), dtype=torch.bool)
    return deal_groups(line, min(folds, n_lines), seed)


def _solve(
    generator: Generator, inputs: TreatmentInputs, evidence: Evidence, folds: Folds, penalty: Tensor
) -> tuple[Tensor, Tensor]:
    """As :func:`answers`, in closed form."""
    observed, gain, n, variance = evidence
    out, probability = observed.new_zeros(2, len(folds), *observed.shape), torch.sigmoid(gain - penalty)
    for kind, held in ((kind, held) for kind, each in enumerate(folds) for held in each):
        known = type(inputs)(*(each[~held] for each in inputs))
        generator.reset()
        generator.solve(known, observed[~held], probability[~held], n[~held], variance)
        said = generator(type(inputs)(*(each[held] for each in inputs)))
        out[:, kind, held] = torch.stack([each.detach() for each in said])
    return out[0], out[1]


class _FoldGenerator(nn.Module):
    """A generator that is not charged for what it says of conditions that are held out, ``(conditions,)`` bool."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, inputs: TreatmentInputs, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, psi and penalty."""
        logits, psi = self.generator(inputs)
        # where a gene is surely a target, its psi costs nothing
        return logits, psi, self.generator.penalty(torch.where(out[:, None], torch.inf, logits), psi)


def _descend(
    generator: Generator,
    inputs: TreatmentInputs,
    evidence: Evidence,
    folds: Folds,
    penalty: Tensor,
    steps: int,
    lr: float,
) -> tuple[Tensor, Tensor]:
    """As :func:`answers`, by gradient: the folds side by side, each blind to what it holds out.

    In single precision, which ranks candidates as well and takes a third of the time.
    """
    module, held = _FoldGenerator(generator.float()), folds.all
    inputs = type(inputs)(*(each.float() if each.is_floating_point() else each for each in inputs))
    residual, gain, n, variance = (each.float() for each in evidence)
    penalty = penalty.float()
    parameters = {
        k: p.detach().expand(len(held), *p.shape).clone().requires_grad_() for k, p in module.named_parameters()
    }
    buffers = dict(module.named_buffers())
    per_fold = dict.fromkeys(buffers)  # the axis of folds, if they differ
    precision, targets, none = n / (2 * variance), gain > penalty + CLEAR_MARGIN, torch.zeros_like(gain)
    use = ~held[..., None]

    def answer(parameters: dict, buffers: dict, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return functional_call(module, (parameters, buffers), (inputs, out))

    optimizer = torch.optim.Adam(parameters.values(), lr=lr, betas=(0.9, 0.99))
    for step in range(steps):
        if step == int(PRUNED * steps):
            buffers, per_fold = _prune(module, parameters), dict.fromkeys(buffers, 0)
        optimizer.param_groups[0]["lr"] = lr * min(1.0, 2 * (1 - step / steps))
        logits, psi, cost = vmap(answer, in_dims=(0, per_fold, 0))(parameters, buffers, held)
        touched = gain - precision * (residual - psi) ** 2
        likelihood = (
            complete_log_likelihood(logits, touched, none, penalty, targets)
            if step < TEACHER_FORCED * steps
            else marginal_log_likelihood(logits, touched, none, penalty)
        )
        optimizer.zero_grad()
        (cost.sum() - (likelihood * use).sum()).backward()
        optimizer.step()
    with torch.no_grad():
        logits, psi, _ = vmap(answer, in_dims=(0, per_fold, 0))(parameters, buffers, held)
        return folds.by_kind(logits).double(), folds.by_kind(psi).double()


@torch.no_grad()
def _prune(module: _FoldGenerator, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Buffers of every fold after pruning, stacked."""
    states = []
    for fold in range(len(next(iter(parameters.values())))):
        for name, parameter in module.named_parameters():
            parameter.copy_(parameters[name][fold])
        module.generator.prune()
        states.append({name: buffer.clone() for name, buffer in module.named_buffers()})
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}
