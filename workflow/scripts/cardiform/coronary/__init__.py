"""Refinement of thin structures, the coronary arteries above all."""
