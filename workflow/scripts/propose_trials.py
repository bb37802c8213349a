"""Propose the settings of a search's trials, as a seeded sampler draws them.

    python propose_trials.py --training vecset --space "lr=1e-4..1e-2/log,balanced=0.3..0.8" \\
        --given vecset.lr=1e-4 vecset.balanced=0.5 --round 0 \\
        --out results/acme/search/vecset/round_0/trials.json

Writes the trials of a round to --out, in order: number and options of each. The first of all has
the values of --given. Later rounds (--round 1) learn from the figures of those before.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cardiform import cli
from cardiform.options.search import SearchOptions
from cardiform.search import rungs, space

log = logging.getLogger("propose_trials")


def main() -> None:
    parser = cli.build_parser(__doc__, SearchOptions)
    group = parser.add_argument_group("files")
    group.add_argument("--round", type=int, default=0, help="which round (default: 0)")
    group.add_argument(
        "--given", nargs="+", required=True, metavar="KEY=VALUE", help="values of the config"
    )
    group.add_argument("--tables", nargs="*", default=[], help="files of the rounds before")
    group.add_argument("--metrics", nargs="*", default=[], help="metrics.json of their trials")
    group.add_argument("--out", required=True, type=Path, help="JSON file to write")
    options, args = cli.parse(parser, SearchOptions, out_is_file=True)

    from cardiform.search.results import ranked
    from cardiform.search.sampling import proposed

    dimensions = space.parse_space(options)
    told = []
    if args.metrics:
        earlier = rungs.trials_in(args.tables)
        metrics = [Path(path) for path in args.metrics]
        told = ranked(earlier, metrics, options, options.rungs[0])
    given = space.given_values(dimensions, args.given)
    trials = proposed(dimensions, options, args.round, given, told)
    rungs.write_trials(args.out, options.training, trials)
    log.info("round %d: %d trials of %s", args.round, len(trials), options.training)


if __name__ == "__main__":
    cli.run(main)
