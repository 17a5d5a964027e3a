"""Checks of the matrix: values of the declared scale, and genes that differ from each other."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgim._checks import listed
from scgim._gene_names import doubted_genes, gene_names
from scgim._genes import JoinedColumns
from scgim.statistics import row_blocks
from scgim.statistics._value_scan import ValueScan

from ._screen import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._screen import UncheckedScreen

BLOCK = 2**22  # values
FEW_GENES = 1000


def scan(screen: UncheckedScreen) -> ValueScan | Finding:
    """Scan every value once, block by block. Returns a finding if the matrix cannot be scanned."""
    adata, layer = screen.adata, screen.layer
    matrix = adata.X if layer is None else adata.layers[layer]
    if not adata.n_obs or not adata.n_vars:
        return Finding(
            "FAIL", f"adata is empty: {adata.n_obs} cells x {adata.n_vars} genes.", "Give it cells and genes."
        )
    if matrix is None:
        return Finding("FAIL", "adata.X is None.", "Name the matrix with layer=.")
    if np.dtype(matrix.dtype).kind not in "biuf":
        return Finding("FAIL", f"{where(screen)} holds {matrix.dtype} values.", "Expression is real numbers.")
    if screen.readout in adata.obsm and not isinstance(screen.genes, Finding):
        try:
            matrix = JoinedColumns.of(matrix, adata.obsm[screen.readout])
        except TypeError as error:
            return Finding.of(error)
    rng = np.random.default_rng(0)
    blocks = row_blocks(matrix, np.arange(adata.n_obs), max(1, BLOCK // matrix.shape[1]))
    with np.errstate(all="ignore"):  # values that overflow a sum are reported as too large by the scale check
        scans = (
            ValueScan.of(x.compute() if hasattr(x, "compute") else x, rows, weight=rng.standard_normal(len(rows)))
            for rows, x in blocks
        )
        return reduce(ValueScan.merge, scans)


def where(screen: UncheckedScreen) -> str:
    """Name of the matrix in messages."""
    return "X" if screen.layer is None else f"layers[{screen.layer!r}]"


def check_scale(screen: UncheckedScreen, found: ValueScan | Finding) -> Iterator[Finding]:
    """Every value is finite and of the declared scale."""
    if isinstance(found, Finding):
        yield found
        return
    scale, n, high = screen.scale, found.entries, found.high.max()
    names = _names(screen, found)
    if found.infinite.any():
        genes = listed(names[found.infinite > 0])
        finding = f"{found.infinite.sum():,} values in {where(screen)} are missing or infinite, of {genes}."
        yield Finding("FAIL", finding, "Drop or impute them, here and wherever else they are.")
    if scale == "counts" and found.empty and screen.size_factor_key is None:
        yield Finding("FAIL", f"{found.empty:,} cells hold no counts.", "sc.pp.filter_cells(adata, min_counts=1).")
    if (wrong := found.scale_problem(scale)) is not None:
        yield Finding("FAIL", f"scale={scale!r}, but in {where(screen)} {wrong[0]}.", f"{wrong[1]}.")
    elif scale == "continuous" and not found.fractional and not found.negative and high > 0:
        finding = f"scale={scale!r}, but all values in {where(screen)} are integers, which looks like counts."
        yield Finding("WARN", finding, "Set scale='counts', or point layer= elsewhere.")
    yield Finding("PASS", f"{n:,} values in {where(screen)}, {found.low.min():.4g} to {high:.4g}, fit scale={scale!r}.")


def check_sizes(screen: UncheckedScreen, found: ValueScan | Finding) -> Iterator[Finding]:
    """Size factors are positive numbers; without a column of them, sums of rows are used."""
    key = screen.size_factor_key
    if key is None:
        n_genes = screen.adata.n_vars if isinstance(found, Finding) else len(found.low)
        if screen.scale == "counts" and n_genes < FEW_GENES:
            finding = (
                f"Size factors are row sums over only {n_genes} genes. A strong effect on a few genes changes them."
            )
            yield Finding("WARN", finding, "Pass size_factor_key= with totals over all genes, if you have them.")
        yield Finding("PASS", "Row sums." if screen.scale == "counts" else "None needed.")
        return
    if screen.scale != "counts":
        yield Finding(
            "FAIL", f"size_factor_key={key!r} goes with scale='counts', not {screen.scale!r}.", "Leave it out."
        )
    size = pd.to_numeric(screen.column(key).astype(str), errors="coerce").to_numpy(np.float64)
    bad = ~(np.isfinite(size) & (size > 0))
    if bad.any():
        shown = listed(dict.fromkeys(screen.column(key)[bad].map(str)))
        finding = f"obs[{key!r}] is not a positive, finite number in {bad.sum():,} cells: {shown}."
        yield Finding("FAIL", finding, "Correct these sizes or drop the cells.")
    else:
        yield Finding("PASS", f"obs[{key!r}]: {size.min():.4g} to {size.max():.4g}." if len(size) else "No cells.")


def check_genes(screen: UncheckedScreen, found: ValueScan | Finding) -> Iterator[Finding]:
    """Names are strings and unique, no gene is constant, and no two genes hold the same values."""
    try:
        for doubt in doubted_genes(gene_names(screen.adata.var_names)):
            yield Finding("WARN", *doubt)
    except (TypeError, ValueError) as error:
        yield Finding.of(error)
    names = screen.adata.var_names.astype(str)
    if len(twice := names[names.duplicated()].unique()):
        fix = "Sum or drop the duplicates, or adata.var_names_make_unique() if they are different genes."
        yield Finding("FAIL", f"{len(twice)} gene names occur more than once: {listed(twice)}.", fix)
    if isinstance(found, Finding):
        yield Finding("PASS", f"{len(names):,} genes; their values were not looked at.")
        return
    names = _names(screen, found)
    varies = found.low != found.high
    constant = ~varies & ~_is_readout(screen, found)
    if constant.any():
        fix = "Drop them: sc.pp.filter_genes(adata, min_cells=1) or adata[:, keep].copy()."
        yield Finding("FAIL", f"{constant.sum()} genes are constant: {listed(names[constant])}.", fix)
    order = np.lexsort([found.projection, found.high, found.low])
    order = order[(varies & ~_is_readout(screen, found))[order]]
    one, two = order[:-1], order[1:]
    # Two equal genes have equal projections up to the rounding of a sum over cells, which stays below this threshold. A gene
    # that differs in a single cell lies far above it, so one random projection finds duplicates without comparing columns.
    near = np.abs(found.projection[one] - found.projection[two]) <= 1e-12 * np.sqrt(found.square[one])
    near &= (found.low[one] == found.low[two]) & (found.high[one] == found.high[two])
    if near.any():
        pairs = np.sort(np.stack([one[near], two[near]], axis=1), axis=1)
        pairs = [f"{names[i]} = {names[j]}" for i, j in sorted(pairs.tolist())]
        yield Finding("WARN", f"Genes hold the same values in every cell: {listed(pairs)}.", "Keep one of each.")
    yield Finding("PASS", f"{len(names):,} genes, each with a name and values of its own.")


def check_readout(screen: UncheckedScreen, found: ValueScan | Finding) -> Iterator[Finding]:
    """Panel and readout genes are distinct."""
    genes = screen.genes
    if screen.readout is None:
        yield Finding("PASS", "No readout was given: all genes are in the panel.")
    elif isinstance(genes, Finding):
        yield genes
    elif isinstance(found, Finding):
        yield Finding("PASS", f"{len(genes.readout):,} readout genes; their values were not looked at.")
    else:
        constant = int((found.low == found.high)[_is_readout(screen, found)].sum())
        finding = f"{len(genes.readout):,} readout genes are regressed on {len(genes.panel):,} genes of the panel"
        yield Finding("PASS", finding + (f"; {constant:,} are constant." if constant else "."))


def _names(screen: UncheckedScreen, found: ValueScan) -> pd.Index:
    """Names of the scanned columns."""
    genes = screen.genes
    if isinstance(genes, Finding) or len(genes.names) != len(found.low):
        return screen.adata.var_names.astype(str)
    return pd.Index(genes.names)


def _is_readout(screen: UncheckedScreen, found: ValueScan) -> np.ndarray:
    """Which of the scanned columns are readout genes."""
    genes = screen.genes
    if isinstance(genes, Finding) or len(genes.names) != len(found.low):
        return np.zeros(len(found.low), dtype=bool)
    return genes.is_readout
