"""The pass over the training cells: everything that training and the verbs need of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from scgim._checks import listed
from scgim.module import Contexts, Controls
from scgim.statistics import Sizes, Statistics, expand, relative_scales

from ._design import Design, contexts_of
from ._matrix import data_hash
from ._mean_evidence import MeanEvidence, slope_of_scale
from ._placebos import Placebos
from ._reader import MAX_CONTROLS, Basis, Reader, Standard, group_of, keep, standardised
from ._training_summary import Fitted

if TYPE_CHECKING:
    import scipy.sparse as sp

    from scgim.module import CellStore
    from scgim.statistics import Means

    from ._matrix import Cells

MAX_OWN = 2.5e8  # numbers of all contexts' own scatters: 2 GB
KEYS = ("drug", "dose", "line")


@dataclass(frozen=True)
class Needs:
    """What a model needs of the cells besides means and pooled scatter."""

    own: bool = False  # every context's own scatter
    cells: bool = False  # cells themselves, and the statistics of a nonlinear basis
    means: bool = False  # the contexts' means with their errors, which the graph is then learned from


@dataclass(frozen=True)
class Fine:
    """Treated contexts batch by batch: standardised ``mean`` (rows, genes), cells, ``context``, and cells of the controls."""

    mean: np.ndarray
    n: np.ndarray
    context: np.ndarray
    controls: np.ndarray


@dataclass(frozen=True)
class Collected:
    """Training data as the plan sees it.

    ``search`` are the statistics that the search climbs, on the columns of its score; ``means`` the same if it climbs the
    likelihood of means. ``store`` holds cells, where the mechanisms need them. ``held`` are validation contexts.
    ``fine`` are the contexts by batch, ``placebos`` are made of the controls that ``fitted`` keeps, ``raw`` their counts with
    sizes where values are counts.
    """

    fitted: Fitted
    contexts: Contexts
    controls: Controls
    search: Statistics | Means
    store: CellStore | None
    held: Contexts | None
    held_store: CellStore | None
    placebos: Placebos
    fine: Fine
    means: MeanEvidence | None = None
    raw: sp.csr_matrix | None = None

    @property
    def n_cells(self) -> float:
        """Cells that the likelihood sums over."""
        return float(self.controls.n + self.contexts.n.sum())

    def some_controls(self) -> torch.Tensor:
        """Standardised control cells, (cells, genes)."""
        return self.fitted.standardised_controls()


def collect(
    cells: Cells,
    table: pd.DataFrame,
    genes: np.ndarray,
    features: pd.DataFrame,
    *,
    seed: int,
    needs: Needs = Needs(),
    held: np.ndarray | None = None,
) -> Collected:
    """Read the training cells: once, and once more for a nonlinear basis, which must know the scale first.

    Parameters
    ----------
    cells, table
        The cells and, for every cell of the AnnData, its drug, dose, line, batch and whether it is control and train.
    genes, features
        Sorted gene names; raw features of all registered drugs.
    seed
        Of the choice of cells to keep.
    needs
        What the model needs of them.
    held
        Validation cells, ``(cells,)`` bool: left out of everything but ``held`` of the answer.

    Raises
    ------
    ValueError
        If a gene does not vary, or the contexts' own scatters would take more than 2 GB.
    """
    use = table["train"].to_numpy() if held is None else table["train"].to_numpy() & ~held
    _check_own(table, use, len(genes), needs)
    fine, code = contexts_of(table[use], ("control", *KEYS, "batch"))
    whole = Reader(cells, table, use, fine, code)
    raw = whole.statistics(len(genes), own=needs.own and not needs.cells)
    control = fine["control"].to_numpy()
    groups = fine.loc[control, ["line", "batch"]].reset_index(drop=True)
    group_mean, group_size = raw.mean[control], raw.n[control]
    scale = _control_scale(raw, control, genes)

    own_group = group_of(fine, groups)
    contexts, label = contexts_of(fine[~control], KEYS)
    labels = np.zeros(len(fine), dtype=np.int64)
    labels[~control] = 1 + label
    lines, line_of_group = np.unique(groups["line"].to_numpy(str), return_inverse=True)
    line_scale = np.ones((len(lines), len(genes)))
    if cells.scale != "counts":  # whose noise follows from their rates
        line_scale = _line_scale(raw, control, line_of_group, len(lines))
    standard = Standard(group_mean, scale * line_scale[line_of_group])
    in_sd = standardised(whole, standard, own_group, own=raw.own is not None, raw=raw)
    statistics = in_sd.merge(labels)
    fine_contexts = Fine(in_sd.mean[~control], raw.n[~control], label, group_size[own_group[~control]])
    design = Design.build(contexts, features, lines)

    kept = _choose_controls(table, use, seed)
    fitted = Fitted(
        genes=genes,
        scale=scale,
        group_line=groups["line"].to_numpy(str),
        group_batch=groups["batch"].to_numpy(str),
        group_mean=group_mean,
        group_size=group_size,
        design=design,
        statistics=statistics,
        controls=cells.take(kept),
        control_group=group_of(table.iloc[kept], groups),
        control_names=cells.obs_names[kept].to_numpy(str),
        data_hash=data_hash(raw.n, raw.mean, raw.scatter, features.to_numpy(np.float64)),
        line_scale=line_scale,
    )
    search, store, means, kept_counts = statistics, None, None, None
    if needs.means:
        kept_counts = cells.counts().take(kept) if cells.scale == "counts" else None
        of_lines = np.bincount(np.searchsorted(lines, groups["line"].to_numpy(str)), group_size)
        means = (
            MeanEvidence.of(statistics, design.line, of_lines)
            if kept_counts is None
            else _counts(whole, own_group, labels, design.line, slope_of_scale(kept_counts, scale))
        )
        search = means.means
    elif needs.cells:
        columns = expand(np.zeros((1, len(genes)))).shape[1]
        basis = Basis(standard, own_group)
        search = whole.statistics(columns, own=needs.own, transform=basis).merge(labels)
    if needs.cells:
        store = keep(cells, np.flatnonzero(use), labels[code], group_of(table[use], groups), standard, seed)
    own = None if statistics.own is None else torch.as_tensor(statistics.own[1:])
    n = statistics.n[1:] if store is None else store.size[1:].numpy().astype(float)
    spread = statistics.squares[1:] / statistics.n[1:, None]
    train = Contexts(*map(torch.as_tensor, (n[:, None], statistics.mean[1:], spread)), design.conditions(), own)
    scatter = statistics.scatter if own is None else statistics.own[0]
    n_control = statistics.n[0] if store is None else float(store.size[0])
    controls = Controls(*map(torch.as_tensor, (n_control, statistics.mean[:1], scatter)))
    validation, held_store = None, None
    if held is not None:
        validation, held_store = _validation(cells, table, held, fitted, features, standard, needs, seed)
    of_contexts = np.zeros((len(contexts), len(groups)))
    np.add.at(of_contexts, (label, own_group[~control]), raw.n[~control])
    # a projection tells cells apart in whatever order they come
    key = fitted.standardised_controls().numpy() @ np.random.default_rng(0).normal(size=len(genes))
    placebos = Placebos.draw(fitted.control_group, of_contexts, seed, key=key)
    return Collected(
        fitted, train, controls, search, store, validation, held_store, placebos, fine_contexts, means, kept_counts
    )


def _counts(reader: Reader, group: np.ndarray, labels: np.ndarray, line: np.ndarray, slope: np.ndarray) -> MeanEvidence:
    """Evidence of the contexts' means of counts, from two more passes over them."""
    counts, columns = copy.copy(reader), len(slope) + 1
    counts.cells = reader.cells.counts()
    totals = counts.statistics(columns, own=False)
    sizes = Sizes(totals, group, labels)
    residuals = counts.statistics(columns, own=False, transform=sizes.residuals)
    return MeanEvidence.of_counts(totals, residuals, sizes, (group, labels, line), slope)


def _validation(
    cells: Cells,
    table: pd.DataFrame,
    held: np.ndarray,
    fitted: Fitted,
    features: pd.DataFrame,
    standard: Standard,
    needs: Needs,
    seed: int,
) -> tuple[Contexts, CellStore | None]:
    """Held-out contexts on the training scale; the first of their cell store, which would be controls, is empty."""
    fine, code = contexts_of(table[held], (*KEYS, "batch"))
    contexts, label = contexts_of(fine, KEYS)
    groups = pd.DataFrame({"line": fitted.group_line, "batch": fitted.group_batch})
    reader = Reader(cells, table, held, fine, code)
    statistics = standardised(reader, standard, group_of(fine, groups), own=needs.own and not needs.cells).merge(label)
    design, names = fitted.design, contexts["drug"].to_numpy(str)
    known = np.searchsorted(design.drugs, names).clip(max=len(design.drugs) - 1)
    index = np.where(design.drugs[known] == names, known, -1)
    line = np.searchsorted(design.lines, contexts["line"].to_numpy(str))
    conditions = design.encode(
        features.loc[names].to_numpy(np.float64) / design.feature_scale, index, contexts["dose"].to_numpy(float), line
    )
    store, n = None, statistics.n
    if needs.cells:
        store = keep(
            cells, np.flatnonzero(held), 1 + label[code], group_of(table[held], groups), standard, seed, empty=1
        )
        n = store.size[1:].numpy().astype(float)
    own = None if statistics.own is None else torch.as_tensor(statistics.own)
    spread = statistics.squares / statistics.n[:, None]
    return Contexts(*map(torch.as_tensor, (n[:, None], statistics.mean, spread)), conditions, own), store


def _check_own(table: pd.DataFrame, use: np.ndarray, n_genes: int, needs: Needs) -> None:
    """Own scatters are contexts x genes x genes (x 16 for the basis of networks)."""
    if not needs.own:
        return
    n = len(table.loc[use, ["control", *KEYS, "batch"]].drop_duplicates())
    numbers = n * (n_genes * (4 if needs.cells else 1)) ** 2
    if numbers > MAX_OWN:
        raise ValueError(
            f"Hard interventions (and scale_shift) need a scatter matrix for each of {n:,} contexts (drug x dose x line x batch): {8 * numbers / 1e9:.0f} GB "
            f"for {n_genes:,} genes, and at most {8 * MAX_OWN / 1e9:.0f} GB are taken. Choose fewer genes "
            "(sc.pp.highly_variable_genes), or use intervention='shift', which needs one matrix in all."
        )


def _control_scale(raw: Statistics, control: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Pooled sd of controls within their groups; a gene constant in them takes its sd within all contexts."""
    variance = raw.squares[control].sum(0) / raw.n[control].sum()
    within = raw.squares.sum(0) / raw.n.sum()
    # below this it is the rounding of sums of squares, which grows with how far the contexts lie apart
    tiny = 1e-12 * ((raw.mean - raw.mean.mean(0)) ** 2).max(0) + 1e-28 * (raw.mean**2).max(0)
    variance = np.where(variance > tiny, variance, within)
    if (variance <= tiny).any():
        raise ValueError(
            f"{int((variance <= tiny).sum())} genes do not vary within any context, e.g. {listed(genes[variance <= tiny])}, so nothing scales their "
            "effects. Drop them, or use more cells per context."
        )
    return np.sqrt(variance)


def _line_scale(raw: Statistics, control: np.ndarray, line: np.ndarray, n_lines: int) -> np.ndarray:
    """Control SD of every line relative to the pooled one, ``(lines, genes)``; ``line`` of every control group."""
    freedom, squares = np.zeros(n_lines), np.zeros((n_lines, raw.mean.shape[1]))
    np.add.at(freedom, line, raw.n[control] - 1)  # squares are about every batch's own mean
    np.add.at(squares, line, raw.squares[control])
    return relative_scales(squares / np.maximum(freedom, 1)[:, None], freedom)


def _choose_controls(table: pd.DataFrame, use: np.ndarray, seed: int) -> np.ndarray:
    """Row numbers of the control cells to keep, ascending."""
    rng, kept = np.random.default_rng(seed), []
    rows = np.flatnonzero(use & table["control"].to_numpy())
    line = table["line"].to_numpy()[rows]
    for name in np.unique(line.astype(str)):
        own: Any = rows[line == name]
        kept.append(own if len(own) <= MAX_CONTROLS else rng.choice(own, MAX_CONTROLS, replace=False))
    return np.sort(np.concatenate(kept))


def hold_out(table: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    """Cells of a random share of the training contexts, whole; at least one context and never all, ``(cells,)`` bool."""
    use = (table["train"] & ~table["control"]).to_numpy()
    contexts, code = contexts_of(table[use], ("drug", "dose", "line"))
    if len(contexts) < 2:
        raise ValueError("A validation set needs at least two contexts; train with train_size=1.")
    n = min(max(1, round(share * len(contexts))), len(contexts) - 1)
    chosen = np.random.default_rng(seed).choice(len(contexts), n, replace=False)
    held = np.zeros(len(table), dtype=bool)
    held[use] = np.isin(code, chosen)
    return held
