"""Prior knowledge of drug targets as log odds of every gene in every condition."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from scgim._checks import listed, nearest, warn_of_alike, warn_of_columns
from scgim._gene_names import match_genes, positions, table_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scgim._combinations import Parts

logger = logging.getLogger("scgim")

KINDS = ("known", "only", "likely", "excluded")
CERTAINTY = ["only", "excluded", "known", "likely"]  # which of several rows of a pair counts
LIKELY = 0.5  # probability of a likely target without a number of its own
_COLUMNS = ("drug", "gene", "kind", "log_odds", "sign")


class TargetPrior(NamedTuple):
    """Prior log odds of targets relative to a gene without prior knowledge, and signs of effects; ``(conditions, genes)`` each."""

    log_odds: np.ndarray  # nats; infinite for known and excluded targets
    sign: np.ndarray  # -1, 0 (unknown) or 1


def check_known_targets(table: pd.DataFrame | None, drugs: Sequence[str], genes: np.ndarray) -> pd.DataFrame | None:
    """Validate a table of targets and return its rows for measured drugs and genes: columns drug, gene, kind, log_odds, sign.

    Raises
    ------
    TypeError
        If the table is not a DataFrame.
    ValueError
        If a column is missing, a value is invalid, rows contradict each other, or no row names a measured drug and gene.
    """
    if table is None:
        return None
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"known_targets is a DataFrame with columns drug, gene, kind, got a {type(table).__name__}.")
    for column in ("drug", "gene"):
        if column not in table:
            close = listed(nearest(column, list(table.columns), n=1)) or "none"
            raise ValueError(f"known_targets has no column {column!r} (nearest: {close}); it needs drug, gene, kind.")
    if table.empty:
        return None
    warn_of_columns(table, (*_COLUMNS, "probability"), "known_targets")
    table = table.reset_index(drop=True)
    out = pd.DataFrame({name: table_names(table[name], f"known_targets[{name!r}]") for name in ("drug", "gene")})
    out["kind"] = table["kind"].astype(str) if "kind" in table else "likely"
    wrong = sorted(set(out["kind"]) - set(KINDS))
    if wrong:
        close = listed(nearest(wrong[0], list(KINDS), n=1)) or "none"
        raise ValueError(
            f"known_targets['kind'] contains {listed(wrong)} (nearest: {close}). Kinds are {listed(KINDS, n=4)}."
        )
    out["log_odds"], out["sign"] = _log_odds(table, len(genes)), _signs(table)
    out["gene"] = match_genes(out["gene"], genes, "known_targets['gene']")
    kept = out[out["drug"].isin(set(drugs)) & out["gene"].notna()]
    if kept.empty:
        close = listed(nearest(str(out["drug"].iloc[0]), list(drugs), n=1)) if len(out) else "none"
        raise ValueError(
            f"None of the {len(out):,} rows of known_targets names a drug and a gene of adata. Nearest drug to the first row: "
            f"{close or 'none'}. Drugs and genes are matched by the names in obs and var_names."
        )
    warn_of_alike(out["drug"], drugs, "known_targets['drug']")
    if len(kept) < len(out):
        logger.info("known_targets: %d of %d rows name a drug and a gene of adata and are used.", len(kept), len(out))
    return _one_row_per_pair(kept)


def with_genetic_arms(
    known: pd.DataFrame | None, arms: dict[str, np.ndarray], genes: np.ndarray
) -> pd.DataFrame | None:
    """A validated table with the genetic arms whose gene is measured. The targets of the other arms are learned like those of drugs."""
    gene = match_genes(pd.Series(arms["gene"], dtype=object), genes, "intervention_key")
    rows = pd.DataFrame({"drug": arms["drug"], "gene": gene, "kind": "only", "log_odds": 0.0, "sign": 0.0})
    rows = rows[gene.notna()]
    if len(rows) < len(gene):
        logger.info("intervention_key: the genes of %d of %d genetic arms are measured.", len(rows), len(gene))
    if rows.empty:
        return known
    return _one_row_per_pair(rows if known is None else pd.concat([known, rows], ignore_index=True))


def joined_targets(known: pd.DataFrame | None, added: pd.DataFrame | None) -> pd.DataFrame | None:
    """Two validated tables in one; of a drug in both tables only the rows of the first."""
    if known is None or added is None:
        return added if known is None else known
    new = added[~added["drug"].isin(set(known["drug"]))]
    return pd.concat([known, new], ignore_index=True) if len(new) else known


def target_prior(
    table: pd.DataFrame | None, drug: np.ndarray, genes: np.ndarray, combinations: Mapping[str, Parts] = {}
) -> TargetPrior | None:
    """The prior of every condition, from a validated table; ``drug`` is the treatment of every condition, ``(conditions,)`` str.

    The prior odds of a combination are the mean of the odds of its drugs. A sign is known if all of its drugs have this sign.
    """
    if table is None:
        return None
    if combined := [name for name in np.unique(drug).tolist() if name in combinations]:
        parts = [[name for name, _ in combinations[each]] for each in combined]
        single = np.unique([name for each in (*parts, set(drug.tolist()) - set(combined)) for name in each])
        of_drug = target_prior(table, single, genes)
        rows = [np.searchsorted(single, each) for each in (*parts, *([name] for name in single))]
        odds = np.array([logsumexp(of_drug.log_odds[each], axis=0) - math.log(len(each)) for each in rows])
        sign = np.array([np.where((s := of_drug.sign[each]).min(0) == s.max(0), s[0], 0.0) for each in rows])
        at = pd.Index([*combined, *single]).get_indexer(drug)
        return TargetPrior(odds[at], sign[at])
    log_odds, kind = table["log_odds"].to_numpy(float).copy(), table["kind"].to_numpy(str)
    log_odds[np.isin(kind, ("known", "only"))], log_odds[kind == "excluded"] = math.inf, -math.inf
    names, condition = np.unique(drug, return_inverse=True)
    row, column = pd.Index(names).get_indexer(table["drug"]), positions(genes, table["gene"], "adata")
    use = row >= 0  # the table may name further drugs
    prior = np.zeros((2, len(names), len(genes)))
    prior[0, row[use & (kind == "only")]] = -math.inf
    prior[:, row[use], column[use]] = log_odds[use], table["sign"].to_numpy(float)[use]
    return TargetPrior(*prior[:, condition])


def certain_targets(table: pd.DataFrame | None, drug: np.ndarray, genes: np.ndarray) -> np.ndarray | None:
    """1 for known and 0 for excluded targets of single drugs, NaN for other genes, ``(drugs, genes)``; ``None`` if there are none."""
    prior = target_prior(table, drug.astype(str), genes)
    if prior is None or not (certain := np.isinf(prior.log_odds)).any():
        return None
    return np.where(certain, (prior.log_odds > 0).astype(float), np.nan)


def _one_row_per_pair(table: pd.DataFrame) -> pd.DataFrame:
    """The most certain row of every pair of drug and gene, with its sign: copies of a row are no further evidence."""
    _check_agreement(table)
    pair = [table["drug"], table["gene"]]
    table = table.assign(
        sign=table.groupby(pair)["sign"].transform(lambda signs: signs.iloc[signs.abs().argmax()]),
        certainty=table["kind"].map(CERTAINTY.index),
    )
    table = table.sort_values(
        ["drug", "gene", "certainty", "log_odds"], ascending=[True, True, True, False], kind="stable"
    )
    return table.drop_duplicates(["drug", "gene"]).reset_index(drop=True)[list(_COLUMNS)]


def _log_odds(table: pd.DataFrame, n_genes: int) -> np.ndarray:
    """Log odds of every row: as given, from a probability, or :data:`LIKELY`."""
    p = np.full(len(table), LIKELY)
    if "probability" in table:
        given = pd.to_numeric(table["probability"], errors="coerce").to_numpy(float)
        bad = table["probability"].notna().to_numpy() & ~((given > 0) & (given < 1))
        if bad.any():
            raise ValueError(
                f"known_targets['probability'] contains {listed(table['probability'][bad])}. A probability lies between 0 and 1; "
                "kind='known' is certain."
            )
        p = np.where(np.isnan(given), p, given)
    # Without prior knowledge, one of all genes is expected to be a target.
    odds = np.log(p / (1 - p)) + math.log(max(n_genes - 1, 1))
    if "log_odds" in table:
        given = pd.to_numeric(table["log_odds"], errors="coerce").to_numpy(float)
        bad = table["log_odds"].notna().to_numpy() & ~np.isfinite(given)
        if bad.any():
            raise ValueError(
                f"known_targets['log_odds'] contains {listed(table['log_odds'][bad])}. Log odds are finite numbers; use "
                "kind='known' or 'excluded' for certain targets."
            )
        odds = np.where(np.isnan(given), odds, given)
    return odds


def _signs(table: pd.DataFrame) -> np.ndarray:
    """Signs of the effects, 0 where none is given."""
    if "sign" not in table:
        return np.zeros(len(table))
    sign = pd.to_numeric(table["sign"], errors="coerce").to_numpy(float)
    bad = table["sign"].notna().to_numpy() & ~np.isin(sign, (-1, 0, 1))
    if bad.any():
        raise ValueError(f"known_targets['sign'] contains {listed(table['sign'][bad])}. A sign is -1, 1, or missing.")
    return np.nan_to_num(sign)


def _check_agreement(table: pd.DataFrame) -> None:
    """Raise if a pair is both excluded and known or likely, or has both signs, or a drug has targets beside its only target."""
    only = table["kind"] == "only"
    alone = set(zip(table["drug"][only], table["gene"][only], strict=True))
    beside = table["drug"].isin({drug for drug, _ in alone}) & (table["kind"] != "excluded")
    for drug, gene in zip(table["drug"][beside], table["gene"][beside], strict=True):
        if (drug, gene) not in alone:
            other = next(other for name, other in sorted(alone) if name == drug)
            raise ValueError(
                f"Target {gene!r} of drug {drug!r} contradicts its only target {other!r} in known_targets or intervention_key. Keep one of the rows."
            )
    by_pair = table.groupby(["drug", "gene"])
    for what, clash in (
        ("excluded and not excluded", by_pair["kind"].agg(lambda kinds: (kinds == "excluded").nunique() > 1)),
        ("of both signs", by_pair["sign"].agg(lambda signs: (signs[signs != 0]).nunique() > 1)),
    ):
        if clash.any():
            drug, gene = clash.index[clash.to_numpy()][0]
            raise ValueError(f"Target {gene!r} of drug {drug!r} is {what} in known_targets. Keep one of the rows.")
