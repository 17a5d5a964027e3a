"""Calibration of the probabilities of targets: expected calibration error, precision and recall where the truth is known.

    python benchmarks/calibration.py [--seeds 2] [--out benchmarks]

Simulated screens of every mechanism and intervention, a fifth of the drugs without effect, 20 to 200 cells a condition: measured
conditions (their own data and the generator) and unseen drugs (the generator alone). And UMI counts, in which drugs are known by
name. Pairs of condition and gene count whose probability is above .01 or that are targets, in ten bins of equal size.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
from common import HERE, SURE, arguments, fit, quiet
from simulated import COLUMNS, features_of_unseen

import scgim

BINS = 10


def error(p: np.ndarray, truth: np.ndarray) -> float:
    """Expected calibration error: mean over pairs of how far their bin's mean probability lies from its share of targets."""
    order = np.argsort(p, kind="stable")
    bins = [b for b in np.array_split(order, BINS) if len(b)]
    return sum(len(b) * abs(p[b].mean() - truth[b].mean()) for b in bins) / max(len(p), 1)


def summary(screen: str, rows: str, p: np.ndarray, truth: np.ndarray) -> dict:
    """One row of the table."""
    counted = (p > 0.01) | truth
    called = p > SURE
    return {
        "screen": screen,
        "rows": rows,
        "pairs": int(counted.sum()),
        "calibration error": error(p[counted], truth[counted]),
        "precision": (called & truth).sum() / max(called.sum(), 1),
        "recall": (called & truth).sum() / max(truth.sum(), 1),
    }


def pairs(table: pd.DataFrame, truth: dict) -> tuple[np.ndarray, np.ndarray]:
    """Probability and truth of a ranking's rows; ``truth``: drug to its set of target genes."""
    is_target = [gene in truth[drug] for drug, gene in zip(table["drug"], table["gene"], strict=True)]
    return table["probability"].to_numpy(), np.array(is_target)


def targets(names: np.ndarray, matrix: np.ndarray, genes: pd.Index) -> dict:
    """Drug to its set of target genes."""
    return {str(n): set(genes[row]) for n, row in zip(names, np.asarray(matrix) != 0, strict=True)}


def continuous(mechanism: str, intervention: str, seed: int) -> dict[str, tuple]:
    """Pairs of measured conditions and of unseen drugs on one screen."""
    adata = scgim.datasets.simulate_screen(
        mechanism=mechanism, intervention=intervention, seed=1000 + seed, n_cells=(20, 200), frac_dead=0.2
    )
    model, _ = fit(adata, COLUMNS, mechanism=mechanism, intervention=intervention)
    truth, genes = adata.uns["truth"], adata.var_names
    found = {"measured": pairs(model.rank_targets(), targets(truth["drugs"], truth["targets"], genes))}
    new, features = truth["unseen_drug"], features_of_unseen(adata)
    first = ~pd.Index(new["drug"]).duplicated()
    ranking = model.rank_targets(drug=list(features.index), features=features)
    found["unseen drugs"] = pairs(ranking, targets(features.index, new["targets"][first], genes))
    return found


def counts(seed: int) -> dict[str, tuple]:
    """Pairs of measured conditions on a screen of counts, drugs known by name."""
    adata = scgim.datasets.simulate_screen(
        n_genes=60, n_drugs=30, doses=(1.0,), n_cells=(50, 400), frac_dead=0.3, observation="counts", seed=1000 + seed
    )
    model, _ = fit(adata, {"drug_key": "drug", "control": "DMSO", "scale": "counts"})
    truth = adata.uns["truth"]
    return {"measured": pairs(model.rank_targets(), targets(truth["drugs"], truth["targets"], adata.var_names))}


def main() -> None:
    """Train on every screen, pool pairs over seeds, write the table."""
    options = arguments(__doc__, seeds=2, out=HERE).parse_args()
    quiet()
    rows, everything = [], {}
    screens = {
        f"{mechanism}, {intervention}": lambda seed, m=mechanism, i=intervention: continuous(m, i, seed)
        for mechanism, intervention in product(("linear", "network"), ("shift", "hard"))
    } | {"counts": counts}
    for screen, run in screens.items():
        found = [run(seed) for seed in range(options.seeds)]
        for kind in found[0]:
            p, truth = (np.concatenate([f[kind][i] for f in found]) for i in (0, 1))
            rows.append(summary(screen, kind, p, truth))
            everything.setdefault(kind, []).append((p, truth))
            print(rows[-1], flush=True)
    for kind, found in everything.items():
        rows.append(summary("all", kind, *(np.concatenate(parts) for parts in zip(*found, strict=True))))
    table = pd.DataFrame(rows).round(3)
    table.to_csv(options.out / "calibration.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
