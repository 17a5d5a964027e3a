"""Summary of the demonstration in sentences that follow from the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def about_targets(table: pd.DataFrame) -> list[str]:
    """How often the nominal target comes first, and whether the calls are credible."""
    n, genes = len(table), int(table.attrs["n_genes"])
    ours, theirs = (int((table[f"rank by {by}"] == 1).sum()) for by in ("scgim", "|shift|"))
    mean_ours, mean_theirs = (table[f"rank by {by}"].mean() for by in ("scgim", "|shift|"))
    verdict = _compare(ours, theirs, "is better than", "is no better than", "is worse than")
    calls = table["called (p > .5)"].mean()
    out = [
        f"Targets: scgim ranks the nominal target first for {ours} of {n} drugs, the plain rule 'largest |mean shift|' for {theirs}; "
        f"mean rank {mean_ours:.1f} and {mean_theirs:.1f} of {genes}. By first place scgim {verdict} the rule.",
    ]
    if calls > genes / 3:
        out.append(
            f"It calls {calls:.1f} of {genes} proteins a target per drug (probability > .5), more than any inhibitor has. With some 800 "
            "cells per condition every small misfit of a linear model is significant. Ranks are more reliable than calls."
        )
    out.append(
        "The readout is phosphorylation, not the activity that the drug inhibits (U0126 blocks Mek's activity and raises p-Mek), so the "
        "nominal target and the protein that changes need not agree."
    )
    return out


def about_graph(table: pd.DataFrame, n_edges: int) -> list[str]:
    """Whether the graph is closer to the published graphs than a random graph."""
    better = int((table["SHD"] < table["SHD, random DAG"] - 1).sum())
    spread = ", ".join(f"{row['SHD']} (random {row['SHD, random DAG']:.1f})" for _, row in table.iterrows())
    return [
        f"Graph: {n_edges} edges; SHD to the three published graphs {spread}. It is closer than a random DAG of as many edges, by more "
        f"than one edge, to {better} of {len(table)}; precision {table['precision'].min():.2f}-{table['precision'].max():.2f}, "
        f"recall {table['recall'].min():.2f}-{table['recall'].max():.2f}. The published graphs differ from each other by "
        f"{_range(table['SHD, other published'])}."
    ]


def about_held_out(scores: pd.DataFrame, shown: str) -> list[str]:
    """Which method predicts a held-out drug best."""
    wide = scores.pivot(index="drug", columns="method", values="RMSE")
    ours = wide.pop("scgim do()")
    mean, best = wide.mean().sort_values(), wide.mean().idxmin()
    wins = int((ours < wide[best]).sum())
    moved = scores[scores["method"] == "scgim do()"].set_index("drug")["moved"]
    verdict = _compare(-ours.mean(), -mean.iloc[0], "beats", "cannot be told from", "does not beat", margin=0.02)
    still = moved.index[moved == 0].tolist()
    out = [
        f"Held-out drugs, given only the shift of the nominal target: mean RMSE over {len(wide)} drugs {ours.mean():.2f} SD for do(); "
        + ", ".join(f"{value:.2f} {name}" for name, value in mean.items())
        + f". do() {verdict} the best baseline, '{best}' (better for {wins} of {len(wide)} drugs).",
        f"For {shown}, the drug in the figure: {ours[shown]:.2f} for do(), {wide.loc[shown].min():.2f} for '{wide.loc[shown].idxmin()}'.",
    ]
    if still:
        out.append(
            f"For {', '.join(still)} the graph has nothing downstream of the nominal target, so do() predicts no change at all."
        )
    return out


def _compare(ours: float, theirs: float, better: str, equal: str, worse: str, margin: float = 0.0) -> str:
    return better if ours > theirs + margin else worse if ours < theirs - margin else equal


def _range(spans: pd.Series) -> str:
    ends = [int(end) for span in spans for end in span.split("-")]
    return f"{min(ends)} to {max(ends)}"
