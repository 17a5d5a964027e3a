from __future__ import annotations

import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pandas as pd

import scgim

from ._compare import CONTROL, DRUG, changes, compare_graphs, compare_targets, predict_held_out
from ._figures import draw
from ._words import about_graph, about_held_out, about_targets

if TYPE_CHECKING:
    from pathlib import Path

# The held-out drug of the figure was chosen beforehand: it is the only drug whose effect repeats on both backgrounds.
SHOWN = "Go6976"


def run(out: Path, *, seed: int = 0) -> None:
    """Run the Sachs data from training to a held-out drug, and write everything to ``out``.

    Writes ``annotated.h5ad``, ``targets.csv``, ``graph.csv``, ``held_out.csv``, ``summary.txt`` and four figures.

    Parameters
    ----------
    out
        Folder for the files; created if missing.
    seed
        Seed of training.
    """
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    adata = scgim.datasets.sachs()
    say(f"Sachs et al. 2005: {adata.n_obs:,} T cells, {adata.n_vars} proteins, 7 small molecules, control {CONTROL!r}.")
    scgim.setup_anndata(adata, drug_key=DRUG, control=CONTROL, scale="continuous", smiles_key="smiles")
    model = scgim.GIM(adata)
    model.train(seed=seed)
    model.annotate()
    say(repr(model))

    ranking = model.rank_targets()
    targets = compare_targets(ranking, changes(adata), adata.uns["known_targets"])
    targets.attrs["n_genes"] = adata.n_vars
    say("\nTargets, compared with the nominal targets and the largest mean shift\n" + targets.to_string(index=False))
    graphs = compare_graphs(adata)
    say("\nGraph, compared with three published graphs\n" + graphs.round(2).to_string(index=False))
    tables, scores = {}, []
    for drug, target in adata.uns["known_targets"][["drug", "target"]].itertuples(index=False, name=None):
        tables[drug], score = predict_held_out(adata, drug, target, seed=seed)
        scores.append(score)
    errors = pd.concat(scores, ignore_index=True)
    wide = errors.pivot(index=["drug", "given"], columns="method", values="RMSE").loc[
        :, list(dict.fromkeys(errors["method"]))
    ]
    say(
        "\nHeld-out drugs: RMSE over the other ten proteins, control SD\n"
        + wide.round(2).reset_index().to_string(index=False)
    )

    adata.write_h5ad(out / "annotated.h5ad")
    ranking.to_csv(out / "targets.csv", index=False)
    model.get_graph().to_csv(out / "graph.csv", index=False)
    errors.to_csv(out / "held_out.csv", index=False)
    draw(out, model, adata, SHOWN, tables[SHOWN])

    sentences = [*about_targets(targets), *about_graph(graphs, len(model.get_graph())), *about_held_out(errors, SHOWN)]
    text = "\n".join(
        textwrap.fill(sentence, 110, initial_indent="* ", subsequent_indent="  ") for sentence in sentences
    )
    (out / "summary.txt").write_text(text + "\n", encoding="utf-8")
    say(f"\nSummary\n{text}")
    say(
        f"\n{time.perf_counter() - start:.0f} s. Written to {out}: {', '.join(sorted(path.name for path in out.iterdir()))}."
    )


def say(text: str) -> None:
    """Write to standard output at once, in step with the progress bar."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
