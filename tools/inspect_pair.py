"""Look inside one case: what a model answers on one pair of images, and which patches its facts look at.

    python tools/inspect_pair.py --model runs/sfe --test board.png --reference good.png --facts data/ad_pl/facts.jsonl \
        --question "Is there a defect on this part?" --output overlay.png

The picture shows the test image with the patches most distinct from the reference, beside the reference.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sage_trl.command_line import positive_number, run_tool

if TYPE_CHECKING:
    from sage_trl.evaluation.inspection import PairInspection

QUESTION = "Is there a defect on this part?"
STRONGEST = 3


def main() -> int:
    """Parse, inspect, draw, print."""
    arguments = _parser().parse_args()
    # Imported only now: loading torch takes seconds, and --help or a mistyped option needs none of it.
    from sage_trl.evaluation.inspection import choose_facts, inspect_pair  # noqa: PLC0415
    from sage_trl.evaluation.overlay import check_overlay_path, draw_overlay  # noqa: PLC0415

    check_overlay_path(arguments.output)
    facts = choose_facts(arguments.facts, arguments.test)
    found = inspect_pair(
        arguments.model, arguments.test, arguments.reference, arguments.question, facts, arguments.max_new_tokens
    )
    draw_overlay(found.test, found.reference, found.evidence, arguments.output)
    if arguments.json:
        print(json.dumps(_as_json(arguments, found), indent=2, ensure_ascii=False))
    else:
        _print(arguments, found)
    return 0


def _as_json(arguments: argparse.Namespace, found: PairInspection) -> dict[str, object]:
    pairs = zip(arguments.question, found.answers, strict=True)
    answers = [{"question": question, "answer": answer} for question, answer in pairs]
    return {"answers": answers, **found.evidence.model_dump(mode="json"), "overlay": str(arguments.output)}


def _print(arguments: argparse.Namespace, found: PairInspection) -> None:
    console = Console()
    for question, answer in zip(arguments.question, found.answers, strict=True):
        console.print(f"[bold]{escape(question)}[/]\n{escape(answer)}\n", highlight=False, soft_wrap=True)
    if not found.evidence.selected:
        console.print(f"No reference, so no patch is selected: the facts attend to all {found.evidence.attended}.\n")
    else:
        patches = Table("patch", "similarity", "box", title="The patches most distinct from the reference")
        for number, patch in enumerate(found.evidence.patches, start=1):
            patches.add_row(f"#{number}", f"{patch.similarity:.4f}", " ".join(f"{side:.3f}" for side in patch.box))
        console.print(patches)
    facts = Table("fact", "attention", title=f"Where each fact looks: its {STRONGEST} strongest patches")
    for fact in found.evidence.facts:
        strongest = sorted(range(len(fact.attention)), key=lambda patch: -fact.attention[patch])[:STRONGEST]
        facts.add_row(escape(fact.text), ", ".join(f"#{patch + 1} {fact.attention[patch]:.1%}" for patch in strongest))
    console.print(facts)
    console.print(str(arguments.output), markup=False, highlight=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="DIR", help="a model that fuses facts, or an adapter")
    parser.add_argument("--test", type=Path, required=True, metavar="IMAGE", help="the part to inspect")
    parser.add_argument("--reference", type=Path, metavar="IMAGE", help="a good part; without it, zero-shot")
    parser.add_argument("--question", nargs="+", default=[QUESTION], metavar="TEXT", help=f"default: {QUESTION}")
    parser.add_argument(
        "--facts",
        nargs="+",
        default=[],
        metavar="TEXT",
        help="sentences, or one file: facts.jsonl, or a line each (.txt)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="IMAGE", help="the overlay, a .png")
    parser.add_argument(
        "--max-new-tokens", type=positive_number, default=48, metavar="N", help="per answer, default 48"
    )
    parser.add_argument("--json", action="store_true", help="print answers, patches and facts as JSON")
    return parser


if __name__ == "__main__":
    run_tool(main)
