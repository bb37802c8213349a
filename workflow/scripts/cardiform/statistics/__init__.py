"""How the hearts of a cohort vary: vertices in correspondence, modes, scores, paths."""

TEMPLATE = "template.npz"  # beside model.npz
