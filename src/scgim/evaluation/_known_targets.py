"""Known targets of drugs, compared with the targets found by the model, by the model without a graph, and by simple rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgim._checks import check_names, listed, nearest, warn
from scgim.inference._target_ranking import posterior

from ._ablations import trained_alike, without_graph
from ._baselines import BASELINES
from ._conditions import ConditionTable
from ._heldout import conditions_of
from ._target_scores import PREDICTED_SHIFT, SHIFT, Z, score_targets, targets_verdict
from ._verdict import SCGIM

if TYPE_CHECKING:
    from scgim.data._training_summary import TrainingSummary

    from ._protocol import TrainedModel

CALLED = 0.5  # probability above which a gene is called a target
MOST_RECALLED = 5
COLUMNS = ["method", "drug", "evidence", "n_targets", "n_called", "ap", "f1", "recall", "best_rank"]


def check_known(model: TrainedModel, known: pd.DataFrame) -> pd.DataFrame:
    """Pairs of drug and gene as strings, without repetitions, and without drugs on which the model has prior knowledge of targets.

    Raises
    ------
    KeyError, TypeError, ValueError
        If `known` is not such a table, names a drug or gene that the model does not have, or all drugs have prior knowledge.
    """
    if not isinstance(known, pd.DataFrame):
        raise TypeError(f"known is a DataFrame with columns 'drug' and 'gene', not a {type(known).__name__}.")
    for column in ("drug", "gene"):
        if column not in known:
            raise KeyError(
                f"known has no column {column!r}; its columns: {listed(known.columns, n=8)}. It takes 'drug' and 'gene'."
            )
    if known.empty:
        raise ValueError("known is empty: there is no target to look for.")
    pairs = pd.DataFrame({name: check_names(known, name) for name in ("drug", "gene")}).drop_duplicates()
    for column, options in (("drug", model.drug_table_.frame.index), ("gene", model._require_trained().genes)):
        if absent := sorted(set(pairs[column]) - set(options)):
            raise KeyError(
                f"known[{column!r}] holds names that the model does not have: {listed(absent)}. Nearest to {absent[0]!r}: "
                f"{listed(nearest(absent[0], options))}. Rename them, or drop these rows."
            )
    prior = model.settings_["known_targets"]
    return pairs if prior is None else _without_prior(pairs, set(prior["drug"]))


def _without_prior(pairs: pd.DataFrame, drugs: set[str]) -> pd.DataFrame:
    """The pairs of drugs on which the model has no prior knowledge, because a score would repeat this knowledge."""
    left = pairs[~pairs["drug"].isin(drugs)]
    if left.empty:
        raise ValueError(
            f"The model was given known_targets of all {pairs['drug'].nunique()} drugs in `known`, so a score would repeat this "
            "knowledge. Train without known_targets of the drugs to be scored."
        )
    if n := pairs["drug"].nunique() - left["drug"].nunique():
        warn(f"{n} drugs in `known` are not scored, because the model was given known_targets of them.")
    return left


def evaluate_targets(
    model: TrainedModel, known: pd.DataFrame, *, k: int | None, refit: bool, train_kwargs: dict
) -> pd.DataFrame:
    """Scores of known targets for every method, as :meth:`scgim.GIM.evaluate_targets` returns them."""
    pairs, genes = check_known(model, known), model._require_trained().genes
    k = min(MOST_RECALLED, len(genes)) if k is None else k
    truth = pd.crosstab(pairs["drug"], pairs["gene"]).reindex(columns=genes, fill_value=0) > 0
    measured = truth.index.isin(model._require_trained().design.alone)
    methods = {SCGIM: model} | trained_alike(model, without_graph(model) if refit else {}, train_kwargs)
    parts, said = [], []
    for evidence, targets, what in (("data", truth[measured], "measured"), ("features", truth[~measured], "unseen")):
        if targets.empty:
            continue
        drugs = targets.index.to_numpy(str)
        found = {}
        for name, gim in methods.items():
            probability, score = _by_data(gim, drugs) if evidence == "data" else _by_features(gim, drugs)
            found[name] = score, probability > CALLED
        if evidence == "data":
            found |= {name: (score, None) for name, score in _moved_most(model._require_trained(), drugs).items()}
        else:
            found[PREDICTED_SHIFT] = _predicted_shift(model, drugs), None
        table = pd.concat(
            [
                score_targets(name, score, targets.to_numpy(), drugs, k=k, called=called)
                for name, (score, called) in found.items()
            ]
        )
        parts.append(table.assign(evidence=evidence))
        said += targets_verdict(table, what)
    out = pd.concat(parts, ignore_index=True)[COLUMNS]
    out.attrs["verdict"] = said
    return out


def _by_data(model: TrainedModel, drugs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability and score of measured drugs' targets, ``(drugs, genes)`` each: the highest over doses and lines."""
    predictor = model._predictor()
    probability, effect, _ = posterior(predictor.module, predictor.summary)
    return tuple(
        _highest(model._require_trained(), values, drugs) for values in (probability, probability * np.abs(effect))
    )


def _by_features(model: TrainedModel, drugs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability and score of the targets of unmeasured drugs, by the generator alone; otherwise like :func:`_by_data`."""
    predictor = model._predictor()
    table = predictor.rank_targets(predictor.resolve(drug=drugs.tolist()), "features")
    best = table.groupby(["drug", "gene"])[["probability", "score"]].max()
    return tuple(best[name].unstack()[list(model._require_trained().genes)].loc[drugs].to_numpy() for name in best)


def _moved_most(summary: TrainingSummary, drugs: np.ndarray) -> dict[str, np.ndarray]:
    """Absolute mean changes from the line's own controls, and their ratio to the sampling error (Welch), ``(drugs, genes)`` each."""
    statistics, design = summary.statistics, summary.design
    n = statistics.n[:, None]
    # A condition without any variance (a constant gene, or a single cell) gets the control variance, which is 1 on this scale.
    variance = statistics.squares / np.maximum(n - 1, 1)
    variance[1:] = np.where(variance[1:] > 0, variance[1:], 1.0)
    lines = np.searchsorted(design.lines, summary.group_line)
    of_line = np.bincount(lines, summary.group_size, minlength=len(design.lines))
    change = np.abs(statistics.mean[1:] - statistics.mean[0])
    error = np.sqrt(variance[1:] / n[1:] + variance[0] / of_line[design.line][:, None])
    return {SHIFT: _highest(summary, change, drugs), Z: _highest(summary, change / error, drugs)}


def _predicted_shift(model: TrainedModel, drugs: np.ndarray) -> np.ndarray:
    """Largest absolute change over training doses and lines that ridge predicts for unseen drugs, ``(drugs, genes)``."""
    train, design = conditions_of(model._require_trained(), model.drug_table_), model._require_trained().design
    names = pd.DataFrame(
        [(drug, dose, line) for drug in drugs for dose in design.doses_of(drug) for line in design.lines],
        columns=["drug", "dose", "cell_line"],
    )
    features = model.drug_table_.frame.loc[names["drug"]].to_numpy(float)
    baseline = BASELINES["ridge"]()
    baseline.fit(train)
    change = baseline.predict(
        ConditionTable(
            names, features, np.zeros((len(names), len(model._require_trained().genes))), np.zeros(len(names))
        )
    )
    return np.abs(change).reshape(len(drugs), -1, change.shape[1]).max(1)


def _highest(summary: TrainingSummary, values: np.ndarray, drugs: np.ndarray) -> np.ndarray:
    """Maximum over the conditions of every drug, ``(drugs, genes)``."""
    out = np.full((len(summary.design.treatments), values.shape[1]), -np.inf)
    np.maximum.at(out, summary.design.drug, values)
    return out[np.searchsorted(summary.design.drugs, drugs)]
