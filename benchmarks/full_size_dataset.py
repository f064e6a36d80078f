"""Build, check, load and read a dataset of AD-PL's size (paper section 4): python benchmarks/full_size_dataset.py.

Each stage is a process of its own; the table gives its minutes, the minutes that cores were busy, and its peak resident
memory, for a part of the dataset and for the whole, so that growth shows. All but the check import torch, which is
0.4 GiB of each peak.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

REPOSITORY = Path(__file__).resolve().parents[1]
STAGES = ("build", "facts", "check", "load", "epoch")
STAGE = """
import sys
from pathlib import Path
from benchmarks import dataset_stages as stages
stage, directory, share, size = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
if stage == "build":
    stages.build(directory, share, size)
else:
    {"facts": stages.write_facts, "load": stages.load, "epoch": stages.epoch}[stage](directory)
"""


def measure(stage: str, directory: Path, share: float, size: int) -> tuple[float, float, float]:
    """Minutes, core-minutes and peak GiB of a stage in a process of its own.

    Raises:
        SystemExit: the stage failed.
    """
    command = [sys.executable, "-c", STAGE, stage, str(directory), str(share), str(size)]
    if stage == "check":
        command = [sys.executable, str(REPOSITORY / "tools" / "check.py"), str(directory), "--quiet"]
    start = time.perf_counter()
    child = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)})
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{stage} failed")
    minutes = (time.perf_counter() - start) / 60
    return minutes, (usage.ru_utime + usage.ru_stime) / 60, usage.ru_maxrss / 2**20


def main() -> None:
    """Measure all stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, nargs="+", default=[0.25, 1.0], help="of AD-PL's size")
    parser.add_argument("--size", type=int, default=1024, help="width and height of the images in pixels")
    arguments = parser.parse_args()
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{os.cpu_count()} CPU cores; images of {arguments.size} x {arguments.size} pixels")
    console.print("| share | stage | minutes | core-minutes | peak GiB |\n|---|---|---|---|---|")
    for share in arguments.share:
        with tempfile.TemporaryDirectory() as place:
            for stage in STAGES:
                minutes, busy, peak = measure(stage, Path(place) / "ad_pl", share, arguments.size)
                console.print(f"| {share:g} | {stage} | {minutes:.2f} | {busy:.2f} | {peak:.2f} |")


if __name__ == "__main__":
    main()
