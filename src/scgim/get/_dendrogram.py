from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from scipy.cluster import hierarchy

if TYPE_CHECKING:
    import numpy as np


def dendrogram(values: np.ndarray, groups: pd.Series) -> dict[str, Any] | None:
    """Dendrogram of the means of groups in the format of :func:`scanpy.tl.dendrogram`; None for fewer than two groups.

    scanpy computes correlations of group means, which are undefined for the zeros of the control. Its plots that draw a dendrogram by
    default would fail. The Euclidean distance used here is always defined.
    """
    categories = groups.astype("category").cat.categories
    means = pd.DataFrame(values).groupby(groups.to_numpy(), observed=True).mean()
    # scanpy requires that the categories of the dendrogram are exactly those of the column.
    if len(means) < 2 or len(means) != len(categories):
        return None
    means = means.loc[categories]
    linkage = hierarchy.linkage(means, method="complete")
    tree = hierarchy.dendrogram(linkage, labels=list(means.index), no_plot=True)
    return {
        "linkage": linkage,
        "groupby": [str(groups.name)],
        "use_rep": "X",
        "cor_method": "",
        "linkage_method": "complete",
        "categories_ordered": tree["ivl"],
        "categories_idx_ordered": tree["leaves"],
        "dendrogram_info": tree,
    }
