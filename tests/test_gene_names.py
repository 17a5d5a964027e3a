"""Names of genes: strings or nothing, and look-ups whose failure is seen."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scgim._gene_names import gene_names, positions, table_names

WRONG = [
    pytest.param(
        [7157, 4609], TypeError, r"7157 is an int: adata\.var_names = adata\.var_names\.astype\(str\)", id="int"
    ),
    pytest.param([7157.0, 4609.0], TypeError, r"astype\(int\)\.astype\(str\)", id="float"),
    pytest.param([b"A", b"B"], TypeError, r"b'A' is bytes.*decode\(\)", id="bytes"),
    pytest.param(["A", 3], TypeError, "3 is an int", id="mixed"),
    pytest.param(pd.MultiIndex.from_tuples([("A", "x"), ("B", "y")]), TypeError, "is a tuple.*join", id="two levels"),
    pytest.param(
        ["A", np.nan], ValueError, "1 of 2 genes have no name in var_names; the first of them is gene 1", id="NaN"
    ),
    pytest.param(pd.CategoricalIndex(["A", None]), ValueError, "have no name", id="missing category"),
    pytest.param(pd.Index(["A", pd.NA], dtype="string"), ValueError, "have no name", id="NA"),
    pytest.param(["A", "  "], ValueError, "have no name", id="blank"),
]


@pytest.mark.parametrize(("index", "error", "message"), WRONG)
def test_names_that_are_no_strings_are_refused(index, error, message):
    with pytest.raises(error, match=message):
        gene_names(pd.Index(index))


@pytest.mark.parametrize(
    "index",
    [
        pytest.param(pd.Index(["B", "A"], dtype=object), id="object"),
        pytest.param(pd.Index(["B", "A"], dtype="string"), id="string"),
        pytest.param(pd.CategoricalIndex(["B", "A"]), id="categorical"),
        pytest.param(pd.Index(np.array(["B", "A"])), id="numpy"),
    ],
)
def test_strings_of_any_storage_are_names(index):
    assert gene_names(index).tolist() == ["B", "A"]


@pytest.mark.parametrize(
    ("index", "names"),
    [
        pytest.param([7157, 4609], ["7157", "4609"], id="int"),
        pytest.param([7157.0, 4609.0], ["7157", "4609"], id="float"),
        pytest.param([b"A", b"B"], ["A", "B"], id="bytes"),
        pytest.param([7157.0, np.nan], ["7157"], id="float with NaN"),
        pytest.param(["A", None], ["A"], id="None"),
        pytest.param(pd.CategoricalIndex([None, "A"]), ["A"], id="missing category"),
        pytest.param(["A", " "], ["A"], id="blank"),
    ],
)
def test_the_line_of_the_message_mends_the_names(index, names):
    adata = ad.AnnData(np.zeros((1, 2)))
    adata.var.index = pd.Index(index)
    with pytest.raises((TypeError, ValueError)) as error:
        gene_names(adata.var_names)
    scope = {"adata": adata}
    exec(str(error.value).partition(": ")[2].removesuffix("."), scope)
    assert gene_names(scope["adata"].var_names).tolist() == names


@pytest.mark.parametrize("absent", [["A", "C"], ["C"], [""]])
def test_a_position_is_never_that_of_another_name(absent):
    assert positions(["B", "A"], ["A", "B"], "adata").tolist() == [1, 0]
    with pytest.raises(KeyError, match=f"adata has no '{absent[-1]}'"):
        positions(["B", "A"], absent, "adata")


def test_names_of_tables():
    assert table_names(pd.Series([7157, "MYC", 4609.0], dtype=object), "x").tolist() == ["7157", "MYC", "4609"]
    with pytest.raises(ValueError, match=r"x holds 'None' in 1 of 2 rows"):
        table_names(pd.Series(["MYC", None]), "x")
    with pytest.raises(TypeError, match=r"b'MYC' is bytes"):
        table_names(pd.Series([b"MYC"]), "x")
