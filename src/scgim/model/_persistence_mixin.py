"""Saving, loading and representation of a model."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import torch

from scgim._anndata import require_anndata
from scgim._checks import warn
from scgim._genes import GeneColumns
from scgim._version import __version__
from scgim.data._design import ScreenDesign
from scgim.data._drug_table import DrugTable
from scgim.data._known_targets import joined_targets
from scgim.data._registered_screen import require_genes
from scgim.data._training_summary import TrainingSummary
from scgim.statistics import SufficientStatistics
from scgim.structure.bootstrap import EdgeFrequencies
from scgim.train._generator_selection import GeneratorChoice
from scgim.train._graph_averaging import Averaging
from scgim.train._graph_choice import GraphChoice

from . import _io
from ._intact import check_state
from ._manager import adopt
from ._state import ModelState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

    from anndata import AnnData

    from scgim.module import GIMModule


class PersistenceMixin(ModelState):
    """Saving, loading and representation of a model."""

    def save(self, dir_path: str | Path, overwrite: bool = False, save_anndata: bool = False) -> None:
        """Save the trained model as safetensors and JSON, without pickle and without the AnnData.

        Both files are replaced at once, when the new ones are complete on the disk. A full disk or a process that is killed leaves the model
        that was there, or the new one. A checksum over both is verified on loading. In a training of several processes only the first saves.

        Parameters
        ----------
        dir_path
            A folder, which is created if necessary.
        overwrite
            Whether an existing model may be replaced.
        save_anndata
            Must be ``False``. The argument exists for scvi-tools' callbacks.

        Raises
        ------
        FileExistsError
            If the folder holds a model and ``overwrite`` is false.
        OSError
            If the folder cannot be written. A model that was there is unchanged.
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
        fitted = self._require_trained()
        if save_anndata:
            raise ValueError("A saved model holds no AnnData and needs none. Save it yourself: adata.write_h5ad(path).")
        if self._process:  # the first process has the same model
            return
        arrays = {
            name: getattr(fitted, name) for name in fitted.__dataclass_fields__ if name not in {"design", "statistics"}
        }
        state = {
            "version": __version__,
            "registry": self.registry_,
            "table": self.drug_table_.state(),
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
            "unfinished": self._selection is not None,
            "fitted": arrays
            | {"design": vars(fitted.design), "statistics": vars(replace(fitted.statistics, own=None))},
            "module": {name: tensor.numpy() for name, tensor in self._trained_module().state_dict().items()},
            "history": {name: frame.astype(float) for name, frame in (self.history_ or {}).items()},
        }
        _io.write(dir_path, state, overwrite=overwrite)

    @classmethod
    def load(cls, dir_path: str | Path, adata: AnnData | None = None) -> Self:
        """Load a model. Predictions, target rankings and the graph do not require an AnnData.

        Parameters
        ----------
        dir_path
            Folder of :meth:`save`.
        adata
            Data for annotation or further training. It is set up with the settings of the model and may contain unseen drugs. Only training
            and evaluation need its replicates.

        Raises
        ------
        FileNotFoundError
            If there is no model.
        ValueError
            If a later version of scgim wrote it, the folder is damaged, or ``adata`` has other genes or other features of the model's
            drugs.

        Examples
        --------
        See :meth:`save`.
        """
        state = _io.read(dir_path)
        with _io.whole(dir_path):
            check_state(state)
            # With data, the model is built twice and warns once.
            with nullcontext() if adata is None else warnings.catch_warnings(action="ignore"):
                model = cls._of_state(state)
            if state["format"] == 1:  # without checksum: one answer shows whether the entries fit together
                trial: Any = model
                trial.predict(drug=trial.drugs[0], as_="mean")
                trial.rank_targets(drug=trial.drugs[0])
        if state.get("unfinished"):
            warn(f"{dir_path} was saved during training. Its predictions are those of an unfinished model.")
        if adata is None:
            return model
        require_anndata(adata)
        registry, readout = state["registry"], state["fitted"].get("readout")
        genes = GeneColumns.read(adata, registry["setup_args"].get("readout"))
        require_genes(genes.panel, state["fitted"]["genes"])
        require_genes(genes.readout, readout["genes"] if readout else genes.readout[:0])
        setup = cls._get_setup_method_args(cls=cls, adata=adata, **registry["setup_args"])
        cls._register(adata, setup, registry)
        return cls._of_state(state, adata)

    @classmethod
    def _of_state(cls, state: dict, adata: AnnData | None = None) -> Self:
        """The model of a saved state, with the data bound to it."""
        build: Callable[..., Self] = cls
        # Targets of the model's drugs remain known, even if `adata` contains none of these drugs. Genetic arms of `adata` are added.
        settings = dict(state["settings"])
        known = settings.pop("known_targets", None)
        model = build(adata, None if adata is not None else state["registry"], **settings)
        model.settings_["known_targets"] = joined_targets(known, model.settings_["known_targets"])
        arrays = dict(state["fitted"])
        design, statistics = ScreenDesign(**arrays.pop("design")), arrays.pop("statistics")
        fitted = TrainingSummary(**arrays, design=design, statistics=SufficientStatistics(**statistics))
        saved = DrugTable.from_registry(state["table"])
        model.drug_table_ = saved if adata is None else saved.joined(model.drug_table_)
        model._chosen = GeneratorChoice(state["generator"], **state["choice"])
        model.seed_, model.calibration_ = state["seed"], _renamed(state["calibration"])
        model.search_ = _renamed(state["search"])
        model.stability_ = None if state["stability"] is None else EdgeFrequencies(**state["stability"])
        # Models of older versions do not contain these entries.
        averaging, chosen, plain = (state.get(name) for name in ("averaging", "graph_choice", "plain"))
        model.averaging_ = None if averaging is None else Averaging.from_state(averaging)
        model.module = model._restored(state["module"], len(fitted.genes), design)
        model.graph_choice_ = None if chosen is None else GraphChoice(**chosen)
        model.plain_ = None if plain is None else model._restored(plain, len(fitted.genes), design)
        model.summary_, model.is_trained_ = fitted, True
        # Older versions stored the scores of the generators in the history.
        model.history_ = {name: curve for name, curve in state["history"].items() if name != "generator_choice"}
        return model

    def _restored(self, state: dict, n_genes: int, design: ScreenDesign) -> GIMModule:
        """A trained module from its saved state."""
        module = self._build(n_genes, design, self.generator_).requires_grad_(False)
        # Older versions had no smallest relevant effect and no misfit, so both are 0.
        older = {"min_effect": np.zeros(()), "misfit": np.zeros(n_genes)}
        module.load_state_dict({name: torch.as_tensor(array) for name, array in (older | state).items()})
        return module.eval()

    def __copy__(self) -> Self:
        """A model that shares everything with this one until one of them is trained."""
        copied = object.__new__(type(self))
        vars(copied).update(vars(self))
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """All but the trainer, for ``pickle`` and ``copy.deepcopy``: it holds the process's loggers and callbacks."""
        return {name: value for name, value in vars(self).items() if name != "trainer"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.id = str(uuid4())
        if self.adata is not None:
            adopt(self)

    def _facts(self) -> dict[str, str]:
        """Content of ``repr``."""
        stats, args = self.summary_stats, self.registry_["setup_args"]
        dose = f", dose in {args['dose_unit']}" if args["dose_key"] else ""
        n_readout = int(self._all_genes()[1].sum())
        genes = f"{len(self._gene_order())} genes" + (f" and {n_readout:,} readout genes" if n_readout else "")
        facts = {
            "screen": f"{genes}, {stats.n_drugs} drugs, {stats.n_contexts} conditions, control {args['control']!r}",
            "scale": f"{args['scale']}{dose}",
            "drug features": f"{stats.n_features} from {self.drug_table_.source}" if stats.n_features else "none",
            "mechanism": f"{self.settings_['mechanism']}, {self.settings_['intervention']} interventions"
            + (" that scale the noise" if self.settings_["scale_shift"] else ""),
            "generator": self.settings_["generator"],
            "structure": self.settings_["structure"] + (", from means" if self._from_means() else ""),
            "trained": "no" if self.failure_ is None else f"no: {self.failure_}",
        }
        if self.summary_ is not None:
            facts["generator"] = f"{self.generator_} ({self._choice.reason})"
            if self.graph_choice_ is not None:
                facts["structure"] += f" ({self.graph_choice_.reason})"
            facts["trained"] = f"seed {self.seed_}, {int(self._trained_module().mechanism.graph.sum())} edges"
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


def _renamed(values: dict) -> dict:
    """Values of a saved model under the names of this version: a target penalty was a charge in older versions."""
    return {name.replace("charge", "target_penalty"): value for name, value in values.items()}
