"""Start a script on the GPUs of its job.

    python launch.py --gpus 4 --minutes 2160 train_vecset.py --lr 1e-4 ...
    python launch.py --gpus 1 --single sample_diffusion.py ...

A training gets one process per GPU (torchrun), anything else (--single) one process. Under SLURM
the GPUs are those that SLURM granted, and a training is asked to save and stop before the time
limit. On other machines free GPUs are taken and locked while the script runs, so that jobs side
by side never share one. The script takes this process's place: signals reach it.
"""

from __future__ import annotations

import argparse
import os
import sys

from cardiform import cli, launching


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--gpus", type=int, default=1, help="GPUs of this job; 0: none (default: 1)"
    )
    parser.add_argument(
        "--nodes", type=int, default=1, help="nodes of this job, SLURM only (default: 1)"
    )
    parser.add_argument(
        "--minutes", type=float, default=0, help="time limit of this job under SLURM; 0: none"
    )
    parser.add_argument("--single", action="store_true", help="one process on any number of GPUs")
    parser.add_argument("script", help="script to start")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to the script")
    args = parser.parse_args()
    environment = dict(os.environ)
    if args.nodes > 1 and not launching.on_a_node_of_several(environment):
        command = launching.srun_command(args.nodes, [sys.executable, *sys.argv], environment)
    else:
        ranks = launching.take_gpus(args.gpus // args.nodes, environment)
        arguments = args.arguments
        if not args.single:
            arguments = launching.stop_in_time(arguments, args.minutes, environment)
        command = [sys.executable]
        command += [] if args.single else launching.torchrun_arguments(ranks, environment)
        command += [args.script, *arguments]
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":
    cli.run(main)
