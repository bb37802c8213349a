"""Rank the trials of a rung by a validation figure: the first ones are in the next rung.

    python rank_trials.py --training vecset --figure dice --goal highest \\
        --tables results/acme/search/vecset/round_0/trials.json \\
        --metrics results/acme/search/vecset/rung_0/place_*/vecset/metrics.json \\
        --out results/acme/search/vecset/rung_0/ranking.json

Writes the trials to --out, the best first, with their figures; those that diverged come last.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cardiform import cli
from cardiform.options.search import SearchOptions
from cardiform.search import rungs

log = logging.getLogger("rank_trials")


def main() -> None:
    parser = cli.build_parser(__doc__, SearchOptions)
    group = parser.add_argument_group("files")
    group.add_argument(
        "--tables", required=True, nargs="+", help="the rung's trials: proposed, or ranked before"
    )
    group.add_argument(
        "--metrics", required=True, nargs="+", help="metrics.json of each of its places, in order"
    )
    group.add_argument("--out", required=True, type=Path, help="JSON file to write")
    options, args = cli.parse(parser, SearchOptions, out_is_file=True)

    from cardiform.search.results import ranked

    steps = rungs.steps_of(options, len(args.metrics))
    trials = rungs.trials_in(args.tables)[: len(args.metrics)]
    rows = ranked(trials, [Path(path) for path in args.metrics], options, steps)
    rungs.write_trials(args.out, options.training, rows)
    for row in rows:
        log.info("trial %d: %s %s", row["trial"], options.figure, row.get("figure", "diverged"))


if __name__ == "__main__":
    cli.run(main)
