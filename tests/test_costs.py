from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scgim._costs import BYTES, SECONDS, TERMS, ScreenSize, cost

SMALL = ScreenSize(cells=5_000, genes=100, conditions=100, controls=800, readout=0)
MEASURED = Path(__file__).parents[1] / "benchmarks" / "resources.csv"


@pytest.mark.parametrize("phase", list(SECONDS))
@pytest.mark.parametrize("name", ScreenSize._fields)
def test_nothing_gets_cheaper_as_a_screen_grows(phase, name):
    large = SMALL._replace(**{name: 10 * getattr(SMALL, name) + 100})
    assert all(more >= less > 0 for more, less in zip(cost(phase, large), cost(phase, SMALL), strict=True))


def test_all_constants_belong_to_a_term():
    for table in (SECONDS, BYTES):
        for constants in table.values():
            assert constants.keys() <= TERMS.keys()
            assert min(constants.values()) >= 0


@pytest.mark.parametrize(("column", "quantity", "unit", "least"), [("seconds", 0, 1, 1.0), ("mb", 1, 1e6, 30.0)])
def test_estimates_are_within_a_factor_of_two_of_the_committed_measurements(column, quantity, unit, least):
    table = pd.read_csv(MEASURED)
    for row in table.itertuples():
        phase = row.phase if row.phase == "set-up" else f"{row.phase} on {row.likelihood}"
        size = ScreenSize(row.cells, row.genes, row.conditions, row.controls)
        estimate, measured = cost(phase, size)[quantity] / unit, getattr(row, column)
        if np.isnan(measured):
            continue
        if measured > least:  # smaller ones are noise, and nobody waits for them
            assert 0.5 < estimate / measured < 2, (phase, size)
        else:
            assert estimate < 2 * least, (phase, size)
