from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import issparse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SLOTS = ["layers", "obsm", "varm", "obsp", "varp", "uns"]


def _same(a: Any, b: Any, where: str) -> None:
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b, obj=where, check_column_type=False)
    elif hasattr(a, "items"):
        assert set(a) == set(b), where
        for key, value in a.items():
            _same(value, b[key], f"{where}[{key!r}]")
    elif issparse(a):
        assert issparse(b), where
        assert (a.format, a.dtype, a.shape) == (b.format, b.dtype, b.shape), where
        np.testing.assert_array_equal(a.toarray(), b.toarray(), err_msg=where)
    elif isinstance(a, np.ndarray) and a.dtype == object:
        # zarr's strings come back as numpy's StringDType
        assert list(a) == [str(value) for value in b], where
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), where
        np.testing.assert_array_equal(a, b, err_msg=where)
    else:
        assert type(a)(b) == a, where
        assert isinstance(b, (type(a), np.generic)), where


@pytest.fixture
def assert_same() -> Callable[[ad.AnnData, ad.AnnData], None]:
    """Values, dtypes, shapes and names of two AnnData are equal in every slot."""

    def check(a: ad.AnnData, b: ad.AnnData) -> None:
        for slot in ["X", "obs", "var", *SLOTS]:
            left, right = getattr(a, slot), getattr(b, slot)
            _same(dict(left) if slot in SLOTS else left, dict(right) if slot in SLOTS else right, f".{slot}")

    return check


@pytest.fixture(params=["h5ad", "zarr"])
def written_and_read(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[ad.AnnData], ad.AnnData]:
    def go(adata: ad.AnnData) -> ad.AnnData:
        getattr(adata, f"write_{request.param}")(tmp_path / "x")
        return getattr(ad, f"read_{request.param}")(tmp_path / "x")

    return go
