from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist


def e_test(x: np.ndarray, y: np.ndarray, *, n_permutations: int = 200, seed: int = 0) -> float:
    r"""Permutation p-value of a difference between two sets of cells, by energy distance (Szekely & Rizzo 2004).

    The p-value is :math:`(1 + \#\{E_\pi \ge E\}) / (1 + P)` for :math:`P` permutations, with
    :math:`E = 2 \bar d(x, y) - \bar d(x, x) - \bar d(y, y)` for mean Euclidean distances :math:`\bar d`, and :math:`E_\pi` for permuted
    labels. Cells of one well are no replicates: with one well per condition the test compares wells, not drugs.

    Parameters
    ----------
    x, y
        Cells, ``(n, genes)`` and ``(m, genes)``, on one scale.
    n_permutations, seed
        Number of permutations, and seed.

    Returns
    -------
    The p-value, at least ``1 / (1 + n_permutations)``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> e_test(rng.normal(size=(30, 2)), rng.normal(3, 1, size=(30, 2))) < 0.01
    True
    """
    both = np.concatenate([x, y])
    distance = cdist(both, both)
    n, m = len(x), len(y)
    rng = np.random.default_rng(seed)
    label = np.zeros((n_permutations + 1, n + m))
    label[0, :n] = 1
    for row in label[1:]:
        row[rng.permutation(n + m)[:n]] = 1
    other = 1 - label
    to = label @ distance
    across = (to * other).sum(1) / (n * m)
    within = (to * label).sum(1) / n**2 + ((other @ distance) * other).sum(1) / m**2
    energy = 2 * across - within
    return float((1 + (energy[1:] >= energy[0] - 1e-12).sum()) / (1 + n_permutations))
