"""Replicates as the unit of evidence: ``python benchmarks/replicates.py [--data FOLDER] [--only placebos power]``.

- ``replicates_placebos.csv``: placebo conditions of whole wells, guides or positions, with and without ``replicate_key``
- ``replicates_power.csv``: share of targets found at 5 % of placebos with a target, beside t-tests between means of replicates

``placebos`` draws every condition as one well of 100 cells, with 40 wells of vehicle and 40 placebo wells. ``power`` has some wells of
50 cells a condition, 12 wells of vehicle, and one target of .35 to .7 control SD per drug. Genes of every well deviate by an effect of
the well. With ``--data``, ``placebos`` adds guides of ECCITE and positions of nELISA.
"""

from __future__ import annotations

import os
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # numpy reads it once

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from common import arguments, called, fit, progress, write
from measured import ECCITE, NELISA, eccite_cells
from real_cells_placebos import SIMULATED, simulated, with_placebos
from scipy import stats

from scgim.statistics._moderation import moderated_variance

SEEDS, GENES = 5, 20
POSITIONS, FEW_SEEDS = "nELISA, positions", 2  # four minutes a fit
SCREEN = {"drug_key": "drug", "control": "DMSO", "scale": "continuous"}
LEVEL = 0.05  # share of placebo conditions with a target at which methods are compared


def cells(
    counts: dict[str, list[int]], effects: dict[str, np.ndarray], spread: float, tails: float, seed: int
) -> ad.AnnData:
    """Cells of a linear model of 20 genes: ``counts`` are the cells of every well of every drug, ``effects`` its shifts."""
    rng = np.random.default_rng([seed, 7])
    weight = np.triu(rng.uniform(0.3, 0.7, (GENES, GENES)) * rng.choice([-1, 1], (GENES, GENES)), 1)
    weight *= rng.random((GENES, GENES)) < 4 / GENES
    total = np.linalg.inv(np.eye(GENES) - weight)
    sd = np.sqrt((total**2).sum(0))
    x, obs = [], []
    for drug, wells in counts.items():
        for i, n in enumerate(wells):
            shift = effects.get(drug, np.zeros(GENES)) * sd
            own = rng.normal(size=GENES) if np.isinf(tails) else rng.standard_t(tails, GENES) * np.sqrt(1 - 2 / tails)
            x.append((rng.normal(size=(n, GENES)) + shift) @ total / sd + spread * own)
            obs.append(pd.DataFrame({"drug": drug, "well": f"{drug} {i}"}, index=range(n)))
    table = pd.concat(obs, ignore_index=True)
    return ad.AnnData(np.concatenate(x).astype(np.float32), table.set_axis(table.index.astype(str)))


def effects(drugs: list[str], low: float, high: float, seed: int) -> dict[str, np.ndarray]:
    """One target per drug, with an effect in control SD."""
    rng = np.random.default_rng([seed, 11])
    out = {drug: np.zeros(GENES) for drug in drugs}
    for shift in out.values():
        shift[rng.integers(GENES)] = rng.uniform(low, high) * rng.choice([-1, 1])
    return out


# ---- placebos ---------------------------------------------------------------------------------------------------------


def one_well(spread: float, tails: float, seed: int) -> tuple[ad.AnnData, dict]:
    """Every condition is one well: 10 drugs, 40 placebos, and 40 wells of vehicle."""
    drugs = [f"drug {i}" for i in range(10)]
    counts = {drug: [100] for drug in [*drugs, *(f"placebo {i}" for i in range(40))]} | {"DMSO": [100] * 40}
    return cells(counts, effects(drugs, 0.5, 1.5, seed), spread, tails, seed), SCREEN | {"replicate_key": "well"}


def one_well_of_counts(seed: int) -> tuple[ad.AnnData, dict]:
    """The same as counts, some 3 a gene; wells differ by an eighth in their rates."""
    adata, columns = one_well(0.3, np.inf, seed)
    adata.X = np.random.default_rng(seed).poisson(np.exp(1 + 0.4 * adata.X)).astype(np.float32)
    adata.obs["size"] = 1e3
    return adata, columns | {"scale": "counts", "size_factor_key": "size"}


def two_wells(seed: int) -> tuple[ad.AnnData, dict]:
    """The wells of ``real_cells_placebos.csv``: ten drugs of two wells, and 20 placebos of one well of 40 of vehicle."""
    return with_placebos(simulated("wells", seed), SIMULATED, 20, seed, "well"), SIMULATED | {"replicate_key": "well"}


def guides(folder: Path, seed: int) -> tuple[ad.AnnData, dict]:
    """ECCITE: four of nine guides without a target pose as knock-outs."""
    return with_placebos(eccite_cells(folder), ECCITE, 4, seed, "guide"), ECCITE | {"replicate_key": "guide"}


def positions(folder: Path, seed: int) -> tuple[ad.AnnData, dict]:
    """nELISA: 24 of 64 positions of the vehicle pose as drugs; a position is on all four plates, as a drug's is."""
    adata = ad.read_h5ad(folder / "nelisa_a549.h5ad")
    columns = {name: key for name, key in NELISA.items() if name != "smiles_key"}
    return with_placebos(adata, columns, 24, seed, "well"), columns | {"replicate_key": "well", "unit": "well"}


def placebos(folder: Path | None) -> None:
    """Placebos with a target, with and without replicates."""
    jobs = {
        f"wells, {spread:g} SD{', heavy tails' if tails < 9 else ''}": (
            lambda seed, s=spread, t=tails: one_well(s, t, seed)
        )
        for spread, tails in ((0.0, np.inf), (0.1, np.inf), (0.3, np.inf), (0.1, 3.0))
    }
    jobs["wells of counts, 0.3 SD"] = one_well_of_counts
    jobs["two wells a drug, 0.1 SD"] = two_wells
    if folder is not None:
        jobs["ECCITE, guides"] = lambda seed: guides(folder, seed)
        jobs[POSITIONS] = lambda seed: positions(folder, seed)
    rows = []
    for name, draw in jobs.items():
        for declared in (False, True):
            runs: list[tuple] = []
            for seed in range(FEW_SEEDS if name == POSITIONS else SEEDS):
                adata, columns = draw(seed)
                if not declared:
                    columns = {k: v for k, v in columns.items() if k not in ("replicate_key", "unit")}
                model, _ = fit(adata, columns)
                calls = called(model)
                fake = calls["drug"].str.startswith("placebo")
                n = sum(drug.startswith("placebo") for drug in model.drugs)
                runs.append((n, calls.loc[fake, "drug"].nunique(), (~fake).sum() / (len(model.drugs) - n)))
            total = np.array(runs).sum(0)
            rows.append({
                "placebos of": name,
                "replicate_key": declared,
                "placebos": int(total[0]),
                "with a target": int(total[1]),
                "share": total[1] / total[0],
                "targets per real drug": total[2] / len(runs),
            })  # fmt: skip
            progress(rows)
    write(pd.DataFrame(rows), "replicates_placebos")


# ---- power ------------------------------------------------------------------------------------------------------------


def between_means(adata: ad.AnnData) -> dict[str, pd.DataFrame]:
    """-log p of two t-tests between means of wells against vehicle, drugs x genes: by gene, and moderated as in limma."""
    means = adata.to_df().groupby([adata.obs["drug"], adata.obs["well"]]).mean()
    drug = means.index.get_level_values("drug")
    center = means.groupby(drug).mean()
    squares = (means - center.loc[drug].to_numpy()) ** 2
    n, vehicle = drug.value_counts().loc[center.index].to_numpy()[:, None], (drug == "DMSO").sum()
    change = center - center.loc["DMSO"]
    root = np.sqrt(1 / n + 1 / vehicle)
    pooled = squares.groupby(drug).sum()
    freedom = n + vehicle - 2
    t = change / (np.sqrt((pooled + pooled.loc["DMSO"]) / freedom) * root)
    whole = len(means) - len(center)
    variance, prior = moderated_variance(pooled.sum().to_numpy() / whole, whole)
    return {
        "t-test": -pd.DataFrame(stats.t.logsf(np.abs(t), freedom), t.index, t.columns),
        "moderated t-test": -(change * 0 + stats.t.logsf(np.abs(change / (np.sqrt(variance) * root)), whole + prior)),
    }


def found_at_level(score: pd.DataFrame, truth: dict[str, np.ndarray]) -> float:
    """Share of targets whose score exceeds the largest score of all but 5 % of placebos."""
    fake = score[score.index.str.startswith("placebo")]
    cut = np.quantile(fake.max(axis=1), 1 - LEVEL)
    return float(np.mean([score.loc[drug].to_numpy()[np.flatnonzero(shift)[0]] > cut for drug, shift in truth.items()]))


def power_run(wells: int, spread: float, seed: int) -> dict[str, float]:
    """One screen: shares of targets found by t-tests and by scgim with and without replicates, and scgim's false positives."""
    drugs = [f"drug {i}" for i in range(40)]
    truth = effects(drugs, 0.35, 0.7, seed)
    counts = {drug: [50] * wells for drug in [*drugs, *(f"placebo {i}" for i in range(40))]} | {"DMSO": [50] * 12}
    adata = cells(counts, truth, spread, np.inf, seed)
    scores, share = between_means(adata), {}
    for name, columns in (("scgim, cells", {}), ("scgim, replicates", {"replicate_key": "well"})):
        model, _ = fit(adata, SCREEN | columns)
        table = model.rank_targets().astype({"drug": str, "gene": str})
        scores[name] = table.pivot(index="drug", columns="gene", values="probability")[adata.var_names]
        share[f"{name}: placebos with a target"] = (
            (scores[name] > 0.5).any(axis=1)[scores[name].index.str.startswith("placebo")].mean()
        )
        share[f"{name}: targets called"] = np.mean(
            [scores[name].loc[drug].to_numpy()[np.flatnonzero(shift)[0]] > 0.5 for drug, shift in truth.items()]
        )
    return {name: found_at_level(score, truth) for name, score in scores.items()} | share


def power(folder: Path | None) -> None:
    """Power at the same share of placebos with a target, mean over seeds."""
    rows = []
    for wells, spread in ((2, 0.1), (3, 0.1), (3, 0.2), (6, 0.2)):
        runs = pd.DataFrame([power_run(wells, spread, seed) for seed in range(SEEDS)])
        rows.append({"wells": wells, "effect of a well": spread} | runs.mean().to_dict())
        progress(rows)
    write(pd.DataFrame(rows), "replicates_power")


PARTS = {"placebos": placebos, "power": power}


def main() -> None:
    """Run the parts and write their tables."""
    parser = arguments(__doc__, parts=PARTS)
    parser.add_argument("--data", type=Path, help="folder of the measured screens")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for part in options.only:
        PARTS[part](options.data)


if __name__ == "__main__":
    main()
