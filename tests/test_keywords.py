"""A misspelled argument of a public function is named with the nearest argument."""

from __future__ import annotations

from inspect import Parameter, isfunction, signature

import pytest

import scgim

MODULES = [scgim.datasets, scgim.get, scgim.metrics, scgim.pl, scgim.pp, scgim.tl]
METHODS = "__init__ train predict do rank_targets get_graph annotate evaluate save load stability setup_anndata".split()
FUNCTIONS = [getattr(module, name) for module in MODULES for name in module.__all__]
PUBLIC = [*filter(isfunction, FUNCTIONS), *(getattr(scgim.GIM, name) for name in METHODS)]


@pytest.mark.parametrize("function", PUBLIC, ids=lambda f: f.__qualname__)
def test_every_public_function_names_the_nearest_argument(function):
    parameters = signature(function).parameters.values()
    own = [p.name for p in parameters if p.kind is not Parameter.VAR_KEYWORD and p.name not in {"self", "cls"}]
    for name in own:
        wrong = name[:-1] + "_" + name[-1]
        if function.__name__ == "train":
            continue
        with pytest.raises(TypeError, match=rf"has no argument '{wrong}'\. Nearest: '"):
            function(**{wrong: None})


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("max_epoch", "max_epochs"),
        ("enable_progres_bar", "enable_progress_bar"),
        ("callback", "callbacks"),
        ("sed", "seed"),
    ],
)
def test_arguments_of_the_trainer(screen, setup_kwargs, wrong, right):
    adata = screen()
    scgim.setup_anndata(adata, **setup_kwargs)
    model = scgim.GIM(adata)
    with pytest.raises(TypeError, match=rf"train\(\) has no argument '{wrong}'\. Nearest: '{right}'"):
        model.train(**{wrong: None})


def test_a_typo_in_train_leaves_the_model_as_it_was(screen, fit):
    model = fit(screen())
    before = model.predict(drug="drug-001", as_="mean").X
    with pytest.raises(TypeError, match="has no argument 'batch_size'"):
        model.train(batch_size=32)
    assert (model.predict(drug="drug-001", as_="mean").X == before).all()


def test_signatures_stay():
    assert str(signature(scgim.pp.split)).startswith("(adata: 'AnnData', *, unseen:")
    assert "structure" in signature(scgim.GIM).parameters
    assert scgim.pp.split.__module__ == "scgim.pp._split"
