"""Start a training script on the GPUs that its job was given.

    python launch.py --gpus 4 train_vecset.py --lr 1e-4 ...

With several GPUs of one node torchrun starts a process on each; otherwise the script runs
as it is. The script takes this process's place, so signals reach it.
"""

from __future__ import annotations

import argparse
import os
import sys


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of this job (default: 1)")
    parser.add_argument("script", help="script to start")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to the script")
    args = parser.parse_args()
    command = [sys.executable]
    if args.gpus > 1:
        command += ["-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(args.gpus)]
    os.execv(sys.executable, [*command, args.script, *args.arguments])


if __name__ == "__main__":
    main()
