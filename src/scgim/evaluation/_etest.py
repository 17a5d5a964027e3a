from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist


def e_test(
    x: np.ndarray,
    y: np.ndarray,
    *,
    replicates: tuple[np.ndarray, np.ndarray] | None = None,
    n_permutations: int = 200,
    seed: int = 0,
) -> float:
    r"""Permutation p-value of a difference between two sets of cells, by energy distance (Szekely & Rizzo 2004).

    The p-value is :math:`(1 + \#\{E_\pi \ge E\}) / (1 + P)` for :math:`P` permutations, with
    :math:`E = 2 \bar d(x, y) - \bar d(x, x) - \bar d(y, y)` for mean Euclidean distances :math:`\bar d`, and :math:`E_\pi` for permuted
    labels. Cells of one well are no replicates: without ``replicates``, and with one well per condition, the test compares wells, not
    drugs. With ``replicates``, labels of whole replicates are permuted. A replicates on one side and B on the other have
    :math:`\binom{A + B}{A}` permutations, and the p-value is hardly below the inverse of their number.

    Parameters
    ----------
    x, y
        Cells, ``(n, genes)`` and ``(m, genes)``, on one scale.
    replicates
        Replicate of every row of ``x`` and of ``y``, ``(n,)`` and ``(m,)`` int; by default every row.
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
    own, rest = (np.arange(n), np.arange(m)) if replicates is None else map(_codes, replicates)
    a, replicate = own.max() + 1, np.concatenate([own, own.max() + 1 + rest])
    label = np.zeros((n_permutations + 1, n + m))
    label[0, :n] = 1
    for row in label[1:]:
        row[np.isin(replicate, rng.permutation(replicate.max() + 1)[:a])] = 1
    other = 1 - label
    n, m = label.sum(1), other.sum(1)
    to = label @ distance
    across = (to * other).sum(1) / (n * m)
    within = (to * label).sum(1) / n**2 + ((other @ distance) * other).sum(1) / m**2
    energy = 2 * across - within
    return float((1 + (energy[1:] >= energy[0] - 1e-12).sum()) / (1 + n_permutations))


def _codes(replicate: np.ndarray) -> np.ndarray:
    return np.unique(replicate, return_inverse=True)[1]
