from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from tqdm import tqdm

from scgim._anndata import refuse_view
from scgim._checks import check_whole

from ._folds import deal

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("scgim")


def cross_validate(
    adata: AnnData,
    unseen: Literal["drug", "dose", "scaffold", "cell_line", "combination"] = "drug",
    n_splits: int = 3,
    model_kwargs: dict[str, Any] | None = None,
    train_kwargs: dict[str, Any] | None = None,
    *,
    setup_kwargs: dict[str, Any] | None = None,
    refit: bool = True,
    distributions: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """Score predictions of unseen conditions by cross-validation, next to every baseline.

    The conditions of the screen are dealt into folds. For each fold, a model is trained on the other folds. The model and all methods of
    :meth:`scgim.GIM.evaluate` are scored on the fold. Every drug (scaffold, cell line) is tested once. Whole compounds are dealt: with
    ``smiles_key``, salts, stereoisomers and tautomers of one compound, and compounds with one Morgan fingerprint, share a fold, so that
    there is no leakage through duplicates.

    Parameters
    ----------
    adata
        Cells, in memory, backed or on dask; not a view. Neither `adata` nor its set-up is changed.
    unseen
        What the folds consist of. ``"drug"``: drugs. ``"dose"``: doses of every drug with two or more, never all of them at once.
        ``"scaffold"``: drugs, those on one Bemis-Murcko scaffold together (needs ``smiles_key``). ``"cell_line"``: treated cells of
        cell lines, whose controls stay in training. ``"combination"``: sets of drugs at all doses; those with a drug that is measured
        in no other fold are never tested. Under ``"drug"``, ``"scaffold"`` and ``"dose"`` a combination is held out in every fold that
        tests one of its drugs (or of their doses), and scored in the first of these folds.
    n_splits
        Number of folds, from 2 to the number of drugs, scaffolds, cell lines or combinations.
    model_kwargs
        Arguments of :class:`scgim.GIM`.
    train_kwargs
        Arguments of :meth:`scgim.GIM.train`, for the models and their ablations. ``enable_progress_bar=False`` hides the progress bar.
    setup_kwargs
        Arguments of :func:`scgim.setup_anndata`; by default those of the last call for ``adata``. ``split_key`` is ignored: all cells take
        part, so exclude cells beforehand that are reserved for a final test.
    refit, distributions
        As in :meth:`scgim.GIM.evaluate`. Without ``refit`` a run takes a third to a half of the time.
    seed
        Seed of the folds, of training (unless ``train_kwargs`` has a seed), and of halves, samples and permutations.

    Returns
    -------
    The table of :meth:`scgim.GIM.evaluate` with the ``fold`` of every row, from 0. ``fold`` is missing in the rows ``"(all)"``,
    ``"(strong)"`` and ``"(weak)"``, which are means over the conditions of all folds. ``.attrs["verdict"]`` is a summary in sentences
    over all folds, with a bootstrap over drugs. Models of different folds share most of their training data; the intervals do not
    account for it.

    Raises
    ------
    KeyError, TypeError, ValueError
        If `adata` is not an AnnData, is a view or was never set up, there are too few groups for `n_splits`, `unseen` needs a column or
        drug features that the set-up does not name, or an argument of GIM or of the set-up is invalid. These errors are raised before
        the first training.

    See Also
    --------
    scgim.pp.split : a single split, for :meth:`scgim.GIM.evaluate`.

    Examples
    --------
    >>> import scgim
    >>> adata = scgim.datasets.simulate_screen(n_genes=5, n_drugs=10, n_cells=20, doses=(1.0,), n_new_drugs=2)
    >>> scgim.setup_anndata(adata, drug_key="drug", control="DMSO", scale="continuous", features_key="drug_features")
    >>> scores = scgim.tl.cross_validate(
    ...     adata,
    ...     n_splits=2,
    ...     model_kwargs={"generator": "hill"},
    ...     train_kwargs={"max_epochs": 20, "enable_progress_bar": False},  # short, for the example
    ...     refit=False,
    ...     distributions=False,
    ... )
    >>> scores.groupby("fold")["drug"].nunique().tolist()
    [5, 5]
    """
    refuse_view(adata)
    check_whole("seed", seed)
    from scgim.evaluation import summarize
    from scgim.evaluation._heldout import score_conditions
    from scgim.model import GIM

    from ._resplit import setup_arguments, split_anew

    arguments, options = setup_arguments(adata, setup_kwargs), dict(model_kwargs or {})
    test = deal(adata, unseen, n_splits, arguments, seed)
    _check_features(unseen, arguments, options)
    training = {"seed": seed} | dict(train_kwargs or {})
    show = training.pop("enable_progress_bar", True)
    training["enable_progress_bar"] = False
    parts: list[pd.DataFrame] = []
    scored: set[tuple] = set()
    for k in tqdm(range(n_splits), desc=f"cross-validation, unseen {unseen}", unit="fold", disable=not show):
        with split_anew(adata, test[:, k], arguments) as screen:
            model = GIM(screen, **options)
            model.train(**training)
            scores = score_conditions(
                model, model._screen(), refit=refit, distributions=distributions, seed=seed, train_kwargs=training
            )
        # A combination is held out in the folds of all of its drugs, and scored once.
        keys = list(zip(scores["drug"], scores["dose"].astype(str), scores["cell_line"], strict=True))
        scores = scores[[key not in scored for key in keys]]
        scored.update(keys)
        parts.append(scores.assign(fold=pd.array([k] * len(scores), dtype="Int64")))
    out = summarize(pd.concat(parts, ignore_index=True))
    for sentence in out.attrs["verdict"]:
        logger.info(sentence)
    return out


def _check_features(unseen: str, arguments: dict[str, Any], options: dict[str, Any]) -> None:
    """Raise ValueError if the model could not predict an unseen drug."""
    features = any(arguments.get(name) is not None for name in ("features_key", "smiles_key"))
    generator = options.get("generator", "auto")
    if unseen in {"drug", "scaffold"} and (generator == "identity" or (generator == "auto" and not features)):
        fix = "Use generator='kernel'." if features else "Name features_key or smiles_key in setup_anndata."
        raise ValueError(
            f"unseen={unseen!r} needs a model that knows drugs by their features, not by name. {fix} Or use unseen='dose'."
        )
