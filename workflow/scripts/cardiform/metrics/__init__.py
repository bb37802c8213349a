"""Figures: per class, in millimetres, on full grids."""
