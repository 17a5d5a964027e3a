"""The model's verbs that write: annotate, save, load, and how it shows itself."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from scgim import __version__, _keys
from scgim._checks import check_option, listed, nearest, refuse_view
from scgim.data._design import Design
from scgim.data._drug_table import DrugTable
from scgim.data._training_summary import Fitted
from scgim.inference._predictor import contexts
from scgim.inference._target_ranking import Evidence
from scgim.statistics import Statistics
from scgim.structure.bootstrap import Recurrence
from scgim.train._generator_selection import GeneratorChoice
from scgim.train._graph_averaging import Averaging
from scgim.train._graph_choice import GraphChoice

from . import _io
from ._annotate import write_graph, write_shift, write_targets

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from anndata import AnnData

    from scgim.inference._query import Query
    from scgim.module import GIMModule


class KeepingMixin:
    """What becomes of a trained model's results."""

    def annotate(self, adata: AnnData | None = None, *, evidence: Evidence = "auto") -> None:
        """Write predictions, targets and graph into an AnnData.

        ``.obsm["scgim_shift"]``: predicted change of every cell's own drug and dose, 0 for controls;
        ``.obsm["scgim_pred"]``: its control mean plus that; ``.uns["scgim_targets"]``: targets in ``rank_genes_groups``
        format, ``scores`` = probability x abs(effect), ``logfoldchanges`` = effect in control sd, p-values NaN: a group for
        each of the AnnData's drugs (best over its doses and lines) and one of zeros for the control;
        ``.varp["scgim_graph"]``: edge weights, row = source; ``.var["scgim_in_degree"]``, ``.var["scgim_out_degree"]``;
        ``.uns["scgim"]``: provenance.

        Parameters
        ----------
        adata
            The training AnnData by default; another one must have the same genes, drug columns, lines and batches.
        evidence
            As in :meth:`predict` and :meth:`rank_targets`.

        Returns
        -------
        Nothing; the AnnData is written to.

        Raises
        ------
        ValueError
            If ``adata`` is a view, holds other genes, lines or batches than the training data, or no drug that the model
            can speak of.

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
        fitted = self._require_fitted()
        adata = self.adata if adata is None else adata
        if adata is None:
            raise ValueError("This model was loaded without data: pass the AnnData to annotate.")
        check_option("evidence", evidence, get_args(Evidence))
        refuse_view(adata)
        genes = adata.var_names.to_numpy(str)
        _require_genes(genes, fitted.genes)
        field = self._context_field()
        field.split_key = None  # the side of a split does not matter here, and new data has none
        table = field.table(adata)
        groups = set(zip(fitted.group_line, fitted.group_batch, strict=True))
        if alien := sorted(set(zip(table["line"], table["batch"], strict=True)) - groups):
            raise ValueError(f"No training controls for line, batch = {alien[0]}, so nothing to add a change to.")
        query = self._query_of(table)
        wanted = table.loc[~table["control"], ["drug", "dose", "line"]]
        present = set(contexts(wanted))
        targets = self._rank(query, evidence, present)
        delta = self._predict_query(query, None, "delta", None, 0, "expectation", evidence, present)
        order = np.searchsorted(fitted.genes, genes)
        write_shift(adata, table, fitted, order, delta)
        weight, _ = self.module.mechanism.effects(fitted.standardised_controls())
        write_graph(adata, weight.numpy()[np.ix_(order, order)])
        if self.stability_ is not None:
            recurs = np.where(self.module.mechanism.graph.numpy(), self.stability_.direct, 0.0)
            adata.varp[_keys.STABILITY] = sp.csr_matrix(recurs[np.ix_(order, order)])
        write_targets(adata, targets, drug_key=field.drug_key, control=field.control)
        adata.uns[_keys.UNS] = self._provenance()

    def _query_of(self, table: pd.DataFrame) -> Query:
        """Every drug and dose of some cells that the model can speak of."""
        known = self.table.frame.index if self.module.generator.pools_drugs else self.fitted.design.drugs
        treated = table.loc[~table["control"], ["drug", "dose"]].drop_duplicates()
        asked = treated[treated["drug"].isin(known)]
        if asked.empty:
            raise ValueError(
                f"adata holds no cell of a drug that the model knows; its drugs: {listed(treated['drug'])}."
            )
        query = self._resolve(
            drug=sorted(set(asked["drug"])), dose=np.unique(asked["dose"]) if self.fitted.design.dosed else None
        )
        pairs = pd.MultiIndex.from_arrays([query.drug, query.dose])
        return query.take(pairs.isin(pd.MultiIndex.from_frame(asked)))

    def save(self, dir_path: str | Path, overwrite: bool = False, save_anndata: bool = False) -> None:
        """Save everything that asking needs, without pickle: safetensors and JSON.

        Parameters
        ----------
        dir_path
            A folder, made if need be.
        overwrite
            Whether a model there may be replaced.
        save_anndata
            For scvi-tools' callbacks, which say ``False``; the model needs no AnnData.

        Raises
        ------
        FileExistsError
            If the folder holds a model and ``overwrite`` is false.
        ValueError
            If ``save_anndata`` is true.

        Examples
        --------
        >>> import scgim
        >>> adata = scgim.datasets.sachs()
        >>> scgim.setup_anndata(adata, drug_key="drug", control="cd3cd28", scale="continuous", smiles_key="smiles")
        >>> model = scgim.GIM(adata)
        >>> model.train(max_epochs=20, enable_progress_bar=False)  # for the example; the default gets further
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(folder)
        ...     again = scgim.GIM.load(folder)
        >>> bool((again.predict(drug="PMA", as_="mean").X == model.predict(drug="PMA", as_="mean").X).all())
        True
        """
        fitted = self._require_fitted()
        if save_anndata:
            raise ValueError("A saved model holds no AnnData and needs none. Save it yourself: adata.write_h5ad(path).")
        arrays = {
            name: getattr(fitted, name) for name in fitted.__dataclass_fields__ if name not in {"design", "statistics"}
        }
        state = {
            "version": __version__,
            "registry": self.registry_,
            "table": self.table.state(),
            "settings": self.settings_,
            "generator": self.generator_,
            "choice": {"reason": self._choice.reason, "scores": self._choice.scores},
            "calibration": self.calibration_,
            "search": self.search_,
            "stability": None if self.stability_ is None else self.stability_._asdict(),
            "graph_choice": None if self.graph_choice_ is None else self.graph_choice_.about(),
            "plain": None if self.plain_ is None else {k: t.numpy() for k, t in self.plain_.state_dict().items()},
            "averaging": None if self.averaging_ is None else self.averaging_.state(),
            "seed": self.seed_,
            "fitted": arrays
            | {"design": vars(fitted.design), "statistics": vars(replace(fitted.statistics, own=None))},
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
            Data to bind, which is set up as the model's was: to annotate, or to train again. It may hold drugs that the
            model has not seen.

        Raises
        ------
        FileNotFoundError
            If there is no model.
        ValueError
            If a later version of scgim wrote it, or ``adata`` has other genes or other features of the model's drugs.

        Examples
        --------
        See :meth:`save`.
        """
        state = _io.read(dir_path)
        registry = state["registry"]
        if adata is not None:
            _require_genes(adata.var_names.to_numpy(str), state["fitted"]["genes"])
            cls.setup_anndata(adata, **registry["setup_args"])
        model = cls(adata, None if adata is not None else registry, **state["settings"])
        arrays = dict(state["fitted"])
        design, statistics = Design(**arrays.pop("design")), arrays.pop("statistics")
        fitted = Fitted(**arrays, design=design, statistics=Statistics(**statistics))
        saved = DrugTable.from_registry(state["table"])
        model.table = saved if adata is None else saved.joined(model.table)
        model._chosen = GeneratorChoice(state["generator"], **state["choice"])
        model.seed_, model.calibration_ = state["seed"], state["calibration"]
        model.search_ = state["search"]
        model.stability_ = None if state["stability"] is None else Recurrence(**state["stability"])
        # models of older versions have none of these
        averaging, chosen, plain = (state.get(name) for name in ("averaging", "graph_choice", "plain"))
        model.averaging_ = None if averaging is None else Averaging.from_state(averaging)
        model.module = model._restored(state["module"], len(fitted.genes), design)
        model.graph_choice_ = None if chosen is None else GraphChoice(**chosen)
        model.plain_ = None if plain is None else model._restored(plain, len(fitted.genes), design)
        model.fitted, model.history_, model.is_trained_ = fitted, state["history"], True
        return model

    def _restored(self, state: dict, n_genes: int, design: Design) -> GIMModule:
        """A trained module from its saved state."""
        module = self._build(n_genes, design, self.generator_).requires_grad_(False)
        # models of older versions took every effect for one, however small, and no misfit for noise
        older = {"min_effect": np.zeros(()), "misfit": np.zeros(n_genes)}
        module.load_state_dict({name: torch.as_tensor(array) for name, array in (older | state).items()})
        return module.eval()

    def _provenance(self) -> dict:
        """What a reader of the file needs to know of where the results come from; None becomes an empty string."""
        args = {name: "" if value is None else value for name, value in self.registry_["setup_args"].items()}
        settings = args | self._written_settings() | {"generator": self.generator_}
        fitted = self.fitted
        counts = {"n_contexts": len(fitted.design.drug), "n_cells": int(fitted.statistics.n_cells)}
        return {
            "version": __version__,
            "seed": self.seed_,
            "data_hash": fitted.data_hash,
            "settings": settings,
            "training": counts | {"n_edges": int(self.module.mechanism.graph.sum())},
            "generator_choice": self._generator_choice(),
            "graph_choice": {} if self.graph_choice_ is None else self.graph_choice_.about(),
            "charge": self.calibration_,
        }

    def _generator_choice(self) -> dict:
        """Why this generator, and the scores of all that were compared."""
        about = {"asked": self.settings_["generator"], "reason": self._choice.reason}
        scores = self._choice.scores
        if scores is None:
            return about
        return about | {"generator": scores.index.to_numpy(str)} | {name: scores[name].to_numpy() for name in scores}

    def _written_settings(self) -> dict:
        """The settings as a file takes them: no None, and priors as their tables."""
        settings = {name: "" if value is None else value for name, value in self.settings_.items()}
        prior, regulators = self.settings_["prior_graph"], self.settings_["regulators"]
        return settings | {
            "prior_graph": "" if prior is None else prior.astype(str),
            "regulators": "" if regulators is None else np.asarray(regulators, dtype=object),
        }

    def _facts(self) -> dict[str, str]:
        """What ``repr`` shows."""
        stats, args = self.summary_stats, self.registry_["setup_args"]
        dose = f", dose in {args['dose_unit']}" if args["dose_key"] else ""
        facts = {
            "screen": f"{stats.n_vars} genes, {stats.n_drugs} drugs, {stats.n_contexts} contexts, control {args['control']!r}",
            "scale": f"{args['scale']}{dose}",
            "drug features": f"{stats.n_features} from {self.table.source}" if stats.n_features else "none",
            "mechanism": f"{self.settings_['mechanism']}, {self.settings_['intervention']} interventions"
            + (" that scale the noise" if self.settings_["scale_shift"] else ""),
            "generator": self.settings_["generator"],
            "structure": self.settings_["structure"] + (", from means" if self._from_means() else ""),
            "trained": "no",
        }
        if self.fitted is not None:
            facts["generator"] = f"{self.generator_} ({self._choice.reason})"
            if self.graph_choice_ is not None:
                facts["structure"] += f" ({self.graph_choice_.reason})"
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


def _require_genes(genes: np.ndarray, known: np.ndarray) -> None:
    """Raise unless ``genes`` are the model's, in any order."""
    missing, new = np.setdiff1d(known, genes).tolist(), np.setdiff1d(genes, known).tolist()
    if missing or new or len(genes) != len(known):
        hint = f" (nearest to {missing[0]!r}: {listed(nearest(missing[0], genes, n=1))})" if missing else ""
        raise ValueError(
            f"adata does not have the model's {len(known)} genes: {len(missing)} missing: {listed(missing)}{hint}; "
            f"{len(new)} new: {listed(new)}. Genes are matched by name: map or subset them."
        )
