"""Scores on held-out conditions: the model, its own controls, and the baselines, all on the same rows."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgim._checks import listed, warn
from scgim.data._design import contexts_of
from scgim.data._drug_table import DrugTable
from scgim.data._reader import Reader, first_of_each, group_of
from scgim.data._training_data import KEYS
from scgim.evaluation import BASELINES, DUPLICATE, EMPTY, SCGIM, SHUFFLED, STRONG, ZEROED, ConditionTable, e_test, score
from scgim.metrics import deg_weights, energy_distance, per_gene_w1, rmse_sd

if TYPE_CHECKING:
    from scgim.data._training_summary import Fitted
    from scgim.model._gim import GIM

logger = logging.getLogger("scgim")

MOST_CELLS = 200  # of a condition in distances between distributions


@dataclass(frozen=True)
class Held:
    """Test conditions as measured: mean changes of all cells and of either half, spread, and a sample of cells and controls."""

    truth: ConditionTable
    first: np.ndarray
    second: np.ndarray
    sd: np.ndarray
    cells: list[np.ndarray]
    controls: list[np.ndarray]


def check_unseen(model: GIM) -> None:
    """Raise ValueError unless there are test conditions, none of which the model was trained on."""
    field = model._context_field()
    if field.split_key is None:
        raise ValueError(
            "evaluate needs test conditions: scgim.pp.split(adata, ...), then setup_anndata(..., split_key='scgim_split') and "
            "a new model."
        )
    table = field.table(model.adata)
    test = table[~table["train"] & ~table["control"]].rename(columns={"line": "cell_line"})
    if test.empty:
        raise ValueError(f"obs[{field.split_key!r}] has no treated cells that are 'test': nothing to evaluate on.")
    names = ["drug", "dose", "cell_line"]
    seen = test[names].drop_duplicates().merge(model.fitted.design.names()[names].astype({"drug": object}))
    if len(seen):
        drug, dose, line = seen.iloc[0]
        what = ", ".join([str(drug)] + [f"{dose:g}"] * (not np.isnan(dose)) + [str(line)] * bool(line))
        raise ValueError(
            f"The model was trained on test condition ({what}), and {len(seen) - 1} more. Scores on it would say nothing: "
            "train a new model on this split."
        )


def warn_of_leaks(model: GIM) -> list[str]:
    """Warn, and return as sentences, if a test drug's structure was trained on under another name."""
    smiles = {name: text for name, text in model.table.smiles.items() if text}
    if not smiles:
        return []
    from scgim.pp._chemistry import standardise_all
    from scgim.pp._leaks import find_leaks

    try:
        structures = standardise_all(pd.Series(smiles))
    except ValueError as error:
        said = f"Twins of test drugs in training could not be looked for. {error}"
    else:
        table = model._context_field().table(model.adata)
        cells = table.loc[~table["control"], ["drug", "dose", "line", "train"]].fillna({"dose": 0.0})
        twins = find_leaks(cells, structures, dosed=False, lined=False).query("kind != 'condition'")
        if twins.empty:
            return []
        pairs = listed(dict.fromkeys(twins["test"] + " = " + twins["train"]))
        said = (
            f"Leak: {twins['test'].nunique()} test drugs have the structure of a training drug ({pairs}), so the scores flatter "
            "every method that knows the features. scgim.pp.split(adata, smiles_key=...) keeps such twins on one side."
        )
    warn(said)
    return [said]


def conditions_of(fitted: Fitted, table: DrugTable) -> ConditionTable:
    """Training conditions as baselines take them, in pooled control sd."""
    names, statistics = fitted.design.names(), fitted.statistics
    unit = fitted.relative_scale(fitted.design.line)
    return ConditionTable(
        names,
        table.frame.loc[names["drug"]].to_numpy(float),
        (statistics.mean[1:] - statistics.mean[0]) * unit,
        statistics.n[1:],
    )


def measure(model: GIM, seed: int) -> Held:
    """Read the test cells: once for means, once more for a sample of them."""
    fitted, table = model.fitted, model._context_field().table(model.adata)
    use = ~table["train"].to_numpy() & ~table["control"].to_numpy()
    cells, genes = model._cells()
    rng = np.random.default_rng([seed, 0xE7A1])
    half = rng.random(len(table)) < 0.5
    rows = table.assign(half=half)[use]
    fine, code = contexts_of(rows, (*KEYS, "batch", "half"))
    contexts, label = contexts_of(fine, KEYS)
    groups = pd.DataFrame({"line": fitted.group_line, "batch": fitted.group_batch})
    raw = Reader(cells, table, use, fine, code).statistics(len(genes), own=False)
    standard = raw.standardise(fitted.group_mean[group_of(fine, groups)], fitted.scale)
    whole = standard.merge(label)
    halves = [_means(standard, label, fine["half"].to_numpy() == side, len(contexts)) for side in (False, True)]
    names = contexts.rename(columns={"line": "cell_line"})
    features = model.table.frame.loc[names["drug"]].to_numpy(float)
    sample, of = _sample(cells, np.flatnonzero(use), label[code], fitted, group_of(rows, groups), rng)
    controls = fitted.controls_in_sd()
    control_line = fitted.group_line[fitted.control_group]
    picked = {}
    for line in np.unique(names["cell_line"].to_numpy(str)):
        own = np.flatnonzero(control_line == line)
        own = own if len(own) else np.arange(len(controls))
        picked[line] = controls[rng.choice(own, min(len(own), MOST_CELLS), replace=False)]
    return Held(
        ConditionTable(names, features, whole.mean, whole.n),
        *halves,
        np.sqrt(whole.squares / whole.n[:, None]),
        [sample[of == k] for k in range(len(contexts))],
        [picked[line] for line in names["cell_line"].to_numpy(str)],
    )


def _means(statistics: object, label: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """Mean over some fine contexts of every context, NaN where it has none; ``(k, genes)``."""
    n = np.bincount(label[rows], statistics.n[rows], minlength=k)
    total = np.zeros((k, statistics.mean.shape[1]))
    np.add.at(total, label[rows], statistics.n[rows, None] * statistics.mean[rows])
    return total / np.where(n > 0, n, np.nan)[:, None]


def _sample(
    cells: object, rows: np.ndarray, label: np.ndarray, fitted: Fitted, group: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Some cells of every context, standardised, and the context of each."""
    chosen = first_of_each(label, MOST_CELLS, rng)
    x = cells.take(rows[chosen]).toarray().astype(float)
    return (x - fitted.group_mean[group[chosen]]) / fitted.scale, label[chosen]


def predictions(model: GIM, names: pd.DataFrame) -> np.ndarray:
    """Mean changes that a model predicts for conditions, control sd, genes sorted; NaN where it cannot say."""
    out = np.full((len(names), len(model.fitted.genes)), np.nan)
    order = np.searchsorted(model.fitted.genes, model._gene_order())
    pools = model.module.generator.pools_drugs
    known = names["drug"].isin(model.table.frame.index if pools else model.fitted.design.drugs)
    for (drug, dose), rows in names[known].groupby(["drug", "dose"], dropna=False):
        asked = None if np.isnan(dose) else float(dose)
        delta = model.predict(drug=drug, dose=asked, as_="delta")
        line = delta.obs["cell_line"].astype(str).to_numpy()
        for i, name in zip(rows.index, rows["cell_line"].astype(str), strict=True):
            at = np.flatnonzero(line == name)
            out[i, order] = delta.X[at[0] if len(at) else slice(None)].reshape(-1, len(order)).mean(0)
    return out / model.fitted.scale


def without_graph(model: GIM) -> dict[str, GIM]:
    """The untrained model with the empty graph and the same generator; none if the model has no graph itself."""
    if model.settings_["structure"] == "none":
        return {}
    return {EMPTY: _twin(model, {"structure": "none", "prior_graph": None, "generator": model.generator_})}


def without_features(model: GIM, seed: int) -> dict[str, GIM]:
    """Untrained models with features that say nothing; none if the model has no features itself."""
    out: dict[str, GIM] = {}
    frame = model.table.frame
    if not frame.shape[1]:
        return out
    trained = np.isin(frame.index.to_numpy(str), model.fitted.design.drugs)
    shuffled = frame.to_numpy(float).copy()
    rng = np.random.default_rng([seed, 0x5F])
    # among training drugs and among the others, so that no drug of the test takes a training drug's place
    for rows in (np.flatnonzero(trained), np.flatnonzero(~trained)):
        shuffled[rows] = shuffled[rng.permutation(rows)]
    # without features nothing tells drugs apart, and the training mean is all that can be said
    for name, values, generator in (
        (SHUFFLED, shuffled, model.settings_["generator"]),
        (ZEROED, np.zeros_like(shuffled), "mean"),
    ):
        out[name] = _twin(model, {"generator": generator})
        features = pd.DataFrame(values, frame.index, frame.columns)
        out[name].table = DrugTable(features, model.table.smiles, model.table.source)
    return out


def trained_alike(model: GIM, twins: dict[str, GIM], train_kwargs: dict) -> dict[str, GIM]:
    """The twins, trained on the model's rows with its seed."""
    for name, twin in twins.items():
        logger.info("Training %s for comparison.", name)
        twin.train(**{"enable_progress_bar": False, **train_kwargs, "seed": model.seed_})
    return twins


def _twin(model: GIM, changes: dict) -> GIM:
    return type(model)(model.adata, **(model.settings_ | changes))


def score_conditions(
    model: GIM, *, refit: bool, distributions: bool, seed: int, train_kwargs: dict | None = None
) -> pd.DataFrame:
    """Scores of every method on every test condition, one row each; see :meth:`scgim.GIM.evaluate`."""
    check_unseen(model)
    held, train = measure(model, seed), conditions_of(model.fitted, model.table)
    own = predictions(model, held.truth.names)
    if not np.isfinite(own).all(1).any():
        raise ValueError(
            f"generator={model.generator_!r} knows nothing of drugs that it was not trained on, and all test conditions are of "
            "such drugs. Use generator='kernel' or 'hill' with drug features, or hold out doses: scgim.pp.split(unseen='dose')."
        )
    changes: dict[str, np.ndarray] = {}
    for name, kind in BASELINES.items():
        baseline = kind()
        if train.features.shape[1] == 0 and name == "kernel ridge":
            continue
        baseline.fit(train)
        changes[name] = baseline.predict(held.truth)
    changes[SCGIM] = own
    twins = without_graph(model) | without_features(model, seed) if refit else {}
    for name, twin in trained_alike(model, twins, train_kwargs or {}).items():
        changes[name] = predictions(twin, held.truth.names)
    changes = {name: change for name, change in changes.items() if np.isfinite(change).all(1).any()}

    control_n = float(model.fitted.statistics.n[0])
    one = np.ones(held.truth.change.shape[1])
    weight = deg_weights(held.truth.change, held.sd, held.truth.n, 0 * one, one, control_n)
    centre = changes["training mean"]
    parts = [score(name, change, held.truth, centre, weight) for name, change in changes.items()]
    # the ceiling: one half of the condition's cells predicts the other
    other = ConditionTable(held.truth.names, held.truth.features, held.second, held.truth.n)
    parts.append(score(DUPLICATE, np.where(np.isfinite(held.second), held.first, np.nan), other, centre, weight))
    table = pd.concat(parts, ignore_index=True)
    p = np.array(
        [e_test(x[: MOST_CELLS // 2], y[: MOST_CELLS // 2]) for x, y in zip(held.cells, held.controls, strict=True)]
    )
    table["p_moved"] = np.tile(p, len(parts))
    table["strong"] = table["p_moved"] < STRONG
    if distributions:
        _add_distances(table, changes | {DUPLICATE: None}, held)
    return table


def _add_distances(table: pd.DataFrame, changes: dict, held: Held) -> None:
    """Distances between predicted and measured cells: control cells moved by the predicted change."""
    for name in ("energy", "w1", "sd"):
        table[name] = np.nan
    for name, change in changes.items():
        rows = table.index[table["method"] == name]
        for i, row in enumerate(rows):
            x = held.cells[i]
            if change is None:
                y, x = x[::2], x[1::2]
            elif np.isfinite(change[i]).all():
                y = held.controls[i] + change[i]
            else:
                continue
            if min(len(x), len(y)) < 2:
                continue
            table.loc[row, ["energy", "w1", "sd"]] = [
                energy_distance(x, y),
                float(per_gene_w1(x, y).mean()),
                float(rmse_sd(x, y)),
            ]
