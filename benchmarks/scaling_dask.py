"""The pass over cells of UMI counts on one core, and on dask's worker processes; a part of ``scaling.py --dask``.

Cells are sparse counts in a zarr store, as anndata writes it. ``check`` is the scan of set-up, ``pass`` the first pass of training, and
``passes`` everything that training reads: three passes and the stored controls. Times are medians of three: of the processor on one
core, and by the clock on dask. Writes ``scaling_dask.csv`` beside this file.
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import zarr
from common import processes, progress
from threadpoolctl import threadpool_limits

import scgim
from scgim.data._matrix import CellMatrix

if TYPE_CHECKING:
    from collections.abc import Callable

CONDITIONS, CHUNK, REPEATS = 400, 10_000, 3
WORKERS, GENES, CELLS = (1, 2, 4), 100, 200_000
RATES = {100: 200_000, 500: 160_000, 2000: 60_000}  # genes: cells


def write(path: Path, genes: int, cells: int) -> None:
    """A zarr store of counts, in chunks of rows."""
    rng = np.random.default_rng(0)
    mean = rng.gamma(0.3, 0.5, genes).clip(0.02)
    blocks = [sp.csr_matrix(rng.poisson(mean, (CHUNK, genes)).astype(np.float32)) for _ in range(cells // CHUNK)]
    obs = pd.DataFrame({"condition": rng.integers(CONDITIONS, size=cells)}, index=[f"c{i}" for i in range(cells)])
    obs["drug"] = pd.Categorical(obs["condition"].astype(str))
    x = sp.vstack(blocks, format="csr")
    x[np.flatnonzero(np.diff(x.indptr) == 0), 0] = 1  # no cell is empty
    ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{j:04d}" for j in range(genes)])).write_zarr(path)


def opened(path: Path, *, lazy: bool) -> ad.AnnData:
    """The cells of a store, in memory or as a dask array."""
    group = zarr.open_group(path, mode="r")
    obs, var = ad.io.read_elem(group["obs"]), ad.io.read_elem(group["var"])
    if lazy:
        x = ad.experimental.read_elem_lazy(group["X"], chunks=(CHUNK, len(var)))
    else:
        x = ad.io.read_elem(group["X"])
    return ad.AnnData(x, obs=obs, var=var)


def seconds(function: Callable[[], object], clock: Callable[[], float]) -> float:
    taken = []
    for _ in range(REPEATS):
        start = clock()
        function()
        taken.append(clock() - start)
    return median(taken)


def times(path: Path, *, lazy: bool) -> dict[str, float]:
    adata, clock = opened(path, lazy=lazy), time.perf_counter if lazy else time.process_time
    cells = CellMatrix(adata, adata.var_names.to_numpy(str), layer=None, scale="counts")
    code, n = adata.obs["condition"].to_numpy(), adata.n_obs
    one = lambda: cells.statistics(code, n_conditions=CONDITIONS, dtype=np.float32)
    one()  # imports and compiles, on the workers too
    scgim.setup_anndata(adata, drug_key="drug", control="0", scale="counts")
    model = scgim.GIM(adata)
    found = {"check": seconds(cells.check, clock), "pass": seconds(one, clock)}
    found["passes"] = seconds(lambda: model._read(0), clock)
    return {f"{name}_s": round(value, 2) for name, value in found.items()} | {
        f"cells_per_s_{name}": int(round(n / value, -2)) for name, value in found.items()
    }


def on_one_core(path: Path) -> dict[str, float]:
    warnings.simplefilter("ignore")
    with threadpool_limits(1):
        return times(path, lazy=False)


def on_workers(path: Path, workers: int) -> dict[str, float]:
    from dask.distributed import Client, LocalCluster

    warnings.simplefilter("ignore")
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        return times(path, lazy=True)


def bytes_per_cell(path: Path, cells: int) -> int:
    """Compressed size of the matrix on disk."""
    return round(sum(file.stat().st_size for file in (path / "X").rglob("*") if file.is_file()) / cells)


def main(out: Path) -> None:
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"  # inherited by the workers
    warnings.simplefilter("ignore")
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        for genes, cells in RATES.items():
            path = Path(folder) / f"{genes}.zarr"
            write(path, genes, cells)
            about = {
                "genes": genes,
                "cells": cells,
                "cores": os.cpu_count(),
                "bytes_a_cell": bytes_per_cell(path, cells),
            }
            jobs = {"memory": (on_one_core, path)}
            if genes == GENES:
                jobs |= {f"dask, {n} processes": (on_workers, path, n) for n in WORKERS}
            for where, (function, *arguments) in jobs.items():
                with processes(1) as pool:
                    rows.append(about | {"cells in": where} | pool.submit(function, *arguments).result())
                progress(rows)
                pd.DataFrame(rows).to_csv(out, index=False)
