"""scgim beside other methods of causal discovery, on the same cells: ``python benchmarks/peers.py [--environments FOLDER]``.

Every rival is installed into an environment of its own, and every fit is a process of its own with one thread; see ``peers/``.
Seconds and memory are those of the fit, libraries loaded. Seconds are the processor's: other work on the machine hardly changes
them. Before every run of SDCD scgim is run again, so that both have met the same load. Writes beside this file
``peers_runs.csv``, every run; ``peers.csv``, means; and ``peers.png``. Other runs in ``peers_runs.csv`` stay as they are.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from common import HERE, arguments
from simulated import true_graph

import scgim

SCREENS = {
    "linear shift": {"mechanism": "linear", "intervention": "shift"},
    "linear hard": {"mechanism": "linear", "intervention": "hard"},
    "network shift": {"mechanism": "network", "intervention": "shift"},
}
# setuptools: sdcd's wandb imports pkg_resources, which it does not require and newer setuptools do not have
PACKAGES = {
    "sdcd": ["sdcd", "setuptools<81"],
    "gies": ["gies"],
    "causaldag": ["causaldag"],
    "gnies": ["gnies"],
    "dagma": ["dagma"],
    "cascade": ["cascade-reg"],
}
ONE_THREAD = dict.fromkeys(
    ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMEXPR_NUM_THREADS"], "1"
)
OWN = "scgim"
PATIENCE = 10  # times the limit by the clock, should the machine be busy or a fit wait for something


@dataclass(frozen=True)
class Method:
    """Which driver in ``peers/`` runs where, and what it is told, in the words of ``peers.csv`` (a context is a condition).

    It ``asks`` for settings of the screen by their names, and may be for screens of one mechanism ``only``.
    """

    driver: str
    environment: str | None
    told: str
    settings: dict = field(default_factory=dict)
    asks: tuple[str, ...] = ()
    slow: bool = False
    only: str = ""

    @property
    def knows_targets(self) -> bool:
        return self.told.startswith("targets")


FAMILY = ("mechanism", "intervention")
METHODS = {
    OWN: Method("scgim", None, "contexts, drug features", asks=FAMILY),
    "scgim, no features": Method("scgim", None, "contexts", {"features": False}, FAMILY),
    "SDCD, targets": Method("sdcd", "sdcd", "targets", slow=True),
    "SDCD": Method("sdcd", "sdcd", "nothing, cells pooled", slow=True),
    "CASCADE": Method("cascade", "cascade", "targets"),
    "GIES": Method("gies", "gies", "targets"),
    "UT-IGSP": Method("utigsp", "causaldag", "contexts"),
    "GnIES": Method("gnies", "gnies", "contexts"),
    "DAGMA, controls": Method("dagma", "dagma", "controls alone", {"use": "controls"}),
    "DAGMA, pooled": Method("dagma", "dagma", "nothing, cells pooled", {"use": "pooled"}),
    "DAGMA, centred": Method("dagma", "dagma", "contexts", {"use": "centred"}),
    "DAGMA network, controls": Method(
        "dagma", "dagma", "controls alone", {"use": "controls", "mechanism": "network"}, only="network"
    ),
}


# --- environments


def install(folder: Path, name: str) -> str:
    """Make an environment, or complete it; the error in a line, or nothing."""
    python = folder / name / "bin" / "python"
    try:
        if not python.exists():
            command(sys.executable, "-m", "venv", folder / name)
        constraints = HERE.parent / "constraints.txt"
        command(python, "-m", "pip", "install", "--quiet", "--constraint", constraints, *PACKAGES[name])
    except subprocess.SubprocessError as error:
        return complaint(error)
    return ""


def command(*words: object, seconds: float = 1200) -> None:
    subprocess.run(
        [str(word) for word in words],
        check=True,
        timeout=seconds,
        capture_output=True,
        text=True,
        env={**os.environ, **ONE_THREAD, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )


def complaint(error: subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no result within {error.timeout:.0f} s by the clock"
    if error.returncode == -signal.SIGXCPU:
        return "no result within the limit"
    return shortened(error.stderr) or f"ended with code {error.returncode}"


def shortened(output: str) -> str:
    lines = [line for line in output.strip().splitlines() if line.strip() and "WARNING" not in line]
    return lines[-1].strip()[:100] if lines else ""


# --- cells and truth


@dataclass(frozen=True)
class Truth:
    """What fits are judged by: genes x genes, conditions x genes, and the control cells."""

    graph: np.ndarray
    targets: np.ndarray
    control: np.ndarray


def draw(settings: dict, seed: int, told: Path, untold: Path) -> Truth:
    """Write the cells, with and without the targets of every condition; the graph is in neither file.

    Conditions are drug at dose, 0 the controls. Genes are standardized by the controls (``x``), as rivals expect;
    ``raw`` is what was simulated.
    """
    adata = scgim.datasets.simulate_screen(seed=seed, n_new_drugs=0, **settings)
    pairs = adata.obs[["drug", "dose"]].astype({"drug": str}).fillna({"dose": 0})
    conditions = pairs.drop_duplicates().sort_values(["dose", "drug"]).reset_index(drop=True)  # controls have dose 0
    condition = pd.MultiIndex.from_frame(conditions).get_indexer(pd.MultiIndex.from_frame(pairs))
    raw, control = adata.X, condition == 0
    x = (raw - raw[control].mean(0)) / raw[control].std(0)
    hit = pd.DataFrame(adata.uns["truth"]["targets"] > 0, index=adata.uns["truth"]["drugs"])
    targets = hit.reindex(conditions["drug"], fill_value=False).to_numpy()
    table = adata.uns["drug_features"]
    cells = {
        "x": x,
        "raw": raw,
        "condition": condition,
        "drug": conditions["drug"].to_numpy(str),
        "dose": conditions["dose"].to_numpy(float),
        "features": table.to_numpy(float),
        "features_of": table.index.to_numpy(str),
    }
    np.savez(untold, **cells)
    np.savez(told, **cells, targets=targets)
    return Truth(true_graph(adata), targets, x[control])


# --- fits

MEASURED = ("seconds", "clock_seconds", "start_seconds", "start_clock_seconds", "mb_before", "mb_peak")


def run(method: Method, screen: dict, cells: Path, truth: Truth, python: Path, limit: float) -> dict[str, object]:
    settings = method.settings | {name: screen[name] for name in method.asks}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.npz"
        try:
            words = (python, HERE / "peers" / "child.py", method.driver, json.dumps(settings), cells, out, limit)
            command(*words, seconds=PATIENCE * limit)
        except subprocess.SubprocessError as error:
            return {"remark": complaint(error).replace("the limit", f"{limit:.0f} s")}
        with np.load(out) as file:
            found = dict(file)
    return judged(found, truth) | {name: float(found[name]) for name in MEASURED} | {"remark": ""}


def judged(found: dict[str, np.ndarray], truth: Truth) -> dict[str, float]:
    graph = found["graph"] != 0
    strength = found["strength"] if "strength" in found else regressed(graph, truth.control)
    called = found.get("called")
    try:
        sid = scgim.metrics.sid(graph, truth.graph)
    except ValueError:  # a cycle
        sid = float("nan")
    return {
        "edge_ap": scgim.metrics.edge_average_precision(strength, truth.graph),
        "shd": scgim.metrics.shd(graph, truth.graph),
        "sid": sid,
        "edges": int(graph.sum()),
        "true_edges": int(truth.graph.sum()),
        "target_f1": float("nan") if called is None else scgim.metrics.target_f1(called[1:], truth.targets[1:]),
    }


def regressed(graph: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Strengths for a graph that has none: sizes of the coefficients of each gene on its parents in the controls."""
    strength = np.zeros(graph.shape)
    for j in range(len(graph)):
        strength[graph[:, j], j] = abs(np.linalg.lstsq(control[:, graph[:, j]], control[:, j], rcond=None)[0])
    return strength


def order(methods: list[str]) -> list[str]:
    """scgim first if it is asked for, and again before every slow rival."""
    jobs = [job for name in methods if name != OWN for job in ((OWN, name) if METHODS[name].slow else (name,))]
    return jobs if OWN in jobs or OWN not in methods else [OWN, *jobs]


def suits(name: str, screen: str) -> bool:
    return METHODS[name].only in ("", SCREENS[screen]["mechanism"])


def keep(rows: list[dict], path: Path) -> pd.DataFrame:
    """Write the runs, those of earlier calls included unless they were done again."""
    new, key = pd.DataFrame(rows), ["screen", "seed", "method"]
    old = pd.read_csv(path, keep_default_na=False, na_values=[""]) if path.exists() else new[:0]
    again = pd.MultiIndex.from_frame(old[key]).isin(pd.MultiIndex.from_frame(new[key]))
    runs = pd.concat([frame for frame in (old[~again], new) if len(frame)], ignore_index=True)
    place = {name: k for k, name in enumerate([*SCREENS, *METHODS])}
    runs = runs.sort_values(
        key, key=lambda column: column.map(place) if column.name != "seed" else column, kind="stable"
    )
    runs.round(4).to_csv(path, index=False)
    return runs.fillna({"remark": ""})


# --- what is shown


def ratios(runs: pd.DataFrame, column: str) -> pd.Series:
    """Times as long as scgim on the same screen and seed, the mean of its runs there."""
    own = runs[runs["method"] == OWN].groupby(["screen", "seed"])[column].mean().rename("own")
    return runs[column] / runs.join(own, on=["screen", "seed"])["own"]


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    runs = runs.assign(ratio=ratios(runs, "seconds"))
    rows = []
    for (screen, method), group in runs.groupby(["screen", "method"], sort=False):
        done = group[group["seconds"].notna()]
        means = done.groupby("seed")[[*SHOWN]].mean().mean()  # repeated runs of a seed count once
        row = {"screen": screen, "method": method, "told": METHODS[method].told, "seeds": group["seed"].nunique()}
        row |= {label: "" if np.isnan(means[name]) else f"{means[name]:.{d}f}" for name, (label, d) in SHOWN.items()}
        rows.append(row | {"remark": next((text for text in group["remark"] if text), "")})
    return pd.DataFrame(rows)


SHOWN = {
    "edge_ap": ("edge AP", 3),
    "shd": ("SHD", 1),
    "sid": ("SID", 0),
    "target_f1": ("target F1", 3),
    "seconds": ("seconds", 1),
    "ratio": ("times scgim", 1),
    "start_seconds": ("start, s", 0),
    "mb_peak": ("MB", 0),
}


def figure(runs: pd.DataFrame, path: Path) -> None:
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, len(SCREENS), figsize=(13, 4.2), sharex=True, sharey=True, layout="constrained")
    for ax, screen in zip(axes, SCREENS, strict=True):
        for k, (name, method) in enumerate(METHODS.items()):
            rows = runs[(runs["screen"] == screen) & (runs["method"] == name)]
            look = {"marker": "^" if method.knows_targets else "o", "color": plt.colormaps["tab20"](k * 2 % 19)}
            mean = rows.groupby("seed")[["seconds", "edge_ap"]].mean()
            ax.scatter(mean["seconds"], mean["edge_ap"], s=42, label=name, edgecolor="k", lw=0.5, **look)
        ax.set(xscale="log", xlabel="seconds on one core", title=screen, ylim=(0, 1.04))
        ax.grid(color="0.92")
        ax.set_axisbelow(True)
    axes[0].set_ylabel("edge average precision")
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(
        handles, labels, loc="outside right center", frameon=False, fontsize=9, title="triangles: told the targets"
    )
    fig.savefig(path, dpi=130)


# --- all of it


def main() -> None:
    # jobs: how many fits run at a time, one by default so that none slows another
    parser = arguments(__doc__, jobs=1, out=HERE / "peers.csv")
    parser.add_argument(
        "--environments", type=Path, help="folder to make or find environments in; else a temporary one"
    )
    parser.add_argument("--screens", nargs="+", default=list(SCREENS), choices=list(SCREENS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--limit", type=float, default=900, help="seconds of the processor after which a fit is ended")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        environments = options.environments or Path(scratch) / "environments"
        needed = dict.fromkeys(METHODS[name].environment for name in options.methods)
        errors = {name: install(environments, name) for name in needed if name}
        screens = [(screen, seed) for seed in options.seeds for screen in options.screens]
        files = {
            at: tuple(Path(scratch) / f"{at[0]} {at[1]} {kind}.npz" for kind in ("told", "untold")) for at in screens
        }
        truth = {at: draw(SCREENS[at[0]], at[1], *files[at]) for at in screens}

        def fit(at: tuple[str, int], name: str) -> dict[str, object]:
            method = METHODS[name]
            row = {"screen": at[0], "seed": at[1], "method": name}
            if errors.get(method.environment):
                return row | {"remark": errors[method.environment]}
            python = environments / method.environment / "bin" / "python" if method.environment else sys.executable
            cells = files[at][not method.knows_targets]
            return row | run(method, SCREENS[at[0]], cells, truth[at], python, options.limit)

        with ThreadPoolExecutor(options.jobs) as pool:
            jobs = [
                pool.submit(fit, at, name) for at in screens for name in order(options.methods) if suits(name, at[0])
            ]
            rows = []
            for job in as_completed(jobs):
                rows.append(job.result())
                print({key: round(v, 3) if isinstance(v, float) else v for key, v in rows[-1].items()}, flush=True)
                runs = keep(rows, options.out.with_stem(options.out.stem + "_runs"))
    summary(runs).to_csv(options.out, index=False)
    print(summary(runs).to_string(index=False))
    figure(runs, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
