"""Fusion of label maps and rules of anatomical consistency."""
