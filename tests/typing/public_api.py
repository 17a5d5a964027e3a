"""What users write, for the type checker alone: it is never run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import scgim

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def workflow(adata: AnnData, known: pd.DataFrame) -> pd.DataFrame:
    """Every public verb with typical arguments."""
    table: pd.DataFrame = scgim.pp.featurize_drugs(adata, drug_key="drug", smiles_key="smiles", smiles_conflict="first")
    sheet: pd.DataFrame = scgim.pp.check(adata, drug_key="drug", control=["DMSO", "untreated"], scale="lognorm")
    scgim.pp.split(adata, control="DMSO", unseen="drug", seed=0)
    scgim.setup_anndata(adata, drug_key="drug", control="DMSO", scale="lognorm", dose_key="dose", dose_unit="uM")
    scgim.setup_anndata(adata, "drug", "DMSO", "continuous", replicate_key="plate_well", unit="well")
    scgim.setup_anndata(
        adata, drug_key="drug", control="DMSO", scale="lognorm", readout="readout", covariate_keys=["phase"]
    )
    model = scgim.GIM(adata, mechanism="linear", intervention="shift", generator="auto", min_effect=0.2)
    model.train(seed=0, train_size=0.9, early_stopping=True, plan_kwargs={"search_rounds": 10})
    predicted: AnnData = model.predict(drug=["a", ("a", "b")], dose=[1.0, (1.0, 2.0)], as_="mean", genes="all")
    moved: AnnData = model.do({"STAT1": -2.0}, kind="set", as_="cells", n_cells=10)
    targets: pd.DataFrame = model.rank_targets(drug="a", evidence="data")
    edges: pd.DataFrame = model.get_graph(kind="total")
    model.annotate(evidence="features", genes="panel")
    scores: pd.DataFrame = model.evaluate(refit=False)
    found: pd.DataFrame = model.evaluate_targets(known, k=5)
    scgim.setup_anndata(adata, ["drug_1", "drug_2"], "DMSO", "lognorm", dose_key=["dose_1", "dose_2"], dose_unit="uM")
    scgim.setup_anndata(adata, drug_key="drugs", control="DMSO", scale="lognorm", combination_sep="+")
    deviations: pd.DataFrame = model.interactions()
    folds: pd.DataFrame = scgim.tl.cross_validate(adata, unseen="drug", n_splits=3)
    model.save("model", overwrite=True)
    again: scgim.GIM = scgim.GIM.load("model", adata=adata)
    scgim.pl.shift(predicted)
    scgim.pl.graph(adata)
    scgim.pl.dose_response(again, drug="a", genes=["STAT1"])
    shown: AnnData = scgim.get.shift_adata(moved)
    frames = [table, sheet, targets, edges, scores, found, deviations, folds, scgim.get.graph_df(shown)]
    return frames[0]
