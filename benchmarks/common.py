"""What the benchmarks share: training, changes in control SD, baselines, tables on file and the options of a script.

Scripts set OMP_NUM_THREADS before they import this module, because numpy reads it once: their processes are the parallelism.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

import scgim
from scgim.evaluation import BASELINES, ConditionTable, compare
from scgim.metrics import pearson_delta, rmse_delta

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData

    from scgim.evaluation import Baseline

HERE = Path(__file__).parent
SPLIT, TRAIN, TEST = "scgim_split", "train", "test"
NO_CHANGE, MEAN = "no change", "training mean"
FEW = 3  # with fewer genes a correlation over genes says nothing
SURE = 0.5  # the least probability of a gene that counts as called


# ---- training ---------------------------------------------------------------------------------------------------------


class Seconds(NamedTuple):
    """How long a training took: by the clock, and of the processor, which another process beside it hardly changes."""

    clock: float
    processor: float


def fit(
    adata: AnnData, columns: dict, *, plan: dict | None = None, seed: int = 0, **options: object
) -> tuple[scgim.GIM, Seconds]:
    """A trained model, and the time of its training without the set-up."""
    scgim.setup_anndata(adata, **columns)
    model = scgim.GIM(adata, **options)
    clock, processor = time.perf_counter(), time.process_time()
    model.train(seed=seed, enable_progress_bar=False, plan_kwargs=plan)
    return model, Seconds(time.perf_counter() - clock, time.process_time() - processor)


def fit_without(adata: AnnData, columns: dict, test: np.ndarray, **options: object) -> scgim.GIM:
    """A model trained on all but the test cells."""
    adata.obs[SPLIT] = np.where(test, TEST, TRAIN)
    return fit(adata, columns | {"split_key": SPLIT}, **options)[0]


def matrix(edges: pd.DataFrame, genes: pd.Index, column: str = "strength") -> np.ndarray:
    """A column of a table of edges, ``(genes, genes)``, row = source; 0 where there is no edge."""
    out = np.zeros((len(genes), len(genes)))
    out[genes.get_indexer(edges["source"]), genes.get_indexer(edges["target"])] = edges[column]
    return out


def f1(found: np.ndarray, truth: np.ndarray) -> float:
    """F1 of found edges."""
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def called(model: scgim.GIM) -> pd.DataFrame:
    """The targets that a model calls, of all measured conditions."""
    table = model.rank_targets()
    return table[table["probability"] > SURE].astype({"drug": str})


# ---- changes in control SD --------------------------------------------------------------------------------------------


def dense(adata: AnnData) -> np.ndarray:
    """The matrix of a screen as an array."""
    return adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X, float)


def sizes(adata: AnnData, columns: dict) -> np.ndarray:
    """Sizes of the cells of a screen of counts: those on file if they are registered, else the sums of counts."""
    return adata.obs[columns["size_factor_key"]].to_numpy() if "size_factor_key" in columns else dense(adata).sum(1)


def on_scale(adata: AnnData, columns: dict) -> np.ndarray:
    """CellMatrix on the training scale."""
    x = dense(adata)
    if columns["scale"] != "counts":
        return x.astype(float)
    return np.log1p(1e4 * x / sizes(adata, columns)[:, None])


def standardized(adata: AnnData, columns: dict) -> tuple[pd.DataFrame, pd.Series]:
    """CellMatrix less the mean of the controls of their line and batch, over the pooled control SD; and that SD."""
    x, obs = pd.DataFrame(on_scale(adata, columns), adata.obs_names, adata.var_names), adata.obs
    control = (obs[columns["drug_key"]].astype(str) == columns["control"]).to_numpy()
    group = pd.Series("", adata.obs_names)
    for key in ("cell_line_key", "batch_key"):
        if key in columns:
            group = group + "/" + obs[columns[key]].astype(str)
    centred = x - x[control].groupby(group[control]).mean().loc[group].to_numpy()
    sd = np.sqrt((centred[control] ** 2).mean())
    return centred / sd, sd


def changes(adata: AnnData, columns: dict) -> tuple[pd.DataFrame, pd.Series]:
    """Mean change of every drug in every line, (drug, line) x genes; and the control SD."""
    cells, sd = standardized(adata, columns)
    obs = adata.obs[[columns["drug_key"]]].astype(str).set_axis(["drug"], axis=1)
    obs["line"] = adata.obs[columns["cell_line_key"]].astype(str) if "cell_line_key" in columns else ""
    treated = obs["drug"] != columns["control"]
    return cells[treated].groupby([obs["drug"][treated], obs["line"][treated]]).mean(), sd


def predicted(model: scgim.GIM, drugs: Iterable[str], sd: pd.Series) -> pd.DataFrame:
    """Predicted changes, (drug, line) x genes."""
    delta = model.predict(drug=list(drugs), as_="delta")
    index = pd.MultiIndex.from_frame(delta.obs[["drug", "cell_line"]].astype(str), names=["drug", "line"])
    return pd.DataFrame(delta.X, index, delta.var_names) / sd


# ---- baselines --------------------------------------------------------------------------------------------------------


def conditions(names: pd.DataFrame, features: np.ndarray, change: np.ndarray) -> ConditionTable:
    """Conditions as baselines see them; names without a dose get NaN, those without a line an empty name."""
    absent = {key: value for key, value in (("dose", np.nan), ("cell_line", "")) if key not in names}
    return ConditionTable(names.assign(**absent), features, change, np.ones(len(names)))


def trained_baseline(name: str, train: ConditionTable) -> Baseline:
    """A baseline that has seen the training conditions."""
    baseline = BASELINES[name]()
    baseline.fit(train)
    return baseline


def scored(methods: dict[str, pd.DataFrame], truth: pd.DataFrame, unit: np.ndarray) -> pd.DataFrame:
    """Error and correlation of every method, and the difference to the best of the baselines, resampled over units."""
    error = {name: pd.Series(rmse_delta(p, truth)) for name, p in methods.items()}
    best = min((name for name in methods if not name.startswith("scgim")), key=lambda name: error[name].mean())
    rows = []
    for name, change in methods.items():
        gap = compare(error[name], error[best], pd.Series(unit))
        rows.append({
            "method": name,
            "RMSE": error[name].mean(),
            "r": np.nanmean(pearson_delta(change, truth)) if np.ptp(change.to_numpy()) else None,
            "RMSE less that of the best baseline": "" if name == best else interval(gap.difference, gap.low, gap.high),
        })  # fmt: skip
    return pd.DataFrame(rows)


# ---- text and tables --------------------------------------------------------------------------------------------------


def interval(value: float, low: float, high: float, digits: int = 3, sign: str = "") -> str:
    """A value with its interval; `sign` "+" writes the sign of positive numbers too."""
    value, low, high = (f"{number:{sign}.{digits}f}" for number in (value, low, high))
    return f"{value} [{low}, {high}]"


def gap(one: pd.Series, other: pd.Series, unit: pd.Series) -> str:
    """Mean difference of two methods' errors over paired conditions, with its interval over units."""
    found = compare(one, other, unit)
    return interval(found.difference, found.low, found.high, sign="+")


def mean_and_sd(values: pd.Series, digits: int = 2) -> str:
    """Mean and standard deviation over seeds."""
    values = values.dropna()
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}" if len(values) else ""


def write(table: pd.DataFrame, name: str, digits: int = 3) -> pd.DataFrame:
    """A table beside this file, and printed."""
    table.round(digits).to_csv(HERE / f"{name}.csv", index=False)
    print(f"\n{name}\n{table.round(digits).to_string(index=False)}", flush=True)
    return table


def progress(rows: list[dict], columns: Iterable[str] | None = None) -> None:
    """Print the last row, and the names of columns above the first one."""
    row = pd.DataFrame(rows[-1:])[list(columns or rows[-1])]
    print(row.round(3).to_string(index=False, header=len(rows) == 1), flush=True)


# ---- scripts and processes --------------------------------------------------------------------------------------------


def arguments(
    description: str | None,
    *,
    parts: Iterable[str] = (),
    data: bool = False,
    jobs: int | None = None,
    seeds: int | None = None,
    out: Path | None = None,
) -> argparse.ArgumentParser:
    """The options that scripts share, each where a default or a choice is given for it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if data:
        parser.add_argument("--data", type=Path, required=True, help="folder of the measured screens")
    if parts:
        parser.add_argument("--only", nargs="+", default=list(parts), choices=list(parts), help="parts to run")
    if jobs is not None:
        parser.add_argument("--jobs", type=int, default=jobs, help="processes at a time")
    if seeds is not None:
        parser.add_argument("--seeds", type=int, default=seeds, help="seeds of every screen")
    if out is not None:
        parser.add_argument("--out", type=Path, default=out, help="where tables are written")
    return parser


def processes(n: int) -> ProcessPoolExecutor:
    """A pool of fresh processes: a fork would inherit the threads of numba and torch."""
    return ProcessPoolExecutor(n, mp_context=get_context("spawn"))


def peak_mb() -> float:
    """Most memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def quiet() -> None:
    """Warnings about what is known of the measured screens: panels are small, and two drugs have one fingerprint."""
    warnings.filterwarnings("ignore", message=".*[Ss]ize", category=UserWarning)
    warnings.filterwarnings("ignore", message=".*identical fingerprints", category=UserWarning)
