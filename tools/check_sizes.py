"""Refuse files above a size: data and models do not belong into the repository.

python tools/check_sizes.py 500 FILE...      kB, then the files
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    limit, *names = sys.argv[1:]
    large = [name for name in names if Path(name).stat().st_size > int(limit) * 1000]
    for name in large:
        print(f"{name}: more than {limit} kB; keep data and models outside of the repository")
    return int(bool(large))


if __name__ == "__main__":
    sys.exit(main())
