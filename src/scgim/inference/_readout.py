"""Predictions of the readout genes, from the predicted change of the panel and their own changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scgim._gene_names import positions
from scgim.module import Readout

from ._prediction_adata import Block

if TYPE_CHECKING:
    from typing import Self

    import scipy.sparse as sp

    from scgim.data._training_summary import TrainingSummary
    from scgim.module import Rows

    from ._prediction_adata import Genes


class ReadoutControls(NamedTuple):
    """Readout genes of the control cells of a line on the training scale: values (cells, readout) and their mean (readout,)."""

    x: sp.csr_matrix
    mean: np.ndarray


@dataclass(frozen=True)
class ReadoutPredictor:
    """Readout genes of a trained model.

    Parameters
    ----------
    genes
        Names, sorted, ``(readout,)``.
    model
        Regression on the panel, and own changes.
    unit, scale
        Control SD of the panel and of the readout genes.
    """

    genes: np.ndarray
    model: Readout
    unit: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, summary: TrainingSummary) -> Self | None:
        """From the summary of the training data; ``None`` without readout."""
        if not summary.readout:
            return None
        parts = summary.readout
        return cls(parts["genes"], Readout.from_state(parts["model"]), summary.scale, parts["scale"])

    def own(self, rows: Rows) -> np.ndarray:
        """Own changes of measured drugs on the training scale, ``(rows, readout)``."""
        return self.model.responses.own(rows) * self.scale

    def extended(
        self,
        block: Block,
        controls: ReadoutControls,
        as_: str,
        rows: np.ndarray | None,
        own: np.ndarray | float,
        rng: np.random.Generator,
    ) -> Block:
        """The block with the readout genes as last columns.

        Parameters
        ----------
        block
            Predicted values of the panel.
        controls, rows
            Readout genes of the control cells, and indices of the source cells for ``as_="cells"``.
        own
            Own change under the intervention.
        rng
            Source of the noise for ``as_="samples"``.
        """
        control = controls.mean[None] if rows is None else controls.x[rows].toarray().astype(np.float64)
        origin = 0.0 if as_ == "delta" else block.control
        base = 0.0 if as_ == "delta" else control
        noise: np.ndarray | float = 0.0
        if as_ == "samples":
            noise = rng.normal(size=(len(block.x), len(self.genes))) * np.sqrt(self.model.noise) * self.scale

        def readout(panel: np.ndarray) -> np.ndarray:
            return base + self.model.change((panel - origin) / self.unit) * self.scale + own + noise

        wide = np.broadcast_to(control, (len(block.x), len(self.genes)))
        additive = None if block.additive is None else np.hstack([block.additive, readout(block.additive)])
        return Block(np.hstack([block.x, readout(block.x)]), np.hstack([block.control, wide]), block.names, additive)


def gene_order(summary: TrainingSummary, names: np.ndarray, genes: Genes) -> tuple[np.ndarray, np.ndarray]:
    """Indices of ``names`` among the model's genes, readout genes last, and the names; ``genes="panel"``: of the panel alone."""
    if genes == "panel":
        names = names[np.isin(names, summary.genes)]
    known = np.concatenate([summary.genes, summary.readout.get("genes", np.empty(0, dtype=str))])
    return positions(known, names, "the model"), names
