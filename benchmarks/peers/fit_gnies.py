from __future__ import annotations

import gnies
import gnies.utils
import numpy as np


def fit(cells: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Greedy noise-interventional equivalence search; every condition is an environment, means may move."""
    data = [cells["x"][cells["condition"] == k] for k in np.unique(cells["condition"])]
    _, essential, _ = gnies.fit(data, approach="rank", center=False)
    return {"graph": gnies.utils.pdag_to_dag(essential)}
