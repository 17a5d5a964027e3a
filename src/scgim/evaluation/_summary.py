"""The table of scores that users read, from the scores of conditions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ._baselines import BASELINES
from ._verdict import verdict

NAMES = ("method", "drug", "dose", "cell_line", "n_cells", "strong", "fold")
GROUPS = ("(all)", "(strong)", "(weak)")


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Add rows of means over all conditions, over strong and over weak ones; write the verdict to ``.attrs``.

    Parameters
    ----------
    table
        One row for each method and condition: method, drug, dose, cell_line, n_cells, strong (bool), ``fold`` if there are several, and
        any number of metrics. A metric is averaged over the conditions for which a method has it.
    """
    front = [name for name in NAMES if name in table]
    metrics = [name for name in table if name not in NAMES]
    blocks = [table]
    every = np.ones(len(table), dtype=bool)
    for name, rows in zip(GROUPS, (every, table["strong"], ~table["strong"]), strict=True):
        methods = table[rows].groupby("method", sort=False)
        mean = methods[metrics].mean().assign(n_cells=methods["n_cells"].sum(), drug=name, dose=np.nan, cell_line="")
        mean["strong"] = name == "(strong)"
        if "fold" in front:
            mean["fold"] = pd.array([pd.NA] * len(mean), dtype="Int64")
        blocks.append(mean.reset_index())
    out = pd.concat([block[[*front, *metrics]] for block in blocks if len(block)], ignore_index=True)
    out.attrs["verdict"] = verdict(table, [name for name in BASELINES if name in set(table["method"])])
    return out
