"""The check of genes and values at set-up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from scgim._anndata import refuse_view
from scgim._checks import check_option, listed, warn
from scgim._gene_names import doubted_genes
from scgim._genes import GeneColumns
from scgim.statistics._value_scan import Scale

from ._matrix import CellMatrix, check_genes

if TYPE_CHECKING:
    from anndata import AnnData


def check_matrix(
    adata: AnnData, *, layer: str | None, scale: Scale, size_factor_key: str | None, readout: str | None = None
) -> None:
    """Validate genes and values in one scan. Readout genes may be constant.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the matrix is not valid. The message names the layer, gene, cell or value, and a remedy.
    """
    refuse_view(adata)
    check_option("scale", scale, get_args(Scale))
    if adata.n_vars < 1 or adata.n_obs < 1:
        raise ValueError(f"adata is empty: {adata.n_obs} cells x {adata.n_vars} genes.")
    if size_factor_key is not None and scale != "counts":
        raise ValueError(f"size_factor_key={size_factor_key!r} goes with scale='counts', not with {scale!r}.")
    check_genes(adata)
    genes = GeneColumns.read(adata, readout)
    for doubt in doubted_genes(genes.names):
        warn(" ".join(doubt))
    options: dict[str, Any] = {"layer": layer, "scale": scale, "size_factor_key": size_factor_key}
    cells = CellMatrix(adata, genes.panel, readout=(genes.readout, readout), **options)
    constant = cells.with_readout().check()[: len(genes.panel)]
    if constant.any():
        raise ValueError(
            f"{int(constant.sum())} genes are constant in all cells: {listed(genes.panel[constant], n=5)}. "
            "Drop them: sc.pp.filter_genes or adata[:, keep].copy()."
        )
    if scale == "counts" and size_factor_key is None and len(genes.names) < 1000:
        warn(
            f"Sizes for scale='counts' are row sums over only {len(genes.names)} genes, so a strong effect on a few of them changes "
            "the size itself. Pass size_factor_key= with totals over all genes where you have them."
        )
