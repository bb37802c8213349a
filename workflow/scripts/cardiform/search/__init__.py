"""Search for the settings of a training: trials, rungs, and what came of them."""
