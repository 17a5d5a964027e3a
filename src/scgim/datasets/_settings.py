"""The arguments of `simulate_screen`, validated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from scgim._checks import check_option

from ._arguments import integer, positive, real, size_range
from ._chemistry import Chemistry
from ._compounds import LIBRARY_SIZE
from ._graphs import Graph
from ._mechanisms import Mechanism
from ._model import Intervention
from ._observe import Observation

if TYPE_CHECKING:
    from collections.abc import Sequence

_OPTIONS = {
    "graph": Graph,
    "mechanism": Mechanism,
    "intervention": Intervention,
    "observation": Observation,
    "chemistry": Chemistry,
}


@dataclass(frozen=True)
class Settings:
    """The arguments of `simulate_screen`, complete and valid."""

    n_genes: int
    n_drugs: int
    n_cells: tuple[int, int]
    n_control: int
    doses: np.ndarray
    graph: Graph
    degree: float
    mechanism: Mechanism
    intervention: Intervention
    observation: Observation
    chemistry: Chemistry
    n_bits: int
    n_new_drugs: int
    new_doses: np.ndarray
    frac_dead: float
    depth: float
    seed: int

    @classmethod
    def check(
        cls, *, n_cells: Any, doses: Sequence[float], new_doses: Sequence[float] | None, **others: Any
    ) -> Settings:
        """Settings from the arguments of a user. Raises ValueError if an argument is invalid."""
        for name, options in _OPTIONS.items():
            check_option(name, others[name], get_args(options))
        for name, low in {"n_genes": 2, "n_drugs": 1, "n_control": 2, "n_bits": 1, "n_new_drugs": 0, "seed": 0}.items():
            others[name] = integer(name, others[name], low)
        others["degree"] = real("degree", others["degree"], 0, others["n_genes"])
        others["frac_dead"] = real("frac_dead", others["frac_dead"], 0, 1)
        others["depth"] = real("depth", others["depth"], 0, np.inf, open_low=True)

        doses = positive("doses", doses)
        new_doses = _between(doses) if new_doses is None else positive("new_doses", new_doses)
        for dose in new_doses[np.isin(new_doses, doses)]:
            raise ValueError(f"new_doses contains {dose:g}, which is in doses too: unseen doses must not be in doses.")
        compounds = others["n_drugs"] + others["n_new_drugs"]
        if others["chemistry"] == "sciplex" and compounds > LIBRARY_SIZE:
            raise ValueError(
                f"n_drugs={others['n_drugs']} and n_new_drugs={others['n_new_drugs']} are {compounds} compounds, but "
                f"chemistry='sciplex' has {LIBRARY_SIZE}: ask for fewer, or use chemistry='motifs'."
            )
        return cls(n_cells=size_range("n_cells", n_cells), doses=doses, new_doses=new_doses, **others)

    def as_scalars(self) -> dict[str, str | int | float]:
        """Settings as numbers and strings for `.uns`, which cannot hold tuples."""
        text = lambda values: ", ".join(f"{v:g}" for v in values)
        ready = {"n_cells": text(np.unique(self.n_cells)), "doses": text(self.doses), "new_doses": text(self.new_doses)}
        return vars(self) | ready


def _between(doses: np.ndarray) -> np.ndarray:
    """Midpoints of neighboring doses, zero included, and half a step beyond the last dose."""
    edges = np.r_[0.0, doses]
    return np.r_[(edges[:-1] + edges[1:]) / 2, edges[-1] + (edges[-1] - edges[-2]) / 2]
