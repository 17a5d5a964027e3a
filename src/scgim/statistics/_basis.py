from __future__ import annotations

import numpy as np

BASIS_CENTERS, BASIS_SLOPE = (-1.2, 0.0, 1.2), 1.5


def expand(x: np.ndarray) -> np.ndarray:
    r"""Basis functions of the nonlinear score: for every gene one linear function and three saturating steps.

    .. math:: b(x) = \left(x,\; \tanh\tfrac32 (x + 1.2),\; \tanh\tfrac32 x,\; \tanh\tfrac32 (x - 1.2)\right)

    Smooth mechanisms of a gene, monotone or not, are nearly linear in these functions. Inputs are in control SD.

    Parameters
    ----------
    x
        Standardized cells, ``(rows, genes)``.

    Returns
    -------
    ``(rows, 4 * genes)``. Columns ``4 * j`` to ``4 * j + 3`` belong to gene ``j``. The type is that of ``x`` if that is floating.

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
