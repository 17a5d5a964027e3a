"""The model's verbs that judge: would one get this graph again, and what is a prediction worth? They read the data anew."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from scgim.evaluation import summarize
from scgim.evaluation._heldout import check_unseen, score_conditions, warn_of_leaks
from scgim.evaluation._known_targets import evaluate_targets
from scgim.structure import search_dag, turn_edges
from scgim.structure.bootstrap import draws, edge_frequencies, edge_table

from ._state import ModelState

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from scgim.statistics import ConditionMeans, SufficientStatistics

logger = logging.getLogger("scgim")


class EvaluationMixin(ModelState):
    """What a trained model and its data say of its worth."""

    def stability(self, n: int = 20, *, max_rounds: int = 20, seed: int = 0) -> pd.DataFrame:
        """How often the edges of the graph come back if conditions and cells had been others.

        The search is repeated, at the charge and penalty of training, on ``n`` draws of the sufficient statistics. A draw takes
        every drug's lines with replacement, with all doses in a line, then cells within conditions by a parametric bootstrap, and at
        last draws the direction of every edge given the others, by the score. The data are read once, whatever ``n``. Assumptions
        that fail in every line stay unseen.
        :meth:`get_graph` and :meth:`annotate` know of the result from then on.

        Parameters
        ----------
        n
            Refits.
        max_rounds
            Rounds of each search.
        seed
            Of the draws.

        Returns
        -------
        DataFrame source, target, ``stability`` (share of refits with the edge), ``adjacency`` (with the edge or its
        reverse), ``recurs`` (in at least half of them, and in at least .8 of those that join the two genes in this direction), ``module``: number of the group of genes that recurring edges
        join without agreeing on their direction, -1 if both genes are in none. Least stable last.

        Raises
        ------
        ValueError
            If the model has no data, is not trained, did not search its graph, or ``n`` is not positive.

        Examples
        --------
        >>> import scgim
        >>> adata = scgim.datasets.sachs()
        >>> scgim.setup_anndata(adata, drug_key="drug", control="cd3cd28", scale="continuous")
        >>> model = scgim.GIM(adata)
        >>> model.train(max_epochs=20, enable_progress_bar=False)  # for the example; the default gets further
        >>> model.stability(n=3, max_rounds=2).columns.tolist()
        ['source', 'target', 'stability', 'adjacency', 'recurs', 'module']
        """
        self._require_trained()
        self._require_data()
        if n < 1:
            raise ValueError(f"n is a number of refits, at least 1, got {n}.")
        if (structure := self._structure) != "search":
            raise ValueError(f"structure={structure!r} has no search that could be repeated. Use structure='search'.")
        data = self._read(self.seed_)
        genes = data.summary.genes
        options = self.search_ | self._edge_constraints(genes).asdict()

        def search(statistics: SufficientStatistics | ConditionMeans, seed: int) -> np.ndarray:
            *_, last = search_dag(statistics, seed=seed, max_rounds=max_rounds, patience=3, **options)
            return turn_edges(last.graph, statistics, seed=seed, **options)

        self.stability_ = edge_frequencies(search, draws(data.search, data.summary.design.resampling_blocks(), n, seed))
        return edge_table(self._trained_module().mechanism.graph.numpy(), genes, self.stability_)

    def evaluate(
        self,
        *,
        refit: bool = True,
        distributions: bool = True,
        seed: int = 0,
        train_kwargs: dict | None = None,
    ) -> pd.DataFrame:
        """Score predictions for the test conditions of ``split_key``, beside every baseline on the same rows.

        Methods: ``"scgim"``; ``"control"`` (no change); ``"training mean"`` of the same line at the nearest dose; ``"nearest
        drug"`` by features at the nearest dose; ``"dose interpolation"`` between a drug's own doses; ``"ridge"``,
        ``"kernel ridge"`` and ``"network"`` on features and dose; ``"duplicate"``, one half of the condition's own cells for the
        other: the ceiling; and, trained anew on the same rows, scgim with an ``"empty graph"`` (the same generator), with ``"shuffled
        features"`` and with ``"zeroed features"`` (then the training mean is all it can say).

        Parameters
        ----------
        refit
            Whether to train the last three.
        distributions
            Whether to compare cells as well as their means (at most 200 of a condition).
        seed
            Of halves, samples and shuffles.
        train_kwargs
            For the trainings.

        Returns
        -------
        One row for each method and test condition, then means over all conditions (drug ``"(all)"``), over the strong ones and over
        the weak ones: those whose cells can, or cannot, be told from control cells (``strong``: energy permutation test,
        ``p_moved`` < .05). In control standard deviations: ``rmse`` over genes of the mean change, ``wmse`` weighted towards
        genes that moved, ``size_ratio`` of predicted to true change; ``pearson`` over genes of the changes, and
        ``pearson_centred`` of what is left of both once the training mean is removed; ``rank``, how often the prediction lies nearer to
        its own truth than to another condition's (chance .5); ``energy`` distance, mean per-gene ``w1`` and RMSE of standard
        deviations ``sd`` between cells. ``.attrs["verdict"]`` says it in sentences: scgim beats, does not beat or cannot be told from the
        best baseline, by the 95 % interval of the paired difference, bootstrapped over drugs (below a thousandth of the error none
        counts); and its squared error as a share of the training mean's. Test drugs whose structure was trained on
        under another name are warned of.

        Raises
        ------
        ValueError
            If the model has no data, no ``split_key``, no test condition, saw one in training, or has an answer for none.

        See Also
        --------
        scgim.tl.cross_validate : the same over several splits, a model for each.

        Examples
        --------
        >>> import scgim
        >>> adata = scgim.datasets.simulate_screen(n_genes=5, n_drugs=10, doses=(1.0,), n_new_drugs=2)
        >>> scgim.pp.split(adata, control="DMSO")
        >>> columns = {"features_key": "drug_features", "split_key": "scgim_split"}
        >>> scgim.setup_anndata(adata, drug_key="drug", control="DMSO", scale="continuous", **columns)
        >>> model = scgim.GIM(adata, generator="hill")
        >>> model.train(max_epochs=20, enable_progress_bar=False)  # for the example; the default gets further
        >>> scores = model.evaluate(refit=False, distributions=False)
        >>> sorted(scores["method"].unique())[:3]
        ['control', 'duplicate', 'kernel ridge']
        """
        self._require_trained()
        screen = self._screen()
        check_unseen(screen, self._require_trained())
        leaks = warn_of_leaks(screen, self.drug_table_)
        scores = score_conditions(
            self, screen, refit=refit, distributions=distributions, seed=seed, train_kwargs=train_kwargs
        )
        out = summarize(scores)
        out.attrs["verdict"] += leaks
        for sentence in out.attrs["verdict"]:
            logger.info(sentence)
        return out

    def evaluate_targets(
        self,
        known: pd.DataFrame,
        *,
        k: int | None = None,
        refit: bool = True,
        train_kwargs: dict | None = None,
    ) -> pd.DataFrame:
        r"""Score the ranking of targets for drugs whose targets are known, beside what needs no model.

        Methods: ``"scgim"``, its score as in :meth:`rank_targets`; ``"scgim, empty graph"``, trained anew without a graph;
        ``"largest |shift|"``, the mean change from the own line's controls; ``"largest |z|"``, that change over its sampling error,
        :math:`(\bar x_k - \bar x_0) / \sqrt{s_k^2 / n_k + s_0^2 / n_0}`. Drugs that are not in the training rows are ranked by their
        features alone, beside ``"largest |shift| by ridge"``, the change that a ridge regression on features and dose predicts.
        A gene's score for a drug is its highest over the drug's doses and lines, for every method.

        Parameters
        ----------
        known
            Columns ``drug`` and ``gene``, a row for each true target. Drugs that are not listed are not judged; of a drug that is, all its
            targets should be, as every other gene counts as none.
        k
            Of ``recall``; by default 5, or all genes where there are fewer.
        refit
            Whether to train the model without a graph. Without it no data are needed.
        train_kwargs
            For that training.

        Returns
        -------
        One row for each method and drug, and one for all drugs (``"(all)"``); columns ``evidence`` (``"data"`` for measured drugs,
        ``"features"`` for others, which have rows ``"(all)"`` of their own), ``n_targets``, ``n_called``, ``ap`` (average precision,
        :func:`scgim.metrics.target_average_precision`), ``f1`` of the called targets (:func:`scgim.metrics.target_f1`), ``recall`` among
        the first ``k`` genes (:func:`scgim.metrics.recall_at_k`), ``best_rank`` of the true target that comes first. scgim, with
        and without graph, calls genes of probability > .5; the other methods know no threshold and are told how many targets each
        drug has, which favours them. ``.attrs["verdict"]`` says it in sentences.

        Raises
        ------
        KeyError, TypeError, ValueError
            If ``known`` is no such table, names a drug or gene that the model does not have (the nearest are named), or ``refit`` is asked of
            a model without data.

        Examples
        --------
        >>> import pandas as pd
        >>> import scgim
        >>> adata = scgim.datasets.simulate_screen(n_genes=5, n_drugs=10, doses=(1.0,), n_new_drugs=2)
        >>> scgim.setup_anndata(
        ...     adata, drug_key="drug", control="DMSO", scale="continuous", features_key="drug_features"
        ... )
        >>> model = scgim.GIM(adata, generator="hill")
        >>> model.train(max_epochs=20, enable_progress_bar=False)  # for the example; the default gets further
        >>> truth = adata.uns["truth"]
        >>> known = (
        ...     pd.DataFrame(truth["targets"], truth["drugs"], adata.var_names)
        ...     .rename_axis("drug")
        ...     .melt(ignore_index=False, var_name="gene")
        ... )
        >>> known = known[known["value"] > 0].reset_index()[["drug", "gene"]]
        >>> scores = model.evaluate_targets(known, refit=False)
        >>> scores["method"].unique().tolist()
        ['scgim', 'largest |shift|', 'largest |z|']
        """
        self._require_trained()
        if refit:
            self._require_data()
        out = evaluate_targets(self, known, k=k, refit=refit, train_kwargs=dict(train_kwargs or {}))
        for sentence in out.attrs["verdict"]:
            logger.info(sentence)
        return out
