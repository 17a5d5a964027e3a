"""Duplicates: drugs that share a key, such as a parent structure or a fingerprint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    import pandas as pd


def by_key(keys: Mapping[str, Hashable] | pd.Series) -> dict[Hashable, list[str]]:
    """Names of the drugs with each key, in the order of ``keys``."""
    groups: dict[Hashable, list[str]] = {}
    for name, key in keys.items():
        groups.setdefault(key, []).append(name)
    return groups


def duplicate_groups(keys: Mapping[str, Hashable] | pd.Series) -> list[list[str]]:
    """Groups of two or more drugs that share a key.

    Examples
    --------
    >>> duplicate_groups({"aspirin": "A", "ethanol": "E", "acetylsalicylate": "A"})
    [['aspirin', 'acetylsalicylate']]
    """
    return [group for group in by_key(keys).values() if len(group) > 1]


def equalities(groups: list[list[str]], *, n: int = 3) -> str:
    """The first ``n`` groups as text, such as ``'aspirin' = 'acetylsalicylate'``, and how many more there are."""
    more = f" and {len(groups) - n} more" if len(groups) > n else ""
    return "; ".join(" = ".join(map(repr, group)) for group in groups[:n]) + more


def joined(*labels: Mapping[str, object]) -> dict[str, str]:
    """First name of each drug's group. Two drugs are in one group if they share a label, directly or through other drugs.

    Each of ``labels`` maps drugs to labels of one kind; labels of different kinds are never equal.

    Examples
    --------
    >>> joined({"a": 1, "b": 1, "c": 2}, {"b": "x", "c": "x"})
    {'a': 'a', 'b': 'a', 'c': 'a'}
    """
    same = nx.Graph()
    for kind, label in enumerate(labels):
        same.add_edges_from((("drug", name), (kind, value)) for name, value in label.items())
    groups = [sorted(name for kind, name in group if kind == "drug") for group in nx.connected_components(same)]
    return {name: group[0] for group in groups for name in group}
