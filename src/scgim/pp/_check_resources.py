"""Memory and time of set-up, training and prediction, estimated from the constants of a benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scgim._costs import MAX_CONTROLS, Cost, ScreenSize, cost
from scgim._memory import available_memory, in_bytes

from ._screen import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._screen import UncheckedScreen


def check_resources(screen: UncheckedScreen) -> Iterator[Finding]:
    """Memory and time of set-up, training and prediction; WARN if the memory is not available."""
    size = _size(screen)
    set_up = cost("set-up", size)
    training, prediction = (
        (cost("training on means", size), cost("prediction on means", size))
        if screen.scale == "counts"
        else (cost("training on cells", size), cost("prediction on cells", size))
    )
    others = f" and {size.readout:,} readout genes" if size.readout else ""
    finding = (
        f"Set-up takes about {_said(set_up)}, training about {_said(training)}, predict(as_='mean') about {_said(prediction)}, beside the "
        f"cells and libraries, with linear mechanisms ({size.cells:,} cells, {size.genes:,} genes{others}, {size.conditions:,} "
        "conditions); networks several times that."
    )
    needed, free = max(set_up.bytes, training.bytes, prediction.bytes), available_memory()
    if needed <= free:
        yield Finding("PASS", finding)
        return
    yield Finding(
        "WARN",
        f"{finding} About {in_bytes(needed)} are needed, and {in_bytes(free)} are available.",
        "Choose fewer genes (sc.pp.highly_variable_genes), keep the cells on disk (anndata.read_h5ad(path, backed='r')), or use a machine "
        "with more memory.",
    )


def _size(screen: UncheckedScreen) -> ScreenSize:
    genes, readout = screen.adata.n_vars, 0
    if not isinstance(screen.genes, Finding):
        genes, readout = len(screen.genes.panel), len(screen.genes.readout)
    conditions = len(screen.treated[["drug", "dose", "line"]].drop_duplicates())
    controls = screen.cells[screen.cells["control"]].groupby("line").size().clip(upper=MAX_CONTROLS).sum()
    return ScreenSize(screen.adata.n_obs, genes, conditions, int(controls), readout)


def _said(found: Cost) -> str:
    """A cost in words."""
    seconds = f"{max(found.seconds, 1):.0f} s" if found.seconds < 120 else f"{found.seconds / 60:.0f} min"
    return f"{seconds} and {in_bytes(found.bytes)}"
