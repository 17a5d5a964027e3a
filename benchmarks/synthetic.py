"""The GIM paper's simulation, and where the model breaks: ``python benchmarks/synthetic.py [--seeds 5] [--jobs 2]``.

Screens of 20 genes, 40 drugs x 4 doses x 50 cells and 800 controls; tested on 5 unseen doses of these drugs and on 20 unseen
drugs. Then linear shift screens of which one thing is not as the model assumes, three seeds each. Writes beside this file

- ``synthetic.csv``: errors of predicted changes beside baselines; ``synthetic_graphs.csv``; ``synthetic_targets.csv``
- ``synthetic_breaks.csv``: a row for each break
- ``synthetic_seeds.csv``: every run; ``synthetic.png``

Errors are root mean squares over genes of predicted minus true mean change, in control sd, mean over conditions.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy reads it: the processes are the parallelism

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.metrics import average_precision_score, precision_recall_curve

import scgim
from scgim.evaluation import BASELINES, EMPTY, SCGIM, ConditionTable, compare
from scgim.metrics import (
    edge_average_precision,
    rmse_delta,
    shd,
    sid,
    sort_and_regress,
    target_f1,
    varsortability,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anndata import AnnData

HERE, CONTROL, SURE = Path(__file__).parent, "DMSO", 0.5
SETTINGS = {
    f"{mechanism}, {intervention}, {graph.upper()}": {
        "mechanism": mechanism,
        "intervention": intervention,
        "graph": graph,
    }
    for mechanism, intervention, graph in product(("linear", "network"), ("shift", "hard"), ("er", "sf"))
}
GRADIENT = ("network, shift, ER", "linear, shift, ER")  # on seed 0, structure="gradient" as well
BASE, BREAK_SEEDS = "linear, shift, ER", 3
TESTS = {"unseen_dose": "unseen doses", "unseen_drug": "unseen drugs"}
METHODS = [*BASELINES, EMPTY, SCGIM]


# ---- screens of which one thing is different -------------------------------------------------------------------------


class Parts:
    """A linear shift screen taken apart, in control sd: cells are ``(shift + noise) @ inv(1 - weight)``."""

    def __init__(self, seed: int) -> None:
        self.adata = scgim.datasets.simulate_screen(seed=seed)
        self.truth, self.rng = self.adata.uns["truth"], np.random.default_rng(seed)
        self.weight = self.adata.varp["true_weight"].toarray().astype(float)
        self.mean, self.sd = self.truth["control_mean"], self.truth["control_sd"]
        x, self.shift = (self.adata.X - self.mean) / self.sd, self.shifts()
        self.noise = x @ (np.eye(len(self.weight)) - self.weight) - self.shift

    def shifts(self) -> np.ndarray:
        """What the drug of every cell adds to every gene, (cells, genes)."""
        drug, dose = self.drug_of_cell(), self.adata.obs["dose"].fillna(1).to_numpy()[:, None]
        effect, ec50 = self.truth["effect"][drug], self.truth["ec50"][drug]
        return np.where(drug[:, None] < 0, 0, effect * dose / (dose + ec50))

    def drug_of_cell(self) -> np.ndarray:
        """Number of the drug, -1 for controls."""
        return pd.Index(self.truth["drugs"]).get_indexer(self.adata.obs["drug"].astype(str))

    def together(self) -> AnnData:
        """The screen of these parts, and the truth about it."""
        total = np.linalg.inv(np.eye(len(self.weight)) - self.weight)
        self.adata.X = (self.mean + self.sd * ((self.shift + self.noise) @ total)).astype(np.float32)
        self.adata.varp["true_graph"] = csr_matrix(self.weight != 0)
        for test in TESTS:
            self.truth[test]["mean"] = self.mean + self.sd * (self.truth[test]["shift"] @ total)
        self.truth["control_sd"] = self.sd * np.sqrt(np.diag(total.T @ np.cov(self.noise.T) @ total))
        return self.adata

    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """Motifs of the training drugs and of the unseen ones."""
        unseen = self.truth["unseen_drug"]
        first = np.unique(unseen["drug"].astype(str), return_index=True)[1]
        return self.truth["motifs"], unseen["features"][first]

    def with_features(self, train: np.ndarray, new: np.ndarray) -> AnnData:
        """The screen with other features of the same drugs."""
        columns = [f"feature_{i:03d}" for i in range(train.shape[1])]
        frame = pd.DataFrame(train.astype(np.float32), pd.Index(self.truth["drugs"], name="drug"), columns)
        self.adata.uns["drug_features"] = frame
        unseen = self.truth["unseen_drug"]
        unseen["features"] = new[np.unique(unseen["drug"].astype(str), return_inverse=True)[1]]
        return self.adata


def and_motifs(seed: int) -> AnnData:
    """Every motif is two halves that act only together; a drug without it has one of them with probability .2."""
    parts = Parts(seed)

    def halves(motifs: np.ndarray) -> np.ndarray:
        lone, left = parts.rng.random(motifs.shape) < 0.2, parts.rng.random(motifs.shape) < 0.5
        return np.hstack([(motifs > 0) | (lone & left), (motifs > 0) | (lone & ~left)])

    return parts.with_features(*map(halves, parts.features()))


def rare_motifs(seed: int) -> AnnData:
    """Every motif occurs in one training drug: its occurrences go by different names, one of which an unseen drug has."""
    parts = Parts(seed)
    train, new = parts.features()
    drug, motif = np.nonzero(train)
    alias = np.zeros((len(train), len(drug)))
    alias[drug, np.arange(len(drug))] = 1
    new_alias = np.zeros((len(new), len(drug)))
    for row, wanted in zip(*np.nonzero(new), strict=True):
        new_alias[row, parts.rng.choice(np.flatnonzero(motif == wanted))] = 1
    return parts.with_features(alias, new_alias)


def few_targets(seed: int, few: int = 5) -> AnnData:
    """All targets are among five genes: drugs, and what they do, are those of a screen of five genes."""
    parts, small = Parts(seed), scgim.datasets.simulate_screen(n_genes=few, seed=seed)
    drugs, others = small.uns["truth"], parts.adata.n_vars - few

    def widened(rows: np.ndarray, fill: float = 0) -> np.ndarray:
        return np.pad(rows, ((0, 0), (0, others)), constant_values=fill)

    parts.adata.uns["drug_features"] = small.uns["drug_features"]
    parts.truth |= {key: widened(drugs[key]) for key in ("targets", "effect")}
    parts.truth["ec50"] = widened(drugs["ec50"], np.inf)
    for test in TESTS:
        parts.truth[test] = drugs[test] | {key: widened(drugs[test][key]) for key in ("targets", "shift")}
    parts.shift = parts.shifts()
    return parts.together()


def dead_drugs(seed: int) -> AnnData:
    """Three of ten drugs do nothing, training or unseen."""
    return scgim.datasets.simulate_screen(frac_dead=0.3, seed=seed)


def heavy_tails(seed: int) -> AnnData:
    """Noise by Student's t with three degrees of freedom, of the same variance."""
    parts = Parts(seed)
    parts.noise = parts.rng.standard_t(3, parts.noise.shape) / np.sqrt(3) * parts.noise.std(0)
    return parts.together()


def plates(seed: int) -> AnnData:
    """Four plates that move every gene by .5 sd, every drug on one of them, controls on all."""
    parts = Parts(seed)
    adata = parts.adata
    plate = parts.drug_of_cell()
    plate = np.where(plate < 0, parts.rng.integers(0, 4, len(plate)), plate) % 4
    adata.X = (adata.X + parts.sd * parts.rng.normal(0, 0.5, (4, adata.n_vars))[plate]).astype(np.float32)
    adata.obs["plate"] = plate.astype(str)
    return adata


def cycles(seed: int) -> AnnData:
    """Three of the edges have a negative feedback of .5; cells are in equilibrium."""
    parts = Parts(seed)
    source, target = np.nonzero(parts.weight)
    for e in parts.rng.choice(len(source), 3, replace=False):
        parts.weight[target[e], source[e]] = -0.5 * np.sign(parts.weight[source[e], target[e]])
    return parts.together()


def latent(seed: int) -> AnnData:
    """Something that nobody measures and no drug moves adds .7 sd, of either sign, to half of the genes."""
    parts = Parts(seed)
    n, d = parts.noise.shape
    load = 0.7 * parts.rng.permutation(np.repeat([-1, 0, 0, 1], d // 4))
    parts.noise = parts.noise + parts.rng.normal(size=(n, 1)) * load
    return parts.together()


def counts(seed: int, depth: float) -> AnnData:
    """UMI counts, ``depth`` a gene and control cell in the mean."""
    return scgim.datasets.simulate_screen(observation="counts", depth=depth, seed=seed)


COUNTS = {"scale": "counts", "size_factor_key": "n_counts"}
BREAKS: dict[str, tuple[Callable[[int], AnnData], dict]] = {
    "AND-motifs": (and_motifs, {}),
    "motifs seen once": (rare_motifs, {}),
    "five targeted genes": (few_targets, {}),
    "30 % dead drugs": (dead_drugs, {}),
    "heavy tails": (heavy_tails, {}),
    "plates, not registered": (plates, {}),
    "plates as batch": (plates, {"batch_key": "plate"}),
    "feedback": (cycles, {}),
    "latent confounder": (latent, {}),
    **{f"counts, depth {d:g}": (lambda seed, d=d: counts(seed, d), COUNTS) for d in (30, 3, 0.3)},
}


# ---- one run ---------------------------------------------------------------------------------------------------------


def run(name: str, seed: int, structure: str = "search") -> tuple[dict, pd.DataFrame]:
    """Scores of one screen, and every method's error for every unseen condition."""
    # panels of 20 genes: sizes are given
    warnings.filterwarnings("ignore", message=".*[Ss]ize", category=UserWarning)
    options = SETTINGS.get(name, SETTINGS[BASE])
    draw, columns = BREAKS.get(name, (lambda seed: scgim.datasets.simulate_screen(seed=seed, **options), {}))
    adata = draw(seed)
    truth, graph = adata.uns["truth"], adata.varp["true_graph"].toarray() > 0
    of_model = {key: options[key] for key in ("mechanism", "intervention")}
    model, seconds = fit(adata, columns, structure=structure, **of_model)
    # genes without parents have no mechanisms: the linear twin of a network model is the same model, and faster
    twin, _ = fit(adata, columns, structure="none", **of_model | {"mechanism": "linear"})

    cells, train, z = seen(adata, columns)
    row = {"setting": name, "seed": seed, "structure": structure, "seconds": seconds, "generator": model.generator_}
    row |= graph_scores(model, cells, adata, graph)
    drugs = pd.Index(truth["drugs"]).get_indexer(train.drug)
    targets = truth["targets"][drugs] != 0
    for label, who in {"": model, ", empty": twin}.items():
        row |= target_scores(who.rank_targets(), train.names, adata.var_names, targets, "seen", label)
    row |= {"seen AP, |z|": pooled_ap(z, targets), "seen F1, |z|": best_f1(z, targets)}

    errors, baselines = [], {method: build() for method, build in BASELINES.items()}
    for baseline in baselines.values():
        baseline.fit(train)
    for test in TESTS:
        table, asked = unseen(adata, test)
        predicted = {method: predict(who, table, asked, truth) for method, who in {SCGIM: model, EMPTY: twin}.items()}
        predicted |= {method: baseline.predict(table) for method, baseline in baselines.items()}
        known = {method: x for method, x in predicted.items() if np.isfinite(x).all()}
        error = pd.DataFrame({method: rmse_delta(x, table.change) for method, x in known.items()})
        errors.append(
            error.assign(setting=name, structure=structure, test=test, drug=[f"{seed} {d}" for d in table.drug])
        )
        row |= {f"{test} {method}": value for method, value in error.mean().items()}
        if test == "unseen_drug":
            targets, ridge = truth[test]["targets"] != 0, np.abs(predicted["ridge"])
            for label, who in {"": model, ", empty": twin}.items():
                ranking = who.rank_targets(**asked, evidence="features")
                row |= target_scores(ranking, table.names, adata.var_names, targets, "unseen", label)
            row |= {
                "unseen AP, ridge": pooled_ap(ridge, targets),
                "unseen F1, ridge": best_f1(ridge, targets),
            }
    return row, pd.concat(errors)


def fit(adata: AnnData, columns: dict, **options: object) -> tuple[scgim.GIM, float]:
    """A trained model and the seconds of its training, of CPU, because another process trains beside it."""
    standard = {"drug_key": "drug", "control": CONTROL, "scale": "continuous", "dose_key": "dose", "dose_unit": "uM"}
    scgim.setup_anndata(adata, **standard | {"features_key": "drug_features"} | columns)
    model = scgim.GIM(adata, **options)
    start = time.process_time()
    model.train(seed=0, enable_progress_bar=False)
    return model, time.process_time() - start


def seen(adata: AnnData, columns: dict) -> tuple[np.ndarray, ConditionTable, np.ndarray]:
    """Cells in control sd around the controls (of their plate), the conditions as baselines see them, and Welch's \\|z\\|."""
    x, obs, truth = adata.X, adata.obs, adata.uns["truth"]
    if columns.get("scale") == "counts":
        x = np.log1p(1e4 * x.toarray() / obs["n_counts"].to_numpy()[:, None])
    control = (obs["drug"] == CONTROL).to_numpy()
    batch = obs[columns["batch_key"]].to_numpy() if "batch_key" in columns else np.zeros(len(x))
    x = x / truth["control_sd"]
    for b in np.unique(batch):
        x[batch == b] -= x[control & (batch == b)].mean(0)
    groups = obs[~control].groupby(["drug", "dose"], observed=True).indices
    parts = [x[~control][rows] for rows in groups.values()]
    names = pd.DataFrame(groups.keys(), columns=["drug", "dose"]).assign(cell_line="")
    change, n = np.array([part.mean(0) for part in parts]), np.array([len(part) for part in parts])
    variance = np.array([part.var(0) for part in parts]) / n[:, None] + x[control].var(0) / control.sum()
    features = adata.uns["drug_features"].loc[names["drug"]].to_numpy(float)
    return x, ConditionTable(names, features, change, n), np.abs(change) / np.sqrt(variance)


def unseen(adata: AnnData, test: str) -> tuple[ConditionTable, dict]:
    """Unseen conditions with their true change, and the request for all of them."""
    truth, frame = adata.uns["truth"], adata.uns["drug_features"]
    table = truth[test]
    names = pd.DataFrame({"drug": table["drug"].astype(str), "dose": table["dose"], "cell_line": ""})
    change = (table["mean"] - truth["control_mean"]) / truth["control_sd"]
    asked = {"drug": list(names["drug"].unique()), "dose": sorted(set(table["dose"])), "features": None}
    if test == "unseen_drug":
        rows = pd.DataFrame(table["features"], names["drug"], frame.columns).astype(float)
        asked["features"] = frame = rows[~rows.index.duplicated()]
    return ConditionTable(names, frame.loc[names["drug"]].to_numpy(float), change, np.zeros(len(names))), asked


def predict(model: scgim.GIM, table: ConditionTable, asked: dict, truth: dict) -> np.ndarray:
    predicted = model.predict(**asked, as_="delta")
    rows = pd.MultiIndex.from_frame(predicted.obs[["drug", "dose"]].astype({"drug": str}))
    return predicted.X[rows.get_indexer(pd.MultiIndex.from_frame(table.names[["drug", "dose"]]))] / truth["control_sd"]


def graph_scores(model: scgim.GIM, cells: np.ndarray, adata: AnnData, truth: np.ndarray) -> dict[str, float]:
    """Of the graph found, and of those read off an order of the genes over all cells."""
    strength, edges, place = np.zeros(truth.shape), model.get_graph(), adata.var_names.get_indexer
    strength[place(edges["source"]), place(edges["target"])] = edges["strength"]
    r2, sd = 1 - 1 / np.diag(np.linalg.inv(np.corrcoef(cells.T))), cells.std(0)
    acyclic = not (truth & truth.T).any()
    row = {"edge AP": edge_average_precision(strength, truth), "SHD": shd(strength, truth), "edges": int(truth.sum())}
    row |= {"SID": sid(strength, truth), "SID, empty": sid(0 * strength, truth)} if acyclic else {}
    for order, score in {"variance": sd, "R2": r2}.items():
        row[f"edge AP, {order} order"] = max(in_order(cells, rising, truth) for rising in (score, 1 / score))
        row |= {f"{order} sortability": varsortability(cells / sd * score, truth)} if acyclic else {}
    return row


def in_order(cells: np.ndarray, score: np.ndarray, truth: np.ndarray) -> float:
    """Edge AP of every gene regressed on those of lower score; scaled such that the score is what sorts by variance."""
    scale = score / cells.std(0)
    weight = sort_and_regress(cells * scale) * scale[:, None] / scale
    return edge_average_precision(np.abs(weight), truth)


def target_scores(
    ranking: pd.DataFrame, names: pd.DataFrame, genes: pd.Index, truth: np.ndarray, rows: str, label: str
) -> dict[str, float]:
    table = ranking.astype({"drug": str}).pivot(index=["drug", "dose"], columns="gene", values=["score", "probability"])
    table = table.loc[list(zip(names["drug"], names["dose"], strict=True))]
    called = table["probability"][genes].to_numpy() > SURE
    return {
        f"{rows} AP{label}": pooled_ap(table["score"][genes].to_numpy(), truth),
        f"{rows} F1{label}": target_f1(called, truth),
        f"{rows} false calls{label}": (called & ~truth).sum() / len(truth),
    }


def pooled_ap(score: np.ndarray, truth: np.ndarray) -> float:
    """Average precision over all pairs of condition and gene."""
    return float(average_precision_score(truth.ravel(), score.ravel()))


def best_f1(score: np.ndarray, truth: np.ndarray) -> float:
    """F1 of the rule "score above a threshold", at the threshold that is best with the truth in view."""
    precision, recall, _ = precision_recall_curve(truth.ravel(), score.ravel())
    return float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())


# ---- tables and figure -----------------------------------------------------------------------------------------------


def text(values: pd.Series, digits: int = 2) -> str:
    """Mean and standard deviation over seeds."""
    values = values.dropna()
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}" if len(values) else ""


def by_setting(runs: pd.DataFrame, columns: dict[str, str], **digits: int) -> pd.DataFrame:
    """Columns of the runs under other names, a row for each setting."""
    rows = [
        {"setting": name} | {new: text(part[old], digits.get(old, 2)) for old, new in columns.items()}
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
        row |= {method: text(part[f"{test} {method}"], 3) if f"{test} {method}" in part else "" for method in METHODS}
        for other, label in {best: "scgim - best baseline", EMPTY: "scgim - empty graph"}.items():
            gap = compare(conditions[SCGIM], conditions[other], conditions["drug"])
            row[label] = f"{gap.difference:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
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
        ax.set(xlim=(0, None), xlabel=f"RMSE of the mean change, {TESTS[test]} (control sd)")
        ax.set_yticks(range(len(shown)), shown)
        ax.set_ylim(len(shown) - 0.5, -0.5)
    axes[0].legend(frameon=False, fontsize=8, loc="center right")
    names = list(broken["setting"].unique())
    panels = {
        "edge AP": {"edge AP": ("C0", "graph")},
        "target F1": {
            "seen F1": ("C0", "seen contexts"),
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


# ---- all of it -------------------------------------------------------------------------------------------------------


def in_processes(jobs: list[tuple], processes: int) -> Iterable[tuple[dict, pd.DataFrame]]:
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(run, *job) for job in jobs]:
            yield done.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    start, few = time.perf_counter(), range(min(BREAK_SEEDS, options.seeds))
    # the longest first
    jobs = [(name, 0, "gradient") for name in GRADIENT]
    jobs += [(name, seed) for name in reversed(SETTINGS) for seed in range(options.seeds)]
    jobs += [(name, seed) for name in BREAKS for seed in few]
    rows, errors = [], []
    for row, error in in_processes(jobs, options.jobs):
        rows.append(row)
        errors.append(error)
        shown = ("setting", "seed", "structure", "edge AP", "seen F1", f"unseen_drug {SCGIM}", "seconds")
        print(
            pd.DataFrame([{c: row[c] for c in shown}]).round(3).to_string(index=False, header=len(rows) == 1),
            flush=True,
        )
    runs, errors = pd.DataFrame(rows), pd.concat(errors)
    for table in (runs, errors):
        gradient = table["structure"] == "gradient"
        table.loc[gradient, "setting"] += ", by gradient"
    order = [*(n + g for n in SETTINGS for g in ("", ", by gradient")), *BREAKS]
    runs = runs.sort_values(["setting", "seed"], key=lambda c: c.map(order.index) if c.name == "setting" else c)

    main_runs = runs[~runs["setting"].isin(BREAKS)]
    searched = main_runs[main_runs["structure"] == "search"]
    broken = pd.concat(
        [searched[(searched["setting"] == BASE) & searched["seed"].isin(few)], runs[runs["setting"].isin(BREAKS)]]
    )
    tables = {
        "": error_table(main_runs, errors),
        "_graphs": by_setting(main_runs, GRAPHS, **COARSE),
        "_targets": by_setting(main_runs, TARGETS),
        "_breaks": by_setting(with_best(broken), BROKEN, **COARSE),
        "_seeds": runs.round(4),
    }
    for name, table in tables.items():
        table.to_csv(options.out.with_stem(options.out.stem + name), index=False)
        if name != "_seeds":
            print(f"\n{table.to_string(index=False)}")
    figure(searched, broken, options.out.with_suffix(".png"))
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"\n{time.perf_counter() - start:.0f} s, {spent.ru_utime + spent.ru_stime:.0f} s of CPU")


if __name__ == "__main__":
    main()
