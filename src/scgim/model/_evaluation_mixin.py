"""Methods that evaluate a model: stability of the graph, and accuracy of predictions and targets. They read the data again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from scgim.evaluation import summarize
from scgim.evaluation._heldout import check_unseen, score_conditions, warn_of_leaks
from scgim.evaluation._known_targets import evaluate_targets
from scgim.structure import drop_unsupported_edges, edge_price, search_dag, turn_edges
from scgim.structure.bootstrap import draws, edge_frequencies, edge_table

from ._state import ModelState

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from scgim.statistics import ConditionMeans, SufficientStatistics

logger = logging.getLogger("scgim")


class EvaluationMixin(ModelState):
    """Evaluation of a trained model."""

    def stability(self, n: int = 20, *, max_rounds: int = 20, seed: int = 0) -> pd.DataFrame:
        """Frequency of the edges of the graph in refits on resampled data.

        The search is repeated with the target penalty and edge penalty of training on ``n`` draws of the sufficient statistics. A draw
        samples the lines of every drug with replacement, with all doses in a line, and cells within conditions by a parametric bootstrap.
        Afterwards the direction of every edge is drawn given the other edges, by the score. The data are read once. Violations of the
        assumptions that occur in every line are not detected. :meth:`get_graph` and :meth:`annotate` include the result.

        Parameters
        ----------
        n
            Number of refits.
        max_rounds
            Rounds of each search.
        seed
            Seed of the draws.

        Returns
        -------
        DataFrame source, target, ``stability`` (share of refits with the edge), ``adjacency`` (with the edge or its
        reverse), ``recurs`` (in at least half of the refits, and in this direction in at least 80 % of the refits that join the two genes),
        ``module`` (index of the group of genes joined by recurring edges of undecided direction; -1 if the genes are not in the same
        group). The most stable edge is first.

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
        price = edge_price(data.search, columns=self.search_["columns"], penalty=self.search_["penalty"])
        options = self.search_ | self._edge_constraints(genes, price).asdict()

        def search(statistics: SufficientStatistics | ConditionMeans, seed: int) -> np.ndarray:
            *_, last = search_dag(statistics, seed=seed, max_rounds=max_rounds, patience=3, **options)
            supported = drop_unsupported_edges(last.graph, statistics, **options)
            return turn_edges(supported, statistics, seed=seed, **options)

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
        """Score predictions for the test conditions of ``split_key``, and the predictions of baselines on the same rows.

        Methods: ``"scgim"``; ``"control"`` (no change); ``"training mean"`` of the same line at the nearest dose; ``"nearest
        drug"`` by features at the nearest dose; ``"dose interpolation"`` between a drug's own doses; ``"ridge"``,
        ``"kernel ridge"`` and ``"network"`` on features and dose; ``"duplicate"``, half of the condition's cells as prediction of the other
        half, an upper bound; and, trained on the same rows, scgim with an ``"empty graph"`` (the same generator), with ``"shuffled
        features"`` and with ``"zeroed features"`` (then it predicts the training mean).

        Parameters
        ----------
        refit
            Whether to train the last three methods.
        distributions
            Whether to compare distributions of cells (at most 200 per condition) in addition to means.
        seed
            Seed of halves, samples and shuffles.
        train_kwargs
            Arguments of :meth:`train` for the last three methods.

        Returns
        -------
        One row for each method and test condition, then means over all conditions (drug ``"(all)"``), over strong conditions and over weak
        conditions. A condition is ``strong`` if its cells are distinguishable from controls (energy-distance permutation test, ``p_moved``
        < 0.05). In control SD: ``rmse`` over genes of the mean change, ``wmse`` weighted towards changed genes, ``size_ratio`` of predicted
        to true change. ``pearson`` is the correlation of the changes over genes, and ``pearson_centred`` the correlation after subtraction
        of the training mean. ``rank`` is how often the prediction is closer to its own condition than to another condition (0.5 by
        chance). Between cells: ``energy`` distance, mean per-gene ``w1``, and RMSE of SDs ``sd``. ``.attrs["verdict"]`` summarizes whether
        scgim is better than, worse than or not distinguishable from the best baseline, by the 95 % interval of the paired difference,
        bootstrapped over drugs (differences below a thousandth of the error are ignored). It also contains the squared error as a share of
        the training mean's error. A warning names test drugs with the structure of a training drug.

        Raises
        ------
        ValueError
            If the model has no data, no ``split_key`` or no test condition, if a test condition was used in training, or if the model can
            predict none.
        MemoryError
            If the sample of test cells does not fit in memory.

        See Also
        --------
        scgim.tl.cross_validate : evaluation over several splits, with a model for each split.

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
        r"""Score the ranking of targets for drugs with known targets, and rankings that need no model.

        Methods: ``"scgim"``, the score of :meth:`rank_targets`; ``"scgim, empty graph"``, a model trained without a graph;
        ``"largest |shift|"``, the mean change from the controls of the line; ``"largest |z|"``, this change over its sampling error,
        :math:`(\bar x_k - \bar x_0) / \sqrt{s_k^2 / n_k + s_0^2 / n_0}`. Drugs that are not in the training rows are ranked by their
        features alone, beside ``"largest |shift| by ridge"``, the change that a ridge regression on features and dose predicts.
        A gene's score for a drug is its highest over the drug's doses and lines, for every method.

        Parameters
        ----------
        known
            Columns ``drug`` and ``gene``, a row for each true target. Only listed drugs are scored, and of these only drugs without
            rows in ``known_targets`` of the model. All targets of a listed drug should be
            listed, because every other gene of the drug counts as a non-target.
        k
            Number of genes of ``recall``; by default 5, or all genes if there are fewer.
        refit
            Whether to train the model without a graph, which requires the data.
        train_kwargs
            Arguments of :meth:`train` for the model without a graph.

        Returns
        -------
        One row for each method and drug, and a row for all drugs (``"(all)"``); columns ``evidence`` (``"data"`` for measured drugs,
        ``"features"`` for other drugs, which have separate rows ``"(all)"``), ``n_targets``, ``n_called``, ``ap`` (average precision,
        :func:`scgim.metrics.target_average_precision`), ``f1`` of the called targets (:func:`scgim.metrics.target_f1`), ``recall`` among
        the first ``k`` genes (:func:`scgim.metrics.recall_at_k`), ``best_rank`` of the first true target. scgim, with and without graph,
        calls genes with a probability above 0.5. The other methods have no threshold and are given the number of targets of each drug,
        which favors them. ``.attrs["verdict"]`` summarizes the result.

        Raises
        ------
        KeyError, TypeError, ValueError
            If ``known`` is not such a table or names an unknown drug or gene, or if ``refit`` is requested for a model without data.

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
