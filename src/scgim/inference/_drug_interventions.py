"""The interventions of a query, from the generator and from the data of measured conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np

from scgim.data._design import condition_keys
from scgim.module import Responses

from ._counterfactuals import Blend, DrugIntervention

if TYPE_CHECKING:
    from collections.abc import Callable

    from scgim.data._training_summary import TrainingSummary
    from scgim.module import Hard, Shift

    from ._combinations import InterventionDistribution
    from ._counterfactuals import Targets
    from ._query import Query
    from ._readout import ReadoutPredictor
    from ._target_ranking import Evidence


def condition_text(drug: str, dose: float | None, line: str) -> str:
    """A condition in messages."""
    known = dose is not None and not np.isnan(dose)
    return f"{drug!r}" + (f" at {dose:g}" if known else "") + (f" in {line!r}" if line else "")


def not_measured(drug: str, dose: float | None, line: str) -> NoReturn:
    """Raise a ValueError, because ``evidence="data"`` requires a measured condition."""
    where = condition_text(drug, dose, line)
    raise ValueError(
        f"evidence='data' needs a measured condition, and {where} is none. Use evidence='auto' or 'features'."
    )


class _OfLine(NamedTuple):
    """Interventions of all rows of a query in a cell line."""

    distribution: InterventionDistribution
    own: np.ndarray  # (rows, genes) changes from the data of the drugs, training scale
    delta: np.ndarray | None  # (rows, genes) mean changes, if a matrix product gives the changes of all rows


class DrugInterventions:
    """Interventions of the rows of a query, line by line.

    Parameters
    ----------
    summary, kind
        Summary of the training data, and kind of intervention.
    query, targets, evidence
        The query and options of :meth:`scgim.GIM.predict`.
    only
        Keys of the requested conditions; ``None`` for all rows in all lines.
    generated
        Function that returns the generator's interventions for a query in a line.
    mean_changes
        Function that returns the mean changes of all rows by a matrix product; ``None`` for nonlinear mechanisms.
    readout
        The readout genes, if they are asked for.
    """

    def __init__(
        self,
        summary: TrainingSummary,
        kind: type[Shift] | type[Hard],
        query: Query,
        *,
        targets: Targets,
        evidence: Evidence,
        only: set[tuple] | None,
        generated: Callable[[Query, str], InterventionDistribution],
        mean_changes: Callable[[InterventionDistribution, Targets], np.ndarray] | None,
        readout: ReadoutPredictor | None = None,
    ) -> None:
        self.readout = readout
        self.summary, self.kind, self.query, self.targets = summary, kind, query, targets
        self.evidence, self.only, self.generated, self.mean_changes = evidence, only, generated, mean_changes
        self.doses, self.combined, self.treatments = query.doses, query.combined, query.treatments
        self.responses = Responses.from_state(self.summary.responses)
        measured = condition_keys(self.summary.design.names()) if evidence != "features" else ()
        self.measured, self._lines = set(measured), {}

    def source(self, line: str, i: int) -> str | None:
        """Source of a prediction: "data", "drug" or "features"; ``None`` if the condition is not requested."""
        query, drug = self.query, self.treatments[i]
        dose = None if np.isnan(query.dose[i]) else float(query.dose[i])
        if self.only is not None and (drug, dose, line) not in self.only:
            return None
        if self.evidence == "features" or (query.index[query.row == i] < 0).any() or not self.responses.processes:
            found = "features"
        else:
            found = "data" if (drug, dose, line) in self.measured else "drug"
        if self.evidence == "data" and found != "data":
            not_measured(drug, dose, line)
        return found

    def intervention(self, line: str, i: int) -> DrugIntervention:
        """Intervention of a row in a line."""
        query, known = self.query, self._of_line(line)
        label = (query.drug[i], self.doses[i] if self.combined[i] else query.dose[i])
        blend = None
        source = self.source(line, i)
        if source == "data" or (source == "drug" and not self.combined[i]):
            blend = Blend(known.own[i], self.responses.weight)
        delta = None if known.delta is None else known.delta[i]
        parts = self._parts(line, i) if self.combined[i] else ()
        found = DrugIntervention(label, known.distribution.row(i), self.targets, self.kind, parts, blend, delta)
        found.own_readout = self._own_readout(line, i)
        return found

    def _of_line(self, line: str) -> _OfLine:
        if line not in self._lines:
            distribution = self.generated(self.query, line)
            delta = None if self.mean_changes is None else self.mean_changes(distribution, self.targets)
            self._lines[line] = _OfLine(distribution, self._own(self.query, line), delta)
        return self._lines[line]

    def _own(self, query: Query, line: str) -> np.ndarray:
        return self.responses.own(query.rows(self.summary.design, line)) * self.summary.scale

    def _own_readout(self, line: str, i: int) -> np.ndarray | float:
        """Own changes of the readout genes by the measured drugs of a row, ``(readout,)``."""
        if self.readout is None or self.evidence == "features":
            return 0.0
        alone = self.query.alone(i)
        rows = alone.rows(self.summary.design, line)
        return self.readout.own(rows.take(np.flatnonzero(alone.index >= 0))).sum(0)

    def _parts(self, line: str, i: int) -> tuple[DrugIntervention, ...]:
        """Interventions of the single drugs of a combination."""
        alone = self.query.alone(i)
        distribution = self.generated(alone, line)
        data: list[Blend | None] = [None] * len(alone.drug)
        if self.evidence != "features" and self.responses.processes:
            own = zip(self._own(alone, line), alone.index, strict=True)
            data = [Blend(x, self.responses.weight) if k >= 0 else None for x, k in own]
        return tuple(
            DrugIntervention((name, dose), distribution.row(a), self.targets, self.kind, blend=data[a])
            for a, (name, dose) in enumerate(zip(alone.drug, alone.dose, strict=True))
        )
