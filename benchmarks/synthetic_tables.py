"""Tables and figure of ``benchmarks/synthetic.py``."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from common import gap, mean_and_sd
from synthetic_screens import TESTS

from scgim.evaluation import BASELINES, EMPTY, SCGIM

if TYPE_CHECKING:
    from pathlib import Path

METHODS = [*BASELINES, EMPTY, SCGIM]


def by_setting(runs: pd.DataFrame, columns: dict[str, str], **digits: int) -> pd.DataFrame:
    """Columns of the runs under other names, a row for each setting."""
    rows = [
        {"setting": name} | {new: mean_and_sd(part[old], digits.get(old, 2)) for old, new in columns.items()}
        for name, part in runs.groupby("setting", sort=False)
    ]
    return pd.DataFrame(rows)


def best_baseline(part: pd.DataFrame, test: str) -> str:
    """The baseline of least mean error over seeds."""
    return min((m for m in BASELINES if f"{test} {m}" in part), key=lambda m: part[f"{test} {m}"].mean(skipna=False))


def error_table(runs: pd.DataFrame, errors: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for test, (name, part) in product(TESTS, runs.groupby("setting", sort=False)):
        known = part.dropna(axis=1, how="all")
        best = best_baseline(known, test)
        conditions = errors[(errors["setting"] == name) & (errors["test"] == test)]
        row = {"setting": name, "test": TESTS[test]}
        row |= {
            method: mean_and_sd(part[f"{test} {method}"], 3) if f"{test} {method}" in part else "" for method in METHODS
        }
        for other, label in {best: "scgim - best baseline", EMPTY: "scgim - empty graph"}.items():
            row[label] = gap(conditions[SCGIM], conditions[other], conditions["drug"])
            row[f"better in seeds, {label.split(' - ')[1]}"] = (
                f"{(part[f'{test} {SCGIM}'] < part[f'{test} {other}']).sum()} of {len(part)}"
            )
        rows.append(row)
    return pd.DataFrame(rows)


GRAPHS = {
    "edges": "true edges",
    "edge AP": "edge AP",
    "edge AP, variance order": "edge AP, order of variance",
    "edge AP, R2 order": "edge AP, order of R2",
    "SHD": "SHD",
    "SID": "SID",
    "SID, empty": "SID, empty graph",
    "variance sortability": "varsortability",
    "R2 sortability": "R2-sortability",
    "seconds": "CPU seconds",
}
TARGETS = {
    f"{rows} {metric}{label}": f"{rows}: {metric}{shown}"
    for rows, labels in {
        "seen": {"": "", ", empty": ", empty graph", ", |z|": ", |z|"},
        "unseen": {"": "", ", empty": ", empty graph", ", ridge": ", ridge"},
    }.items()
    for metric in ("AP", "F1")
    for label, shown in labels.items()
}
BROKEN = {
    "edge AP": "edge AP",
    "SHD": "SHD",
    "seen F1": "target F1, seen",
    "seen F1, |z|": "by |z|",
    "seen false calls": "false calls a context",
    "unseen F1": "target F1, unseen drugs",
    f"unseen_dose {SCGIM}": "RMSE, unseen doses",
    "unseen_dose best": "best baseline, doses",
    f"unseen_drug {SCGIM}": "RMSE, unseen drugs",
    f"unseen_drug {EMPTY}": "empty graph",
    "unseen_drug best": "best baseline, drugs",
    "unseen_drug control": "control",
}
COARSE = {"SHD": 1, "SID": 0, "SID, empty": 0, "edges": 0, "seconds": 1}


def with_best(runs: pd.DataFrame) -> pd.DataFrame:
    """Each setting's best baseline as columns of the runs."""
    parts = []
    for _, part in runs.groupby("setting", sort=False):
        known = part.dropna(axis=1, how="all")
        parts.append(part.assign(**{f"{t} best": part[f"{t} {best_baseline(known, t)}"] for t in TESTS}))
    return pd.concat(parts)


def figure(main: pd.DataFrame, broken: pd.DataFrame, path: Path) -> None:
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 4, figsize=(15, 4.8), layout="constrained", width_ratios=[1.1, 1.1, 1, 1])
    mark = {"shift": "o", "hard": "s"}
    for ax, test in zip(axes, TESTS, strict=False):
        shown = [m for m in METHODS if f"{test} {m}" in main]
        for k, (name, part) in enumerate(main.groupby("setting", sort=False)):
            mechanism, intervention, graph = name.split(", ")
            values = [part[f"{test} {m}"].mean() for m in shown]
            color = "C0" if mechanism == "linear" else "C1"
            fill = color if graph == "ER" else "none"
            at = np.arange(len(shown)) + 0.09 * (k - 3.5)
            label = name if test == "unseen_dose" else None
            ax.scatter(values, at, s=22, marker=mark[intervention], facecolor=fill, edgecolor=color, lw=1, label=label)
        ax.set(xlim=(0, None), xlabel=f"RMSE of the mean change, {TESTS[test]} (control SD)")
        ax.set_yticks(range(len(shown)), shown)
        ax.set_ylim(len(shown) - 0.5, -0.5)
    axes[0].legend(frameon=False, fontsize=8, loc="center right")
    names = list(broken["setting"].unique())
    panels = {
        "edge AP": {"edge AP": ("C0", "graph")},
        "target F1": {
            "seen F1": ("C0", "seen conditions"),
            "unseen F1": ("C2", "unseen drugs"),
            "seen F1, |z|": ("0.6", "seen, by |z|"),
        },
    }
    for ax, (title, columns) in zip(axes[2:], panels.items(), strict=True):
        for k, (column, (color, label)) in enumerate(columns.items()):
            apart = 0.2 * (k - (len(columns) - 1) / 2)
            ax.scatter(broken[column], broken["setting"].map(names.index) + apart, s=8, alpha=0.5, lw=0, color=color)
            mean = broken.groupby("setting")[column].mean().reindex(names)
            ax.scatter(mean, np.arange(len(names)) + apart, s=26, color=color, label=label)
        ax.set(xlim=(-0.03, 1.05), xlabel=title, ylim=(len(names) - 0.5, -0.5))
        ax.set_yticks(range(len(names)), names if title == "edge AP" else [])
    axes[3].legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, handletextpad=0)
    for ax in axes:
        for line in np.arange(ax.get_ylim()[0]):
            ax.axhline(line + 0.5, color="0.92", lw=0.8, zorder=0)
    fig.savefig(path, dpi=130)
