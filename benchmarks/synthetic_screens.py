"""The screens of ``benchmarks/synthetic.py``: eight settings, and linear shift screens that violate one assumption of the model."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

import scgim

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

SETTINGS = {
    f"{mechanism}, {intervention}, {graph.upper()}": {
        "mechanism": mechanism,
        "intervention": intervention,
        "graph": graph,
    }
    for mechanism, intervention, graph in product(("linear", "network"), ("shift", "hard"), ("er", "sf"))
}
BASE = "linear, shift, ER"
TESTS = {"unseen_dose": "unseen doses", "unseen_drug": "unseen drugs"}
COUNTS = {"scale": "counts", "size_factor_key": "n_counts"}


class Parts:
    """A linear shift screen taken apart, in control SD: cells are ``(shift + noise) @ inv(1 - weight)``."""

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
    """Every motif is two halves that act only together; a drug without the motif has one half with probability .2."""
    parts = Parts(seed)

    def halves(motifs: np.ndarray) -> np.ndarray:
        lone, left = parts.rng.random(motifs.shape) < 0.2, parts.rng.random(motifs.shape) < 0.5
        return np.hstack([(motifs > 0) | (lone & left), (motifs > 0) | (lone & ~left)])

    return parts.with_features(*map(halves, parts.features()))


def rare_motifs(seed: int) -> AnnData:
    """Every motif occurs in one training drug: each of its occurrences is a feature of its own, and an unseen drug has one."""
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
    """All targets are among five genes: drugs and their effects are those of a screen of five genes."""
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
    """Three of ten drugs have no effect, training or unseen."""
    return scgim.datasets.simulate_screen(frac_dead=0.3, seed=seed)


def heavy_tails(seed: int) -> AnnData:
    """Noise by Student's t with three degrees of freedom, of the same variance."""
    parts = Parts(seed)
    parts.noise = parts.rng.standard_t(3, parts.noise.shape) / np.sqrt(3) * parts.noise.std(0)
    return parts.together()


def plates(seed: int) -> AnnData:
    """Four plates that shift every gene, with a spread of .5 SD; every drug is on one plate, controls on all."""
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
    """An unmeasured variable, unaffected by drugs, adds .7 SD of either sign to half of the genes."""
    parts = Parts(seed)
    n, d = parts.noise.shape
    load = 0.7 * parts.rng.permutation(np.repeat([-1, 0, 0, 1], d // 4))
    parts.noise = parts.noise + parts.rng.normal(size=(n, 1)) * load
    return parts.together()


def counts(seed: int, depth: float) -> AnnData:
    """UMI counts, in the mean ``depth`` a gene and control cell."""
    return scgim.datasets.simulate_screen(observation="counts", depth=depth, seed=seed)


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


def draw(name: str, seed: int) -> tuple[AnnData, dict, dict]:
    """A screen, its columns that differ from the usual ones, and the setting that it was drawn in."""
    if name in BREAKS:
        build, columns = BREAKS[name]
        return build(seed), columns, SETTINGS[BASE]
    return scgim.datasets.simulate_screen(seed=seed, **SETTINGS[name]), {}, SETTINGS[name]
