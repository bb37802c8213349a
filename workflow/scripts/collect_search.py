"""Sum up a search: its best settings as a config file, a table, a picture.

    python collect_search.py --training vecset --space "lr=1e-4..1e-2/log,balanced=0.3..0.8" \\
        --rungs 500,1500 --rankings results/acme/search/vecset/rung_*/ranking.json \\
        --out results/acme/search/vecset

Writes best.yaml, trials.tsv (a row per trial, the best first), search.png and study.log, a storage
of optuna.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cardiform import cli
from cardiform.files import write_text
from cardiform.options.search import SearchOptions
from cardiform.search import rungs, space
from cardiform.tables import write_table

log = logging.getLogger("collect_search")


def main() -> None:
    parser = cli.build_parser(__doc__, SearchOptions)
    group = parser.add_argument_group("files")
    group.add_argument(
        "--rankings", required=True, nargs="+", help="ranking.json of each rung, in order"
    )
    group.add_argument("--out", required=True, type=Path, help="output folder")
    options, args = cli.parse(parser, SearchOptions)

    from cardiform.search.picture import plot_search
    from cardiform.search.results import best_of, best_yaml, history, table
    from cardiform.search.sampling import write_storage

    dimensions = space.parse_space(options)
    tried = history([rungs.trials_in([path]) for path in args.rankings])
    write_table(args.out / "trials.tsv", *table(tried, options))
    plot_search(args.out / "search.png", tried, dimensions, options)
    write_storage(args.out / "study.log", dimensions, options, tried)
    best = best_of(tried, args.rankings[-1])
    text = best_yaml(best, tried, options)
    write_text(args.out / "best.yaml", text)
    log.info("%s", text.rstrip())


if __name__ == "__main__":
    cli.run(main)
