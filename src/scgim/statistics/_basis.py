from __future__ import annotations

import numpy as np

BASIS_CENTERS, BASIS_SLOPE = (-1.2, 0.0, 1.2), 1.5


def expand(x: np.ndarray) -> np.ndarray:
    r"""Basis functions of the nonlinear score: a linear one and three steps that saturate, for every gene.

    .. math:: b(x) = \left(x,\; \tanh\tfrac32 (x + 1.2),\; \tanh\tfrac32 x,\; \tanh\tfrac32 (x - 1.2)\right)

    In control standard deviations, smooth monotone and non-monotone mechanisms of a gene are close to linear in these.

    Parameters
    ----------
    x
        Standardized cells, ``(rows, genes)``.

    Returns
    -------
    ``(rows, 4 * genes)``, gene ``j``'s columns being ``4 * j ... 4 * j + 3``; of the type of ``x`` where that is floating.

    Examples
    --------
    >>> import numpy as np
    >>> expand(np.array([[0.0, 1.2]])).round(2)
    array([[ 0.  ,  0.95,  0.  , -0.95,  1.2 ,  1.  ,  0.95,  0.  ]])
    """
    x = np.asarray(x)
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    out = np.empty((*x.shape, 1 + len(BASIS_CENTERS)), dtype=x.dtype)
    out[..., 0] = x
    for b, at in enumerate(BASIS_CENTERS, start=1):
        out[..., b] = np.tanh(BASIS_SLOPE * (x - at))
    return out.reshape(len(x), x.shape[1] * out.shape[2])
