"""Trained models on new label maps."""
