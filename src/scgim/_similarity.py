from __future__ import annotations

import numpy as np


def similarity(query: np.ndarray, reference: np.ndarray) -> np.ndarray:
    r"""Similarity of drugs by features, ``(queries, references)``.

    For non-negative features (bits, counts) :math:`a` and :math:`b` this is Tanimoto similarity,
    :math:`\sum \min(a, b) / \sum \max(a, b)`, otherwise cosine similarity. Two drugs without any feature have similarity 1.
    """
    if (query >= 0).all() and (reference >= 0).all():
        shared = np.array([np.minimum(q, reference).sum(1) for q in query]).reshape(len(query), len(reference))
        joint = query.sum(1)[:, None] + reference.sum(1) - shared
        return np.where(joint > 0, shared / np.where(joint > 0, joint, 1.0), 1.0)
    norm = np.linalg.norm(query, axis=1)[:, None] * np.linalg.norm(reference, axis=1)
    return (query @ reference.T) / np.where(norm > 0, norm, 1.0)
