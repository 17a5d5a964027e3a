"""From a fresh process to the first trained model of the Sachs data: ``python benchmarks/first_answer.py [--repeats 3]``.

Medians of processor seconds and seconds by the clock, with numba's cache warm and empty, and of the import of scvi-tools alone, the least
that any model of scvi-tools takes. Writes ``first_answer.csv`` beside this file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import pandas as pd

SCVI = "import scvi.model.base, scvi.train"
ANSWER = """
import scgim
adata = scgim.datasets.sachs()
scgim.setup_anndata(adata, drug_key="drug", control="cd3cd28", scale="continuous", smiles_key="smiles")
model = scgim.GIM(adata)
model.train(seed=0, enable_progress_bar=False)
"""
TIMED = "import time; start = time.perf_counter()\n{}\nprint(time.process_time(), time.perf_counter() - start)"
MODES = ("import scgim", "import of scvi-tools", "model, cache warm", "model, cache empty")


def run(mode: str, cache: str) -> tuple[float, float]:
    """Processor seconds of a process, and its seconds by the clock from the start of its interpreter."""
    code = {"import scgim": "import scgim", "import of scvi-tools": SCVI}.get(mode, ANSWER)
    command = [sys.executable, "-c", TIMED.format(code)]
    out = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"NUMBA_CACHE_DIR": cache}
    )
    processor, clock = map(float, out.stdout.split()[-2:])
    return processor, clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    rows = []
    with tempfile.TemporaryDirectory() as warm:
        run("model, cache warm", warm)
        for mode in MODES:
            taken = []
            for _ in range(repeats):
                with tempfile.TemporaryDirectory() as empty:
                    taken.append(run(mode, empty if "empty" in mode else warm))
            processor, clock = (round(median(each), 2) for each in zip(*taken, strict=True))
            rows.append({"what": mode, "processor_s": processor, "clock_s": clock})
            print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(Path(__file__).with_suffix(".csv"), index=False)


if __name__ == "__main__":
    main()
