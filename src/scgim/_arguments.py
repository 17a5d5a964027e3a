"""Types of the arguments that name columns of a screen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
import pandas as pd

from scgim._checks import shown

# What arguments of `scgim.setup_anndata` and `scgim.pp.check` name, and where its values belong; other keys name a column of obs.
_NAMED = {
    "layer": ("the name of a layer", "layers"),
    "dose_unit": ("the unit of all doses", "obs"),
    "features_key": ("the name of a table in uns", "uns"),
    "readout": ("the name of a column of var or of a table in obsm", "obsm"),
}
_OF_COMBINATIONS = ("drug_key", "dose_key", "smiles_key")
_TABLES = (pd.DataFrame, pd.Series, np.ndarray)


def check_arguments(arguments: Mapping[str, object], *, several: bool = False) -> None:
    """Raise TypeError if an argument is not a name.

    Parameters
    ----------
    arguments
        Arguments of :meth:`scgim.GIM.setup_anndata`. Those that end in ``_key``, ``layer``, ``dose_unit`` and ``readout`` are names,
        ``control`` is one or several names, and ``covariate_keys`` several. Others are ignored.
    several
        Whether drugs, doses and SMILES may have several columns.

    Examples
    --------
    >>> check_arguments({"drug_key": ["drug 1", "drug 2"], "control": "DMSO"}, several=True)
    >>> check_arguments({"drug_key": ["drug"]})
    Traceback (most recent call last):
    TypeError: drug_key=['drug'] must be a string, the name of a column of obs. Pass drug_key='drug'.
    """
    for name, value in arguments.items():
        if name == "control":
            _check_control(value)
        elif name == "covariate_keys":
            _check_covariates(value)
        elif name.endswith("_key") or name in _NAMED:
            allowed = several and name in _OF_COMBINATIONS and _are_names(value) and len(value) > 0
            if not (isinstance(value, str) or allowed or (value is None and name != "drug_key")):
                raise TypeError(_not_a_name(name, value, several=several and name in _OF_COMBINATIONS))


def _are_names(value: Any) -> bool:
    """Whether ``value`` is a list of strings."""
    sequence = isinstance(value, Sequence | pd.Index | np.ndarray) and not isinstance(value, bytes)
    return sequence and all(isinstance(each, str) for each in value)


def _not_a_name(name: str, value: object, *, several: bool) -> str:
    """The error of an argument that is no name, with what to pass instead."""
    what, where = _NAMED.get(name, ("the name of a column of obs", "obs"))
    problem = f"{name}={shown(value)} must be a string, {what}" + ", or a list of such names" * several
    names = list(value) if isinstance(value, Iterable) and not isinstance(value, (bytes, Mapping, *_TABLES)) else []
    if isinstance(value, _TABLES):
        fix = f"Write the values into adata.{where}, and pass their name"
    elif len(names) == 1:
        fix = f"Pass {name}={names[0]!r}"
    elif len(names) > 1 and name in _OF_COMBINATIONS:
        fix = (
            "pp.check reads no combinations from several columns; setup_anndata does, with the same errors. For pp.check write the names "
            "of a combination into one column, such as 'JQ1+SAHA'"
        )
    elif len(names) > 1 and name not in _NAMED:
        fix = "Join the columns, e.g. adata.obs['both'] = adata.obs[['a', 'b']].astype(str).agg('-'.join, axis=1), and pass 'both'"
    else:
        example = "uM" if name == "dose_unit" else name.removesuffix("_key")
        fix = f"Pass one, such as {name}={example!r}"
    return f"{problem}. {fix}."


def _check_control(value: object) -> None:
    """Raise unless the control is one name or several. Numbers are names too, because drugs may be numbered."""
    several = isinstance(value, Sequence | Set | pd.Index | pd.Series | np.ndarray) and not isinstance(
        value, str | bytes
    )
    names = list(value) if several else [value]
    if any(each is None or isinstance(each, bytes) or not np.isscalar(each) for each in names):
        raise TypeError(
            f"control={shown(value)} must be the name of untreated cells, or a list of such names. Pass e.g. control='DMSO' or "
            "control=['DMSO', 'untreated']."
        )


def _check_covariates(value: object) -> None:
    """Raise unless the covariates are a list of names."""
    if not _are_names(value) or isinstance(value, str):
        fix = [value] if isinstance(value, str) and value else ["S_score"]
        raise TypeError(
            f"covariate_keys={shown(value)} must be a list of columns of obs. Pass covariate_keys={fix!r}, or () for none."
        )
