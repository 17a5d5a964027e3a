import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mean_squared_error, root_mean_squared_error

from scgim.metrics import centroid_rank, deg_weights, pearson_delta, rmse_delta, wmse


@pytest.fixture
def means():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(6, 9)) + 5
    return truth + rng.normal(size=truth.shape), truth, rng


# ---- against other implementations -----------------------------------------------------------------------------------


def test_rmse_is_that_of_scikit_learn(means):
    predicted, truth, _ = means
    assert rmse_delta(predicted, truth) == pytest.approx(
        root_mean_squared_error(truth.T, predicted.T, multioutput="raw_values")
    )


@pytest.mark.parametrize(
    "shape", [pytest.param(None, id="changes"), pytest.param(9, id="one"), pytest.param((6, 9), id="each")]
)
def test_pearson_is_that_of_scipy(means, shape):
    predicted, truth, rng = means
    reference = None if shape is None else rng.normal(size=shape)
    base = np.zeros(9) if reference is None else reference
    expected = stats.pearsonr(predicted - base, truth - base, axis=1).statistic
    assert pearson_delta(predicted, truth, reference=reference) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [pytest.param(9, id="one"), pytest.param((6, 9), id="each")])
def test_wmse_is_that_of_scikit_learn(means, shape):
    predicted, truth, rng = means
    weight = rng.random(shape)
    rows = np.broadcast_to(weight, truth.shape)
    expected = [mean_squared_error(t, p, sample_weight=w) for t, p, w in zip(truth, predicted, rows, strict=True)]
    assert wmse(predicted, truth, weight) == pytest.approx(expected)
    assert wmse(predicted, truth, 7 * weight) == pytest.approx(expected)
    assert wmse(predicted, truth, np.ones(9)) == pytest.approx(rmse_delta(predicted, truth) ** 2)


def test_deg_weights_are_squares_of_scaled_welch_t(means):
    *_, rng = means
    control = rng.normal(size=(40, 5))
    groups = [rng.normal(size=(n, 5)) * rng.random(5) + rng.normal(size=5) for n in (10, 25)]
    given = [np.array([f(g) for g in groups]) for f in (lambda g: g.mean(0), lambda g: g.std(0, ddof=1), len)]
    weight = deg_weights(*given, control.mean(0), control.std(0, ddof=1), len(control))
    for group, found in zip(groups, weight, strict=True):
        t = abs(stats.ttest_ind(group, control, equal_var=False).statistic)
        scaled = ((t - t.min()) / (t.max() - t.min())) ** 2
        assert found == pytest.approx(scaled / scaled.sum())


def test_centroid_rank_counts_the_farther_ones(means):
    predicted, truth, _ = means
    for c, found in enumerate(centroid_rank(predicted, truth)):
        distance = [np.linalg.norm(predicted[c] - row) for row in truth]
        assert found == pytest.approx(np.mean([d > distance[c] for k, d in enumerate(distance) if k != c]))


# ---- perfect, constant and shuffled predictions ----------------------------------------------------------------------


def test_perfect(means):
    _, truth, _ = means
    assert (rmse_delta(truth, truth) == 0).all()
    assert (wmse(truth, truth, np.ones(9)) == 0).all()
    assert pearson_delta(truth, truth, reference=truth.mean(0)) == pytest.approx(1)
    assert (centroid_rank(truth, truth) == 1).all()


@pytest.mark.parametrize("place", [0.0, 5.0, 1e6])
def test_one_prediction_for_all_has_chance_rank(means, place):
    predicted, truth, _ = means
    assert centroid_rank(np.tile(predicted[0] + place, (6, 1)), truth).mean() == pytest.approx(0.5, abs=1e-12)


def test_equal_truths_rank_by_halves():
    assert centroid_rank(np.ones((3, 2)), np.zeros((3, 2))).tolist() == [0.5] * 3


@pytest.mark.parametrize(
    "measure",
    [
        pytest.param(rmse_delta, id="rmse"),
        pytest.param(lambda p, t: pearson_delta(p, t), id="pearson"),
        pytest.param(lambda p, t: pearson_delta(p, t, reference=t.mean(0)), id="pearson to the mean"),
        pytest.param(lambda p, t: wmse(p, t, np.ones(t.shape[1])), id="wmse"),
        pytest.param(centroid_rank, id="rank"),
    ],
)
def test_orders_do_not_matter(means, measure):
    predicted, truth, rng = means
    rows, genes = rng.permutation(6), rng.permutation(9)
    found = measure(predicted, truth)
    assert found.shape == (6,)
    assert measure(predicted[:, genes], truth[:, genes]) == pytest.approx(found)
    assert measure(predicted[rows], truth[rows]) == pytest.approx(found[rows])
    assert measure(predicted.astype(np.float32), truth.astype(np.float32)) == pytest.approx(found, rel=1e-4)


def test_a_reference_cancels_but_in_the_correlation(means):
    predicted, truth, rng = means
    control = 3 * rng.normal(size=9)
    for measure in (rmse_delta, centroid_rank):
        assert measure(predicted - control, truth - control) == pytest.approx(measure(predicted, truth))
    assert not np.allclose(pearson_delta(predicted - control, truth - control), pearson_delta(predicted, truth))


def test_scales(means):
    predicted, truth, _ = means
    assert rmse_delta(3 * predicted, 3 * truth) == pytest.approx(3 * rmse_delta(predicted, truth))
    assert wmse(3 * predicted, 3 * truth, np.ones(9)) == pytest.approx(9 * wmse(predicted, truth, np.ones(9)))
    assert pearson_delta(0.01 * predicted + 7, truth) == pytest.approx(pearson_delta(predicted, truth))
    assert centroid_rank(3 * predicted, 3 * truth) == pytest.approx(centroid_rank(predicted, truth))


def test_what_does_not_vary_has_no_correlation(means):
    predicted, truth, rng = means
    control = rng.normal(size=9)
    predicted[0], predicted[1], truth[2] = control, control + 0.1, control - 1 / 3
    found = pearson_delta(predicted, truth, reference=control)
    assert np.isnan(found).tolist() == [True] * 3 + [False] * 3
    assert np.isnan(pearson_delta(truth[:, :1], truth[:, :1])).all()


def test_weights_are_shares():
    ones = np.ones((2, 4))
    weight = deg_weights([[0, 1, 2, 3], [1, 1, 1, 1]], ones, [5, 9], np.zeros(4), np.ones(4), 7)
    assert weight.sum(1) == pytest.approx(1)
    assert (np.diff(weight[0]) > 0).all()
    assert weight[0, 0] == 0
    assert weight[1].tolist() == [0.25] * 4


def test_a_gene_without_any_count_has_no_weight():
    sd = [[0.0, 1.0, 1.0]]
    assert deg_weights([[0.0, 1.0, 3.0]], sd, 5, np.zeros(3), sd, 5)[0].tolist() == pytest.approx([0, 0.1, 0.9])


# ---- refused ---------------------------------------------------------------------------------------------------------

HOLE = np.array([[1.0, 2.0], [np.nan, 1.0]])
TWO, ONE = np.ones((2, 2)), np.ones(2)


@pytest.mark.parametrize("measure", [rmse_delta, pearson_delta, centroid_rank, lambda p, t: wmse(p, t, ONE)])
@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        pytest.param(np.ones((2, 3)), TWO, r"\(2, 3\) and \(2, 2\)", id="genes"),
        pytest.param(np.ones((3, 2)), TWO, r"\(3, 2\) and \(2, 2\)", id="rows"),
        pytest.param(ONE, TWO, r"predicted .*\(2,\)", id="vector"),
        pytest.param(TWO, np.ones((2, 0)), r"truth .*\(2, 0\)", id="empty"),
        pytest.param(HOLE, TWO, r"predicted of shape \(2, 2\) holds 1 .*nan at \[1, 0\]", id="nan"),
        pytest.param(TWO, np.full((2, 2), np.inf), "truth .*inf at", id="inf"),
    ],
)
def test_bad_means_are_refused(measure, predicted, truth, message):
    with pytest.raises(ValueError, match=message):
        measure(predicted, truth)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda: pearson_delta(TWO, TWO, reference=np.ones(3)), r"reference .*\(3,\).*\(2, 2\)", id="reference"
        ),
        pytest.param(lambda: pearson_delta(TWO, TWO, reference=HOLE), "reference .*not finite", id="nan reference"),
        pytest.param(lambda: wmse(TWO, TWO, np.ones((3, 2))), r"weight .*\(3, 2\).*\(2, 2\)", id="weight"),
        pytest.param(lambda: wmse(TWO, TWO, [1.0, -1.0]), "negative.*-1", id="negative"),
        pytest.param(lambda: wmse(TWO, TWO, [[1.0, 1.0], [0.0, 0.0]]), "smallest sum 0", id="no weight"),
        pytest.param(lambda: centroid_rank(TWO[:1], TWO[:1]), r"two conditions.*\(1, 2\)", id="one condition"),
        pytest.param(lambda: deg_weights(TWO, TWO, [1, 2, 3], ONE, ONE, 2), r"n of shape \(3,\).*2 conditions", id="n"),
        pytest.param(lambda: deg_weights(TWO, TWO, 0, ONE, ONE, 2), "positive: 0", id="no cell"),
        pytest.param(lambda: deg_weights(TWO, -TWO, 2, ONE, ONE, 2), "negative: -1", id="negative sd"),
        pytest.param(lambda: deg_weights(TWO, 0 * TWO, 2, 0 * ONE, 0 * ONE, 2), "Gene 0 .*condition 0", id="sure"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_no_array_is_refused():
    with pytest.raises(TypeError, match="predicted must be an array of numbers.*list"):
        rmse_delta([["a"]], [[1.0]])
