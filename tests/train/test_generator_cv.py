from __future__ import annotations

import numpy as np
import pytest
import torch

from scgim.module import TreatmentInputs
from scgim.module.generators import GENERATORS
from scgim.train._folds import deal_doses
from scgim.train._generator_cv import _decide, cross_validate_generators

PENALTY = 5.0


def draw(kind: str, *, drugs: int = 32, doses: int = 3, genes: int = 8, bits: int = 10, seed: int = 0):
    """Frozen residuals: sparse targets of motifs with a Hill response, smooth in descriptors, or nothing but noise."""
    rng = np.random.default_rng(seed)
    drug, dose = (a.ravel() for a in np.meshgrid(range(drugs), range(doses), indexing="ij"))
    log_dose, n = np.linspace(-2.0, 2.0, doses)[dose], 50.0
    x = (rng.random((drugs, bits)) < 0.3).astype(float) if kind != "smooth" else rng.normal(size=(drugs, 2))
    effect = np.zeros((drugs, genes))
    if kind == "hill":
        effect = x @ (rng.choice([-2.0, 2.0], (bits, genes)) * (rng.random((bits, genes)) < 0.15))
    elif kind == "smooth":
        effect = 2 * np.sin(1.5 * x @ rng.normal(size=(2, genes)))
    factor = 1 / (1 + np.exp(-log_dose - 1)) if kind == "hill" else np.ones(len(drug))
    residual = effect[drug] * factor[:, None] + rng.normal(size=(len(drug), genes)) / n**0.5
    return TreatmentInputs(*map(torch.as_tensor, (x[drug], drug, log_dose, np.zeros(len(drug), int)))), torch.as_tensor(
        residual
    )


def choose(inputs, residual, **options):
    doses = torch.unique(inputs.log_dose).tolist()
    n, variance = torch.full((len(residual), 1), 50.0).double(), torch.ones(residual.shape[1]).double()
    build = lambda name, genes: GENERATORS[name](
        inputs.features.shape[1], genes, n_drugs=int(inputs.drug.max()) + 1, dosed=True, log_doses=doses
    )
    return cross_validate_generators(
        build, inputs, residual, n * residual**2 / 2, n, variance, target_penalty=PENALTY, **options
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param("hill", "hill", id="sparse motifs"),
        pytest.param("smooth", "kernel", id="smooth in descriptors"),
        pytest.param("noise", "mean", id="noise"),
    ],
)
def test_takes_what_fits(kind, name):
    chosen, table = choose(*draw(kind, drugs=60 if kind == "smooth" else 32))
    assert chosen == name
    assert list(table.columns) == [
        *("generator", "loss", "se", "loss unseen drugs", "loss unseen doses"),
        *("loss_all_genes", "chosen"),
    ]
    assert table["generator"].to_list() == ["mean", "kernel", "hill"]
    assert table.loc[table["chosen"], "generator"].to_list() == [name]
    assert (table[["loss", "se"]].to_numpy() >= 0).all()
    assert table.loc[table["loss"].idxmin(), "se"] == 0


def test_losses_decide_and_in_doubt_the_first():
    better, nothing = np.linspace(1.0, 2.0, 10), np.full(10, 9.0)
    losses = {"mean": np.full(10, 3.0), "kernel": better + 0.001 * np.arange(10), "hill": better}
    assert _decide(losses, nothing) == "hill"
    doubtful = losses | {"mean": better + np.linspace(-1, 1.1, 10)}
    assert _decide(doubtful, nothing) == "mean"
    assert _decide(doubtful, nothing, privilege=False) == "hill"
    # what is no better than nothing has not been learned
    for privilege in (True, False):
        assert _decide(losses, better + np.linspace(-1, 1.1, 10), privilege=privilege) == "mean"


def test_equal_bits_on_every_call_and_the_global_random_state_is_left_alone():
    data, state = draw("hill"), torch.get_rng_state()
    one, two = (choose(*data)[1] for _ in range(2))
    assert one.equals(two)
    assert (torch.get_rng_state() == state).all()
    assert not choose(*data, seed=1)[1].equals(one)


def test_the_mean_is_scored_on_drugs_that_it_did_not_see():
    inputs, residual = draw("noise", drugs=10, doses=4)
    _, table = choose(inputs, residual, candidates=["mean"], folds=10)
    loss = torch.zeros(len(residual))
    for out in [inputs.drug == drug for drug in range(10)] + list(deal_doses(inputs, 0)):
        for k in torch.nonzero(out)[:, 0]:
            known = ~out & (inputs.log_dose == inputs.log_dose[k])
            loss[k] += ((residual[k] - residual[known].mean(0)) ** 2).mean()
    assert table["loss"].item() == pytest.approx(loss.mean().item(), rel=1e-6)


def test_every_other_dose_of_a_drug_is_held_out_once():
    rng = np.random.default_rng(0)
    drug = torch.as_tensor(np.repeat(np.arange(12), 8)[rng.permutation(96)])
    log_dose = torch.as_tensor(rng.integers(5, size=96)).double() * (drug > 2)  # three drugs have one dose
    inputs = TreatmentInputs(torch.zeros(96, 1), drug, log_dose, torch.zeros(96, dtype=torch.int64))
    held = deal_doses(inputs, 0)
    assert held.shape == (2, 96)
    assert (held.sum(0) == (drug > 2)).all()
    for d in range(3, 12):
        doses = torch.unique(log_dose[drug == d])
        sides = [set(log_dose[fold & (drug == d)].tolist()) for fold in held]
        assert sides == [set(doses[i::2].tolist()) for i in (0, 1)] or sides == [
            set(doses[i::2].tolist()) for i in (1, 0)
        ]
    assert not len(deal_doses(inputs._replace(log_dose=torch.zeros(96)), 0))


def test_what_is_known_of_a_drug_is_not_lost_where_features_say_nothing():
    """Effects of every drug's own; all that can be predicted is its other doses."""
    for doses, names in ((1, {"mean"}), (4, {"kernel", "hill"})):
        inputs, residual = draw("noise", drugs=24, doses=doses, bits=40)
        own = 2 * torch.randn(24, 8, generator=torch.Generator().manual_seed(0)).double()
        assert choose(inputs, residual + own[inputs.drug])[0] in names


def test_duplicates_are_held_out_together():
    inputs, residual = draw("noise", drugs=20)
    twin = inputs.drug // 2
    inputs = inputs._replace(features=inputs.features[twin * 6])
    own = 3 * torch.randn(10, 8, generator=torch.Generator().manual_seed(0)).double()
    _, table = choose(inputs, residual + own[twin], candidates=["mean", "kernel"])
    mean, kernel = table["loss"]
    assert kernel > 0.5 * mean


@pytest.mark.parametrize(
    ("drugs", "features"), [pytest.param(7, 5, id="few drugs"), pytest.param(20, 0, id="no features")]
)
def test_says_when_there_is_nothing_to_choose_by(drugs, features):
    inputs, residual = draw("noise", drugs=drugs)
    inputs = inputs._replace(features=inputs.features[:, :features])
    with pytest.raises(ValueError, match="too few for cross-validation"):
        choose(inputs, residual)


def test_many_genes_are_represented_by_the_strongest():
    inputs, residual = draw("hill", genes=8)
    silent = torch.zeros(len(residual), 200, dtype=torch.float64)
    wide = torch.cat([silent, residual, silent], 1)
    assert choose(inputs, wide)[0] == "hill"


def test_a_little_structure_in_every_gene_is_found_among_all_of_them():
    rng = np.random.default_rng(0)
    inputs, _ = draw("smooth", drugs=60, doses=1)
    x = inputs.features.numpy()
    weak = np.sin(1.5 * x @ rng.normal(size=(2, 600))) + 2 * rng.normal(size=(60, 600)) + rng.normal(size=600)
    name, table = choose(inputs, torch.as_tensor(weak), candidates=["mean", "kernel"])
    losses = table.set_index("generator")["loss_all_genes"]
    assert name == "kernel"
    assert losses["kernel"] < losses["mean"]
    # what the features do not tell is none
    dealt = inputs._replace(features=inputs.features[torch.as_tensor(rng.permutation(60))])
    mean, kernel = choose(dealt, torch.as_tensor(weak), candidates=["mean", "kernel"])[1]["loss_all_genes"]
    assert kernel > 0.999 * mean
