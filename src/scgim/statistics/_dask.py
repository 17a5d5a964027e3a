from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from ._accumulate import tree
from ._accumulator import Accumulator, pool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import DTypeLike

    from ._statistics import SufficientStatistics


def accumulate_dask(
    chunks: Iterable[tuple[Any, np.ndarray]],
    *,
    n_conditions: int,
    n_genes: int,
    own: bool = False,
    dtype: DTypeLike = np.float64,
    leaves: int = 0,
) -> SufficientStatistics:
    """Statistics of :func:`accumulate`, computed on dask's workers. Only statistics travel between processes.

    Runs on the cluster of the active ``dask.distributed`` client, or in threads without a client. A chunk is reduced to the statistics
    of the conditions that occur in it. These are pooled in a tree. No cell reaches the calling process.

    Parameters
    ----------
    chunks
        Pairs ``(x, code)`` of cells and conditions, as for :func:`accumulate`; ``x`` is a ``dask.delayed`` or array, dense or sparse.
    n_conditions, n_genes, own, dtype, leaves
        The arguments of :func:`accumulate`. With ``own``, a chunk sends one scatter for each of its conditions, so cells should be
        sorted by condition.

    Returns
    -------
    The statistics that :func:`accumulate` returns for the same chunks, up to rounding.

    Raises
    ------
    ImportError
        If dask is not installed.
    ValueError
        If a condition receives no cell, or a chunk has a wrong number of columns or rows.

    Examples
    --------
    >>> import dask
    >>> import numpy as np
    >>> x, code = np.random.default_rng(0).normal(size=(100, 3)), np.repeat([0, 1], 50)
    >>> chunks = [(dask.delayed(x[i : i + 25]), code[i : i + 25]) for i in range(0, 100, 25)]
    >>> s = accumulate_dask(chunks, n_conditions=2, n_genes=3)
    >>> bool(np.allclose(s.scatter / 98, (np.cov(x[:50].T) + np.cov(x[50:].T)) / 2))
    True
    """
    delayed = import_dask().delayed
    partial, combine = delayed(_accumulator, pure=False), delayed(pool, pure=False)
    parts = [partial(x, code, own, dtype, n_genes, leaves) for x, code in chunks if len(code)]
    if not parts:
        return Accumulator(np.empty(0, np.int64), n_genes, own=own, leaves=leaves).complete(n_conditions)
    return tree(parts, combine).compute().complete(n_conditions)


def import_dask() -> Any:
    """The dask module, or an ImportError that says how to install it."""
    try:
        import dask
    except ImportError as error:
        raise ImportError("This matrix is dask's, and dask is not installed: pip install 'scgim[dask]'.") from error
    return dask


def _accumulator(x: Any, code: np.ndarray, own: bool, dtype: DTypeLike, n_genes: int, leaves: int) -> Accumulator:
    x = x.toarray() if sp.issparse(x) else np.asarray(x)
    if x.ndim != 2 or x.shape[1] != n_genes:
        raise ValueError(f"Cells of shape {x.shape}, for {n_genes} columns.")
    return Accumulator.of(x, code, own=own, dtype=dtype, leaves=leaves)
