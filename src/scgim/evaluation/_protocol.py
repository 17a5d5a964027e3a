"""What evaluation needs of a trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from scgim.data._drug_table import DrugTable
    from scgim.data._training_summary import TrainingSummary
    from scgim.inference._predictor import Predictor


class TrainedModel(Protocol):
    """A model that can be asked, and trained anew without one of its parts."""

    summary_: TrainingSummary
    drug_table_: DrugTable
    settings_: dict
    seed_: int

    @property
    def generator_(self) -> str:
        """Name of the generator in use."""

    def _predictor(self) -> Predictor:
        """What the model is asked by."""

    def _untrained(self, **changes: object) -> Self:
        """An untrained model on the same data, with other settings."""

    def train(self, **options: object) -> None:
        """Train."""
