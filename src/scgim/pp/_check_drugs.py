"""Checks of drugs: structures, features, and leakage of a split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgim._anndata import in_memory
from scgim._checks import listed

from ._chemistry import structure_doubts
from ._duplicates import duplicate_groups, equalities
from ._leaks import find_leaks, morgan
from ._mixtures import mixtures
from ._screen import Finding
from ._smiles import MIXTURE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from ._screen import UncheckedScreen

MIN_DRUGS = 8  # with fewer drugs, folds over drugs are too small to compare generators


def check_structures(screen: UncheckedScreen) -> Iterator[Finding]:
    """Every drug has one readable SMILES, and no drug is a duplicate of another."""
    key = screen.smiles_key
    if key is None:
        yield Finding("PASS", "No smiles_key was given.")
        return
    # With a table of features, structures are not used for learning: an unreadable SMILES is no obstacle.
    bad = "FAIL" if screen.features_key is None else "WARN"
    try:
        screen.read_smiles(screen.smiles_conflict)
    except (TypeError, ValueError) as error:
        yield Finding.of(error)
    if screen.features_key is None:
        yield from _featureless(screen.structureless, screen.drugs, "smiles_key")
    if failed := screen.unreadable:
        shown = listed(f"{name} ({error})" for name, error in failed.items())
        finding = f"{len(failed)} of {len(screen.drugs)} drugs have no usable SMILES: {shown}."
        yield Finding(bad, finding, "Correct their SMILES or leave these drugs out.")
    texts = {name: text for name, text in screen.smiles.items() if name in screen.structures}
    if names := mixtures(pd.Series(texts, dtype=object)):
        said = MIXTURE.format(what=f"{len(names)} of {len(texts)} structures", names=listed(names))
        yield Finding.of(ValueError(said), "WARN")
    for doubt in structure_doubts(screen.structures, texts):
        yield Finding.of(ValueError(doubt), "WARN")
    skeletons = {name: structure.skeleton for name, structure in screen.structures.items()}
    duplicates = duplicate_groups(skeletons)
    if duplicates:
        finding = f"Duplicates (salts, stereoisomers or other names of one compound): {equalities(duplicates)}."
        yield Finding("WARN", finding, "Merge them, or keep them on one side: split(adata, smiles_key=...).")
    by_bits = duplicate_groups(morgan(screen.structures))
    alike = [group for group in by_bits if len({skeletons[name] for name in group}) > 1]
    if alike:
        finding = f"Different compounds with one fingerprint: {equalities(alike)}."
        yield Finding("WARN", finding, "featurize_drugs(adata, counts=True) or a larger radius may tell them apart.")
    n_salts = sum(structure.n_fragments > 1 for structure in screen.structures.values())
    yield Finding("PASS", f"{len(screen.structures)} structures, {n_salts} of several components; no duplicates.")


def check_features(screen: UncheckedScreen) -> Iterator[Finding]:
    """Drugs differ in their features, and there are enough of them to learn from."""
    train = screen.cells["treated"] & (screen.cells["split"] != "test")
    drugs = sorted(set(screen.cells.loc[train, "drug"]))
    if screen.features_key is not None:
        problem = _table_problem(table := in_memory(screen.adata.uns[screen.features_key]), screen)
        if problem is not None:
            yield problem
            return
        yield from _featureless(set(table.index[table.isna().all(axis=1)]) & set(drugs), drugs, "features_key")
        values = table.loc[drugs].dropna().astype(np.float64)
        rows = {name: row.tobytes() for name, row in zip(values.index, values.to_numpy(), strict=True)}
    elif screen.smiles_key is not None:
        rows = morgan({name: screen.structures[name] for name in drugs if name in screen.structures})
    else:
        finding = "Drugs have no features, so nothing is learned across drugs, and new drugs cannot be predicted."
        yield Finding("WARN", finding, "Pass smiles_key= or features_key=, if there are any.")
        return
    n = len(set(rows.values()))
    if n < MIN_DRUGS:
        finding = f"{n} drugs with distinct features to learn from: nothing is learned across drugs below {MIN_DRUGS}."
        yield Finding(
            "WARN", finding, "Add drugs, or features that tell them apart; do not trust predictions of new drugs."
        )
    yield Finding("PASS", f"{n} distinct rows of features for {len(drugs)} drugs.")


def _featureless(names: Collection[str], drugs: Sequence[str], key: str) -> Iterator[Finding]:
    """Drugs without features are learned on their own, if there are others."""
    if names and len(names) == len(drugs):
        yield Finding("FAIL", "No drug has features.", f"Leave {key} out: every drug is then learned on its own.")
    elif names:
        finding = f"{len(names)} of {len(drugs)} drugs have no features: {listed(sorted(names))}. They are learned on their own."
        yield Finding("WARN", finding, "Add their features, unless they have no structure, as antibodies have none.")


def _table_problem(table: object, screen: UncheckedScreen) -> Finding | None:
    where = f"uns[{screen.features_key!r}]"
    if not isinstance(table, pd.DataFrame):
        return Finding("FAIL", f"{where} is a {type(table).__name__}.", "Make it a DataFrame with drug names as index.")
    table = table.drop(index=screen.controls, errors="ignore")
    for axis, labels in (("index", table.index), ("columns", table.columns)):
        if labels.has_duplicates or not all(isinstance(label, str) for label in labels):
            return Finding(
                "FAIL", f"The {axis} of {where} must hold unique strings.", f"table.{axis} names drugs or features."
            )
    if not table.shape[1]:
        return Finding("FAIL", f"{where} has no columns.", "Give the drugs features, or leave features_key out.")
    if missing := sorted(set(screen.drugs) - set(table.index)):
        finding = f"{len(missing)} drugs have no row in {where}: {listed(missing)}."
        return Finding("FAIL", finding, "The index holds the drugs' names as they are in obs.")
    table = table[table.notna().any(axis=1)]
    numbers = table.astype(object).apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    if len(bad := table.index[~np.isfinite(numbers).all(1)]):
        return Finding("FAIL", f"{where} is not finite for {listed(bad)}.", "Complete these rows or drop the columns.")
    return None


def check_split(screen: UncheckedScreen) -> Iterator[Finding]:
    """The split holds out whole conditions, and training keeps controls and drugs."""
    key, cells = screen.split_key, screen.cells
    if key is None:
        yield Finding("PASS", "No split_key was given.")
        return
    if other := sorted(set(cells["split"].dropna()) - {"train", "test"}):
        fix = "Rename these or drop their cells: validation conditions are drawn in training (train_size)."
        yield Finding("FAIL", f"obs[{key!r}] may hold 'train' and 'test', but also holds {listed(other)}.", fix)
    train = cells["split"] == "train"
    groups = cells[train].groupby(["line", "batch"])[["control", "treated"]].any()
    if not groups["control"].any() or not groups["treated"].any():
        yield Finding(
            "FAIL", f"The 'train' cells of obs[{key!r}] lack controls or drugs.", "split(adata, ...) keeps both."
        )
    elif (groups["treated"] & ~groups["control"]).any():
        finding = "Lines or batches have treated cells in train, but no controls in train."
        yield Finding("FAIL", finding, "Keep all controls in train, as split does.")
    sided = screen.treated[screen.treated["split"].isin(["train", "test"])]
    leaks = find_leaks(
        sided.assign(train=sided["split"] == "train"),
        screen.structures,
        dosed=screen.dose_key is not None,
        lined=screen.cell_line_key is not None,
    )
    for kind, status in (("condition", "FAIL"), ("parent", "WARN"), ("near-identical", "WARN")):
        found = leaks[leaks["kind"] == kind]
        if len(found):
            shown = listed(
                row.test if kind == "condition" else f"{row.test} = {row.train}" for row in found.itertuples()
            )
            finding = f"Leakage: {len(found):,} leaks from train into test ({kind}): {shown}. See scgim.pp.audit_split."
            yield Finding(
                status, finding, "Split anew: split(adata, smiles_key=...) keeps conditions and duplicates whole."
            )
    n_test = sided.loc[sided["split"] == "test", "drug"].nunique()
    yield Finding("PASS", f"{(~train).sum():,} of {len(cells):,} cells, of {n_test} drugs, are held out. No leakage.")
