"""Check of genetic arms."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from scgim._checks import listed
from scgim._gene_names import match_genes
from scgim._genetic_arms import genetic_arms

from ._screen import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._screen import UncheckedScreen


def check_arms(screen: UncheckedScreen) -> Iterator[Finding]:
    """Every genetic arm perturbs one gene, and some of the genes are measured."""
    if screen.intervention_key is None:
        yield Finding("PASS", "No intervention_key was given.")
        return
    cells = screen.cells
    known = cells["drug"].notna().to_numpy()
    genes = np.asarray(screen.adata.var_names).astype(str)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            arms = genetic_arms(screen.adata.obs[known], screen.intervention_key, cells[known])
        except ValueError as error:
            yield Finding.of(error)
            return
        found = match_genes(arms["gene"], genes, "intervention_key").notna()
    for warning in said:
        yield Finding.of(ValueError(str(warning.message)), "WARN")
    lost = arms.loc[~found, "gene"].unique()
    if len(arms) and not found.any():
        fix = f"Add the perturbed genes to the panel: {listed(lost)}. Without them, targets of the arms are learned like those of drugs."
        yield Finding("WARN", f"None of the perturbed genes of {len(arms):,} genetic arms is measured.", fix)
    yield Finding("PASS", f"{len(arms):,} genetic arms; the perturbed genes of {int(found.sum()):,} are measured.")
