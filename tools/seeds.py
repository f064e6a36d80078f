"""Sum up evaluations of models that were trained from several seeds: the mean, every seed, and the interval.

    python tools/seeds.py runs/seed0/evaluation runs/seed1/evaluation runs/seed2/evaluation

All of them must have asked the same models the same questions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sage_trl.command_line import run_tool


def main() -> int:
    """Parse, collect, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="DIR", help="outputs of tools/evaluate.py, one per seed")
    arguments = parser.parse_args()
    # Imported only now, so that --help need not wait for it.
    from sage_trl.evaluation.report import print_table  # noqa: PLC0415
    from sage_trl.evaluation.seeds import collect_seeds, seeds_table  # noqa: PLC0415

    print_table(seeds_table(collect_seeds(arguments.runs)))
    return 0


if __name__ == "__main__":
    run_tool(main)
