"""Sparse voxel tensors and the operators that models need on them (torch only)."""
