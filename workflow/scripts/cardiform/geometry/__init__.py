"""Label maps, surfaces and signed distances: numpy arrays, millimetres, RAS. No torch."""
