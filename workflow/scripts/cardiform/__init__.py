"""Cardiform: from cardiac label maps to trained 3-D shape models.

The library behind the scripts of the workflow. A script's own folder is on
``sys.path``, so ``import cardiform`` needs no installation.
"""

import time

__version__ = "0.1.0"
# Time limits count from here: importing torch and reading a cohort takes minutes, too.
STARTED = time.monotonic()
