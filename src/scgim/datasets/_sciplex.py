"""The 188 compounds of the sci-Plex 3 screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._resources import read_table

if TYPE_CHECKING:
    import pandas as pd


def sciplex3_drugs() -> pd.DataFrame:
    """The 188 compounds of the sci-Plex 3 screen, with their structures.

    Names are as published, with all their characters that cause problems in file formats (``(+)-JQ1``,
    ``BMS202 (PD-1/PD-L1 inhibitor 2)``, a trailing blank). The structures contain salts, duplicates and a pair of stereoisomers, as
    real libraries do.

    Returns
    -------
    DataFrame
        One row per compound. The index, named ``drug``, is unique. Columns ``catalog_number``, ``smiles``, ``target_class``,
        ``pathway``, ``cas`` (all strings) and ``mw`` (molecular weight in g/mol, float64). A new copy at every call.

    References
    ----------
    Srivatsan et al., Massively multiplex chemical transcriptomics at single-cell resolution, Science 367:45 (2020),
    supplementary table.

    Examples
    --------
    >>> import scgim
    >>> drugs = scgim.datasets.sciplex3_drugs()
    >>> drugs.shape
    (188, 6)
    >>> drugs.loc["(+)-JQ1", "target_class"]
    'Epigenetic Reader Domain'
    """
    return read_table("sciplex3_drugs.csv").set_index("drug")
