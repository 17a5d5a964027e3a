"""The interface of a trained model that evaluation needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from scgim.data._drug_table import DrugTable
    from scgim.data._training_summary import TrainingSummary
    from scgim.inference._predictor import Predictor


class TrainedModel(Protocol):
    """A trained model that can predict, and that can be trained again without one of its parts."""

    summary_: TrainingSummary | None
    drug_table_: DrugTable
    settings_: dict[str, Any]
    seed_: int
    _reads_readout: bool

    @property
    def generator_(self) -> str:
        """Name of the generator in use."""

    def _require_trained(self) -> TrainingSummary:
        """What training learned of the data."""

    def _predictor(self) -> Predictor:
        """The predictor of the model."""

    def _untrained(self, **changes: Any) -> Self:
        """An untrained model on the same data with other settings."""

    def train(self, *args: Any, **options: Any) -> None:
        """Train."""
