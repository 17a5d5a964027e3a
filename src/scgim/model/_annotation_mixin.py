"""The method that writes results into an AnnData."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd

from scgim import _keys
from scgim._anndata import refuse_view
from scgim._checks import check_option, control_names
from scgim._gene_order import write_order
from scgim._genes import GeneColumns
from scgim._version import __version__
from scgim.data._columns import ScreenColumns
from scgim.data._design import condition_keys
from scgim.data._registered_screen import require_genes
from scgim.inference._prediction_adata import Genes
from scgim.inference._readout import gene_order
from scgim.inference._target_ranking import Evidence

from ._annotate import placed, require_room, write_graph, write_shift, write_targets
from ._state import ModelState

if TYPE_CHECKING:
    from anndata import AnnData


class AnnotationMixin(ModelState):
    """Results in the places of an AnnData that scanpy's plots use."""

    def annotate(self, adata: AnnData | None = None, *, evidence: Evidence = "auto", genes: Genes = "all") -> None:
        """Write predictions, targets and graph into an AnnData.

        ``.obsm["scgim_shift"]``: predicted change for every cell's drug and dose, 0 for controls;
        ``.obsm["scgim_pred"]``: control mean plus predicted change; ``.uns["scgim_targets"]``: targets in ``rank_genes_groups``
        format, ``scores`` = probability x abs(effect), ``logfoldchanges`` = effect in control SD, p-values NaN: a group for
        each of the AnnData's drugs (best over its doses and lines) and a group of zeros for every name of the controls;
        ``.varp["scgim_graph"]``: edge weights, row = source; ``.var["scgim_in_degree"]``, ``.var["scgim_out_degree"]``;
        ``.uns["scgim"]``: provenance.

        AnnData does not move the columns of ``.obsm`` with the genes. ``.obsm["scgim_genes"]`` is therefore a code of the order of the
        columns, and ``.uns["scgim"]["genes"]`` has the names of the columns by code. With both, :func:`scgim.get.shift_adata` finds columns
        by name after genes were subset or reordered, and after :func:`anndata.concat` with ``uns_merge="first"``.

        Parameters
        ----------
        adata
            The training AnnData by default. Another AnnData must have the same genes, drug columns, lines and batches.
        evidence
            Evidence of :meth:`predict` and :meth:`rank_targets`: ``"auto"``, ``"data"`` or ``"features"``.
        genes
            Genes of the two arrays in ``.obsm``, cells x genes: panel and readout (``"all"``) or the panel alone (``"panel"``), in the
            order of ``.var_names``, readout genes of ``.obsm`` last. Targets and graph are of the panel.

        Returns
        -------
        Nothing; the AnnData is modified.

        Raises
        ------
        ValueError
            If ``adata`` is a view, has other genes, lines or batches than the training data, or no drug that the model can predict.
        MemoryError
            If the two arrays do not fit in memory, before anything is computed.

        Examples
        --------
        >>> import scgim
        >>> adata = scgim.datasets.sachs()
        >>> scgim.setup_anndata(adata, drug_key="drug", control="cd3cd28", scale="continuous", smiles_key="smiles")
        >>> model = scgim.GIM(adata)
        >>> model.train(max_epochs=20, enable_progress_bar=False)  # for the example; the default gets further
        >>> model.annotate()
        >>> adata.obsm["scgim_shift"].shape
        (6564, 11)
        """
        predictor = self._predictor()
        summary = predictor.summary
        adata = self.adata if adata is None else adata
        if adata is None:
            raise ValueError("This model was loaded without data: pass the AnnData to annotate.")
        check_option("evidence", evidence, get_args(Evidence))
        check_option("genes", genes, get_args(Genes))
        refuse_view(adata)
        columns_of = GeneColumns.read(adata, self.registry_["setup_args"].get("readout"))
        require_genes(columns_of.panel, summary.genes)
        require_genes(columns_of.readout, summary.readout.get("genes", columns_of.readout[:0]))
        columns = replace(ScreenColumns.of_setup(self.registry_["setup_args"]), known_doses=summary.design.known_doses)
        cells = columns.table(adata, split=False)  # annotation does not use the split, and new data may have none
        groups = set(zip(summary.group_line, summary.group_batch, strict=True))
        if alien := sorted(set(zip(cells["line"], cells["batch"], strict=True)) - groups):
            raise ValueError(f"No training controls for line, batch = {alien[0]}, so nothing to add a change to.")
        treated = cells.loc[~cells["control"], ["drug", "dose", "line"]]
        order, names = gene_order(summary, columns_of.names, genes)
        readout = genes == "all" and len(columns_of.readout) > 0
        require_room(adata.n_obs, len(order), len(treated.drop_duplicates()), readout=readout)
        query, present = predictor.query_of(treated, columns.combinations(adata)), set(condition_keys(treated))
        targets = predictor.rank_targets(query, evidence, present)
        rows, change = predictor.changes(query, evidence, present, genes)
        write_shift(adata, cells, summary, order, rows, change)
        place = pd.Index(summary.genes).get_indexer(adata.var_names.to_numpy(str))  # -1: readout
        weight, _ = self._trained_module().mechanism.effects(summary.standardized_controls())
        write_graph(adata, placed(weight.numpy(), place))
        if self.stability_ is not None:
            recurs = np.where(self._trained_module().mechanism.graph.numpy(), self.stability_.direct, 0.0)
            adata.varp[_keys.STABILITY] = placed(recurs, place)
        write_targets(adata, targets, drug_key=columns.first_key, controls=control_names(columns.control))
        adata.uns[_keys.UNS] = self._provenance() | {"genes": write_order(adata, names)}

    def _provenance(self) -> dict:
        """Provenance of the results for readers of the file; None becomes an empty string."""
        args = {name: _written(value) for name, value in self.registry_["setup_args"].items()}
        settings = args | self._written_settings()
        summary = self._require_trained()
        counts = {"n_conditions": len(summary.design.drug), "n_cells": int(summary.statistics.n_cells)}
        return {
            "version": __version__,
            "seed": self.seed_,
            "data_hash": summary.data_hash,
            "settings": settings,
            "chosen": {
                "generator": self.generator_,
                "likelihood": "means" if self._from_means() else "cells",
                "min_effect": float(self._trained_module().min_effect),
            },
            "training": counts | {"n_edges": int(self._trained_module().mechanism.graph.sum())},
            "generator_choice": self._generator_choice(),
            "graph_choice": {} if self.graph_choice_ is None else self.graph_choice_.about(),
            "target_penalty": self.calibration_,
        }

    def _generator_choice(self) -> dict:
        """Reason of the choice of the generator, and the scores of all candidates."""
        about = {"asked": self.settings_["generator"], "reason": self._choice.reason}
        scores = self._choice.scores
        if scores is None:
            return about
        return about | {"generator": scores.index.to_numpy(str)} | {name: scores[name].to_numpy() for name in scores}

    def _written_settings(self) -> dict:
        """The settings as values that a file can store, without None."""
        settings = {name: "" if value is None else value for name, value in self.settings_.items()}
        prior, regulators = self.settings_["prior_graph"], self.settings_["regulators"]
        return settings | {
            "prior_graph": "" if prior is None else prior.astype(str),
            "regulators": "" if regulators is None else np.asarray(regulators, dtype=object),
        }


def _written(value: object) -> object:
    """A value that a file can store: None and empty lists become an empty string, and other lists arrays."""
    if isinstance(value, (list, tuple)):
        return np.asarray(value, dtype=object) if value else ""
    return "" if value is None else value
