"""Run the arms of a plan, several seeds of each, and make their table: recipes/ablations/ holds the paper's.

    python tools/ablate.py recipes/ablations/table3.yaml --seeds 0 1 2 --output runs/table3
    python tools/ablate.py recipes/ablations/table3.yaml --dataset data/ad_pl --recipes recipes \
        --trained base=OpenGVLab/InternVL3-1B-hf --output runs/table3

Without --dataset it makes one, as the demo does. Every step is one command of the other tools, printed before it runs.
A run that was stopped goes on where it stopped when the same command is given again; more seeds add to it.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

from sage_trl.command_line import positive_number, run_tool, seed_number

TOOLS = Path(os.path.relpath(Path(__file__).resolve().parent))


def main() -> int:
    """Parse, run or show."""
    arguments = _parser().parse_args()
    # Imported only now: loading torch takes seconds, and --help or a mistyped option needs none of it.
    from sage_trl.ablation.arms import parse_changes  # noqa: PLC0415
    from sage_trl.ablation.run import Ablation, AblationOptions  # noqa: PLC0415

    # TRL's configurations set it by its old name, about which a user can do nothing.
    warnings.filterwarnings("ignore", "`gradient_checkpointing` is deprecated", FutureWarning)
    ablation = Ablation(
        AblationOptions(
            plan=arguments.plan,
            output=arguments.output,
            tools=TOOLS,
            dataset=arguments.dataset,
            source=arguments.source,
            root=arguments.root,
            seeds=tuple(dict.fromkeys(arguments.seeds)),
            changes=parse_changes(arguments.recipes, arguments.trained, arguments.set),
            limit=arguments.limit,
            sbert=arguments.sbert,
            quiet=arguments.quiet,
        )
    )
    if arguments.dry_run:
        ablation.show()
        return 0
    return ablation.run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="plan file, for example recipes/ablations/table3.yaml")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="table.json, table.md and all runs")
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--dataset", type=Path, metavar="DIR", help="AD-PL directory with facts and scores")
    data.add_argument("--source", default="synthetic", metavar="NAME", help="make a dataset of it (synthetic)")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where the images of --source are")
    parser.add_argument("--seeds", type=seed_number, nargs="+", default=[0], metavar="N", help="of the trainings (0)")
    parser.add_argument("--recipes", type=Path, metavar="DIR", help="recipes in place of the plan's, such as recipes")
    parser.add_argument(
        "--trained", nargs="+", default=[], metavar="STAGE=MODEL", help="take a model in the place of a training"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="[STAGE.]KEY=VALUE", help="recipe keys, of all stages or of one"
    )
    parser.add_argument(
        "--limit", type=positive_number, metavar="GROUPS", help="evaluate on the first so many groups of each split"
    )
    parser.add_argument(
        "--sbert", metavar="MODEL", help="similarity to the best answers, as tools/evaluate.py takes it"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the commands and what is done, and run nothing")
    parser.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")
    return parser


if __name__ == "__main__":
    run_tool(main)
