"""Which generator a model takes: the one asked for, or one chosen by cross-validation over drugs and doses."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from scgim.module import GENERATORS

from ._cross_fit import cross_fit
from ._generator_cv import MIN_DRUGS, choose_generator

if TYPE_CHECKING:
    from torch import Tensor

    from scgim.data._design import Design
    from scgim.model._gim import GIM
    from scgim.module import Conditions, Contexts, FeatureEvidence, GIMModule, Moments
    from scgim.module.generators import Generator

    from ._folds import Evidence

logger = logging.getLogger("scgim")


def distinct_drugs(design: Design) -> int:
    """Training drugs that differ in their features."""
    return len(np.unique(design.features, axis=0)) if design.features.shape[1] else len(design.drugs)


def first_generator(asked: str, source: str, n_drugs: int) -> str:
    """The generator that the mechanisms are learned with: as asked, if it learns by gradient like them."""
    if asked != "auto" and GENERATORS[asked].by_gradient:
        return asked
    return "hill" if source != "identity" and n_drugs >= MIN_DRUGS else "identity"


class Choice:
    """Called once the mechanisms stand: gives the generator of the last phase, and tells the model what was chosen and why."""

    def __init__(self, model: GIM, design: Design, seed: int) -> None:
        self.model, self.design, self.seed = model, design, seed
        self.chosen: dict | None = None  # of plain values: it goes into checkpoints

    def __call__(self, contexts: Contexts, moments: Moments, rest: Tensor) -> Generator:
        """Choose on frozen moments, with what mechanisms leave of the controls, ``(genes,)``."""
        model, asked, n_drugs = self.model, self.model.settings_["generator"], distinct_drugs(self.design)
        name, scores = asked, None
        if asked != "auto":
            reason = "as asked"
        elif model.table.source == "identity":
            name, reason = "identity", "auto: no drug features, so no cross-validation"
        elif n_drugs < MIN_DRUGS:
            name, reason = "identity", f"auto: {n_drugs} drugs of different features are too few for cross-validation"
        else:
            name, scores = self._cross_validate(contexts, moments, rest)
            scores = scores.set_index("generator").astype(float)
            reason = "auto: cross-validated over " + ", ".join(
                k.removeprefix("loss ") for k in scores if k.startswith("loss unseen")
            )
        if asked == "auto":
            logger.info("generator=%r (%s).", name, reason)
        scores = None if scores is None else scores.to_dict("index")
        return self.take({"name": name, "reason": reason, "scores": scores})

    def take(self, chosen: dict) -> Generator:
        """The generator of a choice; the model is told of it."""
        self.chosen, model = chosen, self.model
        scores = chosen["scores"]
        scores = None if scores is None else pd.DataFrame.from_dict(scores, orient="index").rename_axis("generator")
        model.generator_, model.choice_ = chosen["name"], {"reason": chosen["reason"], "scores": scores}
        return model._build_generator(model.summary_stats.n_vars, self.design, chosen["name"])

    def cross_fit(
        self, conditions: Conditions, evidence: Evidence, sure: Evidence, module: GIMModule, share: float
    ) -> FeatureEvidence | None:
        """What the generator in use says of the training conditions when their drugs are held out."""
        name, n_genes = self.model.generator_, len(module.charge)
        build = lambda: self.model._build_generator(n_genes, self.design, name)
        return cross_fit(name, build, conditions, evidence, sure, module.charge, module.taught, self.seed, share)

    def _cross_validate(self, contexts: Contexts, moments: Moments, rest: Tensor) -> tuple[str, pd.DataFrame]:
        module = self.model.module
        observed, _ = module.intervention.observed(moments)
        with torch.no_grad():
            gain = module.profile(contexts, moments)
        return choose_generator(
            lambda name, n_genes: self.model._build_generator(n_genes, self.design, name),
            contexts.conditions,
            observed,
            gain,
            contexts.n,
            module.mechanism.variance.detach(),
            charge=module.charge,
            taught=module.charge.clamp(max=module.generator_charge),
            rest=rest,
            # a shift that is none is one of 0; a value that was not set is not
            expected=None if module.intervention.keeps_parents else torch.sigmoid(gain - module.charge) * observed,
            seed=self.seed,
        )
