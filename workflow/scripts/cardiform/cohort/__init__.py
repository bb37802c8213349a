"""The cases of a cohort: table, checks, split, and work on each case."""
