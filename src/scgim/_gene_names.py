"""Names of genes: their check in an AnnData, and names of tables of prior knowledge matched to the genes of a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scgim._checks import listed, nearest, warn
from scgim._look_alikes import look_alikes, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


def gene_names(index: pd.Index, where: str = "var_names") -> np.ndarray:
    """Names of genes as they are, ``(genes,)`` str. Duplicates are permitted.

    AnnData checks its names only where they are assigned to ``.var_names``. An index of numbers, bytes or missing values would match no
    gene, or after a conversion to text the wrong gene.

    Raises
    ------
    TypeError
        If a name is no string. The message has the line that converts the names.
    ValueError
        If a gene has no name.
    """
    names = list(index)
    nameless = [i for i, name in enumerate(names) if _is_missing(name)]
    if nameless:
        fix = _without_missing(index, names[nameless[0]]) if where == "var_names" else "Name or drop them"
        raise ValueError(
            f"{len(nameless):,} of {len(names):,} genes have no name in {where}; the first of them is gene {nameless[0]}. {fix}."
        )
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise TypeError(
            f"{where} must be strings, because genes are matched by name, but {wrong[0]!r} is {_kind(wrong[0])}: "
            f"{_as_strings(wrong[0], 'adata.var_names' if where == 'var_names' else where)}."
        )
    return np.array(names, dtype=str)


def doubted_genes(names: np.ndarray) -> Iterator[tuple[str, str]]:
    """Sentences and fixes, if genes look the same but for case (human and mouse genes differ in it), or are called as missing values are."""
    if groups := look_alikes(names.tolist(), case=True):
        more = f"; so do {len(groups) - 1} more groups of names." if len(groups) > 1 else "."
        yield (
            f"{' and '.join(map(ascii, groups[0]))} in var_names look the same and are {len(groups[0])} genes{more}",
            "If they are one, sum or drop one of them. adata.var_names.str.strip() removes spaces.",
        )
    if missing := sorted({"nan", "NaN", "None", "<NA>", "NaT"} & set(names.tolist())):
        yield (
            f"A gene is called {listed(missing)}, as a missing name is when it becomes text.",
            f"Drop it: adata = adata[:, adata.var_names != {missing[0]!r}].copy().",
        )


def table_names(column: pd.Series, where: str) -> pd.Series:
    """Names in a table of prior knowledge as strings; numbers such as Entrez identifiers become text without decimals.

    Raises
    ------
    TypeError, ValueError
        If names are bytes or missing.
    """
    values = column.astype(object)
    if missing := [value for value in values if _is_missing(value)]:
        raise ValueError(
            f"{where} holds {listed(dict.fromkeys(map(str, missing)))} in {len(missing):,} of {len(values):,} rows, which is no name. Drop "
            "these rows."
        )
    if wrong := [value for value in values if isinstance(value, bytes)]:
        raise TypeError(f"{where} must be strings, but {wrong[0]!r} is bytes: {_as_strings(wrong[0], where)}.")
    return values.map(lambda value: str(int(value)) if isinstance(value, float) and value.is_integer() else str(value))


def positions(known: Sequence[str] | np.ndarray | pd.Index, wanted: Iterable[str], what: str) -> np.ndarray:
    """Index of every wanted name among the known names, ``(names,)`` int.

    An indexer of pandas returns -1 for an unknown name. As an index of an array, -1 is the last gene.

    Raises
    ------
    KeyError
        If a name is not known.
    """
    known, names = pd.Index(known), np.asarray(wanted)
    index = known.get_indexer(names)
    if len(absent := names[index < 0]):
        raise KeyError(
            f"{what} has no {listed(absent)} (nearest to {str(absent[0])!r}: {listed(nearest(absent[0], known, n=1)) or 'none'})."
        )
    return index


def _is_missing(name: Any) -> bool:
    return (isinstance(name, str) and not name.strip()) or (np.ndim(name) == 0 and bool(pd.isna(name)))


def _kind(name: object) -> str:
    kind = type(name).__name__
    return "bytes" if kind == "bytes" else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _without_missing(index: pd.Index, missing: object) -> str:
    """The line that drops genes without a name. AnnData selects genes only by an index of strings, so names become strings first."""
    if isinstance(missing, str):
        return "Drop them: adata = adata[:, adata.var_names.str.strip() != ''].copy()"
    number = ".astype('Int64')" if pd.api.types.is_float_dtype(index.dtype) else ""
    return (
        f"Drop them: named = adata.var_names.notna(); adata.var_names = adata.var_names{number}.astype(str); "
        "adata = adata[:, named].copy()"
    )


def _as_strings(name: object, where: str) -> str:
    """The line that makes names of this kind strings."""
    if isinstance(name, bytes):
        return f"{where} = [name.decode() for name in {where}]"
    if isinstance(name, float) and name.is_integer():  # identifiers become floats beside a missing value
        return f"{where} = {where}.astype(int).astype(str)"
    if isinstance(name, tuple):
        return f"{where} = ['_'.join(map(str, name)) for name in {where}]"
    return f"{where} = {where}.astype(str)"


def match_genes(names: pd.Series, genes: np.ndarray, where: str) -> pd.Series:
    """Genes of the screen with these names, missing values for names without a gene.

    Names are matched exactly first. Human and mouse symbols of orthologs differ in case (``STAT1``, ``Stat1``), so a name without an
    exact match takes the only gene that differs from it in case, or in what cannot be seen (:func:`scgim._look_alikes.plain`). A warning
    reports such matches.

    Parameters
    ----------
    names
        Names in a table.
    genes
        Genes of the screen, ``(genes,)`` str.
    where
        Place of the names, for the warning.
    """
    exact, by_case = set(genes.tolist()), _by_case(genes)
    found = [name if name in exact else by_case.get(plain(name)) for name in names]
    alike = {name: gene for name, gene in zip(names, found, strict=True) if gene is not None and gene != name}
    if alike:
        name, gene = next(iter(alike.items()))
        warn(
            f"{where}: {len(alike):,} names match genes of adata only up to case or spaces ({name!r} is taken for {gene!r}), as names of human and "
            "mouse genes do. Map orthologs beforehand if this is not meant."
        )
    return pd.Series(found, index=names.index, dtype=object)


def _by_case(genes: np.ndarray) -> dict[str, str]:
    """Genes by their plain name, if no two genes share it."""
    folded = pd.Series(genes.tolist(), index=[plain(name) for name in genes.tolist()], dtype=object)
    return folded[~folded.index.duplicated(keep=False)].to_dict()
