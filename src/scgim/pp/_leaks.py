from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from rdkit.Chem import rdFingerprintGenerator

from scgim import _keys
from scgim._anndata import require_anndata
from scgim._checks import check_control, check_doses, check_names, is_control, listed
from scgim._look_alikes import representatives

from ._chemistry import standardize_all
from ._smiles import SmilesConflict, check_smiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anndata import AnnData

    from ._chemistry import StandardizedMolecule

COLUMNS = ["kind", "test", "train", "detail"]


def audit_split(
    adata: AnnData,
    *,
    drug_key: str = "drug",
    smiles_key: str | None = None,
    dose_key: str | None = None,
    cell_line_key: str | None = None,
    control: str | Sequence[str],
    split_key: str = _keys.SPLIT,
    smiles_conflict: SmilesConflict = "error",
) -> pd.DataFrame:
    """Find leakage: test conditions whose drug was trained on, under the same or another name.

    A condition is a drug at a dose in a cell line. Name every column that distinguishes conditions: without `cell_line_key`, a
    split that holds out cell lines looks as if every condition were on both sides. A duplicate of a test drug in training counts as
    a leak in two cases: the test drug itself is not in training, or both have the same dose and cell line. Cell lines without a
    treated cell in training are ignored.

    Parameters
    ----------
    adata
        Cells; nothing is written.
    drug_key, dose_key, cell_line_key
        Columns of ``obs``.
    smiles_key
        Column of ``obs`` with the SMILES of each drug. Without it only names of drugs are compared.
    control
        Name of the untreated cells in ``obs[drug_key]``, or a list of names. Controls may be on either side.
    split_key
        Column of ``obs`` with ``"train"`` and ``"test"``.
    smiles_conflict
        Several SMILES of one drug: ``"error"``; ``"first"``, the most frequent SMILES, then the first in alphabetical order; or
        ``"same_parent"``, the same if all SMILES have one parent (`scgim.pp.standardize`), as salts of a compound have.

    Returns
    -------
    One row per leak; no row if the split is clean. Columns:

    ``kind``
        ``"condition"``: cells of one condition on both sides; ``"name"``: a name in training that looks the same (spaces, dashes, accents,
        case); ``"parent"``: another name, salt, stereoisomer or tautomer of the
        test drug in training; ``"near-identical"``: another compound, but the same Morgan fingerprint (radius 2, 1024 bits,
        chirality), so the features cannot tell the two apart.
    ``test``, ``train``
        Names of the drugs.
    ``detail``
        Dose, cell line and numbers of cells, or the parents, as text.

    Raises
    ------
    KeyError
        If a column does not exist. The message names the nearest one.
    TypeError, ValueError
        If `adata` is not an AnnData, values are missing, the split holds other values than ``"train"`` and ``"test"``, no cell is
        called `control`, doses are not positive numbers, or a drug has an unusable SMILES, or two.

    See Also
    --------
    split : with ``smiles_key``, makes splits without leaks of the first two kinds.

    Examples
    --------
    >>> import anndata as ad, numpy as np, pandas as pd
    >>> obs = pd.DataFrame(
    ...     {
    ...         "drug": ["DMSO", "valproate", "valproic acid"],
    ...         "smiles": ["", "CCCC(CCC)C(=O)[O-].[Na+]", "CCCC(CCC)C(=O)O"],
    ...         "split": ["train", "test", "train"],
    ...     },
    ...     index=list("abc"),
    ... )
    >>> adata = ad.AnnData(np.zeros((3, 2)), obs=obs)
    >>> audit_split(adata, smiles_key="smiles", control="DMSO", split_key="split")
         kind       test          train                       detail
    0  parent  valproate  valproic acid  both are CCCC(CCC)C(=O)O
    """
    require_anndata(adata)
    drug, side = check_names(adata, drug_key), check_names(adata, split_key)
    if other := sorted(set(side) - {"train", "test"}):
        raise ValueError(f"obs[{split_key!r}] may hold 'train' and 'test', but also holds {listed(other)}.")
    check_control(drug, control, key=drug_key)
    treated = ~is_control(drug, control)
    conditions = pd.DataFrame({"drug": drug.to_numpy(), "train": (side == "train").to_numpy()})
    conditions["dose"] = 0.0 if dose_key is None else check_doses(adata, dose_key, treated=treated)
    conditions["line"] = "" if cell_line_key is None else check_names(adata, cell_line_key).to_numpy()
    structures = {}
    if smiles_key is not None:
        smiles = check_smiles(adata, smiles_key, names=drug, treated=treated, conflict=smiles_conflict)
        structures = standardize_all(smiles[smiles != ""])
    return find_leaks(conditions[treated], structures, dosed=dose_key is not None, lined=cell_line_key is not None)


def find_leaks(
    cells: pd.DataFrame, structures: Mapping[str, StandardizedMolecule], *, dosed: bool, lined: bool
) -> pd.DataFrame:
    """The table of `audit_split`.

    ``cells`` are treated cells with drug, dose, line (no value missing) and train (bool). Drugs without a structure are compared by
    name. ``dosed`` and ``lined`` say whether `detail` names dose and cell line.
    """
    sides = cells.groupby(["drug", "dose", "line"], observed=True)["train"].agg(["sum", "size"]).reset_index()
    sides["n_test"] = sides["size"] - sides["sum"]
    test, train = sides[sides["n_test"] > 0], sides[sides["sum"] > 0]
    rows = []
    for row in sides[(sides["n_test"] > 0) & (sides["sum"] > 0)].to_dict("records"):
        where = [f"dose {row['dose']:g}"] * dosed + [f"line {row['line']}"] * lined
        counts = f"{row['sum']:,} cells in train and {row['n_test']:,} in test"
        rows.append(("condition", row["drug"], row["drug"], ", ".join([*where, counts])))
    test = test[test["line"].isin(train["line"])]
    rows += _names(test, train)
    rows += _duplicates(test, train, structures)
    return pd.DataFrame(rows, columns=COLUMNS, dtype=object)


def _names(test: pd.DataFrame, train: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    """Test drugs that are not in training under their name, but under a name that looks the same."""
    alike = representatives({*test["drug"], *train["drug"]})
    trained = set(train["drug"])
    for name in sorted(set(test["drug"]) - trained):
        for other in sorted(each for each in trained if alike[each] == alike[name]):
            yield "name", name, other, f"{name!a} and {other!a} look the same"


def _duplicates(
    test: pd.DataFrame, train: pd.DataFrame, structures: Mapping[str, StandardizedMolecule]
) -> Iterator[tuple[str, ...]]:
    skeleton = {name: structure.skeleton for name, structure in structures.items()}
    trained = set(train["drug"])
    for kind, key in (("parent", skeleton), ("near-identical", morgan(structures))):
        one, two = (side.assign(key=side["drug"].map(key)).dropna(subset="key") for side in (test, train))
        pairs = one.merge(two, on="key", suffixes=("", "_train"))
        same = (pairs["dose"] == pairs["dose_train"]) & (pairs["line"] == pairs["line_train"])
        pairs = pairs[(pairs["drug"] != pairs["drug_train"]) & (same | ~pairs["drug"].isin(trained))]
        for name, duplicate in sorted(set(zip(pairs["drug"], pairs["drug_train"], strict=True))):
            if kind == "parent" or skeleton[name] != skeleton[duplicate]:
                parents = dict.fromkeys((structures[name].parent, structures[duplicate].parent))
                yield kind, name, duplicate, ("both are " if len(parents) == 1 else "") + " and ".join(parents)


def morgan(structures: Mapping[str, StandardizedMolecule]) -> dict[str, bytes]:
    """Morgan fingerprints with the defaults of `scgim.pp.fingerprints`, as bytes by drug."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024, includeChirality=True)
    return {name: generator.GetFingerprint(structure.mol).ToBinary() for name, structure in structures.items()}
