"""The model's verbs that write: annotate, save, load, and how it shows itself."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from scgim import __version__, _keys
from scgim._checks import refuse_view
from scgim.statistics import Statistics

from . import _io
from ._annotate import write_graph, write_shift, write_targets
from ._design import Design
from ._fields import DRUG_TABLE
from ._fitted import Fitted
from ._query import DrugTable

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from anndata import AnnData


class KeepingMixin:
    """What becomes of a trained model's results."""

    def annotate(self, adata: AnnData | None = None) -> None:
        """Write predictions, targets and graph into an AnnData.

        ``.obsm["scgim_shift"]``: predicted change of every cell's own drug and dose, 0 for controls;
        ``.obsm["scgim_pred"]``: its control mean plus that; ``.uns["scgim_targets"]``: targets in ``rank_genes_groups``
        format, ``scores`` = probability x abs(effect), ``logfoldchanges`` = effect in control sd, p-values NaN;
        ``.varp["scgim_graph"]``: edge weights, row = source; ``.var["scgim_in_degree"]``, ``.var["scgim_out_degree"]``;
        ``.uns["scgim"]``: provenance.

        Parameters
        ----------
        adata
            The training AnnData by default; another one must have the same genes, drug columns, lines and batches.

        Raises
        ------
        ValueError
            If ``adata`` is a view, or holds other genes, lines or batches than the training data.
        """
        fitted = self._require_fitted()
        adata = self.adata if adata is None else adata
        if adata is None:
            raise ValueError("This model was loaded without data: pass the AnnData to annotate.")
        refuse_view(adata)
        if set(adata.var_names) != set(fitted.genes) or adata.n_vars != len(fitted.genes):
            raise ValueError(
                f"adata has {adata.n_vars} genes, the model {len(fitted.genes)}; annotate needs the same ones."
            )
        field = self._context_field()
        table = field.table(adata)
        alien = set(map(tuple, table[["line", "batch"]].to_numpy())) - set(
            zip(fitted.group_line, fitted.group_batch, strict=True)
        )
        if alien:
            raise ValueError(f"No training controls for line, batch = {sorted(alien)[0]}.")
        order = np.searchsorted(fitted.genes, adata.var_names.to_numpy(str))
        known = set(self.table.frame.index) if self.module.generator.pools_drugs else set(fitted.design.drugs)
        asked = table.loc[~table["control"] & table["drug"].isin(known), ["drug", "dose"]].drop_duplicates()
        doses = np.unique(asked["dose"]) if fitted.design.dosed else None
        query = self._resolve(drug=sorted(set(asked["drug"])), dose=doses)
        pairs = pd.MultiIndex.from_frame(asked)
        query = query.take(pd.MultiIndex.from_arrays([query.drug, query.dose]).isin(pairs))
        write_shift(adata, table, fitted, order, self._predict_query(query, None, "delta", None, 0, "expectation"))
        write_graph(adata, self.module.mechanism.coefficients.numpy()[np.ix_(order, order)])
        write_targets(adata, self.rank_targets(), drug_key=field.drug_key, control=field.control)
        adata.uns[_keys.UNS] = self._provenance()

    def save(self, dir_path: str | Path, overwrite: bool = False) -> None:
        """Save everything that asking needs, without pickle: safetensors and JSON.

        Parameters
        ----------
        dir_path
            A folder, made if need be.
        overwrite
            Whether a model there may be replaced.
        """
        fitted = self._require_fitted()
        arrays = {
            name: getattr(fitted, name) for name in fitted.__dataclass_fields__ if name not in {"design", "statistics"}
        }
        state = {
            "version": __version__,
            "registry": self.registry_,
            "settings": self.settings_,
            "generator": self.generator_,
            "seed": self.seed_,
            "fitted": arrays | {"design": vars(fitted.design), "statistics": vars(fitted.statistics)},
            "module": {name: tensor.numpy() for name, tensor in self.module.state_dict().items()},
            "history": {name: frame.astype(float) for name, frame in (self.history_ or {}).items()},
        }
        _io.write(dir_path, state, overwrite=overwrite)

    @classmethod
    def load(cls, dir_path: str | Path, adata: AnnData | None = None) -> Self:
        """Load a model; without an AnnData it still predicts, ranks and draws its graph.

        Parameters
        ----------
        dir_path
            Where :meth:`save` put it.
        adata
            Data to bind, set up as the model's was: to annotate, or to train again.
        """
        state = _io.read(dir_path)
        registry = state["registry"]
        if adata is not None:
            cls.setup_anndata(adata, **registry["setup_args"])
            theirs, ours = set(adata.var_names), set(state["fitted"]["genes"].tolist())
            if theirs != ours:
                raise ValueError(
                    f"adata does not have the model's genes: {len(ours - theirs)} are missing, {len(theirs - ours)} are new."
                )
        model = cls(adata, None if adata is not None else registry, **state["settings"])
        arrays = dict(state["fitted"])
        design, statistics = Design(**arrays.pop("design")), arrays.pop("statistics")
        fitted = Fitted(**arrays, design=design, statistics=Statistics(**statistics))
        model.table = DrugTable.from_registry(registry["field_registries"][DRUG_TABLE]["state_registry"])
        model.generator_, model.seed_ = state["generator"], state["seed"]
        model.module = model._build(len(fitted.genes), design).requires_grad_(False)
        model.module.load_state_dict({name: torch.as_tensor(array) for name, array in state["module"].items()})
        model.module.eval()
        model.fitted, model.history_, model.is_trained_ = fitted, state["history"], True
        return model

    def _provenance(self) -> dict:
        """What a reader of the file needs to know of where the results come from; None becomes an empty string."""
        args = {name: "" if value is None else value for name, value in self.registry_["setup_args"].items()}
        settings = args | self.settings_ | {"generator": self.generator_}
        fitted = self.fitted
        counts = {"n_contexts": len(fitted.design.drug), "n_cells": int(fitted.statistics.n_cells)}
        return {
            "version": __version__,
            "seed": self.seed_,
            "data_hash": fitted.data_hash,
            "settings": settings,
            "training": counts | {"n_edges": int(self.module.mechanism.graph.sum())},
        }

    def _facts(self) -> dict[str, str]:
        """What ``repr`` shows."""
        stats, args = self.summary_stats, self.registry_["setup_args"]
        dose = f", dose in {args['dose_unit']}" if args["dose_key"] else ""
        facts = {
            "screen": f"{stats.n_vars} genes, {stats.n_drugs} drugs, {stats.n_contexts} contexts, control {args['control']!r}",
            "scale": f"{args['scale']}{dose}",
            "drug features": f"{stats.n_features} from {self.table.source}" if stats.n_features else "none",
            "mechanism": f"{self.settings_['mechanism']}, {self.settings_['intervention']} interventions",
            "generator": self.settings_["generator"],
            "structure": self.settings_["structure"],
            "trained": "no",
        }
        if self.fitted is not None:
            facts["generator"] = self.generator_ + (" (auto)" if self.settings_["generator"] == "auto" else "")
            facts["trained"] = f"seed {self.seed_}, {int(self.module.mechanism.graph.sum())} edges"
        return facts

    def __repr__(self) -> str:
        facts = self._facts()
        width = max(map(len, facts))
        return "\n".join(["GIM", *(f"  {name:<{width}}  {value}" for name, value in facts.items())])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(k)}</th><td>{escape(v)}</td></tr>"
            for k, v in self._facts().items()
        )
        return f"<table><caption>GIM</caption>{rows}</table>"
