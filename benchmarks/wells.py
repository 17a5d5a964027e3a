"""Measured wells: ``python benchmarks/wells.py --data FOLDER [--only first doses halves]``.

RPPA of melanoma lines (5 inhibitors x 7 doses x 9 lines at 1 h and 24 h) and nELISA (192 drugs), which are not part of the package.
Writes beside this file

- ``wells_first.csv``: is the first target the drug's own first node, with all wells and with random halves of them
- ``wells_doses.csv``: errors of held-out doses and held-out lines, beside the best baseline
- ``wells_halves.csv``: fitted on half of the wells of every condition, errors of the other half

Errors are root mean squares over proteins of the mean change, in control SD, mean over conditions; intervals are bootstrapped over drugs.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy reads it

import anndata as ad
import numpy as np
import pandas as pd

import scgim
from scgim.evaluation import BASELINES, ConditionTable, compare

HERE, HOURS, SEEDS = Path(__file__).parent, ("1", "24"), 2
RPPA = {"drug_key": "drug", "control": "DMSO", "scale": "continuous", "dose_key": "dose", "dose_unit": "uM"}
RPPA |= {"cell_line_key": "cell_line", "smiles_key": "smiles"}
NELISA = {"drug_key": "drug", "control": "DMSO", "scale": "continuous", "batch_key": "plate", "smiles_key": "smiles"}
QUIET = {"enable_progress_bar": False}
KEYS = ["drug", "dose", "cell_line"]


def rppa(folder: Path, hour: str) -> ad.AnnData:
    adata = ad.read_h5ad(folder / "hms_rppa_melanoma.h5ad")
    return adata[adata.obs["hour"] == hour].copy()


def nelisa(folder: Path) -> ad.AnnData:
    adata = ad.read_h5ad(folder / "nelisa_a549.h5ad")
    adata.obs["smiles"] = adata.obs.groupby("drug", observed=True)["smiles"].transform("first").astype(str)
    return adata


def halves(obs: pd.DataFrame, keys: list[str], seed: int) -> np.ndarray:
    """Half of the wells of every condition, controls among them; ``(wells,)`` bool."""
    rng, half = np.random.default_rng(seed), np.zeros(len(obs), dtype=bool)
    for rows in obs.groupby(keys, observed=True, dropna=False).indices.values():
        half[rng.permutation(rows)[: (len(rows) + 1) // 2]] = True
    return half


def train(adata: ad.AnnData, columns: dict) -> scgim.GIM:
    scgim.setup_anndata(adata, **columns)
    model = scgim.GIM(adata)
    model.train(seed=0, **QUIET)
    return model


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


def first_nodes(adata: ad.AnnData) -> dict:
    """Share of conditions from .1 uM on whose first target is the first node, of RAF inhibitors, by scgim and by two rules."""
    known = dict(zip(adata.uns["known_targets"]["drug"], adata.uns["known_targets"]["gene"], strict=True))
    model = train(adata, RPPA)
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
                adata, unseen=unseen, n_splits=folds, refit=False, distributions=False, train_kwargs=QUIET
            )
            means = scores[scores["drug"] == "(all)"].set_index("method")["rmse"]
            rows.append({"hour": hour, "unseen": unseen, **means, "verdict": scores.attrs["verdict"][0]})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def other_half(adata: ad.AnnData, columns: dict, seed: int) -> dict:
    """Errors of the other half of every condition's wells, by scgim, by the half's own mean and by the best baseline."""
    keys = [key for key in KEYS if key in columns.values()]
    control = (adata.obs["drug"] == columns["control"]).to_numpy()
    half = halves(adata.obs, keys, seed) | control
    model = train(adata[half].copy(), columns)
    change = lambda part: _changes(part, columns, keys, model)
    seen, truth = (change(adata[rows]) for rows in (half, ~half | control))
    names = truth.index.intersection(seen.index)
    features = lambda table: model.table.frame.loc[table.index.get_level_values("drug")].to_numpy(float)
    tables = [
        ConditionTable(_names(table.index), features(table), table.to_numpy(), np.ones(len(table)))
        for table in (seen, truth.loc[names])
    ]
    asked = model.predict(as_="delta")
    at = (
        pd.MultiIndex.from_frame(asked.obs[keys].astype({"drug": str}))
        if len(keys) > 1
        else pd.Index(asked.obs["drug"].astype(str))
    )
    delta = pd.DataFrame(
        asked.X / model.fitted.scale[np.searchsorted(model.fitted.genes, asked.var_names)], at, asked.var_names
    )
    found = {"scgim": delta.loc[names, truth.columns].to_numpy(), "own mean": seen.loc[names].to_numpy()}
    for name, build in BASELINES.items():
        baseline = build()
        baseline.fit(tables[0])
        found[name] = baseline.predict(tables[1])
    errors = {k: np.sqrt(((v - tables[1].change) ** 2).mean(1)) for k, v in found.items() if np.isfinite(v).all()}
    best = min((k for k in errors if k not in ("scgim", "own mean")), key=lambda k: errors[k].mean())
    drug = pd.Series(names.get_level_values("drug").astype(str))
    against = {k: compare(pd.Series(errors["scgim"]), pd.Series(errors[k]), drug) for k in ("own mean", best)}
    row = {
        "scgim": errors["scgim"].mean(),
        "own mean": errors["own mean"].mean(),
        "best baseline": best,
        "its error": errors[best].mean(),
    }
    for label, c in zip(("against own mean", "against best"), against.values(), strict=True):
        row[label] = f"{c.difference:+.3f} [{c.low:+.3f}, {c.high:+.3f}]"
    return row


def _changes(adata: ad.AnnData, columns: dict, keys: list[str], model: scgim.GIM) -> pd.DataFrame:
    """Mean changes of conditions from the controls of their line or batch, in control SD."""
    group = columns.get("cell_line_key") or columns.get("batch_key")
    x = pd.DataFrame(np.asarray(adata.X, dtype=float), columns=adata.var_names)
    obs = adata.obs.reset_index(drop=True)
    control = (obs["drug"] == columns["control"]).to_numpy()
    means = x[control].groupby(obs[group][control].to_numpy()).mean()
    x = (x - means.loc[obs[group]].to_numpy()) / model.fitted.scale[
        np.searchsorted(model.fitted.genes, adata.var_names)
    ]
    return x[~control].groupby([obs[key][~control].astype(str if key != "dose" else float) for key in keys]).mean()


def _names(index: pd.Index) -> pd.DataFrame:
    table = index.to_frame(index=False)
    return table.assign(**{key: value for key, value in (("dose", np.nan), ("cell_line", "")) if key not in table})


def half_by_half(folder: Path) -> pd.DataFrame:
    screens = {f"RPPA, {hour} h": (lambda hour=hour: rppa(folder, hour), RPPA) for hour in HOURS}
    screens["nELISA"] = (lambda: nelisa(folder), NELISA)
    rows = []
    for name, (read, columns) in screens.items():
        rows.append({"screen": name} | other_half(read(), columns, seed=0))
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


PARTS = {"first": first, "doses": doses, "halves": half_by_half}


def main() -> None:
    """Run the parts and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for part in options.only:
        PARTS[part](options.data).round(3).to_csv(options.out / f"wells_{part}.csv", index=False)


if __name__ == "__main__":
    main()
