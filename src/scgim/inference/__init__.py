"""Predictions and target rankings of a trained model. Only the input and output of predictions are AnnData."""
