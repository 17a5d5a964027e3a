"""Seconds and memory that ``scgim.pp.check`` predicts, beside measured ones: ``python benchmarks/resources.py [--fit]``.

Every screen is set up, trained on and predicted (means of all conditions) in a process of its own. Seconds are of the processor, and
memory is the rise of the peak during the phase. Writes ``resources.csv`` beside this file. ``--only`` measures the screens of one
likelihood again, and ``--memory`` leaves out the search of the graph, so that only the memory of training is measured. ``--fit`` measures nothing: it reads
``resources.csv`` and prints the constants of ``scgim._costs`` that fit it, in log ratios.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from common import processes, progress
from scipy.optimize import least_squares, nnls
from simulated import COLUMNS

import scgim
from scgim._costs import BYTES, SECONDS, TERMS, ScreenSize, cost

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

PHASES = ("set-up", "training", "prediction")


class Screen(NamedTuple):
    """Arguments of :func:`scgim.datasets.simulate_screen`; four doses a drug."""

    genes: int
    drugs: int
    cells: int
    controls: int
    counts: bool


SCREENS = [
    Screen(20, 100, 50, 800, False),
    Screen(100, 25, 50, 800, False),
    Screen(100, 100, 50, 800, False),
    Screen(300, 100, 50, 800, False),
    Screen(100, 100, 500, 8000, False),
    Screen(100, 400, 20, 800, False),
    Screen(30, 600, 10, 800, False),
    Screen(1000, 50, 50, 800, False),
    Screen(500, 300, 10, 800, False),
    Screen(300, 100, 500, 8000, False),
    Screen(30, 100, 50, 800, True),
    Screen(100, 25, 50, 800, True),
    Screen(100, 100, 50, 800, True),
    Screen(300, 50, 50, 800, True),
    Screen(100, 100, 500, 8000, True),
    Screen(100, 400, 20, 800, True),
    Screen(30, 600, 10, 800, True),
    Screen(500, 25, 50, 800, True),
]


def draw(screen: Screen) -> tuple[AnnData, dict]:
    """A simulated screen, and the columns of its set-up."""
    observation = "counts" if screen.counts else "continuous"
    adata = scgim.datasets.simulate_screen(
        n_genes=screen.genes,
        n_drugs=screen.drugs,
        n_cells=screen.cells,
        n_control=screen.controls,
        observation=observation,
        n_bits=64,
        n_new_drugs=0,
        new_doses=[3],
    )
    return adata, COLUMNS | {"scale": observation}


class Meter:
    """Processor seconds, and the rise of the peak of memory (Linux), of everything in a ``with`` block."""

    def __enter__(self) -> Meter:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
        self.seconds, self.megabytes = time.process_time(), self.status("VmRSS")
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.process_time() - self.seconds
        self.megabytes = self.status("VmHWM") - self.megabytes

    @staticmethod
    def status(name: str) -> float:
        text = Path("/proc/self/status").read_text()
        return int(text.split(f"{name}:")[1].split()[0]) / 1000


def measure(
    memory_alone: bool, read: Callable[..., tuple[AnnData, dict]], *arguments: object
) -> list[dict[str, object]]:
    """Cost of every phase on a screen; a small screen goes before, so that nothing is imported or compiled in between."""
    warnings.simplefilter("ignore")
    adata, columns = draw(Screen(8, 8, 20, 100, False))
    run(adata, columns)
    run(*draw(Screen(8, 8, 20, 100, True)))
    adata, columns = read(*arguments)
    costs, model = run(adata, columns, **({"structure": "none"} if memory_alone else {}))
    if memory_alone:
        costs[PHASES.index("training")]["seconds"] = np.nan
    means, summary = model._from_means(), model.summary_
    size = ScreenSize(adata.n_obs, adata.n_vars, len(summary.design.drug), summary.controls.shape[0])
    about = {"likelihood": "means" if means else "cells", **size._asdict()}
    return [about | {"phase": phase} | found for phase, found in zip(PHASES, costs, strict=True)]


def run(adata: AnnData, columns: dict, **options: object) -> tuple[list[dict[str, float]], scgim.GIM]:
    meters = [Meter() for _ in PHASES]
    with meters[0]:
        scgim.setup_anndata(adata, **columns)
        model = scgim.GIM(adata, **options)
    with meters[1]:
        model.train(enable_progress_bar=False)
    with meters[2]:
        model.predict(as_="mean")
    return [{"seconds": round(m.seconds, 2), "mb": round(m.megabytes, 1)} for m in meters], model


def beside_predicted(table: pd.DataFrame) -> pd.DataFrame:
    """The measured table with predicted seconds and memory, and the ratios."""
    found = [cost(phase_name(row), size_of(row)) for row in table.itertuples()]
    table["seconds_predicted"] = [round(each.seconds, 2) for each in found]
    table["mb_predicted"] = [round(each.bytes / 1e6, 1) for each in found]
    for name in ("seconds", "mb"):
        table[f"{name}_ratio"] = (table[f"{name}_predicted"] / table[name].clip(lower=FLOOR[name])).round(2)
    return table


# What arrays and products take at least, where the measured screens are too small to show it, by phase without its likelihood.
LEAST: dict[str, dict[str, dict[str, float]]] = {
    "SECONDS": {"training": {"cells x genes^2": 1e-11, "conditions x genes": 1e-6}},
    "BYTES": {
        "training": {"block": 4, "conditions x genes": 40, "genes^2": 8},
        "prediction": {"conditions x genes": 8},
    },
}
FLOOR = {"seconds": 0.1, "mb": 5.0}  # smaller values are noise


def phase_name(row: tuple) -> str:
    """The phase in ``scgim._costs``."""
    return row.phase if row.phase == "set-up" else f"{row.phase} on {row.likelihood}"


def fit(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Constants that fit the measured table, by quantity, phase and term; those of readout genes are left as they are."""
    out: dict = {}
    for name, column, unit, known in (("SECONDS", "seconds", 1.0, SECONDS), ("BYTES", "mb", 1e6, BYTES)):
        for phase, constants in known.items():
            rows = table[[phase_name(row) == phase for row in table.itertuples()]].dropna(subset=column)
            if rows.empty:
                continue
            terms = [term for term in constants if "readout" not in term]
            measured = rows[column].clip(lower=FLOOR[column]).to_numpy() * unit
            design = np.array([[TERMS[term](size_of(row)) for term in terms] for row in rows.itertuples()])
            relative = design / measured[:, None]
            least = LEAST[name].get(phase.partition(" on ")[0], {})
            least = np.array([least.get(term, 0.0) for term in terms])
            found = least + fitted_to(relative, least)
            found[(relative * found).max(0) < 1e-3] = 0.0
            fitted = {term: float(f"{value:.2g}") for term, value in zip(terms, found, strict=True)}
            out.setdefault(name, {})[phase] = constants | fitted
    return out


def fitted_to(relative: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Constants above ``least`` with small fourth powers of log ratios: a factor of 2 is the same error in both directions."""
    scale = relative.max(0)
    start = nnls(relative / scale, np.ones(len(relative)))[0] + 1e-3

    def errors(constants: np.ndarray) -> np.ndarray:
        return np.log(relative @ least + relative / scale @ constants) ** 2

    return least_squares(errors, start, bounds=(0, np.inf)).x / scale


def size_of(row: tuple) -> ScreenSize:
    return ScreenSize(row.cells, row.genes, row.conditions, row.controls)


def of_file(path: str, columns: dict) -> tuple[AnnData, dict]:
    import anndata as ad

    return ad.read_h5ad(path), columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", action="store_true", help="print constants that fit resources.csv")
    parser.add_argument("--only", choices=["cells", "means"], help="the likelihood of the screens to measure")
    parser.add_argument("--memory", action="store_true", help="train without a graph: memory without seconds")
    parser.add_argument("--h5ad", help="a screen on file, beside the simulated ones")
    parser.add_argument("--columns", type=json.loads, help="arguments of its set-up, as JSON")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    if options.fit:
        print(json.dumps(fit(pd.read_csv(options.out)), indent=4))
        return
    jobs: list[tuple] = [
        (draw, each) for each in SCREENS if options.only in (None, "means" if each.counts else "cells")
    ]
    if options.h5ad:
        jobs = [(of_file, options.h5ad, options.columns)]
    old = pd.read_csv(options.out).query("likelihood != @options.only") if options.only else None
    rows: list[dict] = []
    for job in jobs:
        with processes(1) as pool:
            rows += pool.submit(measure, options.memory, *job).result()
        progress(rows)
        found = beside_predicted(pd.concat([old, pd.DataFrame(rows)], ignore_index=True))
        found.to_csv(options.out, index=False)
    print(found.to_string(index=False))


if __name__ == "__main__":
    main()
