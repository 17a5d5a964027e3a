"""Scores on test conditions: the model, its ablations and the baselines, all on the same conditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgim._checks import listed, warn
from scgim._combinations import parts_of
from scgim._memory import require_memory
from scgim.data._condition_statistics import ConditionStatistics
from scgim.data._design import condition_keys
from scgim.data._reader import control_group_of, sample_rows
from scgim.metrics import deg_weights, energy_distance, per_gene_w1, rmse_sd

from ._ablations import trained_alike, without_features, without_graph
from ._baselines import BASELINES
from ._conditions import ConditionTable
from ._etest import e_test
from ._scores import score
from ._verdict import DUPLICATE, SCGIM, STRONG

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scgim._combinations import Parts
    from scgim.data._drug_table import DrugTable
    from scgim.data._registered_screen import RegisteredScreen
    from scgim.data._training_summary import TrainingSummary
    from scgim.inference._predictor import Predictor

    from ._protocol import TrainedModel

MOST_CELLS = 200  # most cells per condition in distances between distributions


@dataclass(frozen=True)
class HeldOutConditions:
    """Test conditions as measured: mean changes of all cells and of either half, SD, and a sample of cells and controls.

    ``replicates`` are those of the cells and of the controls of every condition, or ``None``.
    """

    truth: ConditionTable
    first: np.ndarray
    second: np.ndarray
    sd: np.ndarray
    cells: list[np.ndarray]
    controls: list[np.ndarray]
    replicates: list[tuple[np.ndarray, np.ndarray] | None]


def check_unseen(screen: RegisteredScreen, summary: TrainingSummary) -> None:
    """Raise ValueError unless there are test conditions and the model was trained on none of them."""
    split_key = screen.columns.split_key
    if split_key is None:
        raise ValueError(
            "evaluate needs test conditions: scgim.pp.split(adata, ...), then setup_anndata(..., split_key='scgim_split') and "
            "a new model."
        )
    table = screen.conditions
    test = table[~table["train"] & ~table["control"]].rename(columns={"line": "cell_line"})
    if test.empty:
        raise ValueError(
            f"obs[{split_key!r}] has no treated cells that are 'test', so there is nothing to evaluate on."
        )
    names = ["drug", "dose", "cell_line"]
    seen = test[names].drop_duplicates().merge(summary.design.names()[names].astype({"drug": object}))
    if len(seen):
        drug, dose, line = seen.iloc[0]
        what = ", ".join([str(drug)] + [f"{dose:g}"] * (not np.isnan(dose)) + [str(line)] * bool(line))
        raise ValueError(
            f"The model was trained on test condition ({what}), and {len(seen) - 1} more. Scores on it would be meaningless: "
            "train a new model on this split."
        )


def warn_of_leaks(screen: RegisteredScreen, drug_table: DrugTable) -> list[str]:
    """Look for test drugs whose structure was trained on under another name, or that are in a combination in training.

    Warn, and return the warnings as sentences.
    """
    smiles = {name: text for name, text in drug_table.smiles.items() if text}
    if not smiles and not screen.combinations:
        return []
    from scgim.pp._chemistry import standardize_all
    from scgim.pp._leaks import find_leaks

    said, structures = [], {}
    try:
        structures = standardize_all(pd.Series(smiles, dtype=object))
    except ValueError as error:
        said.append(f"Duplicates of test drugs in training could not be looked for. {error}")
    cells = screen.conditions.loc[~screen.conditions["control"], ["drug", "dose", "line", "train"]]
    leaks = find_leaks(
        cells.fillna({"dose": 0.0}), structures, dosed=False, lined=False, combinations=screen.combinations
    )
    components = leaks[leaks["kind"] == "component"]
    duplicates = leaks[leaks["kind"].isin(["parent", "near-identical"])]
    if len(duplicates):
        pairs = listed(dict.fromkeys(duplicates["test"] + " = " + duplicates["train"]))
        said.append(
            f"Leakage: {duplicates['test'].nunique()} test drugs have the structure of a training drug ({pairs}), so scores are too high "
            "for every method that uses features. scgim.pp.split(adata, smiles_key=...) keeps such duplicates on one side."
        )
    if len(components):
        said.append(
            f"Leakage: {components['test'].nunique()} test drugs ({listed(dict.fromkeys(components['test']))}) are in a combination in "
            f"training ({listed(dict.fromkeys(components['train']))}), so they are not unseen. scgim.pp.split(adata, unseen='drug', ...) holds "
            "these combinations out too."
        )
    for sentence in said:
        warn(sentence)
    return said


def features_of(table: DrugTable, treatments: pd.Series, combinations: Mapping[str, Parts]) -> np.ndarray:
    """Features of drugs, and sums of the features of the drugs of combinations, ``(rows, features)``."""
    names, row = np.unique(treatments.to_numpy(str), return_inverse=True)
    parts = [[drug for drug, _ in parts_of(name, np.nan, combinations)] for name in names.tolist()]
    return np.array([table.frame.loc[each].to_numpy(float).sum(0) for each in parts])[row]


def conditions_of(summary: TrainingSummary, table: DrugTable) -> ConditionTable:
    """Training conditions as baselines take them, in pooled control SD."""
    names, statistics = summary.design.names(), summary.statistics
    unit = summary.relative_scale(summary.design.line)
    return ConditionTable(
        names,
        features_of(table, names["drug"], summary.design.combinations()),
        (statistics.mean[1:] - statistics.mean[0]) * unit,
        statistics.n[1:],
    )


def measure(screen: RegisteredScreen, summary: TrainingSummary, drug_table: DrugTable, seed: int) -> HeldOutConditions:
    """Read the test cells: once for means, and once for a sample of cells."""
    table = screen.conditions
    use = ~table["train"].to_numpy() & ~table["control"].to_numpy()
    rng = np.random.default_rng([seed, 0xE7A1])
    half = rng.random(len(table)) < 0.5
    matrix = screen.matrix()
    read = ConditionStatistics.read(matrix, table.assign(half=half), use, more=("half",))
    conditions, label = read.conditions, read.label - 1
    groups = pd.DataFrame({"line": summary.group_line, "batch": summary.group_batch})
    standard = read.raw.standardize(summary.group_mean[read.group(groups)], summary.scale)
    whole, second = standard.merge(label), read.parts["half"].to_numpy()
    halves = [_means(standard, label, second == side, len(conditions)) for side in (False, True)]
    names = conditions.rename(columns={"line": "cell_line"})
    features = features_of(drug_table, names["drug"], screen.combinations)
    sample, of, rows = _sample(
        matrix, np.flatnonzero(use), label[read.code], summary, control_group_of(table[use], groups), rng
    )
    controls = summary.controls_in_sd()
    control_line = summary.group_line[summary.control_group]
    picked = {}
    for line in np.unique(names["cell_line"].to_numpy(str)):
        own = np.flatnonzero(control_line == line)
        own = own if len(own) else np.arange(len(controls))
        picked[line] = rng.choice(own, min(len(own), MOST_CELLS), replace=False)
    lines, replicates = names["cell_line"].to_numpy(str), [None] * len(names)
    if "replicate" in table:
        code, known = pd.factorize(table["replicate"].to_numpy()[rows])[0], summary.control_replicate
        replicates = [(code[of == k], known[picked[line]]) for k, line in enumerate(lines)]
    return HeldOutConditions(
        ConditionTable(names, features, whole.mean, whole.n),
        *halves,
        np.sqrt(whole.squares / whole.n[:, None]),
        [sample[of == k] for k in range(len(conditions))],
        [controls[picked[line]] for line in lines],
        replicates,
    )


def _means(statistics: object, label: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """Mean of every condition over its fine conditions in ``rows``, NaN if it has none; ``(k, genes)``."""
    n = np.bincount(label[rows], statistics.n[rows], minlength=k)
    total = np.zeros((k, statistics.mean.shape[1]))
    np.add.at(total, label[rows], statistics.n[rows, None] * statistics.mean[rows])
    return total / np.where(n > 0, n, np.nan)[:, None]


def _sample(
    cells: object,
    rows: np.ndarray,
    label: np.ndarray,
    summary: TrainingSummary,
    group: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A sample of cells of every condition, standardized, the condition of each, and its row in the AnnData."""
    chosen = sample_rows(label, MOST_CELLS, rng)
    n, d = len(chosen), len(summary.genes)
    remedy = "choose fewer test conditions (scgim.pp.split with a smaller frac)"
    require_memory(3 * 8 * n * d, f"{n:,} test cells x {d:,} genes", remedy)
    x = cells.take(rows[chosen]).toarray().astype(float)
    return (x - summary.group_mean[group[chosen]]) / summary.scale, label[chosen], rows[chosen]


def predictions(predictor: Predictor, names: pd.DataFrame, combinations: Mapping[str, Parts]) -> np.ndarray:
    """Mean changes that a model predicts for conditions, in control SD, genes sorted; NaN where it has no prediction."""
    out = np.full((len(names), len(predictor.summary.genes)), np.nan)
    known = predictor.knows(names["drug"], combinations)
    if not known.any():
        return out
    asked = names[known]
    rows, change = predictor.changes(predictor.query_of(asked, combinations))
    keys = dict(zip(condition_keys(rows), change.astype(np.float32), strict=True))
    pair = pd.MultiIndex.from_frame(rows[["drug", "dose"]].fillna({"dose": 0.0}))
    for i, key in zip(np.flatnonzero(known), condition_keys(asked[["drug", "dose", "cell_line"]]), strict=True):
        # A cell line that was not in training gets the mean over the training lines.
        out[i] = keys[key] if key in keys else change[pair == (key[0], key[1] or 0.0)].mean(0)
    return out / predictor.summary.scale


def score_conditions(
    model: TrainedModel,
    screen: RegisteredScreen,
    *,
    refit: bool,
    distributions: bool,
    seed: int,
    train_kwargs: dict | None = None,
) -> pd.DataFrame:
    """Scores of every method on every test condition, one row each, as :meth:`scgim.GIM.evaluate` returns them."""
    summary, predictor = model._require_trained(), model._predictor()
    measured = measure(screen, summary, model.drug_table_, seed)
    train = conditions_of(summary, model.drug_table_)
    own = predictions(predictor, measured.truth.names, screen.combinations)
    if not np.isfinite(own).all(1).any():
        raise ValueError(
            f"generator={model.generator_!r} cannot predict drugs without training conditions, and all test conditions are of "
            "such drugs. Use generator='kernel' or 'hill' with drug features, or hold out doses: scgim.pp.split(unseen='dose')."
        )
    changes: dict[str, np.ndarray] = {}
    for name, kind in BASELINES.items():
        baseline = kind()
        if train.features.shape[1] == 0 and name == "kernel ridge":
            continue
        baseline.fit(train)
        changes[name] = baseline.predict(measured.truth)
    changes[SCGIM] = own
    ablations = without_graph(model) | without_features(model, seed) if refit else {}
    for name, ablation in trained_alike(model, ablations, train_kwargs or {}).items():
        changes[name] = predictions(ablation._predictor(), measured.truth.names, screen.combinations)
    changes = {name: change for name, change in changes.items() if np.isfinite(change).all(1).any()}

    control_n = float(summary.statistics.n[0])
    one = np.ones(measured.truth.change.shape[1])
    weight = deg_weights(measured.truth.change, measured.sd, measured.truth.n, 0 * one, one, control_n)
    center = changes["training mean"]
    parts = [score(name, change, measured.truth, center, weight) for name, change in changes.items()]
    # Ceiling of the scores: one half of the condition's cells predicts the other half.
    other = ConditionTable(measured.truth.names, measured.truth.features, measured.second, measured.truth.n)
    first = np.where(np.isfinite(measured.second), measured.first, np.nan)
    parts.append(score(DUPLICATE, first, other, center, weight))
    table = pd.concat(parts, ignore_index=True)
    p = np.array([_p_moved(*each) for each in zip(measured.cells, measured.controls, measured.replicates, strict=True)])
    table["p_moved"] = np.tile(p, len(parts))
    table["strong"] = table["p_moved"] < STRONG
    if distributions:
        _add_distances(table, changes | {DUPLICATE: None}, measured)
    return table


def _p_moved(x: np.ndarray, y: np.ndarray, replicates: tuple[np.ndarray, np.ndarray] | None) -> float:
    """P-value of a condition against controls, by whole replicates if they are declared."""
    most = MOST_CELLS // 2
    if replicates is None:
        return e_test(x[:most], y[:most])
    # Rows are in the order of the AnnData, often well by well, so a stride takes some of every replicate.
    step, other = (-(-len(each) // most) for each in (x, y))
    return e_test(x[::step], y[::other], replicates=(replicates[0][::step], replicates[1][::other]))


def _add_distances(table: pd.DataFrame, changes: dict, measured: HeldOutConditions) -> None:
    """Distances between predicted and measured cells; predicted cells are control cells plus the predicted change."""
    for name in ("energy", "w1", "sd"):
        table[name] = np.nan
    for name, change in changes.items():
        rows = table.index[table["method"] == name]
        for i, row in enumerate(rows):
            x = measured.cells[i]
            if change is None:
                y, x = x[::2], x[1::2]
            elif np.isfinite(change[i]).all():
                y = measured.controls[i] + change[i]
            else:
                continue
            if min(len(x), len(y)) < 2:
                continue
            table.loc[row, ["energy", "w1", "sd"]] = [
                energy_distance(x, y),
                float(per_gene_w1(x, y).mean()),
                float(rmse_sd(x, y)),
            ]
