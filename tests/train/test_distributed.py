"""Training in several processes is training in one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import sys
import numpy as np
import scgim

if __name__ == "__main__":
    adata = scgim.datasets.simulate_screen(
        n_genes=6, n_drugs=10, n_cells=20, n_control=100, doses=(0.5, 1.0, 2.0), n_new_drugs=3, mechanism=sys.argv[1]
    )
    scgim.setup_anndata(
        adata, drug_key="drug", control="DMSO", scale="continuous", dose_key="dose", dose_unit="uM",
        features_key="drug_features",
    )
    model = scgim.GIM(adata, mechanism=sys.argv[1])
    model.train(max_epochs=40, enable_progress_bar=False, **eval(sys.argv[3]))
    if model.trainer.global_rank == 0:
        np.save(sys.argv[2], [model.predict(as_="mean").X, np.full((1, 1), model.trainer.world_size) + np.zeros((30, 6))])
"""


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["network", "linear"])
def test_two_processes_give_the_result_of_one(tmp_path: Path, mechanism):
    script, results = tmp_path / "script.py", []
    script.write_text(SCRIPT)
    for name, options in (("one", {}), ("two", {"devices": 2, "strategy": "ddp"})):
        path = tmp_path / f"{name}.npy"
        command = [sys.executable, str(script), mechanism, str(path), repr(options)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        results.append(np.load(path))
    assert [int(world[0, 0]) for _, world in results] == [1, 2]
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=0, atol=1e-6)
