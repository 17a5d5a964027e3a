"""Check of several control labels: how far the means of their cells differ in a cell line and batch."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.stats import t as student

from scgim._checks import listed
from scgim.statistics import row_blocks
from scgim.statistics._value_scan import dense

from ._screen import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scgim.statistics._value_scan import ValueScan

    from ._screen import UncheckedScreen

BLOCK = 2**22  # values
LEVEL = 0.05  # accepted share of screens with equal labels in which a difference is found
NEGLIGIBLE = 0.2  # control SD; smaller differences are no effects in a model with the default min_effect
TARGET = 1e4  # counts of a cell after normalization, as in set-up


class _Difference(NamedTuple):
    """Largest difference of two labels in a cell line and batch: in SD, its bound by chance, and the gene."""

    size: float
    bound: float
    gene: str
    labels: tuple[str, str]
    group: tuple[str, str]


def check_labels(screen: UncheckedScreen, found: ValueScan | Finding) -> Iterator[Finding]:
    """Control labels have equal means in every cell line and batch, within the bound of a Bonferroni test over genes and groups."""
    labels = screen.controls
    if len(labels) < 2:
        yield Finding("PASS", "One control label.")
        return
    if isinstance(found, Finding):
        yield Finding("PASS", f"{len(labels)} control labels; their values were not looked at.")
        return
    differences = _differences(screen)
    if not differences:
        finding = (
            f"No two of {listed(labels)} occur with two cells each in one line and batch, so they cannot be compared."
        )
        yield Finding("PASS", finding)
        return
    beyond = [each for each in differences if each.size > max(each.bound, NEGLIGIBLE)]
    worst = max(beyond or differences, key=lambda each: each.size)
    where = screen.place(worst.group)
    text = (
        f"{listed(worst.labels)} differ by up to {worst.size:.2g} SD of their cells (gene {worst.gene!r}, in {where})"
    )
    if beyond:
        fix = (
            f"Pass control={worst.labels[0]!r} and drop the other cells, unless the difference does not matter to you."
        )
        more = f"; {len(beyond)} of {len(differences)} comparisons are beyond chance" if len(differences) > 1 else ""
        yield Finding("WARN", f"Control labels {text}; chance allows {worst.bound:.2g}{more}.", fix)
    yield Finding("PASS", f"{len(labels)} control labels: {text}; chance allows {worst.bound:.2g}.")


def _differences(screen: UncheckedScreen) -> list[_Difference]:
    """The gene with the largest excess over its bound, for every pair of labels in every cell line and batch."""
    cells = screen.cells[screen.cells["control"]].dropna(subset=["line", "batch"])
    rows = cells.index.to_numpy()
    grouped = cells.groupby(["line", "batch", "drug"], sort=True)
    names, code = list(grouped.groups), grouped.ngroup().to_numpy()
    n, mean, variance = _moments(screen, rows, code, len(names))
    pairs = [
        (i, j) for i, j in combinations(range(len(names)), 2) if names[i][:2] == names[j][:2] and min(n[i], n[j]) > 1
    ]
    genes, out = screen.adata.var_names, []
    for i, j in pairs:
        error = np.stack([variance[i] / n[i], variance[j] / n[j]])
        sd = np.sqrt((variance[i] + variance[j]) / 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.abs(mean[i] - mean[j]) / sd
            # Welch's degrees of freedom, because the labels may differ in their spread.
            freedom = error.sum(0) ** 2 / (error[0] ** 2 / (n[i] - 1) + error[1] ** 2 / (n[j] - 1))
            bound = student.isf(LEVEL / (2 * len(genes) * len(pairs)), freedom) * np.sqrt(error.sum(0)) / sd
            excess = np.where(np.isfinite(size) & np.isfinite(bound), size / bound, -1.0)
        gene = int(np.argmax(excess))
        if excess[gene] >= 0:
            labels, group = (names[i][2], names[j][2]), names[i][:2]
            out.append(_Difference(float(size[gene]), float(bound[gene]), str(genes[gene]), labels, group))
    return out


def _moments(
    screen: UncheckedScreen, rows: np.ndarray, code: np.ndarray, n_groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of cells, means and variances of groups of cells on the training scale; ``(groups,)`` and ``(groups, genes)`` twice."""
    adata = screen.adata
    matrix = adata.X if screen.layer is None else adata.layers[screen.layer]
    size = None if screen.size_factor_key is None else screen.column(screen.size_factor_key).to_numpy(np.float64)
    n, total, squares, center = np.bincount(code, minlength=n_groups), 0.0, 0.0, None
    for at, block in row_blocks(matrix, rows, max(1, BLOCK // adata.n_vars)):
        x = dense(block.compute() if hasattr(block, "compute") else block).astype(np.float64)
        if screen.scale == "counts":
            x = np.log1p(TARGET * x / (x.sum(1) if size is None else size[at])[:, None])
        # Values are centered by the first block, so that the squares do not cancel for genes far from zero.
        center = x.mean(0) if center is None else center
        x -= center
        own = code[np.searchsorted(rows, at)]
        member = sp.csr_matrix((np.ones(len(own)), (own, np.arange(len(own)))), shape=(n_groups, len(own)))
        total, squares = total + member @ x, squares + member @ x**2
    mean = total / n[:, None]
    return n, mean, np.maximum(squares - n[:, None] * mean**2, 0.0) / np.maximum(n - 1, 1)[:, None]
