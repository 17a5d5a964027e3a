"""One simulated screen: each part is drawn from a random stream of its own, and all are packed into an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from scgim._keys import FEATURES

from ._compounds import sciplex_drugs
from ._graphs import random_dag
from ._model import StructuralModel
from ._motifs import motif_drugs
from ._observe import OBSERVATIONS
from ._truth import Oracle
from ._verify import r2_given_others, sortability, verify

if TYPE_CHECKING:
    from ._chemistry import Drugs
    from ._observe import Continuous, Counts
    from ._settings import Settings

_CONTROL = "DMSO"
_DEALINGS = 20
_CHEMISTRY = {"motifs": motif_drugs, "sciplex": sciplex_drugs}


def draw_screen(s: Settings) -> AnnData:
    """The screen that `simulate_screen` returns."""
    graph_rng, model_rng, drug_rng, measure_rng, cell_rng, truth_rng = np.random.default_rng(s.seed).spawn(6)
    graph = random_dag(s.n_genes, kind=s.graph, degree=s.degree, rng=graph_rng)
    model = StructuralModel.draw(graph, mechanism=s.mechanism, rng=model_rng)
    drugs, new_drugs = _CHEMISTRY[s.chemistry](
        s.n_drugs, s.n_new_drugs, n_bits=s.n_bits, n_genes=s.n_genes, doses=s.doses, frac_dead=s.frac_dead, rng=drug_rng
    )
    measure = _without_order(
        OBSERVATIONS[s.observation].draw(s.n_genes, depth=s.depth, rng=measure_rng), graph, measure_rng
    )

    condition = _conditions(s, cell_rng)
    shift = np.vstack([drugs.shift(s.doses), np.zeros(s.n_genes)])  # the last row belongs to the controls
    noise = cell_rng.normal(size=(s.n_genes, len(condition)))
    matrix, columns = measure.cells(model.sample(noise, shift[condition].T, intervention=s.intervention), cell_rng)

    oracle = Oracle(model, measure, intervention=s.intervention, rng=truth_rng)
    unseen = {
        "unseen_dose": oracle.conditions(drugs, s.new_doses),
        "unseen_drug": oracle.conditions(new_drugs, s.doses),
    }
    verify(oracle, unseen.values())

    about = s.as_scalars() | {
        "control": _CONTROL,
        "dose_unit": "uM",
        "mean_scale": measure.mean_scale,
        "n_edges": int(graph.sum()),
        "varsortability": sortability(oracle.control.var(axis=1), graph),
        "r2_sortability": sortability(r2_given_others(oracle.state), graph),
    }
    truth = _truth(drugs) | {
        "doses": s.doses,
        "new_drugs": new_drugs.names,
        "control_mean": oracle.control.mean(axis=1),
        "control_sd": oracle.control.std(axis=1),
    }
    weights = model.weights()
    return AnnData(
        matrix,
        obs=_obs(condition, drugs, s.doses).assign(**columns),
        # The order of the graph was drawn at random, so the order of columns is unrelated to it.
        var=pd.DataFrame(index=[f"G{j:04d}" for j in range(s.n_genes)]),
        varp={"true_graph": csr_matrix(graph.astype(np.float32))}
        | ({} if weights is None else {"true_weight": csr_matrix(weights)}),
        uns={"about": about, "truth": truth | unseen}
        | ({} if drugs.smiles is not None else {FEATURES: _features(drugs)}),
    )


def _without_order(measure: Continuous | Counts, graph: np.ndarray, rng: np.random.Generator) -> Continuous | Counts:
    """Assign the measurement parameters to genes such that the variances carry no information about the topological order.

    A random assignment is uninformative on average. Of several random assignments, the least informative one on this screen is taken.
    """
    x = rng.normal(size=(len(graph), 500))
    nuisance = measure.nuisance(x.shape[1], rng)
    variance = measure.training_scale(measure.measure(x, nuisance, rng), nuisance).var(axis=1)
    dealings = [rng.permutation(len(graph)) for _ in range(_DEALINGS)]
    return measure.take(min(dealings, key=lambda deal: abs(sortability(variance[deal], graph) - 0.5)))


def _conditions(s: Settings, rng: np.random.Generator) -> np.ndarray:
    """The condition of every cell in random order, numbered by drug and dose; -1 is the control."""
    per_context = rng.integers(s.n_cells[0], s.n_cells[1] + 1, s.n_drugs * len(s.doses))
    return rng.permutation(np.repeat(np.arange(-1, len(per_context)), np.r_[s.n_control, per_context]))


def _obs(condition: np.ndarray, drugs: Drugs, doses: np.ndarray) -> pd.DataFrame:
    treated = condition >= 0
    code = np.where(treated, condition // len(doses), -1) + 1
    obs = pd.DataFrame(index=[f"cell{i:06d}" for i in range(len(condition))])
    obs["drug"] = pd.Categorical.from_codes(code, [_CONTROL, *drugs.names])
    obs["dose"] = np.where(treated, doses[condition % len(doses)], np.nan)
    if drugs.smiles is not None:
        obs["smiles"] = pd.Categorical.from_codes(code, ["", *drugs.smiles])
    return obs


def _truth(drugs: Drugs) -> dict[str, np.ndarray]:
    return {
        "drugs": drugs.names,
        "targets": (drugs.effect != 0).astype(np.int8),
        "effect": drugs.effect,
        "ec50": drugs.ec50,
        "motifs": drugs.features.astype(np.int8),
        "dead": drugs.dead,
    }


def _features(drugs: Drugs) -> pd.DataFrame:
    columns = [f"motif_{i:03d}" for i in range(drugs.features.shape[1])]
    return pd.DataFrame(drugs.features.astype(np.float32), index=pd.Index(drugs.names, name="drug"), columns=columns)
