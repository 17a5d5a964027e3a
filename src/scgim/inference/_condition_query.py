"""Queries of the conditions of a table, few at a time: all drugs at all doses would be far more rows than there are conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scgim._checks import listed

from ._query import Query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    import pandas as pd

    from scgim._combinations import Parts


def known_treatments(treatments: pd.Series, known: set[str], combinations: Mapping[str, Parts]) -> np.ndarray:
    """Treatments that are known drugs or combinations of known drugs, ``(rows,)`` bool."""
    together = {name for name, parts in combinations.items() if {drug for drug, _ in parts} <= known}
    return treatments.isin(known - set(combinations) | together).to_numpy()


def query_of_conditions(
    resolve: Callable[..., Query],
    conditions: pd.DataFrame,
    known: np.ndarray,
    combinations: Mapping[str, Parts],
    *,
    dosed: bool,
) -> Query:
    """Query of all known conditions in a table.

    Parameters
    ----------
    resolve
        Function that returns the query of drugs at doses.
    conditions, known
        Treatments and doses (columns drug and dose), and whether the model can predict them, ``(rows,)`` bool.
    combinations
        Drugs and doses of the combinations among the treatments.
    dosed
        Whether conditions have doses.

    Raises
    ------
    ValueError
        If no condition is known.
    """
    asked = conditions.loc[known, ["drug", "dose"]].drop_duplicates()
    if asked.empty:
        drugs = listed(conditions["drug"].unique())
        raise ValueError(f"adata holds no cell of a drug that the model knows; its drugs: {drugs}.")
    combined = asked["drug"].isin(list(combinations))
    parts = [combinations[name] for name in sorted(set(asked["drug"][combined]))]
    queries = [*_of_drugs(resolve, asked[~combined], dosed), *_of_combinations(resolve, parts, dosed)]
    return queries[0] if len(queries) == 1 else Query.concatenated(queries)


def _of_drugs(resolve: Callable[..., Query], asked: pd.DataFrame, dosed: bool) -> Iterator[Query]:
    """Queries of single drugs, the drugs of the same doses together."""
    if asked.empty:
        return
    if not dosed:
        yield resolve(drug=sorted(set(asked["drug"])))
        return
    doses = asked.groupby("drug", sort=True)["dose"].agg(lambda each: tuple(sorted(set(each))))
    for at, names in doses.index.to_series().groupby(doses, sort=False):
        yield resolve(drug=sorted(names), dose=list(at))


def _of_combinations(resolve: Callable[..., Query], combinations: list[Parts], dosed: bool) -> Iterator[Query]:
    """Queries of combinations, those of the same doses together."""
    groups: dict[tuple, list] = {}
    for parts in combinations:
        names, doses = zip(*parts, strict=True)
        groups.setdefault(doses if dosed else (), []).append(names)
    for at, drugs in groups.items():
        yield resolve(drug=drugs, dose=[at] if dosed else None)
