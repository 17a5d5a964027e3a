"""What any model has to beat. Each is fitted on the training conditions and sees of the test conditions all but the change."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from scgim._similarity import similarity

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._conditions import ConditionTable

_PENALTIES = np.logspace(-3, 4, 15)


class Baseline(Protocol):
    """Predicts the change of conditions, ``(conditions, genes)``; rows of NaN where it has no answer."""

    def fit(self, train: ConditionTable) -> None:
        """Learn from conditions whose change is known."""

    def predict(self, test: ConditionTable) -> np.ndarray:
        """Changes of others."""


class NoChange:
    """The control: nothing changes."""

    def fit(self, train: ConditionTable) -> None:
        """Nothing to learn."""

    def predict(self, test: ConditionTable) -> np.ndarray:
        """Zeros."""
        return np.zeros_like(test.change)


class TrainingMean:
    """The mean change of the training conditions of the same line at the nearest dose, whatever the drug."""

    def fit(self, train: ConditionTable) -> None:
        """Keep the training conditions."""
        self.train = train

    def predict(self, test: ConditionTable) -> np.ndarray:
        """Means, cells counting alike in every condition."""
        out = np.empty_like(test.change)
        for i in range(len(test)):
            rows = _same_line(self.train, test.line[i])
            gap = np.abs(self.train.log_dose[rows] - test.log_dose[i])
            out[i] = self.train.change[rows[gap <= gap.min() + 1e-9]].mean(0)
        return out


class NearestDrug:
    """The change of the training drug with the most similar features (Tanimoto, or cosine if some are negative)."""

    def fit(self, train: ConditionTable) -> None:
        """Keep the training conditions."""
        self.train = train

    def predict(self, test: ConditionTable) -> np.ndarray:
        """That drug at the nearest dose, in the same line where it was measured there; the mean of equally similar ones."""
        if not test.features.shape[1]:
            return np.full_like(test.change, np.nan)
        out, alike = np.empty_like(test.change), similarity(test.features, self.train.features)
        for i in range(len(test)):
            rows = _same_line(self.train, test.line[i])
            rows = rows[alike[i, rows] >= alike[i, rows].max() - 1e-12]
            gap = np.abs(self.train.log_dose[rows] - test.log_dose[i])
            out[i] = self.train.change[rows[gap <= gap.min() + 1e-9]].mean(0)
        return out


class DoseInterpolation:
    """The drug itself, linear in log dose between the neighbouring training doses, constant beyond them.

    Below the lowest dose it falls to no change one such step further down. No answer for a drug that was not trained on.
    """

    def fit(self, train: ConditionTable) -> None:
        """Keep the training conditions."""
        self.train = train

    def predict(self, test: ConditionTable) -> np.ndarray:
        """Interpolated changes."""
        out = np.full_like(test.change, np.nan)
        for i in range(len(test)):
            rows = np.flatnonzero((self.train.drug == test.drug[i]) & (self.train.line == test.line[i]))
            if not len(rows):
                continue
            rows = rows[np.argsort(self.train.log_dose[rows], kind="stable")]
            x, y = self.train.log_dose[rows], self.train.change[rows]
            if len(x) > 1:
                x = np.r_[x[0] - (x[1] - x[0]), x]
                y = np.vstack([np.zeros(y.shape[1]), y])
            at = np.clip(test.log_dose[i], x[0], x[-1])
            right = int(np.clip(np.searchsorted(x, at), 1, max(len(x) - 1, 1)))
            if len(x) == 1 or x[right] == x[right - 1]:
                out[i] = y[-1]
                continue
            share = (at - x[right - 1]) / (x[right] - x[right - 1])
            out[i] = (1 - share) * y[right - 1] + share * y[right]
        return out


class Regression:
    """A regression on features, log dose and line, inputs standardised on the training conditions.

    ``build`` gives an estimator with scikit-learn's ``fit`` and ``predict``.
    """

    def __init__(self, build: Callable[[], Any]) -> None:
        self.build = build

    def fit(self, train: ConditionTable) -> None:
        """Fit on the training conditions."""
        self.lines = np.unique(train.line)
        x = self._raw(train)
        self.centre, self.scale = x.mean(0), x.std(0)
        self.scale = np.where(self.scale > 1e-12, self.scale, 1.0)
        self.model = self.build()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a network that has not converged is still the baseline
            self.model.fit(self._inputs(train), train.change)

    def predict(self, test: ConditionTable) -> np.ndarray:
        """Changes by the regression."""
        return self.model.predict(self._inputs(test)).reshape(test.change.shape)

    def _raw(self, table: ConditionTable) -> np.ndarray:
        line = table.line[:, None] == self.lines[1:]
        return np.column_stack([table.features, table.log_dose, line])

    def _inputs(self, table: ConditionTable) -> np.ndarray:
        return (self._raw(table) - self.centre) / self.scale


def ridge() -> Regression:
    """Ridge regression, its penalty by leave-one-out cross-validation."""
    from sklearn.linear_model import RidgeCV

    return Regression(lambda: RidgeCV(alphas=_PENALTIES))


def network() -> Regression:
    """A plain network with one hidden layer of 64 units: the unstructured twin with the same features."""
    from sklearn.neural_network import MLPRegressor

    return Regression(lambda: MLPRegressor(hidden_layer_sizes=(64,), alpha=1.0, max_iter=400, random_state=0))


class KernelRidge:
    """Kernel regression around the training mean: Tanimoto similarity of drugs times an RBF of log dose, one line's drugs alike.

    Bandwidth 1 standard deviation of log dose; the penalty by cross-validation over drugs.
    """

    def fit(self, train: ConditionTable) -> None:
        """Solve for the training conditions, at the penalty that predicts left-out drugs best."""
        self.train, self.spread = train, max(float(train.log_dose.std()), 1e-9)
        self.mean = TrainingMean()
        self.mean.fit(train)
        self.rest = train.change - self.mean.predict(train)
        kernel, drugs = self._kernel(train), np.unique(train.drug)
        folds = [np.isin(train.drug, part) for part in np.array_split(np.random.default_rng(0).permutation(drugs), 5)]
        folds = [held for held in folds if held.any() and not held.all()]

        def loss(penalty: float) -> float:
            total = 0.0
            for held in folds:
                inner = kernel[np.ix_(~held, ~held)] + penalty * np.eye((~held).sum())
                fitted = kernel[np.ix_(held, ~held)] @ np.linalg.solve(inner, self.rest[~held])
                total += ((self.rest[held] - fitted) ** 2).sum()
            return total

        penalty = min(_PENALTIES[_PENALTIES >= 0.01], key=loss)
        self.dual = np.linalg.solve(kernel + penalty * np.eye(len(kernel)), self.rest)

    def predict(self, test: ConditionTable) -> np.ndarray:
        """Training mean plus what similar drugs add."""
        if not test.features.shape[1]:
            return np.full_like(test.change, np.nan)
        return self.mean.predict(test) + self._kernel(test) @ self.dual

    def _kernel(self, table: ConditionTable) -> np.ndarray:
        dose = (table.log_dose[:, None] - self.train.log_dose) / self.spread
        line = np.where(table.line[:, None] == self.train.line, 1.0, 0.5)
        return similarity(table.features, self.train.features) * np.exp(-0.5 * dose**2) * line


BASELINES: dict[str, Callable[[], Baseline]] = {
    "control": NoChange,
    "training mean": TrainingMean,
    "nearest drug": NearestDrug,
    "dose interpolation": DoseInterpolation,
    "ridge": ridge,
    "kernel ridge": KernelRidge,
    "network": network,
}


def _same_line(train: ConditionTable, line: str) -> np.ndarray:
    """Training conditions of a line; of all lines if it was not trained on."""
    rows = np.flatnonzero(train.line == line)
    return rows if len(rows) else np.arange(len(train))
