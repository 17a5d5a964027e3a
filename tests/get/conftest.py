from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from anndata.tests.helpers import assert_equal
from scipy import sparse

from scgim._gene_order import write_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DRUGS = ["(+/-)-JQ1", "Akti-1/2", "Vorinostat"]
GENES = ["STAT1", "IRF1", "MYC", "BRD4", "AKT1", "GSK3B", "FOXO3", "TP53", "CDKN1A", "HEXIM1", "JUN", "FOS"]
DOSES = [0.1, 1.0, 10.0]


def annotate(*, drugs: list[str], genes: list[str], cell_lines: list[str], n_edges: int, doses: list[float]) -> AnnData:
    """What `model.annotate()` leaves in an AnnData, drawn at random and without a model."""
    rng = np.random.default_rng(0)
    conditions = [(d, s, c) for c in cell_lines for d, s in [("DMSO", 0.0), *((d, s) for d in drugs for s in doses)]]
    obs = pd.DataFrame([c for c in conditions for _ in range(5)], columns=["drug", "dose", "cell_line"])
    obs["drug"] = pd.Categorical(obs["drug"], ["DMSO", *drugs])
    obs.index = [f"cell{i}" for i in range(len(obs))]
    n = len(genes)
    adata = AnnData(rng.normal(size=(len(obs), n)).astype("float32"), obs=obs, var=pd.DataFrame(index=genes))

    psi = {d: rng.normal(size=n) * (rng.random(n) < 0.4) * 2 + 0.0 for d in drugs} | {"DMSO": np.zeros(n)}
    probability = {d: np.where(p != 0, rng.uniform(0.5, 1, n), rng.uniform(0, 0.2, n)) for d, p in psi.items()}
    probability["DMSO"][:] = 0
    order = {d: np.argsort(-np.abs(psi[d]) * probability[d], kind="stable") for d in psi}

    def groups(value: Callable[[str], np.ndarray]) -> np.ndarray:
        return np.rec.fromarrays([np.asarray(value(d))[order[d]] for d in psi], names=list(psi))

    dose = {d: np.full(n, np.nan) if d == "DMSO" or not doses else rng.choice(doses, n) for d in psi}
    line = {d: rng.choice(cell_lines, n) for d in psi}
    adata.uns["scgim_targets"] = {
        "params": {"groupby": "drug", "reference": "DMSO", "method": "scgim", "use_raw": False}
        | {"layer": "", "corr_method": ""},
        "names": groups(lambda d: np.array(genes, dtype=object)),
        "scores": groups(lambda d: np.abs(psi[d]) * probability[d]),
        "logfoldchanges": groups(psi.get),
        "pvals": groups(lambda d: np.full(n, np.nan)),
        "pvals_adj": groups(lambda d: np.full(n, np.nan)),
        "probabilities": groups(probability.get),
        "doses": groups(dose.get),
    }
    if len(cell_lines) > 1:
        adata.uns["scgim_targets"]["cell_lines"] = groups(line.get)
    pairs = np.argwhere(np.triu(np.ones((n, n), dtype=bool), 1))
    pairs = pairs[rng.choice(len(pairs), n_edges, replace=False)]
    causal = rng.permutation(n)
    weights = rng.uniform(0.2, 1.2, n_edges) * rng.choice([-1, 1], n_edges)
    graph = sparse.csr_matrix((weights, (causal[pairs[:, 0]], causal[pairs[:, 1]])), shape=(n, n))
    adata.varp["scgim_graph"] = graph
    adata.var["scgim_in_degree"] = np.diff(graph.tocsc().indptr)
    adata.var["scgim_out_degree"] = np.diff(graph.indptr)

    strength = np.array([float(doses and np.log10(s / min(doses) * 10) or 1) if s else 0 for s in obs["dose"]])
    shift = strength[:, None] * np.stack([psi[d] for d in obs["drug"]]) * 0.3
    adata.obsm["scgim_shift"] = shift.astype("float32")
    adata.obsm["scgim_pred"] = (shift + adata.X[obs["drug"] == "DMSO"].mean(0)).astype("float32")
    adata.uns["drug_colors"] = ["#888888", "#1b9e77", "#d95f02", "#7570b3"][: len(drugs) + 1]
    adata.uns["scgim"] = {"version": "0.1.0", "seed": 0, "data_hash": "0"} | {
        "settings": {"drug_key": "drug", "control": "DMSO", "dose_key": "dose", "dose_unit": "uM", "scale": "lognorm"}
        | {"cell_line_key": "" if len(cell_lines) == 1 else "cell_line"},
        "genes": write_order(adata, np.array(genes)),
    }
    return adata


@pytest.fixture
def adata() -> AnnData:
    return annotate(drugs=DRUGS, genes=GENES, cell_lines=[""], n_edges=20, doses=DOSES)


@pytest.fixture
def annotated() -> Callable[..., AnnData]:
    def build(**changes) -> AnnData:
        return annotate(**{"drugs": DRUGS, "genes": GENES, "cell_lines": [""], "n_edges": 20, "doses": DOSES} | changes)

    return build


@pytest.fixture
def unchanged() -> Callable[[AnnData], object]:
    @contextmanager
    def check(data: AnnData) -> Iterator[None]:
        before = data.copy()
        yield
        assert_equal(data, before)
        assert list(data.uns) == list(before.uns)

    return check
