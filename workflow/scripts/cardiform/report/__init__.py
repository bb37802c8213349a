"""One page about a cohort and the models trained on it, which opens without a network."""
