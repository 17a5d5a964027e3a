"""Draws ``docs/_static/overview.png``: ``python docs/overview_figure.py`` (half a minute)."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV

import scgim


def unseen_drugs(seed: int) -> pd.DataFrame:
    """True and predicted mean change of 20 new drugs on a simulated screen, by scgim and by ridge on the same features."""
    adata = scgim.datasets.simulate_screen(seed=seed)
    truth, features = adata.uns["truth"]["unseen_drug"], adata.uns["drug_features"]
    scgim.setup_anndata(
        adata,
        drug_key="drug",
        control="DMSO",
        scale="continuous",
        dose_key="dose",
        dose_unit="uM",
        features_key="drug_features",
    )
    model = scgim.GIM(adata)
    model.train(seed=seed, enable_progress_bar=False)
    control = adata.X[(adata.obs["drug"] == "DMSO").to_numpy()]
    mean, sd = control.mean(0), control.std(0)

    names = np.array([f"{drug} {dose:g}" for drug, dose in zip(truth["drug"], truth["dose"], strict=True)])
    new = pd.DataFrame(
        np.asarray(truth["features"], float), index=np.asarray(truth["drug"]).astype(str), columns=features.columns
    )
    new = new[~new.index.duplicated()]
    pred = model.predict(drug=list(new.index), features=new, dose=sorted(set(truth["dose"])), as_="delta")
    pred.obs_names = [f"{drug} {dose:g}" for drug, dose in zip(pred.obs["drug"], pred.obs["dose"], strict=True)]

    def design(bits: np.ndarray, dose: np.ndarray) -> np.ndarray:
        return np.c_[bits, dose[:, None], bits * dose[:, None]]

    seen = adata.obs.loc[adata.obs["drug"] != "DMSO", ["drug", "dose"]]
    cells = pd.DataFrame(adata[seen.index].X, index=pd.MultiIndex.from_frame(seen.astype({"drug": str})))
    means = cells.groupby(level=[0, 1]).mean()
    bits, dose = (
        features.loc[means.index.get_level_values(0)].to_numpy(float),
        means.index.get_level_values(1).to_numpy(float),
    )
    ridge = RidgeCV(np.logspace(-2, 4, 13)).fit(design(bits, dose), (means.to_numpy() - mean) / sd)
    return pd.DataFrame(
        {
            "true": ((truth["mean"] - mean) / sd).ravel(),
            "scgim": (pred[names].X / sd).ravel(),
            "ridge": ridge.predict(
                design(np.asarray(truth["features"], float), np.asarray(truth["dose"], float))
            ).ravel(),
        }
    )


def main() -> None:
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4), width_ratios=[1.9, 1, 1], layout="constrained")
    adata = scgim.datasets.sachs()
    scgim.setup_anndata(adata, drug_key="drug", control="cd3cd28", scale="continuous", smiles_key="smiles")
    model = scgim.GIM(adata)
    model.train(enable_progress_bar=False)
    model.annotate()
    scgim.pl.graph(adata, drug="psitectorigenin", ax=left)
    left.set_title("Sachs et al.: graph, and targets of psitectorigenin")
    table = pd.concat([unseen_drugs(seed) for seed in range(5)])
    limit = 1.05 * table["true"].abs().max()
    for ax, method in ((middle, "scgim"), (right, "ridge")):
        rmse = np.sqrt(((table[method] - table["true"]) ** 2).mean())
        ax.axline((0, 0), slope=1, color="0.6", lw=1)
        ax.scatter(
            table["true"],
            table[method],
            s=5,
            alpha=0.3,
            lw=0,
            color="C0" if method == "scgim" else "C1",
            rasterized=True,
        )
        ax.set(
            xlim=(-limit, limit),
            ylim=(-limit, limit),
            aspect="equal",
            xlabel="true change (control sd)",
            ylabel="predicted",
        )
        ax.set_title(f"unseen drugs, 5 simulated screens\n{method}: RMSE {rmse:.2f}", fontsize=10)
    out = Path(__file__).parent / "_static" / "overview.png"
    figure.savefig(out, dpi=130)


if __name__ == "__main__":
    main()
