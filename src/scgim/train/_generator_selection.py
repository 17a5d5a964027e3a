"""Selection of the generator: the generator requested by the user, or cross-validation over drugs, doses and lines."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from scgim.module import GENERATORS

from ._cross_fit import cross_fit
from ._generator_cv import MIN_DRUGS, cross_validate_generators

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from scgim.data._design import ScreenDesign
    from scgim.module import FeatureEvidence, GIMModule, MeasuredConditions, Moments, TreatmentInputs
    from scgim.module.generators import Generator

    from ._folds import ObservedEffects

logger = logging.getLogger("scgim")


@dataclass(frozen=True)
class GeneratorChoice:
    """Name of the generator, the reason of the choice, and the scores of all candidates, or ``None``."""

    name: str
    reason: str = "as asked"
    scores: pd.DataFrame | None = None

    def state(self) -> dict:
        """Plain values for a checkpoint."""
        scores = None if self.scores is None else self.scores.to_dict("index")
        return {"name": self.name, "reason": self.reason, "scores": scores}

    @classmethod
    def from_state(cls, state: dict) -> GeneratorChoice:
        """Restore the choice from the values of :meth:`state`."""
        scores = state["scores"]
        table = None if scores is None else pd.DataFrame.from_dict(scores, orient="index").rename_axis("generator")
        return cls(state["name"], state["reason"], table)


def distinct_drugs(design: ScreenDesign) -> int:
    """Number of drugs with conditions of their own that differ in their features."""
    alone = np.isin(design.drugs, design.alone)
    known = design.features[design.featured & alone]
    return len(np.unique(known, axis=0)) if known.shape[1] else int(alone.sum())


class GeneratorSelection:
    """Selects the generator of the last phase on trained mechanisms.

    Parameters
    ----------
    build
        Function that returns a new generator from its name and a number of genes.
    design
        Design of the training conditions.
    source
        Source of the drug features; ``"identity"`` without features.
    asked
        Name of the requested generator, or ``"auto"``.
    seed
        Seed of the folds.
    """

    def __init__(
        self, build: Callable[[str, int], Generator], design: ScreenDesign, *, source: str, asked: str, seed: int
    ) -> None:
        self.build, self.source, self.asked, self.seed = build, source, asked, seed
        self.n_drugs, self.all_featured = distinct_drugs(design), bool(design.featured.all())
        if GENERATORS.get(asked, GENERATORS["identity"]).pools_drugs and not design.featured.any():
            raise ValueError(
                f"generator={asked!r} learns from the features of drugs, and no training drug has features. Use 'identity'."
            )
        self.choice = GeneratorChoice(self._first())

    def _first(self) -> str:
        """Name of the generator of the joint phase: the requested generator if it is trained by gradient, as the mechanisms are.

        All drugs are known by name if some have no features, because these drugs move genes too.
        """
        if not self.all_featured:
            return "identity"
        if self.asked != "auto" and GENERATORS[self.asked].by_gradient:
            return self.asked
        return "hill" if self.source != "identity" and self.n_drugs >= MIN_DRUGS else "identity"

    def select(self, module: GIMModule, conditions: MeasuredConditions, moments: Moments, rest: Tensor) -> Generator:
        """Choose and build the generator on frozen moments; ``rest`` is the mean residual of the controls, ``(genes,)``.

        Cross-validation is over the conditions of single drugs, because a combination would disclose drugs that are held out.
        """
        if self.asked != "auto":
            choice = GeneratorChoice(self.asked)
        elif self.source == "identity":
            choice = GeneratorChoice("identity", "auto: no drug features, so no cross-validation")
        elif self.n_drugs < MIN_DRUGS:
            reason = f"auto: {self.n_drugs} drugs of different features are too few for cross-validation"
            choice = GeneratorChoice("identity", reason)
        else:
            single = conditions.inputs.single
            name, scores = self._cross_validate(module, conditions.take(single), moments.take(single), rest)
            scores = scores.set_index("generator").astype(float)
            kinds = (k.removeprefix("loss ") for k in scores if k.startswith("loss unseen"))
            choice = GeneratorChoice(name, "auto: cross-validated over " + ", ".join(kinds), scores)
        if self.asked == "auto":
            logger.info("generator=%r (%s).", choice.name, choice.reason)
        return self.take(choice, len(module.target_penalty))

    def take(self, choice: GeneratorChoice, n_genes: int) -> Generator:
        """Store the choice and build its generator."""
        self.choice = choice
        return self.build(choice.name, n_genes)

    def cross_fit(
        self,
        inputs: TreatmentInputs,
        observed_effects: ObservedEffects,
        sure: ObservedEffects,
        module: GIMModule,
        share: float,
    ) -> FeatureEvidence | None:
        """Cross-fitted predictions of the training conditions by the chosen generator."""
        name, n_genes = self.choice.name, len(module.target_penalty)
        build = lambda: self.build(name, n_genes)
        return cross_fit(
            name,
            build,
            inputs,
            observed_effects,
            sure,
            module.target_penalty,
            module.generator_penalty,
            self.seed,
            share,
        )

    def _cross_validate(
        self, module: GIMModule, conditions: MeasuredConditions, moments: Moments, rest: Tensor
    ) -> tuple[str, pd.DataFrame]:
        observed, _ = module.intervention.observed(moments)
        with torch.no_grad():
            gain = module.profile_log_likelihood_ratio(conditions, moments)
        return cross_validate_generators(
            self.build,
            conditions.inputs,
            observed,
            gain,
            conditions.n,
            module.mechanism.variance.detach(),
            target_penalty=module.target_penalty,
            generator_penalty=module.target_penalty.clamp(max=module.generator_target_penalty),
            rest=rest,
            # The observed shift of a gene that is not a target estimates 0, so all shifts can be predicted. For hard interventions,
            # the value of a gene that is not a target is no estimate of an effect.
            expected=None
            if module.intervention.keeps_parents
            else torch.sigmoid(gain - module.target_penalty) * observed,
            seed=self.seed,
        )
