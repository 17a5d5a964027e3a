"""Names of genes from tables of prior knowledge, matched to the genes of a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from scgim._checks import warn

if TYPE_CHECKING:
    import numpy as np


def match_genes(names: pd.Series, genes: np.ndarray, where: str) -> pd.Series:
    """Genes of the screen with these names, missing values for names without a gene.

    Names are matched exactly first. Human and mouse symbols of orthologs differ in case (``STAT1``, ``Stat1``), so a name without an
    exact match takes the only gene that differs from it in case alone. A warning reports such matches.

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
    found = [name if name in exact else by_case.get(name.casefold()) for name in names]
    alike = {name: gene for name, gene in zip(names, found, strict=True) if gene is not None and gene != name}
    if alike:
        name, gene = next(iter(alike.items()))
        warn(
            f"{where}: {len(alike):,} names match genes of adata only up to case ({name!r} is taken for {gene!r}), as names of human and "
            "mouse genes do. Map orthologs beforehand if this is not meant."
        )
    return pd.Series(found, index=names.index, dtype=object)


def _by_case(genes: np.ndarray) -> dict[str, str]:
    """Genes by their name without case, if no two genes share it."""
    folded = pd.Series(genes.tolist(), index=[name.casefold() for name in genes.tolist()], dtype=object)
    return folded[~folded.index.duplicated(keep=False)].to_dict()
