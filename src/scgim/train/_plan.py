"""Training: one ``Trainer.fit`` with its phases in a schedule."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader

from scgim._checks import check_option
from scgim.module import Moments, cell_moments, evidence
from scgim.module.likelihood import CLEAR
from scgim.structure import SLAB, fit_graph, orient_ties, refine_dag, search_dag
from scgim.structure.gradient import RELAXATIONS, descend_dag

from ._calibration import Calibration, calibration, misfit, rest, weigh
from ._folds import Evidence
from ._joint_likelihood import JointLikelihood
from ._minibatches import Batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scgim.data._training_data import Collected
    from scgim.module import Contexts, FeatureEvidence, GIMModule
    from scgim.structure import LocalFit, SearchState

    from ._generator_selection import Choice

PHASES = ("structure", "mechanisms", "generator")
_NOT_OPTIONS = {
    "module",
    "data",
    "structure",
    "allowed",
    "required",
    "final",
    "seed",
    "early_stopping_patience",
}  # arguments of GIM and its train
_PATIENCE = {True: 20, False: 3}  # rounds of the search without gain: on sufficient statistics, on cells
LEARNING_SHARE = 0.04  # of a clear target's median gain: what a target costs while the generator learns
_DESCENTS = 8  # the same of descents, each a thousand times the work


class StatisticsModule(pl.LightningDataModule):
    """The whole of the data as one batch: contexts, controls, and validation contexts or ``None``."""

    def __init__(self, data: Collected) -> None:
        super().__init__()
        self.batch = (data.contexts, data.controls, data.held)

    def train_dataloader(self) -> DataLoader:
        """One batch an epoch."""
        # without a generator of its own it takes its seed from the global one
        return DataLoader([self.batch], batch_size=None, collate_fn=lambda batch: batch, generator=torch.Generator())


class TrainingPlan(pl.LightningModule):
    """The schedule: structure (search or descent), mechanisms (jointly with a generator), generator.

    An epoch is one search round or ``steps_per_epoch`` gradient steps: a step on sufficient statistics takes a
    millisecond, about as long as all that the trainer does around an epoch.

    Parameters
    ----------
    module
        What is trained, with the generator that the mechanisms are learned with.
    data
        Training contexts, controls, and what the search and the mechanisms see of the cells.
    structure
        ``"search"``, ``"gradient"``, or ``"none"`` (no edges but required ones).
    allowed, required
        Edges that may exist and that must, ``(genes, genes)`` bool; ``None`` for all and none.
    final
        Gives the generator of the last phase from contexts and moments; ``None``: the module's own.
    seed
        Of the search or descent and of batches of cells.
    charge
        Nats that a target costs; by default learned, for every gene, from placebos of control cells.
    search_rounds, search_patience, search_charge, search_penalty
        See :func:`~scgim.structure.search_dag`. Patience is 20 rounds by default, and 3 for networks, whose score ignores
        interactions of parents: there a better score is not always a better graph. Rounds, patience (8) and penalty are also
        those of the descent, charge and penalty those of :func:`~scgim.structure.refine_dag`, which follows for networks.
    orientation, gradient_steps, gradient_lr, gradient_graphs
        Of ``structure="gradient"``, see :func:`~scgim.structure.gradient.descend_dag`.
    mechanism_steps, mechanism_lr, forced_steps
        Gradient steps of the joint phase and their size, which falls to 0 over the second half; the first ``forced_steps``
        know the targets that the data clearly show.
    cells_per_step
        With mechanisms that need cells: how many of each context enter a step.
    weight_decay
        L2 weight on coefficients in nats, a tenth of it in the second half.
    generator_steps, generator_lr, forced_share, prune_at
        Gradient steps of the last phase, the share of them that is teacher-forced, and where effects are pruned.
    generator_charge
        Least nats that a target costs a condition in the last phase, where drugs are pooled by their features: the map pays for an effect
        once, by its penalty, and conditions that are too weak to pay ``charge`` each can still learn what they have in common. It is
        raised, up to ``charge``, to a twenty-fifth of what clear targets gain.
    early_stopping_patience
        With validation contexts: steps of the last phase without a better ``nll_validation`` that end it; the best
        weights are restored. ``None`` runs all steps.
    steps_per_epoch
        Gradient steps between two entries of the history.
    """

    def __init__(
        self,
        module: GIMModule,
        data: Collected,
        *,
        structure: str = "search",
        allowed: np.ndarray | None = None,
        required: np.ndarray | None = None,
        final: Choice | None = None,
        seed: int = 0,
        charge: float | None = None,
        search_rounds: int = 100,
        search_patience: int | None = None,
        search_charge: float | None = None,
        search_penalty: float | None = None,
        orientation: Literal["smooth", "gumbel"] = "smooth",
        gradient_steps: int = 150,
        gradient_lr: float = 0.03,
        gradient_graphs: int | None = None,
        mechanism_steps: int = 300,
        mechanism_lr: float = 1e-2,
        forced_steps: int = 100,
        cells_per_step: int = 10,
        weight_decay: float = 1e-3,
        generator_steps: int = 600,
        generator_lr: float = 0.1,
        forced_share: float = 0.3,
        prune_at: float = 0.6,
        generator_charge: float = 0.5,
        early_stopping_patience: int | None = None,
        steps_per_epoch: int = 10,
    ) -> None:
        super().__init__()
        self.module, self.data, self.structure, self.seed = module, data, structure, seed
        self.allowed, self.required, self.final = allowed, required, final
        default = _DESCENTS if structure == "gradient" else _PATIENCE[module.mechanism.affine]
        patience = default if search_patience is None else search_patience
        self.descent = {
            "orientation": orientation,
            "steps": gradient_steps,
            "lr": gradient_lr,
            "graphs": gradient_graphs,
        }
        self.search = {"max_rounds": search_rounds, "patience": patience}
        self.charge, self.search_charge, self.search_penalty = charge, search_charge, search_penalty
        self.calibration: Calibration | None = None
        self.mechanism_steps, self.mechanism_lr = mechanism_steps, mechanism_lr
        self.cells_per_step = cells_per_step
        self.forced_steps, self.weight_decay = min(forced_steps, self.mechanism_steps // 3), weight_decay
        self.generator_steps, self.generator_lr = generator_steps, generator_lr
        self.forced_share, self.prune_at, self.patience = forced_share, prune_at, early_stopping_patience
        self.generator_charge = generator_charge
        self.phase, self.step_in_phase, self.steps_per_epoch = PHASES[0], 0, steps_per_epoch
        self.automatic_optimization = False

    @classmethod
    def within(cls, max_epochs: int | None, plan_kwargs: dict) -> dict:
        """Options with every phase shortened in proportion, so that all of them fit into ``max_epochs``."""
        defaults = {name: p.default for name, p in inspect.signature(cls).parameters.items()}
        for name in plan_kwargs:
            check_option("plan_kwargs", name, [name for name in defaults if name not in _NOT_OPTIONS])
        options = defaults | plan_kwargs
        check_option("orientation", options["orientation"], RELAXATIONS)
        wanted = cls._epochs(options)
        if max_epochs is None or max_epochs >= wanted:
            return plan_kwargs
        if max_epochs < 4:
            raise ValueError(
                f"max_epochs={max_epochs} is too few for three phases; the schedule asks for up to {wanted}."
            )
        # the first climb, one epoch for each of the other phases and the one that ends training are always needed
        share, per = (max_epochs - 4) / wanted, options["steps_per_epoch"]
        shorter = {"search_rounds": int(share * options["search_rounds"])}
        for name in ("mechanism_steps", "generator_steps"):
            shorter[name] = per * (1 + int(share * options[name] / per))
        return plan_kwargs | shorter

    @staticmethod
    def _epochs(options: dict) -> int:
        """Most epochs of a schedule."""
        steps = options["mechanism_steps"] + options["generator_steps"]
        return options["search_rounds"] + 2 + -(-steps // options["steps_per_epoch"])

    @property
    def max_epochs(self) -> int:
        """Upper bound on epochs: the search ends by stagnation."""
        return self._epochs(
            {
                "search_rounds": self.search["max_rounds"],
                "mechanism_steps": self.mechanism_steps,
                "generator_steps": self.generator_steps,
                "steps_per_epoch": self.steps_per_epoch,
            }
        )

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for all parameters (structure and mechanisms) and a fresh one for the generator."""
        betas = (0.9, 0.99)
        groups = [
            {"params": list(self.module.mechanism.parameters()), "lr": self.mechanism_lr},
            {"params": self._drug_parameters(), "lr": self.generator_lr},
        ]
        return [
            torch.optim.Adam(groups, betas=betas),
            torch.optim.Adam([{"params": self._drug_parameters(), "lr": self.generator_lr}], betas=betas),
        ]

    def _drug_parameters(self) -> list[torch.nn.Parameter]:
        return [p for name, p in self.module.named_parameters() if not name.startswith("mechanism.")]

    def on_train_start(self) -> None:
        """Start the schedule, where a checkpoint left it if there is one."""
        self._schedule = self._run()

    def training_step(self, batch: tuple, batch_idx: int) -> torch.Tensor:
        """Advance the schedule by an epoch and log what it reports last."""
        self._batch = batch
        metrics: dict[str, float] = {}
        for _ in range(1 if self.phase == "structure" else self.steps_per_epoch):
            report = next(self._schedule, None)
            if report is None:
                self.trainer.should_stop = True
                break
            metrics |= report
        several = self.trainer.world_size > 1
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=1, sync_dist=several)
        return torch.zeros(())

    def _run(self) -> Iterator[dict[str, float]]:
        """All phases, each a resumable iterator over its own steps."""
        for name in PHASES[PHASES.index(self.phase) :] if self.phase in PHASES else ():
            self.phase = name
            for metrics in getattr(self, f"_{name}")():
                self.step_in_phase += 1
                yield metrics
            self.step_in_phase = 0
        self.phase = "done"

    # ---- structure ---------------------------------------------------------------------------------------------------

    def _structure(self) -> Iterator[dict[str, float]]:
        idle, _ = self.optimizers()
        mechanism, score = self.module.mechanism, self.score
        graph = mechanism.graph.cpu().numpy()
        if self.required is not None:
            graph = graph | self.required
        priors = {"allowed": self.allowed, "required": self.required}
        for state in self._rounds(graph, priors):
            graph = state.graph
            mechanism.set_graph(torch.as_tensor(graph))
            idle.step()  # without gradients a no-op, but it advances the global step, without which nothing is checkpointed
            yield {"structure_score": state.score}
        if self.data.means is None:  # among hubs that a few nats tell apart, that prior would choose worse than they
            graph = orient_ties(graph, self.data.search, **score, **priors)
        if self.data.store is not None and self.data.means is None and self.structure != "none":
            graph = self._refined(graph, priors)
        mechanism.warm_start(torch.as_tensor(graph), self._least_squares(graph))

    def _refined(self, graph: np.ndarray, priors: dict) -> np.ndarray:
        """The graph after a second climb, by a score in which the parents of a gene may interact."""
        store, score = self.data.store, {name: v for name, v in self.score.items() if name != "columns"}
        moved = self._least_squares(graph).moved
        return refine_dag(graph, store.x.numpy(), store.size.numpy(), moved, **score, **priors)

    def _rounds(self, start: np.ndarray, priors: dict) -> Iterator[SearchState]:
        """Better and better graphs."""
        options = {"seed": self.seed, "start": start, **priors, **self.search}
        if self.structure == "search":
            return search_dag(self.data.search, **self.score, **options)
        if self.structure == "none":
            return iter(())
        rates = {name: self.generator_lr for name, _ in self.module.named_parameters() if "mechanism." not in name}
        likelihood = JointLikelihood(
            self.module, self._batch[0], self.data.search, rates | {"mechanism.log_sigma": self.descent["lr"]}
        )
        columns, penalty = self.score["columns"], self.search_penalty
        return descend_dag(self.data.search, likelihood, columns=columns, penalty=penalty, **options, **self.descent)

    @property
    def score(self) -> dict:
        """What the search climbs, as :func:`~scgim.structure.search_dag` takes it."""
        return {
            "columns": self.module.mechanism.columns,
            "intervention": self.module.intervention.name,
            "charge": self.search_charge,
            "penalty": self.search_penalty,
        }

    def _least_squares(self, graph: np.ndarray) -> LocalFit:
        """The fit behind the search's score, on the standardised scale."""
        means, score = self.data.means, {name: v for name, v in self.score.items() if name != "penalty"}
        if means is None:
            return fit_graph(graph, self.data.search, **score)
        fit = means.fit(graph, self.data.fitted.statistics, **score)
        weight = np.zeros((len(graph) * score["columns"], len(graph)))
        weight[:: score["columns"]] = fit.weight  # means say nothing of bends
        return replace(fit, weight=weight)

    # ---- mechanisms --------------------------------------------------------------------------------------------------

    def _mechanisms(self) -> Iterator[dict[str, float]]:
        optimizer, _ = self.optimizers()
        mechanism, steps, n_cells = self.module.mechanism, self.mechanism_steps, self.data.n_cells
        if self.data.means is not None and mechanism.affine:
            return  # cells would only attenuate what the means have said
        batches = Batches(self, self._batch[0], self._batch[1])
        self._retie(optimizer)
        for step in range(self.step_in_phase, steps):
            late = step >= steps // 2
            if not mechanism.affine and step in {steps * share // 6 for share in (2, 3, 4, 5)}:
                keep = None if self.required is None else torch.as_tensor(self.required)
                mechanism.prune(self.data.some_controls().float(), keep)
                self._retie(optimizer)
            for group, lr in zip(optimizer.param_groups, (self.mechanism_lr, self.generator_lr), strict=True):
                group["lr"] = lr * _cool(step, steps)
            batch = batches.at(step)
            nll, penalty = self.module.joint_loss(
                batch.contexts, batch.moments, n_cells * batch.share, batch.targets, batch.weight
            )
            decay = self.weight_decay * (0.1 if late else 1.0) * mechanism.weight_penalty()
            self._descend(optimizer, nll + batch.share * (penalty + decay), add=batch.share < 1)
            yield {"mechanisms_nll": nll.item() / float(n_cells * batch.share)}

    def _retie(self, optimizer: torch.optim.Optimizer) -> None:
        """Give the optimiser the parameters of the present graph; averages of other shapes go."""
        params = list(self.module.mechanism.parameters())
        optimizer.param_groups[0]["params"] = params
        for old in set(optimizer.state) - {*params, *optimizer.param_groups[1]["params"]}:
            del optimizer.state[old]

    # ---- generator ---------------------------------------------------------------------------------------------------

    def _generator(self) -> Iterator[dict[str, float]]:
        joint, optimizer = self.optimizers()
        self.module.mechanism.requires_grad_(False)
        contexts, controls, held = self._batch
        contexts, held = self._weighed(contexts, held)
        with torch.no_grad():
            moments = self._moments(contexts, controls, self.data.store)
            self.module.generator_charge.fill_(self._learning_penalty(contexts, moments))
            held_moments = None if held is None else self._moments(held, controls, self.data.held_store)
        if self.step_in_phase == 0:
            self.module.generator.reset()
            if self.final is not None:
                self.module.generator = self.final(contexts, moments, self._rest)
            joint.state.clear()
        for each in (joint, optimizer):
            each.param_groups[-1]["params"] = self._drug_parameters()
        seen = self._seen(contexts, moments)
        if self.module.generator.by_gradient:
            yield from self._descend_generator(optimizer, contexts, moments, held, held_moments)
            self.module.generator.calibrate(*seen)
        else:
            self.module.generator.solve(*seen)
            optimizer.step()
            with torch.no_grad():
                yield {"generator_nll": -self.module.evidence(contexts, moments).sum().item() / len(contexts.n)}

    @torch.no_grad()
    def _seen(self, contexts: Contexts, moments: Moments) -> tuple:
        """What the contexts show, as generators take it: their best psi, and whether it is one."""
        best, _ = self.module.intervention.observed(moments)
        probability = torch.sigmoid(self.module.profile(contexts, moments) - self.module.charge)
        if not self.module.generator.by_gradient:  # which take every shift for one, however weak
            best = best - self._rest
        return contexts.conditions, best, probability, contexts.n, self.module.mechanism.variance.detach()

    @cached_property
    def _rest(self) -> torch.Tensor:
        """With the mechanisms of the last phase: what shifts are measured from, ``(genes,)``; values that interventions set have no such place."""
        mechanism = self.module.mechanism
        here = (
            rest(self.data, mechanism) if self.module.intervention.keeps_parents else torch.zeros(len(mechanism.bias))
        )
        return here.to(mechanism.bias)

    def _descend_generator(
        self,
        optimizer: torch.optim.Optimizer,
        contexts: Contexts,
        moments: Moments,
        held: Contexts | None,
        held_moments: Moments | None,
    ) -> Iterator[dict[str, float]]:
        charge = self.module.taught
        targets = self.clear_targets(contexts, moments, charge)
        frozen = self.module.freeze(contexts, moments)
        with torch.no_grad():  # what the frozen form leaves out
            rest = 0.0 if frozen is None else -self._untouched(contexts, moments)
        best, best_step, best_state = np.inf, 0, None
        for step in range(self.step_in_phase, self.generator_steps):
            if step == int(self.prune_at * self.generator_steps):
                self.module.generator.prune()
            optimizer.param_groups[0]["lr"] = self.generator_lr * _cool(step, self.generator_steps)
            forced = step < self.forced_share * self.generator_steps
            known = targets if forced else None
            loss, penalty = self.module.generator_loss(contexts, frozen or moments, known, charge=charge)
            self._descend(optimizer, loss + penalty)
            metrics = {"generator_nll": (loss.item() + rest) / len(contexts.n)}
            if held is not None:
                with torch.no_grad():
                    value = -self.module.evidence(held, held_moments, charge=charge).sum().item() / len(held.n)
                metrics["nll_validation"] = value
                if self.patience is not None and not forced:
                    if value < best:
                        best, best_step = value, step
                        best_state = {k: v.clone() for k, v in self.module.generator.state_dict().items()}
                    elif step - best_step >= self.patience:
                        yield metrics
                        break
            yield metrics
        if best_state is not None:
            self.module.generator.load_state_dict(best_state)

    @torch.no_grad()
    def measured(self) -> tuple[Contexts, Moments, FeatureEvidence | None]:
        """The training contexts, what the trained mechanisms leave of them, and what features say of them."""
        contexts, _ = self._weighed(self.data.contexts, None)
        moments = self._moments(contexts, self.data.controls, self.data.store)
        called = contexts
        if self.module.scale_map is None:  # else as in weighing
            called = contexts._replace(n=self._doubted(contexts, moments))
        if self.final is None:
            return called, moments, None
        conditions, observed, _, n, variance = self._seen(contexts, moments)
        evidence = Evidence(observed, self.module.profile(contexts, moments), n.expand_as(observed), variance)
        sure = evidence._replace(gain=self.module.profile(called, moments), n=called.n.expand_as(observed))
        with torch.enable_grad():
            features = self.final.cross_fit(conditions, evidence, sure, self.module, self._share)
        return called, moments, features

    @property
    def _share(self) -> float:
        """Of the generator's gradient steps, how many this schedule has."""
        return min(1.0, self.generator_steps / inspect.signature(type(self)).parameters["generator_steps"].default)

    def cross_fit_without_graph(self, error: np.ndarray) -> FeatureEvidence | None:
        """What the generator says of the held-out conditions if it learns their mean changes instead of the residuals of a graph.

        ``error`` is the variance of their error, ``(contexts, genes)``.
        """
        module, contexts = self.module, self.data.contexts
        change = contexts.mean - self.data.controls.mean if module.intervention.keeps_parents else contexts.mean
        variance = torch.as_tensor(np.median(error * contexts.n.numpy(), axis=0))
        n = variance / torch.as_tensor(error)
        evidence = Evidence(change, n * change**2 / (2 * variance), n, variance)
        with torch.enable_grad():
            return self.final.cross_fit(contexts.conditions, evidence, evidence, module, self._share)

    def _doubted(self, contexts: Contexts, moments: Moments) -> torch.Tensor:
        """What means are worth where the graph misfits, ``(contexts, genes)``; the module is told which genes' do.

        Only calls of targets are asked this way. The generator learns from means at what sampling leaves of them, because what it
        predicts of a drug should contain what the graph does not explain.
        """
        variance, n = self.module.mechanism.variance.detach(), contexts.n
        beyond = torch.as_tensor(misfit(self.data, self.module.mechanism, moments, n)).to(moments.residual)
        self.module.misfit.copy_((beyond / (beyond + variance / n)).mean(0))
        return 1 / (1 / n + beyond / variance)

    # ---- what the phases share ---------------------------------------------------------------------------------------

    def _moments(self, contexts: Contexts, controls: object, store: object) -> Moments:
        """Of whole contexts, from their statistics or from all kept cells."""
        mechanism = self.module.mechanism
        if not mechanism.affine:
            return cell_moments(mechanism, store)
        return mechanism.moments(self._own(contexts), controls)

    def _own(self, contexts: Contexts | None) -> Contexts | None:
        """With every context's own scatter gathered on the graph, which divides by its cells and not by what they are worth."""
        mechanism = self.module.mechanism
        if contexts is None or not mechanism.affine or not isinstance(contexts.own, torch.Tensor):
            return contexts
        return contexts._replace(own=mechanism.families(contexts.own, contexts.n))

    @torch.no_grad()
    def _weighed(self, contexts: Contexts, held: Contexts | None) -> tuple[Contexts, Contexts | None]:
        """The contexts as evidence; also sets what a target costs, once."""
        module, means = self.module, self.data.means
        contexts, held = (self._own(each) for each in (contexts, held))
        fit = None if means is None else self._least_squares(module.mechanism.graph.cpu().numpy())
        if self.calibration is None:
            self.calibration = (
                calibration(self.data, module.mechanism, fit)
                if self.charge is None
                else Calibration.given(self.charge, len(module.charge))
            )
            module.charge.copy_(torch.as_tensor(self.calibration.charge))
            if fit is not None and module.mechanism.affine:
                module.slab.copy_(torch.as_tensor(SLAB * means.unit**2))
                module.chance.copy_(torch.as_tensor(self.calibration.chance))
        if module.scale_map is not None:
            return contexts, held  # the noise's scale shows in every cell
        return weigh(self.data, module.mechanism, fit, contexts, held)

    def _untouched(self, contexts: Contexts, moments: Moments) -> float:
        """Log likelihood of all contexts if no mechanism is touched."""
        nothing = torch.zeros_like(moments.residual)
        _, untouched = evidence(self.module.intervention, moments, nothing, contexts.n, self.module.mechanism.variance)
        return untouched.sum().item()

    def _learning_penalty(self, contexts: Contexts, moments: Moments) -> float:
        r"""Nats that a target costs a condition while the generator learns: :data:`LEARNING_SHARE` of a clear target's median gain.

        Conditions that are too weak to pay the whole penalty each can then learn what they have in common; where they are strong,
        the whole penalty costs nothing and keeps features from calling what they cannot see.
        """
        gain = self.module.profile(contexts, moments)
        clear = gain[gain > self.module.charge + CLEAR]
        return max(self.generator_charge, LEARNING_SHARE * float(clear.median()) if len(clear) else 0.0)

    @torch.no_grad()
    def clear_targets(self, contexts: Contexts, moments: Moments, charge: torch.Tensor | None = None) -> torch.Tensor:
        """Mechanisms that a context touches beyond what they cost, ``(contexts, genes)`` bool."""
        return self.module.profile(contexts, moments) > (self.module.charge if charge is None else charge) + CLEAR

    def _descend(self, optimizer: torch.optim.Optimizer, loss: torch.Tensor, *, add: bool = False) -> None:
        """One step; ``add``: the loss is this process's part of a sum over all."""
        if not torch.isfinite(loss):
            raise RuntimeError(
                f"The loss became {loss.item()} in step {self.step_in_phase} of phase {self.phase!r}. Smaller steps may help: "
                "plan_kwargs={'mechanism_lr': 1e-3, 'generator_lr': 1e-2}."
            )
        params = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        # not by backward: a strategy for several processes would average what most of our steps have in common
        for p, gradient in zip(params, torch.autograd.grad(loss, params, allow_unused=True), strict=True):
            p.grad = gradient
            if add and gradient is not None:
                torch.distributed.all_reduce(gradient)
        optimizer.step()

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Remember the place in the schedule; the graph found so far is in the module."""
        chosen = None if self.final is None else self.final.chosen
        checkpoint["scgim_schedule"] = {"phase": self.phase, "step": self.step_in_phase, "chosen": chosen}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Go on from there."""
        self.phase, self.step_in_phase, chosen = checkpoint["scgim_schedule"].values()
        if chosen is not None:  # the weights that are loaded next are those of the generator of the last phase
            self.module.generator = self.final.take(chosen)


def _cool(step: int, steps: int) -> float:
    """Share of the step size: 1, then falling to 0 over the second half.

    Adam divides by the size of recent gradients, so near the optimum steps of constant size magnify rounding, and the
    order of the cells would show in the third digit.
    """
    return min(1.0, 2 * (1 - step / steps))
