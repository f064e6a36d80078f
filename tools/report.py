"""One HTML file that shows what was measured: tables, charts, and a gallery of every question and reply.

    python tools/report.py runs/evaluation runs/sfe runs/edpo --output runs/report.html
    python tools/report.py runs/demo --output runs/demo/report.html

RUN is an output directory of tools/evaluate.py or of tools/train.py, or a folder that holds some. The file holds its
images, works offline, and asks no other address for anything.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sage_trl.command_line import positive_number, run_tool


def main() -> int:
    """Write the report and print what was recognised and where the report is."""
    arguments = _parser().parse_args()
    from sage_trl.reporting.writing import ReportOptions, write_report  # noqa: PLC0415  matplotlib: not for --help

    options = ReportOptions(
        runs=tuple(arguments.runs),
        output=arguments.output,
        dataset=arguments.dataset,
        gallery=arguments.gallery,
        image_size=arguments.image_size,
        quiet=arguments.quiet,
    )
    recognised = write_report(options)
    if not arguments.quiet:
        for kind, what in recognised:
            print(f"{kind}: {what}")
        print(arguments.output)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="directories of evaluations and trainings")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the HTML file")
    parser.add_argument(
        "--dataset", type=Path, metavar="DIR", help="AD-PL directory; default: what the evaluation says"
    )
    parser.add_argument(
        "--gallery", type=positive_number, default=1000, metavar="N", help="at most so many image pairs, default 1000"
    )
    parser.add_argument(
        "--image-size", type=positive_number, default=320, metavar="PX", help="longest side of an image, default 320"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, print nothing")
    return parser


if __name__ == "__main__":
    run_tool(main)
