from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rdkit.Chem import rdFingerprintGenerator

from scgim import _keys
from scgim._anndata import require_anndata
from scgim._checks import check_names, listed
from scgim._look_alikes import representatives

from ._cell_drugs import CellDrugs
from ._chemistry import standardize_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anndata import AnnData

    from scgim._combinations import Combinations

    from ._chemistry import StandardizedMolecule
    from ._smiles import SmilesConflict

COLUMNS = ["kind", "test", "train", "detail"]


def audit_split(
    adata: AnnData,
    *,
    drug_key: str | Sequence[str] = "drug",
    smiles_key: str | Sequence[str] | None = None,
    dose_key: str | Sequence[str] | None = None,
    cell_line_key: str | None = None,
    control: str | Sequence[str],
    split_key: str = _keys.SPLIT,
    smiles_conflict: SmilesConflict = "error",
    combination_sep: str | None = None,
) -> pd.DataFrame:
    """Find leakage: test conditions whose drug was trained on, under the same or another name.

    A condition is a drug at a dose in a cell line. Name every column that distinguishes conditions: without `cell_line_key`, a
    split that holds out cell lines looks as if every condition were on both sides. A duplicate of a test drug in training counts as
    a leak in two cases: the test drug itself is not in training, or both have the same dose and cell line. Cell lines without a
    treated cell in training are ignored.

    In a screen with combinations, a condition is a set of drugs with their doses, and leaks are looked for drug by drug: a drug that is
    held out on its own must not be in a combination in training, neither under its own name nor under another.

    Parameters
    ----------
    adata
        Cells; nothing is written.
    drug_key, dose_key, cell_line_key
        Columns of ``obs``; drugs and doses may have lists of columns, as in `scgim.setup_anndata`.
    smiles_key
        Column of ``obs`` with the SMILES of each drug. Without it only names of drugs are compared.
    control
        Name of the untreated cells in ``obs[drug_key]``, or a list of names. Controls may be on either side.
    split_key
        Column of ``obs`` with ``"train"`` and ``"test"``.
    smiles_conflict
        Several SMILES of one drug: ``"error"``; ``"first"``, the most frequent SMILES, then the first in alphabetical order; or
        ``"same_parent"``, the same if all SMILES have one parent (`scgim.pp.standardize`), as salts of a compound have.
    combination_sep
        Separator of drugs in ``obs[drug_key]``, as in `scgim.setup_anndata`.

    Returns
    -------
    One row per leak; no row if the split is clean. Columns:

    ``kind``
        ``"condition"``: cells of one condition on both sides; ``"name"``: a name in training that looks the same (spaces, dashes, accents,
        case); ``"parent"``: another name, salt, stereoisomer or tautomer of the
        test drug in training; ``"near-identical"``: another compound, but the same Morgan fingerprint (radius 2, 1024 bits,
        chirality), so the features cannot tell the two apart; ``"component"``: a test drug, none of whose cells as a single drug is in
        training, in a combination in training.
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
    side = check_names(adata, split_key)
    if other := sorted(set(side) - {"train", "test"}):
        raise ValueError(f"obs[{split_key!r}] may hold 'train' and 'test', but also holds {listed(other)}.")
    cells = CellDrugs.read(adata, drug_key, control, sep=combination_sep, dose_key=dose_key)
    conditions = pd.DataFrame({"drug": cells.name.to_numpy(), "train": (side == "train").to_numpy()})
    conditions["dose"] = np.nan_to_num(cells.dose)
    conditions["line"] = "" if cell_line_key is None else check_names(adata, cell_line_key).to_numpy()
    structures = {}
    if smiles_key is not None:
        smiles = cells.smiles(smiles_key, smiles_conflict)
        structures = standardize_all(smiles[smiles != ""])
    return find_leaks(
        conditions[cells.treated],
        structures,
        dosed=dose_key is not None,
        lined=cell_line_key is not None,
        combinations=cells.combinations,
    )


def find_leaks(
    cells: pd.DataFrame,
    structures: Mapping[str, StandardizedMolecule],
    *,
    dosed: bool,
    lined: bool,
    combinations: Combinations | None = None,
) -> pd.DataFrame:
    """The table of `audit_split`.

    ``cells`` are treated cells with drug, dose, line (no value missing) and train (bool). Drugs without a structure are compared by
    name. ``dosed`` and ``lined`` say whether `detail` names dose and cell line. ``combinations`` are the drugs and doses of treatments
    that are combinations; their names contain the doses.
    """
    known = combinations or {}
    sides = cells.groupby(["drug", "dose", "line"], observed=True)["train"].agg(["sum", "size"]).reset_index()
    sides["n_test"] = sides["size"] - sides["sum"]
    test, train = sides[sides["n_test"] > 0], sides[sides["sum"] > 0]
    rows = []
    for row in sides[(sides["n_test"] > 0) & (sides["sum"] > 0)].to_dict("records"):
        where = [f"dose {row['dose']:g}"] * (dosed and row["drug"] not in known) + [f"line {row['line']}"] * lined
        counts = f"{row['sum']:,} cells in train and {row['n_test']:,} in test"
        rows.append(("condition", row["drug"], row["drug"], ", ".join([*where, counts])))
    test = test[test["line"].isin(train["line"])]
    one, two = (_components(side, known) for side in (test, train))
    rows += _names(one, two)
    rows += _duplicates(one, two, structures)
    alone = set(one.loc[one["others"].map(len) == 0, "drug"]) - set(two.loc[two["others"].map(len) == 0, "drug"])
    for name in sorted(alone & set(two["drug"])):
        found = sorted(set(two.loc[two["drug"] == name, "treatment"]))
        rows += [("component", name, each, f"{name} is in test, and in a combination in training") for each in found]
    return pd.DataFrame(rows, columns=COLUMNS, dtype=object)


def _components(side: pd.DataFrame, combinations: Combinations) -> pd.DataFrame:
    """A row for every condition and drug: treatment, drug, dose, line and others, the other drugs of the combination with their doses."""
    rows = []
    for name, dose, line in side[["drug", "dose", "line"]].itertuples(index=False, name=None):
        parts = combinations.get(name, ((name, dose),))
        rows += [(name, *part, line, tuple(each for each in parts if each != part)) for part in parts]
    return pd.DataFrame(rows, columns=["treatment", "drug", "dose", "line", "others"])


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
    """Pairs of duplicates of which the test drug is not in training, or of which both have one condition."""
    skeleton = {name: structure.skeleton for name, structure in structures.items()}
    trained = set(train["drug"])
    for kind, key in (("parent", skeleton), ("near-identical", morgan(structures))):
        one, two = (_keyed(side, key) for side in (test, train))
        pairs = one.merge(two, on="key", suffixes=("", "_train"))
        same = pairs["condition"] == pairs["condition_train"]
        pairs = pairs[(pairs["drug"] != pairs["drug_train"]) & (same | ~pairs["drug"].isin(trained))]
        for name, duplicate in sorted(set(zip(pairs["drug"], pairs["drug_train"], strict=True))):
            if kind == "parent" or skeleton[name] != skeleton[duplicate]:
                parents = dict.fromkeys((structures[name].parent, structures[duplicate].parent))
                yield kind, name, duplicate, ("both are " if len(parents) == 1 else "") + " and ".join(parents)


def _keyed(side: pd.DataFrame, key: Mapping[str, object]) -> pd.DataFrame:
    """The components with a key, and the rest of their condition, in which drugs of one key are equal, as text."""
    rest = [
        repr((dose, line, sorted(repr((key.get(name, name), of)) for name, of in others)))
        for dose, line, others in side[["dose", "line", "others"]].itertuples(index=False, name=None)
    ]
    return side.assign(key=side["drug"].map(key), condition=rest).dropna(subset="key")


def morgan(structures: Mapping[str, StandardizedMolecule]) -> dict[str, bytes]:
    """Morgan fingerprints with the defaults of `scgim.pp.fingerprints`, as bytes by drug."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024, includeChirality=True)
    return {name: generator.GetFingerprint(structure.mol).ToBinary() for name, structure in structures.items()}
