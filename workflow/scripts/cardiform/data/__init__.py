"""Datasets: one per task, every random draw determined by (seed, draw)."""
