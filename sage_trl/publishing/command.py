"""Publish a trained run on the Hugging Face Hub, as a private repository unless --public is given.

    python tools/publish.py runs/edpo --repo-id me/sage-internvl3-1b --metrics runs/evaluation/metrics.json

The token comes from HF_TOKEN or `hf auth login`. Only what differs from the repository is sent, in one commit, so the
same command may be given again at any time.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console

from sage_trl.command_line import run_tool


def main() -> int:
    """Parse, publish or show, say what was done."""
    arguments = _parser().parse_args()
    # Plain HTTPS: the library's Xet transport retries for minutes on its own and hides the status of a refusal. It is
    # read when the library is imported, and HF_HUB_DISABLE_XET=0 brings Xet back.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # noqa: PLC0415
    from huggingface_hub.utils.logging import set_verbosity_error  # noqa: PLC0415

    from sage_trl.publishing.publication import PublishOptions, prepared, publish  # noqa: PLC0415
    from sage_trl.publishing.showing import show_plan, show_upload  # noqa: PLC0415

    if arguments.quiet or not sys.stderr.isatty():
        disable_progress_bars()
    if arguments.quiet:
        set_verbosity_error()  # type: ignore[no-untyped-call]
    console = Console(quiet=arguments.quiet, highlight=False, soft_wrap=True)
    options = PublishOptions(
        run=arguments.run,
        repo_id=arguments.repo_id,
        public=arguments.public,
        merged=arguments.merged,
        metrics=arguments.metrics,
        base_model=arguments.base_model,
        base_revision=arguments.base_revision,
        licence=arguments.license,
        message=arguments.message,
        timeout=arguments.timeout,
    )
    if arguments.dry_run:
        with prepared(options, options.repo_id) as publication:
            show_plan(publication, options, console)
            console.print(publication.card, markup=False)
        return 0
    show_upload(publish(options, lambda publication: show_plan(publication, options, console)), console)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="publish.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="output_dir of a finished run, or one of its checkpoints")
    parser.add_argument("--repo-id", required=True, metavar="NAME", help="NAME or OWNER/NAME on the hub")
    parser.add_argument("--public", action="store_true", help="create it public, or accept that it is")
    parser.add_argument("--merged", action="store_true", help="merge an adapter into its base and publish the whole")
    parser.add_argument("--dry-run", action="store_true", help="show the file list and the card; contact nobody")
    parser.add_argument(
        "--metrics", type=Path, metavar="FILE", help="metrics.json for the card; by default the one in RUN, if any"
    )
    parser.add_argument("--base-model", metavar="HUB_ID", help="name this base model in the published copy")
    parser.add_argument("--base-revision", metavar="COMMIT", help="its commit, with --base-model")
    parser.add_argument("--license", metavar="ID", help="licence of the weights as the hub writes it: apache-2.0, ...")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")
    parser.add_argument(
        "--timeout", type=_seconds, default=120.0, metavar="SECONDS", help="how long the hub may stay silent (120)"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


if __name__ == "__main__":
    run_tool(main)
