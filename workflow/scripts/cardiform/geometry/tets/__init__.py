"""Tetrahedra of a label map, whose regions share their walls."""
