"""What the verbs share: resolve a request, ask the generator, run the causal model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pandas as pd
import torch

from scgim import __version__
from scgim.module import Action, Responses, counterfactual
from scgim.structure import levels
from scgim.train._calibration import change_error

from ._combinations import Touch, interventions
from ._control_cells import training_sources, user_sources
from ._counterfactuals import As, Change, DrugChange, Measured, Predictor, Targets, mean_changes
from ._prediction_adata import assemble
from ._query import resolve
from ._target_ranking import Evidence, posterior, rank, resting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from anndata import AnnData

    from scgim.data._training_data import Collected
    from scgim.data._training_summary import Fitted
    from scgim.module import GIMModule
    from scgim.train._plan import TrainingPlan

    from ._query import Query


MAX_CELLS = 1_000  # that a mean effect is taken over; each costs as much as a prediction


class RunningMixin:
    """A trained model at work."""

    def _require_fitted(self) -> Fitted:
        if self.fitted is None:
            raise RuntimeError("The model is not trained yet. Run model.train() first.")
        return self.fitted

    def _resolve(self, **asked: object) -> Query:
        control = self.registry_["setup_args"]["control"]
        return resolve(
            self._require_fitted().design,
            self.table,
            control=str(control),
            pools_drugs=self.module.generator.pools_drugs,
            **asked,
        )

    def _rank(self, query: Query, evidence: Evidence, only: set[tuple] | None = None) -> pd.DataFrame:
        """The ranking of a query's drugs and doses in every line, or in those of the contexts ``only`` that it covers."""
        design = self.fitted.design
        touch = posterior(self.module, self.fitted)
        measured = {context: i for i, context in enumerate(contexts(design.names()))}
        lines = [str(line) for line in design.lines]
        asked = pd.DataFrame(
            [(*pair, line) for pair in zip(query.drug, query.dose, strict=True) for line in lines],
            columns=["drug", "dose", "cell_line"],
        )
        at = np.array([measured.get(context, -1) for context in contexts(asked)])
        at[np.repeat(query.combined, len(lines))] = -1
        # one row a drug and dose, its lines side by side
        said = [self._interventions(query, line) for line in lines]
        prior = [np.stack(parts, axis=1).reshape(len(asked), -1) for parts in zip(*said, strict=True)]
        if only is not None:
            wanted = np.array([context in only for context in contexts(asked)])
            asked, at, prior = asked[wanted], at[wanted], [a[wanted] for a in prior]
        if evidence == "data" and (at < 0).any():
            self._not_measured(*asked.iloc[np.flatnonzero(at < 0)[0]])
        data = (at >= 0) & (evidence != "features")
        # what the generator says is in control sd of the own line
        unit = self.fitted.relative_scale(np.searchsorted(design.lines, asked["cell_line"].to_numpy(str)))
        prior = prior[0], prior[1] * unit, prior[2] * unit
        values = (np.where(data[:, None], own[at], other) for own, other in zip(touch, prior, strict=True))
        edge, likely = resting(self.module, self.fitted, self.averaging_, touch[0])
        rests_on = np.where(data[:, None], edge[at], ""), np.where(data[:, None], likely[at], np.nan)
        change = np.where(data[:, None], self._measured_changes()[at], np.nan)
        table = rank(asked, self.fitted.genes, *values, np.where(data, "data", "features"), *rests_on, change)
        return (
            table.assign(doses=np.repeat(query.doses, len(table) // len(query.doses)))
            if query.combined.any()
            else table
        )

    def _not_measured(self, drug: str, dose: float, line: str) -> NoReturn:
        where = f"{drug!r}" + ("" if np.isnan(dose) else f" at {dose:g}") + (f" in {line!r}" if line else "")
        raise ValueError(
            f"evidence='data' needs a measured condition, and {where} is none. Use evidence='auto' or 'features'."
        )

    def _interventions(self, query: Query, line: str, module: GIMModule | None = None) -> Touch:
        """What the generator (of another module) says of a query's rows in a cell line."""
        return interventions(
            module or self.module, query.conditions(self.fitted.design, line), query.row, len(query.drug)
        )

    def _predict_query(
        self,
        query: Query,
        adata: AnnData | None,
        as_: As,
        n_cells: int | None,
        seed: int,
        targets: Targets,
        evidence: Evidence = "auto",
        only: set[tuple] | None = None,
    ) -> AnnData:
        """Predictions of a query's drugs and doses in every line, or in those of the contexts ``only`` that it covers."""
        trust = query.trust(self.fitted.design).to_dict("records")
        combined, doses, said, own, deltas = query.combined, query.doses, {}, {}, {}
        responses = Responses.from_state(self.fitted.responses)

        def change(line: str, i: int) -> Change:
            if line not in said:
                said[line] = self._interventions(query, line, self.plain_)
                own[line] = responses.own(query.rows(self.fitted.design, line)) * self.fitted.scale
                if self.module.mechanism.affine:
                    deltas[line] = self._mean_changes(said[line], targets)
            label = (query.drug[i], doses[i] if combined[i] else query.dose[i])
            parts = ()
            if combined[i]:
                alone = query.alone(i)
                touch = self._interventions(alone, line, self.plain_)
                data = [None] * len(alone.drug)
                if evidence != "features" and responses.processes:
                    each = responses.own(alone.rows(self.fitted.design, line)) * self.fitted.scale
                    data = [
                        Measured(x, responses.weight) if k >= 0 else None
                        for x, k in zip(each, alone.index, strict=True)
                    ]
                parts = tuple(
                    DrugChange((name, dose), touch.row(a), targets, self.module.intervention, measured=data[a])
                    for a, (name, dose) in enumerate(zip(alone.drug, alone.dose, strict=True))
                )
            measured = None
            if not combined[i] and source(line, i) != "features":
                measured = Measured(own[line][i], responses.weight)
            delta = deltas[line][i] if line in deltas else None
            return DrugChange(label, said[line].row(i), targets, self.module.intervention, parts, measured, delta)

        known = set(contexts(self.fitted.design.names())) if evidence != "features" else set()

        def source(line: str, i: int) -> str | None:
            """What a prediction rests on; ``None`` where none is wanted."""
            dose = None if np.isnan(query.dose[i]) else float(query.dose[i])
            if only is not None and (query.drug[i], dose, line) not in only:
                return None
            if evidence == "features" or (query.index[query.row == i] < 0).any() or not responses.processes:
                found = "features"
            elif combined[i]:
                found = "drug"
            else:
                found = "data" if (query.drug[i], dose, line) in known else "drug"
            if evidence == "data" and found != "data":
                self._not_measured(query.drug[i], query.dose[i], line)
            return found

        changes = (
            (
                partial(change, i=i),
                partial(source, i=i),
                {"drug": query.drug[i], "smiles": query.smiles[i], "dose": query.dose[i], **trust[i]}
                | ({"doses": doses[i]} if combined.any() else {}),
            )
            for i in range(len(query.drug))
        )
        about = {"targets": targets, "seed": seed}
        return self._predict(changes, adata, as_, n_cells, about, self._predicting())

    def _measured_changes(self) -> np.ndarray:
        """Mean changes of the measured conditions in pooled control SD, in which lines are compared; ``(conditions, genes)``."""
        statistics, design = self.fitted.statistics, self.fitted.design
        return self.fitted.relative_scale(design.line) * (statistics.mean[1:] - statistics.mean[0])

    def _predict_measured(self, plan: TrainingPlan, data: Collected) -> tuple[np.ndarray | None, ...]:
        """What features say of the measured conditions; what they say if these are held out, with the graph and without one.

        ``(conditions, genes)`` each, in pooled control SD; ``None`` where the generator says nothing of other conditions.
        """
        contexts, _, features = self.fitted.contexts()
        if features is None:
            return None, None, None
        unit, n = self.fitted.relative_scale(self.fitted.design.line), len(self.fitted.design.drug)
        every = interventions(self.module, contexts.conditions, np.arange(n), n)
        blind = every._replace(probability=features.probability.numpy(), psi=features.psi.numpy())
        said, held_out = (unit * self._mean_changes(touch) for touch in (every, blind))
        if self.settings_["structure"] != "auto":
            return said, held_out, None
        without = plan.cross_fit_without_graph(change_error(data))
        return said, held_out, None if without is None else unit * (without.probability * without.psi).numpy()

    def _responses(self, data: Collected, said: np.ndarray | None, held_out: np.ndarray | None) -> Responses:
        """Changes of the measured drugs by their own data; features are a prior where the generator has any to ask."""
        if not self.module.generator.needs_features:
            said = held_out = None
        unit = self.fitted.relative_scale(self.fitted.design.line)
        return Responses.fit(self.fitted.rows(), self._measured_changes(), unit**2 * change_error(data), said, held_out)

    def _mean_changes(self, touch: Touch, targets: Targets = "expectation") -> np.ndarray:
        """Mean change of control cells under interventions, ``(rows, genes)``, in control SD of their line."""
        n_genes, affine = len(self.fitted.genes), self.module.mechanism.affine
        z = torch.zeros(1, n_genes, dtype=torch.float64) if affine else self.fitted.standardised_controls()
        return mean_changes(self._predicting(), self.module.intervention, touch, z, targets=targets)

    def _predicting(self) -> list[tuple]:
        """Mechanisms that drugs act on, and the levels of their graph: those found, or none of a graph where it does harm.

        Of a graph learned from means, many are as likely, and all of them are averaged over. Otherwise a drug's shifts were learned as what the graph found leaves of its conditions. Run through another graph, they would
        not add up to what was measured: of strong edges that cancel each other nothing would cancel any more.
        """
        if self.plain_ is None:
            return self._mechanisms() if self._from_means() else [(self.module.mechanism, self._levels())]
        nothing = levels(self.plain_.mechanism.graph.numpy())
        return [(self.plain_.mechanism, [torch.as_tensor(level) for level in nothing])]

    def _mechanisms(self) -> list[tuple]:
        """Mechanisms that direct interventions are averaged over, and the levels of the graph of each; the trained ones come first."""
        if self.averaging_ is None:
            return [(self.module.mechanism, self._levels())]
        return self.averaging_.mechanisms(self.module)

    def _levels(self) -> list[torch.Tensor]:
        return [torch.as_tensor(level) for level in levels(self.module.mechanism.graph.numpy())]

    def _predict(
        self,
        changes: Iterable[tuple[Callable[[str], Change], Callable[[str], str | None], dict]],
        adata: AnnData | None,
        as_: As,
        n_cells: int | None,
        about: dict,
        mechanisms: list[tuple] | None = None,
    ) -> AnnData:
        """Run every change from every line's control cells and put the rows together."""
        if n_cells is not None and n_cells < 1:
            raise ValueError(f"n_cells must be at least 1, got {n_cells}.")
        fitted, args = self.fitted, self.registry_["setup_args"]
        if adata is None:
            sources = training_sources(fitted)
        else:
            childless = ~self.module.mechanism.graph.numpy().any(1)
            sources = user_sources(adata, fitted, args, childless)

        run = Predictor(self.module, mechanisms or self._mechanisms(), about["seed"])

        def parts() -> Iterator[tuple]:
            for change, evidence, shared in changes:
                for source in sources:
                    if (found := evidence(source.line)) is None:
                        continue
                    rows = run.rows(source, as_, n_cells, change(source.line))
                    yield rows, {**shared, "cell_line": source.line, "evidence": found}

        genes = self._gene_order()
        about = {
            "kind": as_,
            "scale": args["scale"],
            "dose_unit": args["dose_unit"] or "",
            "version": __version__,
            **about,
        }
        return assemble(parts(), np.searchsorted(fitted.genes, genes), genes, about)

    def _gene_order(self) -> np.ndarray:
        """Genes in the order of the training AnnData."""
        return np.asarray(self.get_state_registry("X")["column_names"]).astype(str)

    @torch.no_grad()
    def _total_effects(self, z: torch.Tensor) -> np.ndarray:
        """Mean change of every gene (column) when a gene (row) is shifted by 1, over cells ``z``; ``(genes, genes)``."""
        mechanism, d = self.module.mechanism, z.shape[1]
        if mechanism.affine:
            zero = torch.zeros(d, d, dtype=z.dtype)
            return (counterfactual(mechanism, self._levels(), zero, Action(torch.eye(d, dtype=z.dtype))) - zero).numpy()
        z, levels = z[:: -(-len(z) // MAX_CELLS)], self._levels()
        unit = torch.eye(d, dtype=z.dtype)
        return np.array([(counterfactual(mechanism, levels, z, Action(e)) - z).mean(0).numpy() for e in unit])


def contexts(table: pd.DataFrame) -> Iterator[tuple[str, float | None, str]]:
    """Drug, dose and line of every row as a key; NaN, which equals nothing, becomes None."""
    for drug, dose, line in table.itertuples(index=False, name=None):
        yield drug, None if np.isnan(dose) else float(dose), line
