from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from scipy.cluster import hierarchy

if TYPE_CHECKING:
    import numpy as np


def dendrogram(values: np.ndarray, groups: pd.Series) -> dict[str, Any] | None:
    """The tree of the groups' means in the format of :func:`scanpy.tl.dendrogram`, or None where there is none.

    scanpy correlates the means of the groups, which is undefined for the control's zeros, so that its plots fail where
    they draw a tree by default. Here the distance is Euclidean.
    """
    categories = groups.astype("category").cat.categories
    means = pd.DataFrame(values).groupby(groups.to_numpy(), observed=True).mean()
    # scanpy wants exactly the categories of the column
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
