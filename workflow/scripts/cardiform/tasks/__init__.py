"""Trainings: what is optimised and how it is judged, one class per task."""
