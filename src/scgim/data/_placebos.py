"""Placebo conditions: samples of control cells that are compared with the other control cells, for false-positive rates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

N_PLACEBOS = 200


@dataclass(frozen=True)
class Placebos:
    """The control cells of every placebo.

    Cells are drawn without replacement within control groups (line x batch), at most half of a group. The sizes and groups of placebos
    are the sizes and groups of real conditions. With a distinct ``key`` for every cell, placebos do not depend on the order of cells.
    """

    member: sp.csr_matrix  # (placebos, cells) 1 for the cells of a placebo
    group: np.ndarray  # (cells,)

    @classmethod
    def draw(
        cls, group: np.ndarray, of_conditions: np.ndarray, seed: int, n: int = N_PLACEBOS, key: np.ndarray | None = None
    ) -> Placebos:
        """Draw ``n`` placebos.

        ``group`` and ``key`` are the group and key of every stored control cell, ``(cells,)``. ``of_conditions`` are the cells of real
        conditions by group, ``(conditions, groups)``.
        """
        rng = np.random.default_rng([seed, 0x0C0A])
        order = np.arange(len(group)) if key is None else np.argsort(key, kind="stable")
        rows = [order[group[order] == g] for g in range(of_conditions.shape[1])]
        chosen, placebo = [], []
        for p, k in enumerate(rng.integers(0, len(of_conditions), n)):
            for g in np.flatnonzero(of_conditions[k]):
                size = min(int(of_conditions[k, g]), len(rows[g]) // 2)
                picked = rng.choice(rows[g], size, replace=False)
                chosen.append(picked)
                placebo.append(np.full(size, p))
        return cls._of(chosen, placebo, n, group)

    @classmethod
    def of_replicates(
        cls, group: np.ndarray, replicate: np.ndarray, of_conditions: np.ndarray, seed: int, n: int = N_PLACEBOS
    ) -> Placebos:
        """Draw ``n`` placebos of whole replicates, at most half of the replicates of a group.

        ``replicate`` is the replicate of every stored control cell, ``(cells,)``, which may span groups. ``of_conditions`` are the
        replicates of real conditions by group, ``(conditions, groups)``.
        """
        rng = np.random.default_rng([seed, 0x0C0A])
        rows = [np.flatnonzero(group == g) for g in range(of_conditions.shape[1])]
        known = [np.unique(replicate[own]) for own in rows]
        chosen, placebo = [], []
        for p, k in enumerate(rng.integers(0, len(of_conditions), n)):
            order = rng.permutation(int(replicate.max()) + 1)  # one order for all groups, so that replicates stay whole
            for g in np.flatnonzero(of_conditions[k]):
                first = known[g][np.argsort(order[known[g]])][: min(int(of_conditions[k, g]), len(known[g]) // 2)]
                picked = rows[g][np.isin(replicate[rows[g]], first)]
                chosen.append(picked)
                placebo.append(np.full(len(picked), p))
        return cls._of(chosen, placebo, n, group)

    @classmethod
    def _of(cls, chosen: list[np.ndarray], placebo: list[np.ndarray], n: int, group: np.ndarray) -> Placebos:
        at = (np.concatenate(placebo), np.concatenate(chosen)) if chosen else (np.zeros(0, int), np.zeros(0, int))
        member = sp.csr_matrix((np.ones(len(at[0])), at), shape=(n, len(group)))
        return cls(member[np.asarray(member.sum(1)).ravel() > 0], group)

    def concentration(self, replicate: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Sum over replicates of the squared shares in a placebo and in its reference, the other cells of its groups; ``(placebos, 1)``.

        A replicate in both counts with the difference of its shares. ``size`` is the weight of every cell in a mean, ``(cells,)``.
        """
        groups = sp.csr_matrix((size, (np.arange(len(size)), self.group)))
        replicates = sp.csr_matrix((size, (np.arange(len(size)), replicate)))
        own = (self.member @ groups).toarray()
        whole = np.asarray(groups.sum(0)).ravel()
        ratio = own / np.maximum(whole - own, 1e-300)
        ratio[own == 0] = 0
        # A cell of the placebo counts 1, and a cell of the reference minus the ratio of the placebo's size to that of the reference.
        inside = self.member.tocoo()
        inside.data = 1 + ratio[inside.row, self.group[inside.col]]
        total = sp.csr_matrix((size, (self.group, replicate)))
        share = (sp.csr_matrix(inside) @ replicates).toarray() - ratio @ total
        return ((share / own.sum(1, keepdims=True)) ** 2).sum(1, keepdims=True)

    def by_group(self, x: np.ndarray | sp.csr_matrix) -> np.ndarray:
        """Sums over the cells of each placebo in every group, ``(placebos, groups, columns)``; ``x`` may be sparse."""
        own = (self.group == g for g in range(int(self.group.max()) + 1))
        return np.stack([dense_sum(self.member[:, rows], x[rows]) for rows in own], 1)


def dense_sum(member: sp.csr_matrix, x: np.ndarray | sp.csr_matrix) -> np.ndarray:
    """``member @ x``, dense."""
    found = member @ x
    return found.toarray() if sp.issparse(found) else found
