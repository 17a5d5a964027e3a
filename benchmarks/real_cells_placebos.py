"""Controls that pose as drugs, and how many of them are given a target: the part ``placebos`` of ``benchmarks/real_cells.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from common import called, fit, progress, write
from measured import ECCITE, SACHS, ZHAO, eccite_cells, zhao_cells

import scgim

if TYPE_CHECKING:
    from pathlib import Path

    import anndata as ad

SIMULATED = {"drug_key": "drug", "control": "DMSO", "scale": "continuous", "batch_key": "plate"}
DONORS = ZHAO | {"batch_key": "donor"}


def simulated(kind: str, seed: int) -> ad.AnnData:
    """A screen of 20 genes whose cells violate an assumption of the model; effects in control SD."""
    rng = np.random.default_rng(seed)
    adata = scgim.datasets.simulate_screen(
        n_genes=20, n_drugs=10, n_cells=100, n_control=2000, doses=(1.0,), n_new_drugs=2, seed=seed
    )
    x, (n, d) = adata.X / adata.X.std(0), adata.shape
    plate = rng.integers(0, 4, n)
    if kind == "plates":
        x = x + rng.normal(0, 0.5, (4, d))[plate]
    elif kind == "tails":
        x = x + 0.5 * rng.standard_t(2.5, (n, d))
    elif kind == "zeros":
        x = np.where(rng.random((n, d)) < 0.6, 0, np.exp(x))
    drug = adata.obs["drug"].astype(str)
    well = drug + " " + (drug.groupby(drug).cumcount() // 50).astype(str)
    if kind == "wells":
        code = well.astype("category").cat.codes.to_numpy()
        x = x + rng.normal(0, 0.1, (code.max() + 1, d))[code]
        plate[:] = 0
    adata.X = x.astype(np.float32)
    adata.obs["plate"], adata.obs["well"] = plate.astype(str), well.to_numpy()
    return adata


def with_placebos(adata: ad.AnnData, columns: dict, n: int, seed: int, unit: str | None) -> ad.AnnData:
    """A copy in which half of the controls are ``n`` disjoint drugs: random cells of each batch, or whole units."""
    rng = np.random.default_rng(seed)
    drug = adata.obs[columns["drug_key"]].astype(str).to_numpy(copy=True)
    controls = np.flatnonzero(drug == columns["control"])
    if unit is not None:
        level = adata.obs[unit].astype(str).to_numpy()
        for i, name in enumerate(rng.choice(np.unique(level[controls]), n, replace=False)):
            drug[controls[level[controls] == name]] = f"placebo {i}"
    else:
        level = (
            adata.obs[columns["batch_key"]].astype(str).to_numpy() if "batch_key" in columns else np.zeros(len(drug))
        )
        for name in np.unique(level[controls]):
            cells = rng.permutation(controls[level[controls] == name])
            for i, part in enumerate(np.array_split(cells[: len(cells) // 2], n)):
                drug[part] = f"placebo {i}"
    copy = adata.copy()
    copy.obs[columns["drug_key"]] = pd.Categorical(drug)
    return copy


def placebos(folder: Path) -> None:
    """Fits with placebo conditions as further drugs: 200 placebos a row (of whole guides: 40, from nine guides)."""
    eccite, zhao = eccite_cells(folder), zhao_cells(folder)
    jobs = {
        "ECCITE, cells": (lambda _: eccite, ECCITE, 10, 20, None),
        "ECCITE, guides": (lambda _: eccite, ECCITE, 4, 10, "guide"),
        "Zhao, cells": (lambda _: zhao, DONORS, 10, 20, None),
        "Zhao, fewer cells": (lambda _: zhao, DONORS, 20, 10, None),
        "Sachs, cells": (lambda _: scgim.datasets.sachs(), SACHS, 10, 20, None),
        **{
            f"simulated {kind}, cells": (lambda seed, kind=kind: simulated(kind, seed), SIMULATED, 20, 10, None)
            for kind in ("plates", "tails", "zeros")
        },
        "simulated wells, cells": (lambda seed: simulated("wells", seed), SIMULATED, 20, 10, None),
        "simulated wells, wells": (lambda seed: simulated("wells", seed), SIMULATED, 20, 10, "well"),
    }
    rows = []
    for name, (draw, columns, n, refits, unit) in jobs.items():
        runs = [placebo_run(draw(seed), columns, n, seed, unit) for seed in range(refits)]
        total = pd.DataFrame(runs)
        hits = total["with_target"].sum()
        rows.append({
            "placebos of": name,
            "placebos": n * refits,
            "cells each": int(total["cells"].median()),
            "with a target": hits,
            "share": hits / (n * refits),
            "median charge": total["charge"].median(),
            "targets per real drug": total["real"].mean(),
        })  # fmt: skip
        progress(rows)
    write(pd.DataFrame(rows), "real_cells_placebos")


def placebo_run(adata: ad.AnnData, columns: dict, n: int, seed: int, unit: str | None) -> dict[str, float]:
    """One fit: placebos with a target, targets per real drug, and the target penalty (nats) that was learned."""
    adata = with_placebos(adata, columns, n, seed, unit)
    model, _ = fit(adata, columns)
    calls = called(model)
    fake = calls["drug"].str.startswith("placebo")
    drug = adata.obs[columns["drug_key"]].astype(str)
    return {
        "cells": drug[drug.str.startswith("placebo")].value_counts().median(),
        "with_target": calls.loc[fake, "drug"].nunique(),
        "charge": model.calibration_["target_penalty_median"],
        "real": (~fake).sum() / (len(model.drugs) - n),
    }
