"""Ablations: the model trained again without one of its parts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgim.data._drug_table import DrugTable

from ._verdict import EMPTY, SHUFFLED, ZEROED

if TYPE_CHECKING:
    from ._protocol import TrainedModel

logger = logging.getLogger("scgim")


def without_graph(model: TrainedModel) -> dict[str, TrainedModel]:
    """The untrained model with the empty graph and the same generator; empty if the model has no graph."""
    if model.settings_["structure"] == "none":
        return {}
    return {EMPTY: model._untrained(structure="none", prior_graph=None, generator=model.generator_)}


def without_features(model: TrainedModel, seed: int) -> dict[str, TrainedModel]:
    """Untrained models with uninformative features; empty if the model has no features."""
    out: dict[str, TrainedModel] = {}
    frame = model.drug_table_.frame
    if not frame.shape[1]:
        return out
    trained = np.isin(frame.index.to_numpy(str), model._require_trained().design.drugs)
    shuffled = frame.to_numpy(float).copy()
    rng = np.random.default_rng([seed, 0x5F])
    # Rows are shuffled among training drugs and among other drugs separately, so that no test drug gets the row of a training drug.
    featured = ~frame.isna().any(axis=1).to_numpy()
    for rows in (np.flatnonzero(featured & trained), np.flatnonzero(featured & ~trained)):
        shuffled[rows] = shuffled[rng.permutation(rows)]
    # Without features drugs are indistinguishable, and the training mean is the best prediction.
    for name, values, generator in (
        (SHUFFLED, shuffled, model.settings_["generator"]),
        (ZEROED, np.where(np.isnan(shuffled), np.nan, 0.0), "mean"),
    ):
        out[name] = model._untrained(generator=generator)
        features = pd.DataFrame(values, frame.index, frame.columns)
        out[name].drug_table_ = DrugTable(features, model.drug_table_.smiles, model.drug_table_.source)
    return out


def trained_alike(
    model: TrainedModel, ablations: dict[str, TrainedModel], train_kwargs: dict
) -> dict[str, TrainedModel]:
    """The ablations, trained on the model's cells with its seed."""
    for name, ablation in ablations.items():
        logger.info("Training %s for comparison.", name)
        ablation._reads_readout = False
        ablation.train(**{"enable_progress_bar": False, **train_kwargs, "seed": model.seed_})
    return ablations
