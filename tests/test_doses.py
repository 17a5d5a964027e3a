"""Doses that differ by rounding are one dose."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgim._checks import check_doses
from scgim._doses import SAME_DOSE, as_one, parse_number, rounded

DOSE = st.floats(1e-6, 1e6)


@given(st.lists(DOSE, min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_single_precision_changes_no_dose(doses, seed):
    rng = np.random.default_rng(seed)
    values = np.array(doses)
    stored = np.where(rng.random(len(values)) < 0.5, values, values.astype(np.float32))
    one = as_one(np.concatenate([values, stored]))
    np.testing.assert_array_equal(one[: len(values)], one[len(values) :])
    np.testing.assert_allclose(one, np.concatenate([values, stored]), rtol=len(doses) * 2 * SAME_DOSE)


@given(st.lists(DOSE, min_size=2, max_size=8, unique=True))
def test_other_doses_stay_apart(doses):
    values = np.sort(doses)
    apart = values[np.concatenate([[True], np.diff(values) > 2 * SAME_DOSE * values[:-1]])]
    assert len(np.unique(as_one(apart))) == len(apart)


@given(st.lists(DOSE, min_size=1, max_size=8))
def test_known_doses_are_taken_and_the_order_does_not_matter(doses):
    values = np.array(doses)
    known = as_one(values)
    np.testing.assert_array_equal(as_one(values.astype(np.float32), known=known), known)
    np.testing.assert_array_equal(as_one(values[::-1]), as_one(values)[::-1])
    np.testing.assert_array_equal(as_one(known), known)


@pytest.mark.parametrize(
    ("doses", "one"),
    [
        pytest.param([0.1, np.float32(0.1), 1 / 10], [0.1] * 3, id="single precision"),
        pytest.param([10.0, 1 / 0.1 + 2e-15, 10.000000000000002], [10.0] * 3, id="serial dilution"),
        pytest.param([np.float32(0.1)], [0.1], id="as written, without the other form"),
        pytest.param([1.0, 1.0 + 0.9e-6, 1.0 + 3e-6], [1.0, 1.0, 1.0 + 3e-6], id="at the limit"),
        pytest.param([0.0, np.nan, -1.0, np.inf], [0.0, np.nan, -1.0, np.inf], id="no doses"),
        pytest.param([], [], id="none"),
    ],
)
def test_examples(doses, one):
    np.testing.assert_array_equal(as_one(doses), one)


def test_an_underscore_is_no_number():
    assert np.isnan(parse_number("1_0"))
    with pytest.raises(ValueError, match="'1_0'"):
        check_doses(pd.DataFrame({"dose": ["1_0"]}), "dose", treated=np.array([True]))


def test_the_line_of_the_message_merges():
    obs = pd.DataFrame({"dose": [0.1, np.float64(np.float32(0.1)), 10.0, 10.000000000000002, 3.0]})
    ((problem, fix),) = rounded(obs["dose"].to_numpy(), "dose")
    assert problem.startswith("obs['dose'] holds 0.1 and 0.10000000149011612, which differ by rounding")
    assert "1 more doses" in problem
    adata = type("Data", (), {"obs": obs})()
    exec(fix.partition(": ")[2].removesuffix("."), {"adata": adata})
    assert adata.obs["dose"].tolist() == [0.1, 0.1, 10.0, 10.0, 3.0]
    assert not list(rounded(adata.obs["dose"].to_numpy(), "dose"))
