"""Trained models to hand on: bundles with their card and an example."""
