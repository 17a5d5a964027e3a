"""Measured wells: ``python benchmarks/wells.py --data FOLDER [--only first doses halves]``.

RPPA of melanoma lines (5 inhibitors x 7 doses x 9 lines at 1 h and 24 h), nELISA (192 drugs), and the cells of ECCITE
(20 knock-outs) and scID-seq (2 conditions). None of these screens is part of the package. Writes beside this file

- ``wells_first.csv``: share of conditions whose first target is the drug's own first node; all wells and random halves
- ``wells_doses.csv``: errors of held-out doses and held-out lines, beside the best baseline
- ``wells_halves.csv``: fitted on half of the wells or cells of every condition, errors of the other half, three times

Errors are root mean squares over proteins of the mean change, in control SD, mean over conditions. Intervals are bootstraps
over drugs.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # numpy reads it once

import anndata as ad
import numpy as np
import pandas as pd
from common import HERE, arguments, conditions, fit, gap, on_scale, trained_baseline
from measured import ECCITE, NELISA, RPPA, SCIDSEQ

import scgim
from scgim.evaluation import BASELINES

if TYPE_CHECKING:
    from pathlib import Path

HOURS, SEEDS, SPLITS = ("1", "24"), 2, 3
BY_DRUG = {"drug_key": "drug"}  # the conditions of cells are drugs here, by the name that all wells have
KEYS, OWN = ["drug", "dose", "cell_line"], "own mean"


def rppa(folder: Path, hour: str) -> ad.AnnData:
    adata = ad.read_h5ad(folder / "hms_rppa_melanoma.h5ad")
    return adata[adata.obs["hour"] == hour].copy()


def nelisa(folder: Path) -> ad.AnnData:
    adata = ad.read_h5ad(folder / "nelisa_a549.h5ad")
    adata.obs["smiles"] = adata.obs.groupby("drug", observed=True)["smiles"].transform("first").astype(str)
    return adata


def cells(folder: Path, name: str) -> ad.AnnData:
    adata = ad.read_h5ad(folder / name)
    adata.obs["drug"] = adata.obs["condition"].astype(str)
    return adata


def halves(obs: pd.DataFrame, keys: list[str], seed: int) -> np.ndarray:
    """Half of the wells of every condition, controls among them; ``(wells,)`` bool."""
    rng, half = np.random.default_rng(seed), np.zeros(len(obs), dtype=bool)
    for rows in obs.groupby(keys, observed=True, dropna=False).indices.values():
        half[rng.permutation(rows)[: (len(rows) + 1) // 2]] = True
    return half


def first(folder: Path) -> pd.DataFrame:
    rows = []
    for hour in HOURS:
        whole = rppa(folder, hour)
        subsets = {"all wells": np.ones(whole.n_obs, dtype=bool)}
        for seed in range(SEEDS):
            half = halves(whole.obs, KEYS, seed)
            subsets |= {f"half {seed}": half, f"other half {seed}": ~half}
        for name, wells in subsets.items():
            adata = whole[wells].copy()
            rows.append({"hour": hour, "wells": name} | first_nodes(adata))
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def first_nodes(adata: ad.AnnData, **options: object) -> dict:
    """Share of conditions from .1 uM on whose first target is the first node, of RAF inhibitors, by scgim and by two rules."""
    known = dict(zip(adata.uns["known_targets"]["drug"], adata.uns["known_targets"]["gene"], strict=True))
    model, _ = fit(adata, RPPA, **options)
    top = model.rank_targets().query("rank == 1 and dose >= 0.1 and drug != 'Selumetinib'")
    want = top["drug"].astype(str).map(known).to_numpy()
    obs, x = adata.obs, np.asarray(adata.X, dtype=float)
    by_rule: dict[str, list] = {"largest |shift|": [], "largest |z|": []}
    for drug, dose, line in top[KEYS].itertuples(index=False):
        treated = x[((obs["drug"] == drug) & (obs["dose"] == dose) & (obs["cell_line"] == line)).to_numpy()]
        control = x[((obs["drug"] == "DMSO") & (obs["cell_line"] == line)).to_numpy()]
        change, sd = treated.mean(0) - control.mean(0), control.std(0, ddof=1)
        error = np.sqrt(treated.var(0, ddof=1) / len(treated) + sd**2 / len(control))
        by_rule["largest |shift|"].append(adata.var_names[np.abs(change / sd).argmax()])
        by_rule["largest |z|"].append(adata.var_names[np.abs(change / error).argmax()])
    on = top["rests_on"] == "pMEK -> pERK"
    return {
        "scgim": (top["gene"].astype(str).to_numpy() == want).mean(),
        **{rule: (np.array(genes) == want).mean() for rule, genes in by_rule.items()},
        "rest on pMEK -> pERK": on.mean(),
        "direction probability": top.loc[on, "direction_probability"].mean(),
    }


def doses(folder: Path) -> pd.DataFrame:
    rows = []
    for hour in HOURS:
        for unseen, folds in (("dose", 3), ("cell_line", 9)):
            adata = rppa(folder, hour)
            scgim.setup_anndata(adata, **RPPA)
            scores = scgim.tl.cross_validate(
                adata,
                unseen=unseen,
                n_splits=folds,
                refit=False,
                distributions=False,
                train_kwargs={"enable_progress_bar": False},
            )
            means = scores[scores["drug"] == "(all)"].set_index("method")["rmse"]
            rows.append({"hour": hour, "unseen": unseen, **means, "verdict": scores.attrs["verdict"][0]})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def other_half(adata: ad.AnnData, columns: dict, seed: int) -> pd.DataFrame:
    """Errors of the other half of every condition, by scgim, by the half's own mean and by every baseline; a row a condition."""
    keys = [key for key in KEYS if key in columns.values()]
    control = (adata.obs["drug"] == columns["control"]).to_numpy()
    strata = [*keys, columns["batch_key"]] if columns["scale"] == "counts" else keys
    half = halves(adata.obs, strata, seed) | control
    model, _ = fit(adata[half].copy(), columns)
    seen, truth = (_changes(adata[rows], columns, keys, model) for rows in (half, ~half | control))
    names = truth.index.intersection(seen.index)
    width = model.drug_table_.frame.shape[1]
    features = lambda table: (
        model.drug_table_.frame.loc[table.index.get_level_values("drug")].to_numpy(float)
        if width
        else np.zeros((len(table), 0))
    )
    tables = [
        conditions(table.index.to_frame(index=False), features(table), table.to_numpy())
        for table in (seen, truth.loc[names])
    ]
    asked = model.predict(as_="delta")
    labels = asked.obs[keys].astype({"drug": str})
    at = pd.MultiIndex.from_frame(labels) if len(keys) > 1 else pd.Index(labels["drug"])
    delta = pd.DataFrame(asked.X / _scale(model, asked), at, asked.var_names)
    found = {"scgim": delta.loc[names, truth.columns].to_numpy(), OWN: seen.loc[names].to_numpy()}
    for name in BASELINES:
        if width or name in ("control", "training mean"):
            found[name] = trained_baseline(name, tables[0]).predict(tables[1])
    errors = {k: np.sqrt(((v - tables[1].change) ** 2).mean(1)) for k, v in found.items() if np.isfinite(v).all()}
    return pd.DataFrame(errors).assign(drug=names.get_level_values("drug").astype(str), split=seed)


def _scale(model: scgim.GIM, adata: ad.AnnData) -> np.ndarray:
    """Control SD in the order of the genes of ``adata``."""
    return model.summary_.scale[np.searchsorted(model.summary_.genes, adata.var_names)]


def _changes(adata: ad.AnnData, columns: dict, keys: list[str], model: scgim.GIM) -> pd.DataFrame:
    """Mean changes of conditions from the controls of their line or batch, in control SD."""
    group = columns.get("cell_line_key") or columns.get("batch_key")
    x = pd.DataFrame(on_scale(adata, columns), columns=adata.var_names)
    obs = adata.obs.reset_index(drop=True)
    control = (obs["drug"] == columns["control"]).to_numpy()
    means = x[control].groupby(obs[group][control].to_numpy()).mean()
    x = (x - means.loc[obs[group]].to_numpy()) / _scale(model, adata)
    return x[~control].groupby([obs[key][~control].astype(str if key != "dose" else float) for key in keys]).mean()


def half_by_half(folder: Path) -> pd.DataFrame:
    screens = {f"RPPA, {hour} h": (lambda hour=hour: rppa(folder, hour), RPPA) for hour in HOURS}
    screens["nELISA"] = (lambda: nelisa(folder), NELISA)
    screens["ECCITE"] = (lambda: cells(folder, "papalexi2021_eccite.h5ad"), ECCITE | BY_DRUG)
    screens["scID-seq"] = (lambda: cells(folder, "scidseq_kramer2026.h5ad"), SCIDSEQ | {"batch_key": "plate"} | BY_DRUG)
    rows = []
    for name, (read, columns) in screens.items():
        errors = pd.concat([other_half(read(), columns, seed) for seed in range(SPLITS)], ignore_index=True)
        mean = errors.drop(columns=["drug", "split"]).mean()
        best = mean.drop(["scgim", OWN]).idxmin()
        # an interval over two drugs says nothing: there the units are drugs in a split
        unit = errors["drug"] if errors["drug"].nunique() > 4 else errors["drug"] + errors["split"].astype(str)
        row = {"screen": name, "scgim": mean["scgim"], OWN: mean[OWN], "best baseline": best, "its error": mean[best]}
        for other, label in ((OWN, "against own mean"), (best, "against best")):
            row[label] = gap(errors["scgim"], errors[other], unit)
        rows.append(row)
        print(row, flush=True)
    return pd.DataFrame(rows)


PARTS = {"first": first, "doses": doses, "halves": half_by_half}


def main() -> None:
    """Run the parts and write their tables."""
    options = arguments(__doc__, parts=PARTS, data=True, out=HERE).parse_args()
    warnings.filterwarnings("ignore")
    for part in options.only:
        PARTS[part](options.data).round(3).to_csv(options.out / f"wells_{part}.csv", index=False)


if __name__ == "__main__":
    main()
