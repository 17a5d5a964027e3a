"""Baselines. Each is fitted on training conditions, and sees everything about test conditions except their change."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from sklearn.kernel_ridge import KernelRidge as PrecomputedKernelRidge
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scgim._similarity import similarity

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._conditions import ConditionTable

_PENALTIES = np.logspace(-3, 4, 15)


class Baseline(Protocol):
    """Predicts the change of conditions, ``(conditions, genes)``. Conditions without a prediction have a row of NaN."""

    def fit(self, train: ConditionTable) -> None:
        """Learn from conditions with known change."""

    def predict(self, test: ConditionTable) -> np.ndarray:
        """Changes of other conditions."""


class NoChange:
    """The control: no condition changes."""

    def fit(self, train: ConditionTable) -> None:
        """Nothing to learn."""

    def predict(self, test: ConditionTable) -> np.ndarray:
        """Zeros."""
        return np.zeros_like(test.change)


class TrainingMean:
    """Mean change of the training conditions of the same cell line at the nearest dose, for any drug."""

    def fit(self, train: ConditionTable) -> None:
        """Keep the training conditions."""
        self.train = train

    def predict(self, test: ConditionTable) -> np.ndarray:
        """Means over conditions, each with the same weight."""
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
        """That drug at the nearest dose, in the same cell line if measured there; the mean if several drugs are equally similar."""
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
    """Response of the drug itself: linear in log dose between neighboring training doses, constant beyond them.

    Below the lowest dose, the response falls linearly to no change over one further step of the doses. Drugs without training conditions
    have no prediction.
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
    """A regression on features, log dose and cell line; inputs are standardized on the training conditions.

    ``build`` returns an estimator with scikit-learn's ``fit`` and ``predict``.
    """

    def __init__(self, build: Callable[[], Any]) -> None:
        self.build = build

    def fit(self, train: ConditionTable) -> None:
        """Fit on the training conditions."""
        self.lines = np.unique(train.line)
        self.model = make_pipeline(StandardScaler(), self.build())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a network that has not converged is still the baseline
            self.model.fit(self._inputs(train), train.change)

    def predict(self, test: ConditionTable) -> np.ndarray:
        """Changes by the regression."""
        return self.model.predict(self._inputs(test)).reshape(test.change.shape)

    def _inputs(self, table: ConditionTable) -> np.ndarray:
        # An unseen line gets the zeros of the first line. OneHotEncoder would need a table of mixed columns for the same result.
        line = table.line[:, None] == self.lines[1:]
        return np.column_stack([table.features, table.log_dose, line])


class ByFeatures:
    """A baseline on features, for the conditions of drugs with features; other conditions have no prediction."""

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline

    def fit(self, train: ConditionTable) -> None:
        """Fit on the conditions with features, if there are any."""
        rows = _featured(train)
        self.fitted = len(rows) > 0
        if self.fitted:
            self.baseline.fit(train.take(rows))

    def predict(self, test: ConditionTable) -> np.ndarray:
        """Changes of the conditions with features."""
        out, rows = np.full_like(test.change, np.nan), _featured(test)
        if self.fitted and len(rows):
            out[rows] = self.baseline.predict(test.take(rows))
        return out


def _featured(table: ConditionTable) -> np.ndarray:
    return np.flatnonzero(~np.isnan(table.features).any(1))


def ridge() -> Regression:
    """Ridge regression with a penalty chosen by leave-one-out cross-validation."""
    return Regression(lambda: RidgeCV(alphas=_PENALTIES))


def network() -> Regression:
    """A plain network with one hidden layer of 64 units on the same features, without graph or mechanisms."""
    from sklearn.neural_network import MLPRegressor

    return Regression(lambda: MLPRegressor(hidden_layer_sizes=(64,), alpha=1.0, max_iter=400, random_state=0))


class KernelRidge:
    """Kernel regression around the training mean: Tanimoto similarity of drugs times an RBF kernel of log dose times a line kernel.

    The bandwidth is 1 SD of log dose. The line kernel is 1 within a cell line and 0.5 between lines. The penalty is chosen by
    cross-validation over drugs.
    """

    def fit(self, train: ConditionTable) -> None:
        """Solve for the training conditions, with the penalty that predicts left-out drugs best."""
        self.train, self.spread = train, max(float(train.log_dose.std()), 1e-9)
        self.mean = TrainingMean()
        self.mean.fit(train)
        every, drugs = np.arange(len(train)), np.unique(train.drug)
        # A single drug cannot be left out. Its own error then chooses the smallest penalty.
        folds = GroupKFold(min(5, len(drugs))) if len(drugs) > 1 else [(every, every)]
        self.model = GridSearchCV(
            PrecomputedKernelRidge(kernel="precomputed"),
            {"alpha": _PENALTIES[_PENALTIES >= 0.01]},
            scoring="neg_mean_squared_error",
            cv=folds,
        )
        self.model.fit(self._kernel(train), train.change - self.mean.predict(train), groups=train.drug)

    def predict(self, test: ConditionTable) -> np.ndarray:
        """Training mean plus the contribution of similar drugs."""
        if not test.features.shape[1]:
            return np.full_like(test.change, np.nan)
        return self.mean.predict(test) + self.model.predict(self._kernel(test))

    def _kernel(self, table: ConditionTable) -> np.ndarray:
        dose = (table.log_dose[:, None] - self.train.log_dose) / self.spread
        line = np.where(table.line[:, None] == self.train.line, 1.0, 0.5)
        return similarity(table.features, self.train.features) * np.exp(-0.5 * dose**2) * line


BASELINES: dict[str, Callable[[], Baseline]] = {
    "control": NoChange,
    "training mean": TrainingMean,
    "nearest drug": lambda: ByFeatures(NearestDrug()),
    "dose interpolation": DoseInterpolation,
    "ridge": lambda: ByFeatures(ridge()),
    "kernel ridge": lambda: ByFeatures(KernelRidge()),
    "network": lambda: ByFeatures(network()),
}


def _same_line(train: ConditionTable, line: str) -> np.ndarray:
    """Training conditions of a cell line; of all lines if it was not trained on."""
    rows = np.flatnonzero(train.line == line)
    return rows if len(rows) else np.arange(len(train))
