"""Checks of obs: controls, conditions, doses, batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scgim._checks import (
    check_control,
    check_doses,
    check_names,
    check_obs_column,
    doubted_controls,
    has_replicates,
    listed,
    no_replicates,
)
from scgim._covariates import Covariates, check_covariates
from scgim._doses import rounded
from scgim._look_alikes import doubted_names

from ._screen import KEYS, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pandas as pd

    from ._screen import UncheckedScreen

FEW = {"cell": 20, "well": 2}  # rows of a condition, or of the controls of a cell line and batch
CONDITION = ["control", "drug", "dose", "line"]
LIKE_WELLS = 8  # median of rows per condition up to which rows are probably wells
WIDE = 1e5  # ratio of the largest to the smallest dose


def check_columns(screen: UncheckedScreen) -> Iterator[Finding]:
    """Every cell has a drug, cell line, batch, split and size factor. No two names differ only in their type or look the same."""
    keys = [screen.drug_key, screen.cell_line_key, screen.batch_key, screen.split_key, screen.replicate_key]
    for check, key in [*((check_names, key) for key in keys), (check_obs_column, screen.size_factor_key)]:
        if key is not None:
            try:
                check(screen.adata, key)
            except ValueError as error:
                yield Finding.of(error)
            except TypeError:
                yield Finding(
                    "FAIL", f"obs[{key!r}] holds values that are not names, such as lists.", "Make them strings."
                )
    for key in (screen.dose_key, screen.smiles_key):  # these may be missing for controls
        if key is not None:
            try:
                check_obs_column(screen.adata, key, allow_missing=True)
            except ValueError as error:
                yield Finding.of(error)
    for name, key, kind in (
        ("drug", screen.drug_key, "drugs"),
        ("line", screen.cell_line_key, "cell lines"),
        ("batch", screen.batch_key, "batches"),
    ):
        found = set(screen.cells[name].dropna())
        for doubt in () if key is None else doubted_names(found, key, kind, but=screen.controls):
            yield Finding("WARN", *doubt)
    yield Finding("PASS", f"Nothing is missing in {listed((key for key in keys if key is not None), n=len(keys))}.")


def check_controls(screen: UncheckedScreen) -> Iterator[Finding]:
    """There are controls and drugs. Every cell line and batch with treated cells has controls."""
    cells, control = screen.cells, screen.controls
    for name in control:
        if not (cells["drug"] == name).any():
            try:
                check_control(cells["drug"].dropna(), name, key=screen.drug_key)
            except ValueError as error:
                yield Finding.of(error)
    if not cells["control"].any():
        return
    for doubt in doubted_controls(screen.drugs, control, key=screen.drug_key):
        yield Finding("WARN", *doubt)
    if not screen.drugs:
        yield Finding("FAIL", "All cells are controls.", "Add treated cells: without them there is nothing to learn.")
        return
    groups = cells.dropna(subset=["line", "batch"]).groupby(["line", "batch"])[["control", "treated"]].sum()
    groups = groups[groups["treated"] > 0]["control"]
    if len(lone := groups[groups == 0]):
        fix = f"Add controls there, or drop these {screen.rows}: without controls their effects cannot be measured."
        yield Finding("FAIL", f"No control {screen.rows} ({listed(control)}) in {_places(screen, lone.index)}.", fix)
    least = FEW[screen.unit]
    few = groups[(groups > 0) & (groups < least)]
    if len(few):
        finding = f"Fewer than {least} control {screen.rows} in {_places(screen, few.index)}, the fewest {few.min()}."
        yield Finding("WARN", finding, f"Every effect there is measured against these {screen.rows}: add controls.")
    yield Finding(
        "PASS",
        f"{cells['control'].sum():,} control {screen.rows}; at least {groups.min() if len(groups) else 0} in each line and batch.",
    )


def _places(screen: UncheckedScreen, groups: Iterable[tuple[str, str]]) -> str:
    return listed(map(screen.place, groups))


def check_conditions(screen: UncheckedScreen) -> Iterator[Finding]:
    """Every condition has enough cells."""
    sizes = screen.treated.groupby(["drug", "dose", "line"]).size()
    if not len(sizes):
        yield Finding("FAIL", f"No treated {screen.unit} has a known condition.", "See the other rows.")
        return
    least = FEW[screen.unit]
    few = sizes[sizes < least].sort_values(kind="stable")
    if len(few):
        shown = listed(_condition(screen, *condition) + f" ({n})" for condition, n in few.items())
        finding = f"{len(few):,} of {len(sizes):,} conditions have fewer than {least} {screen.rows}: {shown}."
        yield Finding(
            "WARN", finding, "Their effects are uncertain: pool or drop them, or read their probabilities with care."
        )
    yield Finding(
        "PASS",
        f"{len(sizes):,} conditions of {len(screen.drugs):,} drugs, with {_span(sizes)} {screen.rows}.",
    )


def _condition(screen: UncheckedScreen, drug: str, dose: float, line: str) -> str:
    dosed = [f"{dose:g} {screen.dose_unit or ''}".strip()] * (screen.dose_key is not None)
    return ", ".join([drug, *dosed, *([line] * (screen.cell_line_key is not None))])


def _span(sizes: pd.Series) -> str:
    low, high = sizes.min(), sizes.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def check_dose_range(screen: UncheckedScreen) -> Iterator[Finding]:
    """Doses are positive numbers in one unit."""
    key, unit = screen.dose_key, screen.dose_unit
    if key is None:
        if unit is not None:
            yield Finding(
                "FAIL", f"dose_unit={unit!r} was given without dose_key.", "Name the doses' column, or leave it out."
            )
        yield Finding("PASS", "No dose_key was given.")
        return
    if unit is None:
        yield Finding("FAIL", f"dose_key={key!r} was given without dose_unit.", "Pass dose_unit=, e.g. 'uM'.")
    try:
        exact = check_doses(screen.adata, key, treated=screen.cells["treated"].to_numpy(), exact=True)
        for doubt in rounded(exact, key):
            yield Finding("WARN", *doubt)
    except (TypeError, ValueError) as error:
        yield Finding.of(error)
    dose = screen.treated["dose"]
    if not len(dose):
        yield Finding("PASS", "No treated cell has a dose that can be read.")
        return
    text = f"{dose.min():g} to {dose.max():g}" + (f" {unit}" if unit is not None else "")
    if dose.max() > WIDE * dose.min():
        yield Finding("WARN", f"Doses range from {text}.", "Are they all in one unit?")
    each = screen.treated.groupby("drug")["dose"].nunique()
    yield Finding("PASS", f"{text}; {_span(each)} doses a drug.")


def check_batches(screen: UncheckedScreen) -> Iterator[Finding]:
    """No drug is confounded with a batch."""
    n_batches = screen.treated["batch"].nunique()
    if screen.batch_key is None or n_batches < 2:
        yield Finding(
            "PASS", "No batch_key was given." if screen.batch_key is None else "Treated cells of one batch only."
        )
        return
    each = screen.treated.groupby("drug")["batch"].nunique()
    if len(single := each[each == 1]):
        finding = (
            f"{len(single):,} of {len(each):,} drugs occur in one batch only: {listed(single.index)}. Their effects are confounded "
            "with the deviation of that batch that its controls do not show."
        )
        yield Finding("WARN", finding, "Repeat them in a second batch, or confirm their effects by other means.")
    yield Finding("PASS", f"Every drug occurs in two batches or more, of {n_batches}.")


def check_replicates(screen: UncheckedScreen) -> Iterator[Finding]:
    """Replicates of a condition show how much they differ. Rows that are wells are declared as wells."""
    sizes = screen.treated.groupby(["drug", "dose", "line"]).size()
    if screen.unit == "cell" and screen.replicate_key is None:
        if len(sizes) and sizes.median() <= LIKE_WELLS:
            finding = (
                f"Half of the conditions have {sizes.median():g} rows or fewer, so rows look like wells and not cells."
            )
            yield Finding("WARN", finding, "Set unit='well' if a row is a well (bulk, RPPA, L1000).")
        yield Finding("PASS", "No replicate_key was given: every cell counts as a replicate.")
        return
    known = screen.cells.dropna(subset=["drug", "line", "batch", "replicate"])
    known = known.assign(
        dose=known["dose"].where(known["treated"], 0.0), drug=known["drug"].where(known["treated"], "")
    )
    if not has_replicates(known):
        yield Finding.of(ValueError(no_replicates(screen.replicate_key, screen.batch_key)))
        return
    each = known.groupby(CONDITION, dropna=False)["replicate"].nunique()
    if screen.replicate_key is None:
        yield Finding(
            "PASS", f"Every well is a replicate: {_span(each[~each.index.get_level_values(0)])} in a condition."
        )
        return
    both = known.groupby(["replicate", "line", "batch"])["control"].nunique() > 1
    if both.mean() > 0.5:
        finding = f"Replicates hold both controls and treated {screen.rows}: {listed(both[both].index.get_level_values(0).unique())}."
        fix = "If these are donors, name them in batch_key: effects are then measured within donors."
        yield Finding("WARN", finding, fix)
    spans = known.groupby([*CONDITION, "replicate"], dropna=False)["batch"].nunique() > 1
    text = f"{_span(each[~each.index.get_level_values(0)])} replicates in a condition"
    text += f"; {spans.sum():,} span several batches and count once" if spans.any() else ""
    yield Finding("PASS", f"{text}.")


def check_covariate_columns(screen: UncheckedScreen) -> Iterator[Finding]:
    """Controls determine the effects of the covariates, and drugs do not differ from controls in them."""
    keys = screen.covariate_keys
    if not len(keys):
        yield Finding("PASS", "No covariate_keys were given.")
        return
    table = screen.cells.assign(train=(screen.cells["split"] == "train") | (screen.split_key is None))
    try:
        found = check_covariates(screen.adata, keys, table, [getattr(screen, name) for name in KEYS])
    except (KeyError, TypeError, ValueError) as error:
        yield Finding.of(error)
        return
    for sentence in found:
        yield Finding.of(ValueError(sentence), "WARN")
    names = Covariates.read(screen.adata, keys).names
    yield Finding("PASS", f"{len(names)} columns of covariates, {listed(names)}, are regressed out.")
