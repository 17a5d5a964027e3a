from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._dask import import_dask

if TYPE_CHECKING:
    from collections.abc import Iterator


def row_blocks(matrix: Any, rows: np.ndarray, step: int) -> Iterator[tuple[np.ndarray, Any]]:
    """Read some rows of a matrix block by block, from any storage.

    Parameters
    ----------
    matrix
        Matrix, dense or sparse, in memory, on disk (h5py, zarr, anndata's sparse datasets), or as a dask array of either kind.
    rows
        Row numbers, ascending, ``(chosen,)`` int.
    step
        Largest number of rows of the matrix that a block spans. A dask array keeps its own blocks.

    Yields
    ------
    Row numbers of a block, and its rows as the matrix slices them (a ``dask.delayed`` for a dask array). Blocks without a chosen row
    are not read.

    Examples
    --------
    >>> import numpy as np
    >>> for rows, x in row_blocks(np.arange(12).reshape(6, 2), np.array([0, 1, 5]), 3):
    ...     print(rows, x.tolist())
    [0 1] [[0, 1], [2, 3]]
    [5] [[10, 11]]
    """
    lazy = is_dask(matrix)
    blocks = _delayed(matrix) if lazy else _spans(len(rows) and matrix.shape[0], step)
    pick = import_dask().delayed(_pick, pure=False) if lazy else _pick
    for start, stop, block in blocks:
        own = rows[slice(*np.searchsorted(rows, [start, stop]))]
        if not len(own):
            continue
        if not lazy:
            # One contiguous read is faster than choosing rows on disk, even if some rows are dropped afterwards.
            start, stop = own[0], own[-1] + 1
            block = matrix[start:stop]
        yield own, block if len(own) == stop - start else pick(block, own - start)


def is_dask(matrix: Any) -> bool:
    """Whether this is a dask array, without importing dask."""
    return type(matrix).__module__.startswith("dask.")


def _spans(n: int, step: int) -> Iterator[tuple[int, int, None]]:
    for start in range(0, n, step):
        yield start, min(start + step, n), None


def _delayed(matrix: Any) -> Iterator[tuple[int, int, Any]]:
    if np.isnan(matrix.shape[0]):
        raise ValueError("The row chunks of this dask array are of unknown size. Call its compute_chunk_sizes() first.")
    blocks = matrix.rechunk({1: -1}) if matrix.numblocks[1] > 1 else matrix
    stop = np.cumsum(blocks.chunks[0])
    yield from zip(stop - blocks.chunks[0], stop, blocks.to_delayed()[:, 0], strict=True)


def _pick(block: Any, rows: np.ndarray) -> Any:
    return block[rows]
