"""Which generator a model takes: as asked, or by cross-validation over drugs, doses and lines."""

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

    from ._folds import Evidence

logger = logging.getLogger("scgim")


@dataclass(frozen=True)
class GeneratorChoice:
    """Name of the generator, why it was taken, and the scores of all that were compared, or ``None``."""

    name: str
    reason: str = "as asked"
    scores: pd.DataFrame | None = None

    def state(self) -> dict:
        """Plain values, for a checkpoint."""
        scores = None if self.scores is None else self.scores.to_dict("index")
        return {"name": self.name, "reason": self.reason, "scores": scores}

    @classmethod
    def from_state(cls, state: dict) -> GeneratorChoice:
        """From what :meth:`state` gave."""
        scores = state["scores"]
        table = None if scores is None else pd.DataFrame.from_dict(scores, orient="index").rename_axis("generator")
        return cls(state["name"], state["reason"], table)


def distinct_drugs(design: ScreenDesign) -> int:
    """Training drugs that differ in their features."""
    return len(np.unique(design.features, axis=0)) if design.features.shape[1] else len(design.drugs)


class GeneratorSelection:
    """Selects the generator of the last phase once the mechanisms stand.

    Parameters
    ----------
    build
        A new generator from its name and a number of genes.
    design
        Of the training conditions.
    source
        Where drug features come from; ``"identity"`` where there are none.
    asked
        The generator that was asked for, or ``"auto"``.
    seed
        Of the folds.
    """

    def __init__(
        self, build: Callable[[str, int], Generator], design: ScreenDesign, *, source: str, asked: str, seed: int
    ) -> None:
        self.build, self.source, self.asked, self.seed = build, source, asked, seed
        self.n_drugs = distinct_drugs(design)
        self.choice = GeneratorChoice(self._first())

    def _first(self) -> str:
        """The generator that the mechanisms are learned with: as asked, if it learns by gradient like them."""
        if self.asked != "auto" and GENERATORS[self.asked].by_gradient:
            return self.asked
        return "hill" if self.source != "identity" and self.n_drugs >= MIN_DRUGS else "identity"

    def select(self, module: GIMModule, conditions: MeasuredConditions, moments: Moments, rest: Tensor) -> Generator:
        """The generator, chosen on frozen moments, with what mechanisms leave of the controls, ``(genes,)``."""
        if self.asked != "auto":
            choice = GeneratorChoice(self.asked)
        elif self.source == "identity":
            choice = GeneratorChoice("identity", "auto: no drug features, so no cross-validation")
        elif self.n_drugs < MIN_DRUGS:
            reason = f"auto: {self.n_drugs} drugs of different features are too few for cross-validation"
            choice = GeneratorChoice("identity", reason)
        else:
            name, scores = self._cross_validate(module, conditions, moments, rest)
            scores = scores.set_index("generator").astype(float)
            kinds = (k.removeprefix("loss ") for k in scores if k.startswith("loss unseen"))
            choice = GeneratorChoice(name, "auto: cross-validated over " + ", ".join(kinds), scores)
        if self.asked == "auto":
            logger.info("generator=%r (%s).", choice.name, choice.reason)
        return self.take(choice, len(module.target_penalty))

    def take(self, choice: GeneratorChoice, n_genes: int) -> Generator:
        """The generator of a choice, which is this selection's from now on."""
        self.choice = choice
        return self.build(choice.name, n_genes)

    def cross_fit(
        self, inputs: TreatmentInputs, evidence: Evidence, sure: Evidence, module: GIMModule, share: float
    ) -> FeatureEvidence | None:
        """What the generator in use says of the training conditions when their drugs are held out."""
        name, n_genes = self.choice.name, len(module.target_penalty)
        build = lambda: self.build(name, n_genes)
        return cross_fit(
            name, build, inputs, evidence, sure, module.target_penalty, module.generator_penalty, self.seed, share
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
            # a shift that is none is one of 0; a value that was not set is not
            expected=None
            if module.intervention.keeps_parents
            else torch.sigmoid(gain - module.target_penalty) * observed,
            seed=self.seed,
        )
