"""Measures of single hearts, and what is usual in a cohort."""
