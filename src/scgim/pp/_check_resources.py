"""Memory and time of training, estimated from the constants of a benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._screen import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._screen import UncheckedScreen


def check_resources(screen: UncheckedScreen) -> Iterator[Finding]:
    """Memory and time of training, estimated."""
    n, genes, readout = screen.adata.n_obs, screen.adata.n_vars, 0
    if not isinstance(screen.genes, Finding):
        genes, readout = len(screen.genes.panel), len(screen.genes.readout)
    conditions = len(screen.treated[["drug", "dose", "line", "batch"]].drop_duplicates())
    kept = screen.cells[screen.cells["control"]].groupby("line").size().clip(upper=10_000).sum()
    # The constants are fits to benchmarks/scaling.csv (linear mechanisms, two cores).
    block = 3 * 4 * min(n * (genes + readout), 2**14 * (genes + readout), 2**23)
    megabytes = 15 + (block + 10 * 8 * genes**2 + 6 * 8 * conditions * genes + 8 * kept * genes) / 1e6
    seconds = 8 + 1.3e-4 * conditions * genes + 7e-6 * genes**2 + n * (1e-8 * genes + 5e-11 * genes**2)
    # A readout adds its scatter with the panel, condition means and, in the fit of its own changes, about six arrays of their size.
    megabytes += 8 * readout * (2 * genes + 8 * conditions) / 1e6
    seconds += n * readout * (2e-8 + 5e-11 * genes) + 1e-5 * conditions * readout
    others = f" and {readout:,} readout genes" if readout else ""
    time = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    yield Finding(
        "PASS",
        f"Training takes about {round(megabytes):,} MB besides the cells and libraries, and about {time} with linear "
        f"mechanisms ({n:,} cells, {genes:,} genes{others}, {conditions:,} conditions); networks several times that.",
    )
