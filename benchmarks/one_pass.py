"""Speed and memory of the pass over the cells: ``python benchmarks/one_pass.py [--cells 1000000]``.

Writes ``one_pass.csv`` beside this file. Speed is that of ``x.T @ x`` in float32 over the same chunks, measured in turn with
the pass; memory is that of a process that reads a backed h5ad (``--cells 0`` leaves it out; a million cells take 2 GB of disk).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from common import peak_mb
from threadpoolctl import threadpool_limits

from scgim.statistics import accumulate

if TYPE_CHECKING:
    from collections.abc import Callable

CONDITIONS, GENES = 400, 500


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def speed(d: int, threads: int, *, chunks: int = 4, repeats: int = 7) -> dict[str, object]:
    """Best of several turns, so that other work on the machine slows both alike."""
    rng = np.random.default_rng(0)
    rows = min(2**14, 2**23 // d)
    cells = [
        (rng.normal(size=(rows, d)).astype(np.float32), rng.integers(CONDITIONS, size=rows)) for _ in range(chunks)
    ]
    bare, own = [], []
    with threadpool_limits(threads):
        for _ in range(repeats):
            bare.append(seconds(lambda: [x.T @ x for x, _ in cells]))
            own.append(seconds(lambda: accumulate(cells, n_conditions=CONDITIONS, n_genes=d, dtype=np.float32)))
    million = 1e6 / (rows * chunks)
    return {
        "genes": d,
        "threads": threads,
        "syrk_s_per_million": round(min(bare) * million, 2),
        "pass_s_per_million": round(min(own) * million, 2),
        "share_of_syrk_speed": round(min(bare) / min(own), 2),
    }


def write_screen(path: Path, n: int) -> None:
    """A float32 h5ad of ``n`` cells, written in pieces."""
    rng = np.random.default_rng(0)
    drug = pd.Categorical.from_codes(rng.integers(CONDITIONS, size=n), [f"drug {k}" for k in range(CONDITIONS)])
    obs = pd.DataFrame({"drug": drug}, index=pd.RangeIndex(n).astype(str))
    var = pd.DataFrame(index=[f"g{j:03d}" for j in range(GENES)])
    ad.AnnData(np.zeros((n, 0), np.float32), obs=obs).write_h5ad(path)
    with h5py.File(path, "a") as file:
        del file["X"], file["var"]
        ad.io.write_elem(file, "var", var)
        matrix = file.create_dataset("X", (n, GENES), np.float32)
        matrix.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for start in range(0, n, 10_000):
            matrix[start : start + 10_000] = rng.normal(size=(min(10_000, n - start), GENES))


def read_screen(path: str) -> None:
    """What the child process does: scan and pass. Prints seconds of both, and memory before and at most."""
    from scgim.data._matrix import CellMatrix

    adata = ad.read_h5ad(path, backed="r")
    cells = CellMatrix(adata, adata.var_names.to_numpy(str), layer=None, scale="continuous")
    code = adata.obs["drug"].cat.codes.to_numpy()
    before, scan = peak_mb(), seconds(cells.check)
    one = seconds(lambda: cells.statistics(code, n_conditions=CONDITIONS, dtype=np.float32))
    print(f"{scan:.1f} {one:.1f} {before:.0f} {peak_mb():.0f}")


def memory(n: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        write_screen(path, n)
        out = subprocess.run([sys.executable, __file__, "--read", path], check=True, capture_output=True, text=True)
    names = ("scan_s", "backed_pass_s", "mb_before", "mb_peak")
    return {"genes": GENES, "cells": n} | dict(zip(names, map(float, out.stdout.split()), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--read", help="internal: a file to read")
    args = parser.parse_args()
    if args.read:
        read_screen(args.read)
        return
    rows = [speed(d, threads) for threads in (1, 2) for d in (100, 500, 1000)]
    if args.cells:
        rows.append(memory(args.cells))
    table = pd.DataFrame(rows)
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False)
    print(table.to_string(index=False, na_rep=""))


if __name__ == "__main__":
    main()
