from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from scgim.module.generators import KernelGenerator, MeanGenerator
from scgim.module.generators._drug_kernel import Similarity, count_tanimoto
from scgim.module.generators._gp_shrinkage import SHARES, shrink, smooth
from scgim.module.generators._kernel import _average, _Rows


def test_shrinkage_is_sklearns_gaussian_process_averaged_over_shares():
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(40, 2)), rng.normal(size=(7, 2))
    y = np.sin(x[:, :1]) + 0.5 * rng.normal(size=(40, 1))
    kernel = RBF(1.3)(x)
    values, vectors = map(torch.as_tensor, np.linalg.eigh(kernel))
    z = vectors.T @ torch.as_tensor(y)
    fit = shrink(z, values.clamp(min=0), rounds=0)
    mean, likelihood = 0, []
    for share, variance in zip(SHARES.numpy(), fit.variance[:, 0].numpy(), strict=True):
        likelihood.append(
            multivariate_normal.logpdf(y[:, 0], cov=variance * (share * kernel + (1 - share) * np.eye(40)))
        )
    weight = np.exp(likelihood - np.max(likelihood))
    np.testing.assert_allclose(fit.posterior[:, 0], weight / weight.sum(), rtol=1e-6)
    for w, share, variance in zip(weight / weight.sum(), SHARES.numpy(), fit.variance[:, 0].numpy(), strict=True):
        if share > 0:
            parts = ConstantKernel(share * variance) * RBF(1.3) + WhiteKernel((1 - share) * variance)
            mean += w * GaussianProcessRegressor(parts, optimizer=None).fit(x, y[:, 0]).predict(new)
    ours = RBF(1.3)(new, x) @ (vectors @ smooth(fit, z, values.clamp(min=0))).numpy()
    np.testing.assert_allclose(ours[:, 0], mean, rtol=1e-6)


def test_many_outputs_without_signal_talk_chance_out_of_one():
    rng = np.random.default_rng(1)
    values = torch.as_tensor(np.sort(rng.exponential(size=60)))
    y = torch.as_tensor(rng.normal(size=(60, 500)))
    share = lambda fit: SHARES @ fit.posterior
    assert share(shrink(y, values)).mean() < 0.05
    assert share(shrink(y, values)).mean() < 0.3 * share(shrink(y, values, rounds=0)).mean()


def test_tanimoto_of_counts():
    rng = np.random.default_rng(0)
    a, b = rng.poisson(1.0, (5, 30)), rng.poisson(1.0, (8, 30)) * (rng.random((8, 1)) > 0.2)
    slow = [[np.minimum(x, y).sum() / max(np.maximum(x, y).sum(), 1) for y in b] for x in a]
    np.testing.assert_allclose(count_tanimoto(*(torch.as_tensor(x).double() for x in (a, b))), slow)
    zero = torch.zeros(1, 30, dtype=torch.float64)
    assert count_tanimoto(zero, zero) == 1


def test_similarity_undoes_the_scaling_of_counts():
    rng = np.random.default_rng(0)
    counts = torch.as_tensor(rng.poisson(2.0, (20, 15)).astype(float))
    plain, scaled = Similarity(15), Similarity(15)
    plain.fit(counts)
    scaled.fit(counts / counts.amax(0))
    new = torch.as_tensor(rng.poisson(4.0, (6, 15)).astype(float))
    torch.testing.assert_close(plain(new), count_tanimoto(new, counts))
    # a column of even counts alone has another unit
    odd = torch.tensor([np.gcd.reduce(column.astype(int)) == 1 for column in counts.T.numpy()])
    assert odd.all()
    torch.testing.assert_close(scaled(new / counts.amax(0)), plain(new))


def test_similarity_of_counts_and_descriptors_is_half_and_half():
    rng = np.random.default_rng(0)
    counts, real = torch.as_tensor(rng.poisson(2.0, (20, 5)).astype(float)), torch.as_tensor(rng.normal(size=(20, 3)))
    standard = (real - real.mean(0)) / real.std(0, unbiased=False)
    far = torch.cdist(standard, standard)
    rbf = torch.exp(-(far**2) / (2 * torch.pdist(standard).median() ** 2))
    both = Similarity(8)
    both.fit(torch.cat([counts, real], 1))
    torch.testing.assert_close(both(both.reference), (count_tanimoto(counts, counts) + rbf) / 2)
    assert torch.linalg.eigvalsh(both(both.reference)).min() > -1e-12


def solved(build, data):
    generator = build(KernelGenerator, data)
    generator.solve(*data)
    return generator


def test_predicts_new_drugs_better_than_the_mean(screen, build, expected):
    data = screen(drugs=60, seed=3)
    train = data.inputs.drug < 40
    shifts, error = data.residual[~train], {}
    for kind in (MeanGenerator, KernelGenerator):
        generator = build(kind, data[train])
        generator.solve(*data[train])
        new = data[~train].inputs
        error[kind] = ((expected(generator, new._replace(drug=-torch.ones_like(new.drug))) - shifts) ** 2).mean()
    assert error[KernelGenerator] < 0.8 * error[MeanGenerator]


def test_averages_of_drugs_tell_what_all_contexts_tell(screen, build, expected, monkeypatch):
    data = screen(drugs=60, doses=3, lines=2, seed=3)
    train = data.inputs.drug < 45
    at = data[~train].inputs._replace(drug=-torch.ones_like(data[~train].inputs.drug))
    whole = expected(solved(build, data[train]), at)
    monkeypatch.setattr("scgim.module.generators._kernel.MOST_ROWS", 100)
    averaged = expected(solved(build, data[train]), at)
    error = [((each - data[~train].residual) ** 2).mean() for each in (averaged, whole)]
    assert error[0] < 1.02 * error[1]
    assert not torch.equal(averaged, whole)


def test_averages_of_drugs_are_weighted_by_precision():
    rng = np.random.default_rng(0)
    drug = torch.tensor([2, 0, 2, 0, 2])
    y, own, sampled = (torch.as_tensor(rng.uniform(1, 2, shape)) for shape in ((5, 3), 5, 5))
    root = torch.as_tensor(rng.normal(size=(5, 5)))
    rows = _Rows(y, (root @ root.T, torch.eye(5).double()), (torch.arange(5), drug), own, sampled).by_drug()
    assert rows.drugs[1].tolist() == [0, 2]
    for i, name in enumerate((0, 2)):
        weight = np.where(drug == name, 1 / (own + sampled), 0)
        weight = weight / weight.sum()
        np.testing.assert_allclose(rows.y[i], weight @ y.numpy())
        np.testing.assert_allclose(rows.parts[0][i, i], weight @ (root @ root.T).numpy() @ weight)
        np.testing.assert_allclose(rows.own[i] + rows.sampled[i], weight**2 @ (own + sampled).numpy())


def test_falls_back_to_the_mean_without_signal(screen, build, expected):
    data = screen(drugs=60)
    rng = torch.Generator().manual_seed(0)
    data = data._replace(residual=torch.randn(data.residual.shape, dtype=torch.float64, generator=rng))
    at = data.inputs._replace(drug=-torch.ones_like(data.inputs.drug))
    mean = build(MeanGenerator, data)
    mean.solve(*data)
    deviation = expected(solved(build, data), at) - expected(mean, at)
    assert deviation.std() < 0.2 * (data.probability * data.residual).std()


def test_a_twin_of_a_training_drug_goes_its_way_and_a_far_drug_the_mean(screen, build, expected):
    data = screen(drugs=40, seed=2)
    generator, mean = solved(build, data), build(MeanGenerator, data)
    mean.solve(*data)
    twin = data.inputs._replace(drug=-torch.ones_like(data.inputs.drug))
    base = expected(mean, twin)
    away, seen = expected(generator, twin) - base, data.probability * data.residual - base
    assert torch.corrcoef(torch.stack([away.ravel(), seen.ravel()]))[0, 1] > 0.7
    far = twin._replace(features=twin.features + 1e3)
    torch.testing.assert_close(expected(generator, far), base, atol=1e-6, rtol=0)
    assert (
        generator.uncertainty(far) * torch.sigmoid(generator(far)[0])
        >= 0.999 * generator.uncertainty(twin) * torch.sigmoid(generator(twin)[0])
    ).all()


def test_effects_average_to_zero_over_training_contexts(screen, build, expected):
    data = screen(drugs=40, doses=1, seed=3)
    generator, mean = solved(build, data), build(MeanGenerator, data)
    mean.solve(*data)
    away = expected(generator, data.inputs) - expected(mean, data.inputs)
    weight = generator.average[:, None] / generator.average.sum()
    torch.testing.assert_close((weight * away).sum(0), torch.zeros(away.shape[1]).double(), atol=1e-9, rtol=0)
    assert away.abs().mean() > 0.05


@pytest.mark.parametrize("shared", [0.0, 5.0])
def test_a_process_given_its_average_is_what_numpy_conditions(shared):
    rng = np.random.default_rng(0)
    kernel, scale = RBF(1.0)(rng.normal(size=(12, 2))) + shared, rng.uniform(0.5, 2.0, 12)
    joint = np.vstack([np.eye(12), (1 / scale) / (1 / scale).sum()])
    joint = joint @ kernel @ joint.T  # of the conditions and their average
    given = joint[:-1, :-1] - np.outer(joint[:-1, -1], joint[-1, :-1]) / joint[-1, -1]
    _, common = _average(torch.as_tensor(kernel), torch.as_tensor(scale))
    np.testing.assert_allclose(kernel - np.outer(common, common), given, atol=1e-12)


def test_uncertainty_of_the_expected_shift_grows_with_distance(screen, build):
    data = screen(drugs=40)
    generator = solved(build, data)
    one = data.inputs.map(lambda each: each[:1].repeat_interleave(6, 0))
    step = torch.tensor([0, 0.5, 1, 2, 4, 20.0]).double()[:, None]
    at = one._replace(features=one.features * (1 + step), drug=-torch.ones_like(one.drug))
    spread = generator.uncertainty(at) * torch.sigmoid(generator(at)[0])
    assert (spread[-1] > spread[0]).all()


@pytest.mark.parametrize("heavy", [False, True])
def test_intervals_cover_new_drugs(screen, build, expected, heavy):
    data, rng = screen(drugs=300, genes=20, doses=1, seed=5), np.random.default_rng(0)
    scale = np.sqrt(4 / rng.chisquare(4, 300)) if heavy else np.ones(300)
    noise = torch.as_tensor(scale[:, None] * rng.normal(size=(300, 20)))
    data = data._replace(residual=data.residual + noise, probability=torch.ones_like(data.probability))
    train = data.inputs.drug < 200
    generator = solved(build, data[train])
    new = data[~train]
    at = new.inputs._replace(drug=-torch.ones_like(new.inputs.drug))
    far = (new.residual - expected(generator, at)).abs() / (generator.uncertainty(at) ** 2 + 1 / new.n).sqrt()
    assert 0.87 < (far < 1.645).double().mean() < 0.96


def test_strong_drugs_get_a_larger_scale(screen, build):
    data = screen(drugs=60, genes=30)
    strong = data.inputs.drug % 10 == 0
    noise = torch.randn(data.residual.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    generator = solved(build, data._replace(residual=data.residual + noise * (1 + 5 * strong[:, None])))
    scale = generator.scale[:-1]
    assert scale[::10].min() > scale[torch.arange(60) % 10 > 0].max()


def test_the_order_of_features_and_contexts_does_not_matter(screen, build):
    data = screen()
    rows, columns = torch.randperm(len(data.n), generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0, 3, 1])
    mixed = data[rows]
    mixed = mixed._replace(inputs=mixed.inputs._replace(features=mixed.inputs.features[:, columns]))
    at = data.inputs._replace(features=data.inputs.features[:, columns])
    for a, b in zip(solved(build, data)(data.inputs), solved(build, mixed)(at), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_psi_stays_within_what_was_seen(screen, build):
    data = screen()
    data = data._replace(probability=(data.probability - 0.5) * 0.02)
    assert (solved(build, data)(data.inputs)[1].abs() <= data.residual.abs().amax(0) * (1 + 1e-9)).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_features_that_tell_nothing_are_no_trouble(screen, build, value):
    data = screen()
    features = torch.full_like(data.inputs.features, value)
    data = data._replace(inputs=data.inputs._replace(features=features))
    assert all(torch.isfinite(each).all() for each in solved(build, data)(data.inputs))


def test_a_gene_that_nothing_touches_is_no_trouble(screen, build):
    data = screen()
    data.residual[:, 1] = 0
    data.probability[:, 2] = 0
    generator = solved(build, data)
    for each in (*generator(data.inputs), generator.uncertainty(data.inputs)):
        assert torch.isfinite(each).all()
