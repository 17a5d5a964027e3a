"""Source cells of a prediction: the training controls stored in the model, or control cells of the user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from scgim._anndata import require_anndata
from scgim._checks import check_names, control_names, is_control, listed, nearest, warn
from scgim._covariates import Covariates
from scgim.data._columns import ScreenColumns
from scgim.data._matrix import CellMatrix, check_genes

from ._readout import ReadoutControls

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scgim.data._training_summary import TrainingSummary

MAX_MISSING = 0.05  # largest share of missing genes


@dataclass(frozen=True)
class ControlCells:
    """Control cells of a line: ``x`` (cells, genes) on the training scale, and names of the cells."""

    line: str
    x: sp.csr_matrix
    names: np.ndarray
    center: np.ndarray  # (cells, genes) or (genes,): expected value of each cell, which is subtracted
    mean: np.ndarray  # (genes,)
    scale: np.ndarray  # (genes,) unit of the standardized scale
    readout: ReadoutControls | None = None


def training_controls(summary: TrainingSummary, *, readout: bool = False) -> list[ControlCells]:
    """The controls stored in training, line by line; ``readout``: with their readout genes."""
    out = []
    for line in summary.design.lines:
        rows = np.flatnonzero(summary.group_line[summary.control_group] == line)
        center = summary.control_centers(rows)
        names, scale = summary.control_names[rows], _scale(summary, line)
        others = None
        if readout:
            mean = summary.line_mean(line, summary.readout["group_mean"])
            others = ReadoutControls(summary.readout["controls"][rows], mean)
        mean = summary.line_mean(line)
        out.append(ControlCells(str(line), summary.controls[rows], names, center, mean, scale, others))
    return out


def user_controls(
    adata: AnnData, summary: TrainingSummary, settings: dict, childless: np.ndarray, *, readout: bool = False
) -> list[ControlCells]:
    """Control cells of the user, with genes matched by name.

    Parameters
    ----------
    adata
        Control cells only. If there is a drug column, all its values must be controls.
    summary
        Summary of the training data.
    settings
        Settings of the set-up.
    childless
        Genes without children in the graph, ``(genes,)`` bool. Only these genes may be missing.
    readout
        Whether the readout genes are needed. They also are needed for size factors that are sums over all genes.

    Raises
    ------
    KeyError, TypeError, ValueError
        If a row is not control, genes are missing, or values are not on the model's scale.
    """
    require_anndata(adata, "an AnnData of control cells", " Drugs go into drug=.")
    if not adata.n_obs:
        raise ValueError("adata holds no cells.")
    line_key, control = settings["cell_line_key"], settings["control"]
    columns = ScreenColumns.of_setup(settings | {"dose_key": None})
    if columns.first_key in adata.obs:
        _require_controls(columns.names(adata), control, columns.first_key)
    n, key = len(summary.genes), settings.get("readout")
    summed = settings["scale"] == "counts" and settings["size_factor_key"] is None
    others = summary.readout["genes"] if summary.readout and (readout or summed) else np.empty(0, dtype=str)
    genes = np.concatenate([summary.genes, others])
    present = _present(adata, genes, np.concatenate([childless, np.ones(len(others), dtype=bool)]), key)
    cells = CellMatrix(
        adata,
        genes[:n][present[:n]],
        layer=settings["layer"],
        scale=settings["scale"],
        size_factor_key=settings["size_factor_key"],
        readout=(others[present[n:]], key),
    ).with_readout()
    cells.check()
    line = np.full(adata.n_obs, "", dtype=object) if line_key is None else check_names(adata, line_key).to_numpy()
    known, covariates = summary.covariates, np.zeros((adata.n_obs, 0))
    if known:  # of all cells at once, because rows of a backed view cannot be taken again
        covariates = Covariates.read(adata, known["keys"], known["levels"]).values
    out = []
    for name in sorted(set(line)):
        rows = np.flatnonzero(line == name)
        x = cells.take(rows)
        if not present.all():
            x = _completed(x, present, _known_mean(summary, name, len(others) > 0))
        mean = np.asarray(x.mean(0, dtype=np.float64)).ravel()
        names, scale = adata.obs_names[rows].to_numpy(str), _scale(summary, name)
        center = mean[:n] + _effect(covariates[rows], summary) if summary.covariates else mean[:n]
        at = ReadoutControls(x[:, n:], mean[n:]) if readout else None
        out.append(ControlCells(str(name), x[:, :n], names, center, mean[:n], scale, at))
    return out


def _require_controls(names: pd.Series, control: str | list[str], key: str) -> None:
    """Raise ValueError if a cell is treated."""
    treated = ~is_control(names, control)
    if not treated.any():
        return
    controls = control_names(control)
    unlike, like = f"not in {controls}", f".isin({controls})"
    if len(controls) == 1:
        unlike, like = f"!= {controls[0]!r}", f" == {controls[0]!r}"
    fix = f"Pass adata[adata.obs[{key!r}]{like}]."
    if treated.all():
        others = listed(sorted(set(names)))
        fix = f"If {others} are controls, call them {controls[0]!r} or drop this column: del adata.obs[{key!r}]."
    raise ValueError(
        f"predict needs control cells, but {int(treated.sum()):,} of {len(names):,} rows have obs[{key!r}] {unlike}; from "
        f"treated cells it would not be a prediction. {fix}"
    )


def _effect(covariates: np.ndarray, summary: TrainingSummary) -> np.ndarray:
    """Effect of covariates ``(cells, columns)``, less its mean, ``(cells, genes)``."""
    return (covariates - covariates.mean(0)) @ summary.covariates["slopes"][:, : len(summary.genes)]


def _completed(x: sp.csr_matrix, present: np.ndarray, mean: np.ndarray) -> sp.csr_matrix:
    """Cells with the genes that are not ``present`` at their ``mean``."""
    order = np.argsort(np.concatenate([np.flatnonzero(present), np.flatnonzero(~present)]), kind="stable")
    missing = np.tile(mean[~present].astype(np.float32), (x.shape[0], 1))
    return sp.hstack([x, sp.csr_matrix(missing)], format="csr")[:, order]


def _present(adata: AnnData, genes: np.ndarray, childless: np.ndarray, key: str | None) -> np.ndarray:
    """Genes of the model that are in the data, ``(genes,)`` bool. Readout genes may be in ``obsm[key]``."""
    names = check_genes(adata)
    if key is not None and key in adata.obsm:
        names = names.append(adata.obsm[key].columns)
    present = np.isin(genes, names.to_numpy(str))
    missing = genes[~present]
    if not len(missing):
        return present
    if len(missing) > MAX_MISSING * len(genes) or not childless[~present].all():
        raise ValueError(
            f"Genes do not match the model: {int(present.sum())} of {len(genes)} found; missing {listed(missing)} "
            f"(nearest to {listed(missing[:1])}: {listed(nearest(missing[0], list(names), n=2))}). Genes are matched by name, never by position. "
            "Map the identifiers, or refit on the shared genes."
        )
    warn(f"{len(missing)} genes are missing and take the training control mean: {listed(missing)}.")
    return present


def _scale(summary: TrainingSummary, line: str) -> np.ndarray:
    """Control SD of a line, or the pooled control SD for an unseen line; ``(genes,)``."""
    return summary.scale * summary.relative_scale(summary.design.line_index(line))


def _known_mean(summary: TrainingSummary, line: str, readout: bool) -> np.ndarray:
    """Control mean of a line, or the mean of all controls for an unseen line; ``(genes,)``, readout genes last."""
    of_groups = summary.group_mean
    if readout:
        of_groups = np.hstack([of_groups, summary.readout["group_mean"]])
    if line in summary.design.lines:
        return summary.line_mean(line, of_groups)
    return np.average(of_groups, axis=0, weights=summary.group_size)
