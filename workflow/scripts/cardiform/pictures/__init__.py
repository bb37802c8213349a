"""Pictures: surfaces, slices, curves."""
