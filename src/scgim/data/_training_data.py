"""The training data, from a pass over the training cells."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scgim._checks import has_replicates, listed, no_replicates
from scgim._costs import MAX_CONTROLS
from scgim._covariates import Covariates
from scgim.module import Controls, MeasuredConditions
from scgim.statistics import SizeFactors, expand

from ._condition_statistics import ConditionStatistics
from ._design import ScreenDesign, group_conditions
from ._known_targets import target_prior
from ._matrix import data_hash
from ._mean_evidence import ConditionMeansModel, log_rate_slope
from ._placebos import Placebos
from ._reader import BasisExpansion, control_group_of, sample_cells
from ._readout_data import readout_data, readout_summary
from ._replicates import ReplicateMeans
from ._requirements import DataRequirements, check_memory
from ._scaling import Scaling
from ._training_summary import TrainingSummary
from ._validation_data import read_validation_data

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

    from scgim.module import CellStore, ReadoutData
    from scgim.statistics import ConditionMeans, SufficientStatistics

    from ._registered_screen import RegisteredScreen


@dataclass(frozen=True)
class BatchwiseConditions:
    """Treated conditions by batch, one row per condition and batch."""

    mean: np.ndarray  # (rows, genes) standardized
    n: np.ndarray  # (rows,) cells
    condition: np.ndarray  # (rows,) index of the condition
    controls: np.ndarray  # (rows,) control cells of the same line and batch
    replicates: ReplicateMeans | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Training data for the training plan.

    ``search`` are the statistics of the structure search on the basis functions of its score. ``means`` is the model of condition means if
    the graph is learned from means. ``store`` are sampled cells for nonlinear mechanisms. ``held`` and ``held_store`` are validation
    conditions and their cells. ``fine`` are the conditions by batch. ``placebos`` consist of the controls in ``summary``, and ``raw`` are
    the counts of these controls with size factors, if the values are counts. ``readout`` are statistics of the readout genes.
    """

    summary: TrainingSummary
    conditions: MeasuredConditions
    controls: Controls
    search: SufficientStatistics | ConditionMeans
    store: CellStore | None
    held: MeasuredConditions | None
    held_store: CellStore | None
    placebos: Placebos
    fine: BatchwiseConditions
    means: ConditionMeansModel | None = None
    raw: sp.csr_matrix | None = None
    readout: ReadoutData | None = None

    @property
    def n_cells(self) -> float:
        """Number of cells in the likelihood."""
        return float(self.controls.n + self.conditions.n.sum())

    def some_controls(self) -> torch.Tensor:
        """Standardized control cells, ``(cells, genes)``."""
        return self.summary.standardized_controls()


def read_training_data(
    screen: RegisteredScreen,
    features: pd.DataFrame,
    *,
    seed: int,
    needs: DataRequirements = DataRequirements(),
    held: np.ndarray | None = None,
    known_targets: pd.DataFrame | None = None,
) -> TrainingData:
    """Read the training cells.

    There is one pass over the cells, and a second pass if lines differ in their control SD. Replicates require a further pass, and two with readout genes. A nonlinear basis requires a further pass
    after the scale is known. Counts require two further passes after the size factors are known. Samples of cells are read separately.

    Parameters
    ----------
    screen
        The cells and their conditions.
    features
        Raw features of all registered drugs, index = drugs.
    seed
        Seed of the sampled cells.
    needs
        Data requirements of the model.
    held
        Validation cells, ``(cells,)`` bool. They enter only ``held`` and ``held_store`` of the result.
    known_targets
        Prior knowledge of targets, as returned by :func:`check_known_targets`.

    Raises
    ------
    ValueError
        If a gene does not vary, or if the scatters of all conditions would take more than 2 GB.
    MemoryError
        If training does not fit in memory.
    """
    table, genes, matrix = screen.conditions, screen.genes, screen.matrix()
    use = table["train"].to_numpy() if held is None else table["train"].to_numpy() & ~held
    check_memory(table[use], len(genes), needs, readout=len(screen.readout))
    cells = ConditionStatistics.read(matrix, table, use, own=needs.own and not needs.cells, readout=needs.readout)
    if not (finite := np.isfinite(cells.raw.mean).all(0)).all():
        raise ValueError(
            f"Values of {listed(genes[~finite[: len(genes)]])} are missing or infinite, and were not at set-up. Drop or impute them, and run "
            "scgim.setup_anndata(adata, ...) again."
        )
    if "replicate" in table and not has_replicates(table[use]):
        raise ValueError(no_replicates(screen.columns.replicate_key, screen.columns.batch_key))
    scaling = Scaling.of(cells, genes, counts=matrix.scale == "counts")
    design = ScreenDesign.build(cells.conditions, features, scaling.lines, screen.combinations)
    in_sd = cells.standardized(scaling.standard, scaling.groups)
    kept = _choose_controls(table, use, seed)
    prior = target_prior(known_targets, design.names()["drug"].to_numpy(str), genes, screen.combinations)
    replicates = ReplicateMeans.read(cells, table, use, scaling) if "replicate" in table else None
    summary = _summary(screen, cells, scaling, design, in_sd.merge(cells.label), features, kept)
    summary = replace(summary, known_targets={} if prior is None else prior._asdict())
    raw = matrix.counts().take(kept) if needs.means and matrix.scale == "counts" else None
    search, means = _search_data(cells, scaling, summary, needs, raw, replicates)
    if means is not None:
        rows = summary.rows()
        means = replace(means, means=replace(means.means, drug=rows.drug, log_dose=rows.log_dose))
        search = means.means
    if prior is not None:
        search, means = _with_prior(search, means, prior.log_odds)
    store = None
    if needs.cells:
        label, group = cells.label[cells.code], control_group_of(table[use], scaling.groups)
        store = sample_cells(matrix, np.flatnonzero(use), label, group, scaling.standard, seed)
    held_conditions = held_store = None
    if held is not None:
        held_conditions, held_store = read_validation_data(
            screen, held, summary, features, scaling, needs, seed, known_targets
        )
    conditions, controls = _tensors(summary, store)
    return TrainingData(
        summary=summary,
        conditions=conditions,
        controls=controls,
        search=search,
        store=store,
        held=held_conditions,
        held_store=held_store,
        placebos=_placebos(cells, scaling, summary, replicates, seed),
        fine=_batchwise(cells, scaling, in_sd.mean, replicates),
        means=means,
        raw=raw,
        readout=readout_data(cells, scaling, replicates) if needs.readout else None,
    )


def _summary(
    screen: RegisteredScreen,
    cells: ConditionStatistics,
    scaling: Scaling,
    design: ScreenDesign,
    statistics: SufficientStatistics,
    features: pd.DataFrame,
    kept: np.ndarray,
) -> TrainingSummary:
    """The summary of the training data; ``kept`` are the rows of the stored control cells."""
    matrix, raw = screen.matrix(adjusted=False), cells.raw  # stored cells keep the effect of their covariates
    controls = (matrix if raw.leaves is None else matrix.with_readout()).take(kept)
    panel, others = controls[:, : len(screen.genes)], controls[:, len(screen.genes) :]
    return TrainingSummary(
        genes=screen.genes,
        scale=scaling.scale,
        group_line=scaling.groups["line"].to_numpy(str),
        group_batch=scaling.groups["batch"].to_numpy(str),
        group_mean=scaling.mean,
        group_size=scaling.size,
        design=design,
        statistics=statistics,
        controls=panel,
        control_group=control_group_of(screen.conditions.iloc[kept], scaling.groups),
        control_names=matrix.obs_names[kept].to_numpy(str),
        data_hash=data_hash(raw.n, raw.mean, raw.scatter, features.to_numpy(np.float64)),
        line_scale=scaling.line_scale,
        control_replicate=_replicate_codes(screen.conditions.iloc[kept]),
        readout={} if raw.leaves is None else readout_summary(cells, screen.readout, others),
        covariates=_covariates(screen, kept),
    )


def _replicate_codes(controls: pd.DataFrame) -> np.ndarray:
    """Replicate of control cells within their line, ``(cells,)`` int; empty without replicates."""
    if "replicate" not in controls:
        return np.zeros(0, dtype=np.int64)
    return group_conditions(controls, ("line", "replicate"))[1]


def _covariates(screen: RegisteredScreen, kept: np.ndarray) -> dict:
    """Covariates for the summary; ``kept`` are the rows of the stored control cells."""
    if screen.covariates is None:
        return {}
    values, slopes = screen.covariates
    keys = list(screen.setup["covariate_keys"])
    levels = Covariates.read(screen.adata, keys).levels
    return {"keys": keys, "levels": levels, "controls": values[kept], "slopes": slopes}


def _search_data(
    cells: ConditionStatistics,
    scaling: Scaling,
    summary: TrainingSummary,
    needs: DataRequirements,
    raw: sp.csr_matrix | None,
    replicates: ReplicateMeans | None,
) -> tuple[SufficientStatistics | ConditionMeans, ConditionMeansModel | None]:
    """Statistics of the search, and the model of means or ``None``; ``raw`` are the counts of the stored controls."""
    line = summary.design.line
    if raw is not None:
        means = _count_means(cells, scaling, line, log_rate_slope(raw, scaling.scale), replicates)
        return means.means, means
    if needs.means:
        of_lines = np.bincount(np.searchsorted(scaling.lines, summary.group_line), scaling.size)
        means = ConditionMeansModel.of(summary.statistics, line, of_lines)
        if replicates is not None:
            means = means.with_replicates(replicates, cells.label[~cells.control] - 1, scaling)
        return means.means, means
    if not needs.cells:
        return summary.statistics, None
    columns = expand(np.zeros((1, len(summary.genes)))).shape[1]
    basis = BasisExpansion(scaling.standard, cells.group(scaling.groups))
    return cells.reader.statistics(columns, own=needs.own, transform=basis).merge(cells.label), None


def _with_prior(
    search: SufficientStatistics | ConditionMeans, means: ConditionMeansModel | None, log_odds: np.ndarray
) -> tuple[SufficientStatistics | ConditionMeans, ConditionMeansModel | None]:
    """The data of the search with prior log odds of targets, ``(conditions, genes)``."""
    if means is None:  # condition 0 holds the controls
        return replace(search, target_log_odds=np.pad(log_odds, ((1, 0), (0, 0)))), None
    means = replace(means, means=replace(means.means, target_log_odds=log_odds))
    return means.means, means


def _count_means(
    cells: ConditionStatistics,
    scaling: Scaling,
    line: np.ndarray,
    slope: np.ndarray,
    replicates: ReplicateMeans | None,
) -> ConditionMeansModel:
    """The model of condition means of counts, from two passes over the cells."""
    counts, columns = copy.copy(cells.reader), len(slope) + 1
    counts.cells = cells.reader.cells.counts()
    totals, group = counts.statistics(columns, own=False), cells.group(scaling.groups)
    sizes = SizeFactors(totals, group, cells.label)
    residuals = counts.statistics(columns, own=False, transform=sizes.residuals)
    units = None if replicates is None else replicates.counts(sizes)
    return ConditionMeansModel.of_counts(totals, residuals, sizes, (group, cells.label, line), slope, units)


def _tensors(summary: TrainingSummary, store: CellStore | None) -> tuple[MeasuredConditions, Controls]:
    """The treated conditions and the controls as tensors."""
    statistics = summary.statistics
    own = None if statistics.own is None else torch.as_tensor(statistics.own[1:])
    n = statistics.n[1:] if store is None else store.size[1:].numpy().astype(float)
    spread = statistics.squares[1:] / statistics.n[1:, None]
    train = MeasuredConditions(
        *map(torch.as_tensor, (n[:, None], statistics.mean[1:], spread)),
        summary.design.inputs(),
        own,
        **summary.prior_arguments(),
    )
    scatter = statistics.scatter if own is None else statistics.own[0]
    n_control = statistics.n[0] if store is None else float(store.size[0])
    return train, Controls(*map(torch.as_tensor, (n_control, statistics.mean[:1], scatter)))


def _batchwise(
    cells: ConditionStatistics, scaling: Scaling, mean: np.ndarray, replicates: ReplicateMeans | None
) -> BatchwiseConditions:
    """The treated conditions by batch; ``mean`` is the standardized mean of every part."""
    treated, group = ~cells.control, cells.group(scaling.groups)
    return BatchwiseConditions(
        mean[treated], cells.raw.n[treated], cells.label[treated] - 1, scaling.size[group[treated]], replicates
    )


def _placebos(
    cells: ConditionStatistics,
    scaling: Scaling,
    summary: TrainingSummary,
    replicates: ReplicateMeans | None,
    seed: int,
) -> Placebos:
    """Placebo conditions with the sizes and groups of real conditions."""
    treated, group = ~cells.control, cells.group(scaling.groups)
    of_conditions = np.zeros((2, len(cells.conditions), len(scaling.groups)))
    at = (cells.label[treated] - 1, group[treated])
    np.add.at(of_conditions[0], at, cells.raw.n[treated])
    # A random projection of its values identifies a cell independently of the order of cells.
    key = summary.standardized_controls().numpy() @ np.random.default_rng(0).normal(size=len(summary.genes))
    if replicates is not None:
        np.add.at(of_conditions[1], at, np.bincount(replicates.replicates.part)[treated])
        # Replicates are numbered by their values, because wells are named by the order of rows.
        total = np.bincount(summary.control_replicate, key) / np.bincount(summary.control_replicate)
        number = np.argsort(np.argsort(total))[summary.control_replicate]
        found = Placebos.of_replicates(summary.control_group, number, of_conditions[1], seed)
        if found.member.shape[0]:
            return found
    return Placebos.draw(summary.control_group, of_conditions[0], seed, key=key)


def _choose_controls(table: pd.DataFrame, use: np.ndarray, seed: int) -> np.ndarray:
    """Indices of the control cells to store, ascending."""
    rng, kept = np.random.default_rng(seed), []
    rows = np.flatnonzero(use & table["control"].to_numpy())
    line = table["line"].to_numpy()[rows]
    for name in np.unique(line.astype(str)):
        own: Any = rows[line == name]
        kept.append(own if len(own) <= MAX_CONTROLS else rng.choice(own, MAX_CONTROLS, replace=False))
    return np.sort(np.concatenate(kept))
