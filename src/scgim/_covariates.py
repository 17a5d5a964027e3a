"""Covariates of cells as columns of numbers, and their checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd

from scgim._checks import check_names, check_obs_column, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

FAR = 1.0  # control SD between the mean covariate of a drug and of its controls
_LEAST_SHARE = 1e-8  # share of a covariate's variance in controls that other covariates must leave


@dataclass(frozen=True)
class Covariates:
    """Covariates of all cells.

    Parameters
    ----------
    names
        Name of every column: the key, or key and level of a categorical covariate.
    values
        ``(cells, columns)``. A categorical covariate has a column of 0 and 1 for every level but the first.
    levels
        Levels of the categorical covariates, sorted, by key.
    """

    names: list[str]
    values: np.ndarray
    levels: dict[str, list[str]]

    @classmethod
    def read(cls, adata: AnnData, keys: Sequence[str], levels: dict[str, list[str]] | None = None) -> Self:
        """Read columns of ``.obs``: numbers are continuous; text, categories and bools are categorical.

        Parameters
        ----------
        adata, keys
            Argument ``covariate_keys`` of :meth:`scgim.GIM.setup_anndata`.
        levels
            Known levels, if they were read before.

        Raises
        ------
        KeyError, ValueError
            If a column does not exist, values are missing or not finite, or a level is not known.
        """
        names, columns, found = [], [], {}
        for key in keys:
            column = check_obs_column(adata, key)
            if key in levels if levels is not None else not _is_continuous(column):
                own = check_names(adata, key)
                found[key] = sorted(set(own)) if levels is None else list(levels[key])
                if unknown := sorted(set(own) - set(found[key])):
                    raise ValueError(
                        f"obs[{key!r}] holds {listed(unknown)}, and the training data hold {listed(found[key])} only. "
                        "Drop these cells."
                    )
                names += [f"{key}={level}" for level in found[key][1:]]
                columns += [(own == level).to_numpy(float) for level in found[key][1:]]
            else:
                names.append(key)
                columns.append(_numbers(column, key))
        return cls(names, np.column_stack(columns) if columns else np.zeros((adata.n_obs, 0)), found)

    def centered(self, group: np.ndarray, control: np.ndarray) -> np.ndarray:
        """Values less their mean in the controls of the cell's group, ``(cells, columns)``; 0 in groups without controls (-1)."""
        n_groups = int(group.max(initial=0)) + 1
        center, n = np.zeros((n_groups, len(self.names))), np.zeros(n_groups)
        own = control & (group >= 0)
        np.add.at(center, group[own], self.values[own])
        np.add.at(n, group[own], 1)
        center /= np.maximum(n, 1)[:, None]
        return np.where((group >= 0)[:, None], self.values - center[group], 0.0)


def check_covariates(
    adata: AnnData, keys: Sequence[str], table: pd.DataFrame, taken: Sequence[str | None]
) -> list[str]:
    """Check covariates and return warnings as sentences.

    Parameters
    ----------
    adata, keys
        Arguments of :meth:`Covariates.read`.
    table
        Columns drug, line, batch, control and train of every cell.
    taken
        Columns that set-up uses for something else.

    Raises
    ------
    KeyError, ValueError
        If slopes on the covariates cannot be estimated from the controls. The message names the covariate and a remedy.
    """
    if twice := sorted({key for key in keys if list(keys).count(key) > 1 or key in taken}):
        raise ValueError(
            f"covariate_keys name {listed(twice)} twice, or the column is the drug, dose, line, batch, split or size factor. "
            "Drop it from covariate_keys."
        )
    covariates = Covariates.read(adata, keys)
    use = (table["control"] & table["train"]).to_numpy()
    for key, known in covariates.levels.items():
        absent = sorted(set(known) - set(check_names(adata, key)[use]))
        if absent:
            raise ValueError(
                f"No control cell has {listed(absent)} in obs[{key!r}], so the effect of this level cannot be estimated from controls. "
                f"Drop these cells, or {key!r} from covariate_keys."
            )
    group = table.groupby(["line", "batch"], sort=True).ngroup().to_numpy()
    centered = covariates.centered(group, use)
    _check_rank(covariates.names, centered[use], group[use], np.abs(covariates.values[use]).max(0, initial=0.0))
    return [
        *_constant_in_lines(covariates.names, centered, table, use),
        *_apart(covariates.names, centered, table, use),
    ]


def _check_rank(names: list[str], controls: np.ndarray, group: np.ndarray, size: np.ndarray) -> None:
    """Raise if a column is constant in the controls of every group, or a linear combination of the columns before it.

    ``size`` are the largest absolute values before centering. Deviations of ten digits less are rounding errors.
    """
    kept = np.zeros((len(controls), 0))
    for name, column, largest in zip(names, controls.T, size, strict=True):
        total = float(column @ column)
        if total <= (1e-10 * largest) ** 2 * len(column):
            raise ValueError(
                f"Covariate {name!r} is constant in the controls of every line and batch, so its effect cannot be estimated. "
                "Drop it from covariate_keys."
            )
        left = column - kept @ (kept.T @ column)
        left = left - kept @ (kept.T @ left)
        if float(left @ left) <= _LEAST_SHARE * total:
            raise ValueError(
                f"Covariate {name!r} is a linear combination of {listed(names[: kept.shape[1]])} in the controls. "
                "Drop one of them from covariate_keys."
            )
        kept = np.column_stack([kept, left / np.sqrt(left @ left)])
    freedom = len(controls) - len(np.unique(group))
    if names and freedom <= len(names):
        raise ValueError(
            f"{len(controls)} controls in {len(np.unique(group))} lines and batches are too few for {len(names)} columns of covariates. "
            "Use fewer covariates."
        )


def _constant_in_lines(names: list[str], centered: np.ndarray, table: pd.DataFrame, use: np.ndarray) -> list[str]:
    line, found = table["line"].to_numpy(str), []
    for name, column in zip(names, centered.T, strict=True):
        places = [each for each in np.unique(line[use]) if not np.ptp(column[use & (line == each)]) > 0]
        moved = [each for each in places if np.ptp(column[line == each]) > 0]
        if moved:
            found.append(
                f"Covariate {name!r} is constant in the controls of line {listed(moved)}. Its effect there is taken from other lines."
            )
    return found


def _apart(names: list[str], centered: np.ndarray, table: pd.DataFrame, use: np.ndarray) -> list[str]:
    """Sentences on drugs whose covariates differ from those of their controls."""
    treated, found = (~table["control"] & table["train"]).to_numpy(), []
    drug = table["drug"].to_numpy(str)
    mean = pd.DataFrame(centered[treated], columns=range(len(names))).groupby(drug[treated]).mean()
    sd = np.sqrt((centered[use] ** 2).mean(0))
    for i, name in enumerate(names):
        size = (mean[i].abs() / sd[i]).sort_values(ascending=False, kind="stable")
        far = size.index[size > FAR]
        if len(far):
            found.append(
                f"Covariate {name!r} is confounded with drugs: its mean differs from that of the controls by more than {FAR:g} control SD under "
                f"{listed(far)}. What these drugs do through the covariate is removed from their effects."
            )
    return found


def _is_continuous(column: pd.Series) -> bool:
    column = column.infer_objects()  # numbers may be stored as objects
    return pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)


def _numbers(column: pd.Series, key: str) -> np.ndarray:
    values = pd.to_numeric(column.astype(object), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(
            f"obs[{key!r}] holds {listed(dict.fromkeys(column[bad]))} in {int(bad.sum()):,} cells; a continuous covariate is a finite "
            "number in every cell. Drop these cells, or make the column text if it is categorical."
        )
    return values
