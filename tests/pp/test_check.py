from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scgim
from scgim.pp import check

CHECKS = [
    "scale",
    "size factors",
    "genes",
    "readout",
    "columns",
    "controls",
    "control labels",
    "cells per condition",
    "replicates",
    "doses",
    "structures",
    "features",
    "genetic arms",
    "drugs and batches",
    "covariates",
    "split",
    "resources",
]
KEYS = {
    "control": "DMSO",
    "scale": "continuous",
    "dose_key": "dose",
    "dose_unit": "uM",
    "smiles_key": "smiles",
    "cell_line_key": "line",
    "batch_key": "plate",
    "split_key": "side",
}
SMILES = ["CCO", "CCN", "c1ccccc1", "CC(=O)O", "C1CCOC1", "CC#N", "CCS", "c1ccncc1", "NCC(=O)O", "CC(C)=O"]
N_DRUGS, N_CELLS, N_GENES = len(SMILES), 20, 5


def screen() -> ad.AnnData:
    """Ten drugs at two doses in two lines, each on two plates, 20 cells a condition; two drugs are held out."""
    conditions = [(f"drug {i}", smiles, dose) for i, smiles in enumerate(SMILES, 1) for dose in (1.0, 10.0)]
    conditions += [("DMSO", "", np.nan)] * 2
    rows = [
        (drug, dose, smiles, line, f"plate {i % 2}", "test" if drug in {"drug 3", "drug 4"} else "train")
        for drug, smiles, dose in conditions
        for line in ("A549", "K562")
        for i in range(N_CELLS)
    ]
    obs = pd.DataFrame(rows, columns=["drug", "dose", "smiles", "line", "plate", "side"])
    number = np.arange(len(obs)) % N_CELLS
    obs["well"] = [f"{i // N_CELLS} {i % N_CELLS // 2 % 5}{i % 2}" for i in range(len(obs))]
    obs["position"], obs["donor"] = obs["drug"] + (number // 4).astype(str), (number // 2 % 3).astype(str)
    obs.index = [f"cell {i}" for i in range(len(obs))]
    x = np.random.default_rng(0).normal(size=(len(obs), N_GENES))
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"gene {i}" for i in range(N_GENES)]))


def sheet_of(adata: ad.AnnData, **options) -> pd.DataFrame:
    sheet = check(adata, **(KEYS | options))
    assert list(sheet) == ["check", "status", "finding", "fix"]
    assert list(sheet["check"]) == CHECKS
    assert set(sheet["status"]) <= {"PASS", "WARN", "FAIL"}
    assert sheet["finding"].str.len().gt(3).all()
    assert ((sheet["fix"] == "") == (sheet["status"] == "PASS")).all()
    assert not sheet["finding"].str.contains("Could not be checked").any(), sheet["finding"].tolist()
    return sheet.set_index("check")


def test_a_sound_screen_passes():
    adata = screen()
    before = adata.copy()
    sheet = sheet_of(adata)
    assert (sheet["status"] == "PASS").all(), sheet[sheet["status"] != "PASS"].to_string()
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    np.testing.assert_array_equal(adata.X, before.X)
    assert not adata.uns


def test_nothing_but_names_is_needed():
    sheet = check(screen(), control="DMSO", scale="continuous").set_index("check")["status"]
    assert sheet[sheet != "PASS"].to_dict() == {"features": "WARN"}


# ---- attacks ---------------------------------------------------------------------------------------------------------


def put(key, value, rows=slice(0, 3)):
    def spoil(adata):
        column = adata.obs[key].astype(object)
        column.iloc[rows] = value
        adata.obs[key] = column

    return spoil


def values(change):
    def spoil(adata):
        adata.X = change(adata.X)

    return spoil


def with_nan(x):
    x[3, 2] = np.nan
    return x


def without(drug, key, level):
    def spoil(adata):
        adata._inplace_subset_obs((adata.obs["drug"] != drug) | (adata.obs[key] != level))

    return spoil


def call(change):
    def spoil(adata):
        change(adata)

    return spoil


def twice(adata):
    adata.var_names = ["gene 0", *adata.var_names[:-1]]


def features(change):
    def spoil(adata):
        table = pd.DataFrame(
            np.eye(N_DRUGS), [f"drug {i}" for i in range(1, N_DRUGS + 1)], [f"f{i}" for i in range(N_DRUGS)]
        )
        adata.uns["features"] = change(table)

    return spoil


COUNTS = {"scale": "counts"}
OWN = {"features_key": "features"}
drug = {
    name: np.arange(4 * N_CELLS) + 4 * N_CELLS * (i - 1)
    for i, name in enumerate([f"drug {i}" for i in range(1, 11)], 1)
}

ATTACKS = [
    # the matrix
    pytest.param(values(lambda x: x), {"scale": "lognorm"}, "scale", "FAIL", "negative", id="lognorm, negative"),
    pytest.param(values(lambda x: x), COUNTS, "scale", "FAIL", "negative", id="counts, negative"),
    pytest.param(values(lambda x: np.log1p(np.abs(x))), COUNTS, "scale", "FAIL", "not integers", id="counts, logged"),
    pytest.param(
        values(lambda x: np.rint(np.exp(x))),
        {"scale": "lognorm"},
        "scale",
        "FAIL",
        "looks like counts",
        id="lognorm, counts",
    ),
    pytest.param(
        values(lambda x: np.rint(np.exp(x))), {}, "scale", "WARN", "looks like counts", id="continuous, counts"
    ),
    pytest.param(
        values(lambda x: np.exp(3 * x)), {"scale": "lognorm"}, "scale", "FAIL", "largest value", id="not logged"
    ),
    pytest.param(
        values(lambda x: np.rint(np.abs(x) * 9) + 1), COUNTS, "size factors", "WARN", "over only 5", id="few genes"
    ),
    pytest.param(
        values(lambda x: np.rint(np.abs(x)) * (np.arange(len(x)) > 4)[:, None]),
        COUNTS,
        "scale",
        "FAIL",
        "no counts",
        id="empty cells",
    ),
    pytest.param(values(with_nan), {}, "scale", "FAIL", "1 values in X are missing or infinite, of 'gene 2'", id="NaN"),
    pytest.param(
        values(lambda x: np.full_like(x, np.inf)), {}, "scale", "FAIL", "missing or infinite", id="all infinite"
    ),
    pytest.param(values(lambda x: np.full_like(x, 1e308)), {}, "genes", "FAIL", "5 genes are constant", id="huge"),
    pytest.param(values(lambda x: None), {}, "scale", "FAIL", "X is None", id="no X"),
    pytest.param(values(lambda x: x.astype(complex)), {}, "scale", "FAIL", "complex128", id="complex"),
    pytest.param(values(lambda x: x.astype("U5")), {}, "scale", "FAIL", "<U5", id="text"),
    pytest.param(values(lambda x: x * [1, 0, 1, 1, 1]), {}, "genes", "FAIL", "constant: 'gene 1'", id="constant gene"),
    pytest.param(twice, {}, "genes", "FAIL", "more than once: 'gene 0'", id="gene twice"),
    pytest.param(values(lambda x: x[:, [0, 1, 2, 0, 4]]), {}, "genes", "WARN", "'gene 0 = gene 3'", id="equal genes"),
    # names
    pytest.param(put("drug", None), {}, "columns", "FAIL", "missing for 3", id="NaN drug"),
    pytest.param(put("drug", " "), {}, "columns", "FAIL", "blank for 3", id="blank drug"),
    pytest.param(put("drug", None, slice(None)), {}, "controls", "FAIL", "No cell equals", id="no drug at all"),
    pytest.param(put("line", None), {}, "columns", "FAIL", "obs['line'] is missing", id="NaN line"),
    pytest.param(put("line", [[1], [2], [3]]), {}, "columns", "FAIL", "not names", id="lists for lines"),
    pytest.param(put("plate", [1, "1", 2.5]), {}, "columns", "FAIL", "only in type", id="types mixed"),
    pytest.param(
        lambda a: setattr(a, "obs", pd.concat([a.obs, a.obs[["line"]]], axis=1)),
        {},
        "columns",
        "FAIL",
        "2 columns",
        id="column twice",
    ),
    # controls
    pytest.param(None, {"control": "dmso"}, "controls", "FAIL", "No cell equals control='dmso'", id="control's case"),
    pytest.param(put("drug", "dmso "), {}, "controls", "WARN", "'dmso '", id="control misspelt"),
    pytest.param(
        put("drug", "DMSO", slice(None)), {}, "controls", "FAIL", "All cells are controls", id="controls only"
    ),
    pytest.param(
        without("DMSO", "line", "K562"),
        {},
        "controls",
        "FAIL",
        "'line=K562 and plate=plate 0'",
        id="line without controls",
    ),
    pytest.param(
        without("DMSO", "plate", "plate 1"),
        {"cell_line_key": None},
        "controls",
        "FAIL",
        "plate=plate 1",
        id="plate without",
    ),
    pytest.param(
        put("drug", "drug 1", slice(-38, None)),
        {"cell_line_key": None, "batch_key": None},
        "controls",
        "PASS",
        "42",
        id="42 left",
    ),
    pytest.param(
        put("drug", "drug 1", slice(-65, None)),
        {"cell_line_key": None, "batch_key": None},
        "controls",
        "WARN",
        "fewest 15",
        id="15 left",
    ),
    # replicates
    pytest.param(None, {"replicate_key": "well"}, "replicates", "PASS", "10 replicates in a condition.", id="wells"),
    pytest.param(
        None, {"replicate_key": "position"}, "replicates", "PASS", "span several batches and count once", id="positions"
    ),
    pytest.param(
        None, {"replicate_key": "line"}, "replicates", "FAIL", "have two values of obs['line']", id="one each"
    ),
    pytest.param(None, {"replicate_key": "donor"}, "replicates", "WARN", "hold both controls and treated", id="donors"),
    pytest.param(
        put("well", None), {"replicate_key": "well"}, "columns", "FAIL", "obs['well'] is missing", id="no well"
    ),
    pytest.param(
        lambda a: a._inplace_subset_obs(np.arange(a.n_obs) % 4 < 2), {}, "replicates", "PASS", "every cell", id="cells"
    ),
    pytest.param(
        lambda a: a._inplace_subset_obs(np.arange(a.n_obs) % 10 < 4),
        {},
        "replicates",
        "WARN",
        "look like wells",
        id="few",
    ),
    pytest.param(None, {"unit": "well"}, "replicates", "PASS", "Every well is a replicate: 20", id="rows are wells"),
    pytest.param(None, {"unit": "well"}, "controls", "PASS", "80 control wells", id="control wells"),
    pytest.param(None, {"unit": "well"}, "cells per condition", "PASS", "with 20 wells", id="wells of a condition"),
    # conditions and doses
    pytest.param(put("drug", "new"), {}, "cells per condition", "WARN", "new, 1 uM, A549 (3)", id="few cells"),
    pytest.param(put("dose", "1 uM"), {}, "doses", "FAIL", "'1 uM' for 3", id="unit in dose"),
    pytest.param(put("dose", None), {}, "doses", "FAIL", "'None' for 3", id="no dose"),
    pytest.param(put("dose", -1.0), {}, "doses", "FAIL", "'-1.0'", id="negative dose"),
    pytest.param(put("dose", np.inf), {}, "doses", "FAIL", "'inf'", id="infinite dose"),
    pytest.param(put("dose", None, slice(None)), {}, "doses", "FAIL", "800 treated", id="no doses at all"),
    pytest.param(put("dose", 1e6), {}, "doses", "WARN", "1 to 1e+06 uM", id="doses in two units"),
    pytest.param(None, {"dose_unit": None}, "doses", "FAIL", "without dose_unit", id="no unit"),
    pytest.param(None, {"dose_key": None}, "doses", "FAIL", "without dose_key", id="unit alone"),
    # drugs
    pytest.param(put("smiles", "CCCO"), {}, "structures", "FAIL", "more than one SMILES", id="two SMILES"),
    pytest.param(
        put("smiles", "C1CC", drug["drug 1"]),
        {},
        "structures",
        "FAIL",
        "1 of 10 drugs have no usable SMILES",
        id="unparsable",
    ),
    pytest.param(
        put("smiles", None, drug["drug 1"]),
        {},
        "structures",
        "WARN",
        "1 of 10 drugs have no features: 'drug 1'. They are learned on their own.",
        id="no SMILES",
    ),
    pytest.param(
        put("smiles", " ", slice(None)), {}, "structures", "FAIL", "No drug has features.", id="no SMILES at all"
    ),
    pytest.param(
        put("smiles", 3.5, drug["drug 1"]), {}, "structures", "FAIL", "1 of 10 drugs", id="a number for SMILES"
    ),
    pytest.param(put("smiles", "CO", drug["drug 1"]), {}, "structures", "PASS", "10 structures", id="another SMILES"),
    pytest.param(put("smiles", "OCC.Cl", drug["drug 2"]), {}, "structures", "WARN", "'drug 1' = 'drug 2'", id="salt"),
    pytest.param(
        put("smiles", "nonsense", slice(None)), {}, "structures", "FAIL", "10 of 10", id="no structure at all"
    ),
    pytest.param(
        without("drug 1", "line", "nowhere"), {"smiles_key": None}, "features", "WARN", "no features", id="no features"
    ),
    pytest.param(features(lambda t: t), OWN, "features", "PASS", "8 distinct", id="own features"),
    pytest.param(features(lambda t: t * 0), OWN, "features", "WARN", "1 drugs with distinct", id="features all equal"),
    pytest.param(
        features(lambda t: t.iloc[1:]), OWN, "features", "FAIL", "no row in uns['features']: 'drug 1'", id="row missing"
    ),
    pytest.param(features(lambda t: t.replace(1.0, np.nan)), OWN, "features", "FAIL", "not finite", id="NaN features"),
    pytest.param(
        features(lambda t: t.astype(str).replace("1.0", "high")),
        OWN,
        "features",
        "FAIL",
        "not finite",
        id="text features",
    ),
    pytest.param(
        features(lambda t: t.iloc[[0, *range(10)]]), OWN, "features", "FAIL", "unique strings", id="row twice"
    ),
    pytest.param(features(lambda t: t.iloc[:, :0]), OWN, "features", "FAIL", "has no columns", id="no columns"),
    pytest.param(features(lambda t: t.to_numpy()), OWN, "features", "FAIL", "is a ndarray", id="array"),
    # batches
    pytest.param(
        without("drug 1", "plate", "plate 0"),
        {},
        "drugs and batches",
        "WARN",
        "1 of 10 drugs occur in one batch only: 'drug 1'",
        id="one plate only",
    ),
    pytest.param(put("plate", "plate 0", slice(None)), {}, "drugs and batches", "PASS", "one batch", id="one plate"),
    # splits
    pytest.param(put("side", "valid"), {}, "split", "FAIL", "also holds 'valid'", id="third side"),
    pytest.param(put("side", None), {}, "columns", "FAIL", "missing", id="NaN side"),
    pytest.param(put("side", "test"), {}, "split", "FAIL", "(condition): 'drug 1'", id="leak"),
    pytest.param(put("side", "test", slice(None)), {}, "split", "FAIL", "lack controls", id="all test"),
    pytest.param(put("side", "test", slice(-80, None)), {}, "split", "FAIL", "lack controls", id="controls tested"),
    pytest.param(put("side", "test", slice(-40, -20)), {}, "split", "PASS", "held out", id="some controls tested"),
    pytest.param(
        put("smiles", "CC.Cl", np.r_[drug["drug 3"], drug["drug 5"]]),
        {},
        "split",
        "WARN",
        "drug 3 = drug 5",
        id="duplicate",
    ),
    # sizes
    pytest.param(
        lambda a: a.obs.insert(0, "size", 1.0),
        {"size_factor_key": "size"},
        "size factors",
        "FAIL",
        "goes with",
        id="size alone",
    ),
    pytest.param(
        lambda a: (values(lambda x: np.rint(np.abs(x)))(a), a.obs.insert(0, "size", [*range(a.n_obs)])),
        COUNTS | {"size_factor_key": "size"},
        "size factors",
        "FAIL",
        "in 1 cells: '0'",
        id="size 0",
    ),
]


@pytest.mark.parametrize(("spoil", "options", "row", "status", "finding"), ATTACKS)
def test_attacks(spoil, options, row, status, finding):
    adata = screen()
    if spoil is not None:
        spoil(adata)
    sheet = sheet_of(adata, **options)
    assert sheet["status"][row] == status, sheet.to_string()
    assert finding in sheet["finding"][row]


@pytest.mark.parametrize(("spoil", "options", "row", "status", "finding"), ATTACKS)
def test_set_up_takes_what_does_not_fail_and_nothing_else(spoil, options, row, status, finding):
    adata = screen()
    if spoil is not None:
        spoil(adata)
    failed = (check(adata, **(KEYS | options))["status"] == "FAIL").any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            scgim.setup_anndata(adata, drug_key="drug", **(KEYS | options))
        except Exception:  # noqa: BLE001
            assert failed
        else:
            assert not failed


ODD = [None, np.nan, pd.NA, pd.NaT, b"x", (1, 2), [1], {"a": 1}, 1 + 2j, True, pd.Timestamp("2020-01-01")]


@pytest.mark.parametrize("value", ODD, ids=repr)
@pytest.mark.parametrize("rows", [pytest.param(slice(0, 3), id="some"), pytest.param(slice(None), id="all")])
def test_odd_values_are_reported_and_never_raise(value, rows):
    sound = screen()
    for key in ("drug", "dose", "smiles", "line", "plate", "side"):
        adata = sound.copy()
        column = adata.obs[key].to_numpy(object, copy=True)
        for i in range(adata.n_obs)[rows]:
            column[i] = value
        adata.obs[key] = pd.Series(column, adata.obs_names, dtype=object)
        sheet = sheet_of(adata)
        assert (sheet["status"] != "PASS").any() or key in {"line", "plate"}


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_empty(shape):
    obs = pd.DataFrame({key: pd.Series("a", index=map(str, range(shape[0])), dtype=object) for key in screen().obs})
    adata = ad.AnnData(np.zeros(shape), obs=obs)
    assert sheet_of(adata)["status"]["scale"] == "FAIL"


def test_findings_of_one_check_are_told_together():
    adata = screen()
    adata.X = adata.X * [1, 0, 1, 1, 1]
    twice(adata)
    row = sheet_of(adata).loc["genes"]
    assert row["status"] == "FAIL"
    assert "more than once" in row["finding"]
    assert "constant" in row["finding"]


# ---- the matrix, wherever it is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csr", "csc", "float32", "int", "bool", "fortran", "dask", "backed", "layer"])
def test_every_kind_of_matrix_gives_the_same_sheet(kind, tmp_path):
    adata, options = screen(), {"scale": "counts", "size_factor_key": "size"}
    adata.obs["size"] = 100.0
    adata.X = (adata.X > 0.5).astype(float)
    expected = sheet_of(adata, **options)
    if kind == "backed":
        adata.write_h5ad(tmp_path / "x.h5ad")
        adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    elif kind == "layer":
        adata.layers["counts"], adata.X = adata.X, None
        options["layer"] = "counts"
    else:
        change = {
            "csr": sp.csr_matrix,
            "csc": sp.csc_array,
            "fortran": np.asfortranarray,
            "dask": lambda x: pytest.importorskip("dask.array").from_array(x, chunks=(100, -1)),
        }
        adata.X = change.get(kind, lambda x: x.astype(kind))(adata.X)
    found = sheet_of(adata, **options)
    if kind == "layer":
        found = found.map(lambda text: text.replace("layers['counts']", "X"))
    pd.testing.assert_frame_equal(found, expected)


def test_equal_genes_are_found_across_blocks(monkeypatch):
    monkeypatch.setattr("scgim.pp._check_values.BLOCK", 7 * N_GENES)
    adata = screen()
    adata.X[:, 4] = adata.X[:, 1]
    assert "'gene 1 = gene 4'" in sheet_of(adata)["finding"]["genes"]
    adata.X[-1, 4] += 1e-6
    assert sheet_of(adata)["status"]["genes"] == "PASS"


def test_genes_that_are_on_in_one_cell_each_are_not_equal():
    x = np.zeros((3000, 3000), np.float32)
    np.fill_diagonal(x, 1)
    adata = ad.AnnData(sp.csr_matrix(x), obs=pd.DataFrame({"drug": ["DMSO", "a"] * 1500}, index=map(str, range(3000))))
    assert check(adata, control="DMSO", scale="counts").set_index("check")["status"]["genes"] == "PASS"


def test_order_of_cells_does_not_matter():
    adata = screen()
    put("drug", "new")(adata)
    other = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    pd.testing.assert_frame_equal(sheet_of(adata), sheet_of(other))


def wide(n_genes):
    adata = screen()
    return ad.AnnData(np.random.default_rng(0).normal(size=(adata.n_obs, n_genes)), obs=adata.obs)


def test_resources_grow():
    def megabytes(n_genes):
        words = sheet_of(wide(n_genes))["finding"]["resources"].replace(",", "").split()
        at = words.index("training") + 5
        assert words[at - 2 : at] == ["s", "and"]
        return float(words[at]) * {"MB": 1, "GB": 1000}[words[at + 1]]

    assert megabytes(5) < 50
    assert megabytes(1500) > 8 * 1500**2 / 1e6


def test_too_little_memory_is_a_warning(monkeypatch):
    assert sheet_of(screen())["status"]["resources"] == "PASS"
    monkeypatch.setattr("scgim.pp._check_resources.available_memory", lambda: 1e6)
    row = sheet_of(screen()).loc["resources"]
    assert row["status"] == "WARN"
    assert "are needed, and 1.0 MB are available" in row["finding"]
    assert "fewer genes" in row["fix"]


def test_rows_of_nan_are_drugs_without_features():
    adata = screen()
    table = pd.DataFrame(np.eye(N_DRUGS), [f"drug {i}" for i in range(1, N_DRUGS + 1)]).rename(columns=str)
    table.loc["drug 5"] = np.nan
    adata.uns["own"] = table
    sheet = sheet_of(adata, smiles_key=None, features_key="own")
    assert sheet["status"]["features"] == "WARN"
    assert "1 of 8 drugs have no features: 'drug 5'" in sheet["finding"]["features"]
    adata.uns["own"] = table * np.nan
    sheet = sheet_of(adata, smiles_key=None, features_key="own")
    assert sheet["status"]["features"] == "FAIL"
    assert sheet["finding"]["features"].startswith("No drug has features.")


# ---- wrong calls -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param({"drug_key": "drugs"}, KeyError, "no column 'drugs'. Nearest: 'drug'", id="drug_key"),
        pytest.param({"dose_key": "doses"}, KeyError, "no column 'doses'. Nearest: 'dose'", id="dose_key"),
        pytest.param({"smiles_key": "SMILE"}, KeyError, "'SMILE'. Nearest: 'smiles'", id="smiles_key"),
        pytest.param({"cell_line_key": "lines"}, KeyError, "'lines'. Nearest: 'line'", id="cell_line_key"),
        pytest.param({"batch_key": "plates"}, KeyError, "'plates'. Nearest: 'plate'", id="batch_key"),
        pytest.param({"size_factor_key": "size"}, KeyError, "no column 'size'", id="size_factor_key"),
        pytest.param({"split_key": "sides"}, KeyError, "'sides'. Nearest: 'side'", id="split_key"),
        pytest.param({"layer": "count"}, KeyError, r"layers\['count'\] does not exist. Nearest: 'counts'", id="layer"),
        pytest.param({"features_key": "features"}, KeyError, r"uns\['features'\].*'drug_features'", id="features_key"),
        pytest.param({"scale": "logs"}, ValueError, "scale='logs' does not exist", id="scale"),
    ],
)
def test_wrong_calls(options, error, message):
    adata = screen()
    adata.layers["counts"], adata.uns["drug_features"] = adata.X, 0
    with pytest.raises(error, match=message):
        check(adata, **(KEYS | options))


def test_refuses_a_view_and_what_is_no_screen():
    with pytest.raises(ValueError, match=r"view.*copy\(\)"):
        check(screen()[:10], **KEYS)
    with pytest.raises(TypeError, match="not a DataFrame"):
        check(screen().obs, **KEYS)
