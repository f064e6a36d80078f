"""Run the whole method end to end on one source: data, facts, four models, preferences, evaluation, controls, report.

    python tools/demo.py
    python tools/demo.py --source deep_pcb --root path/to/deep_pcb

Every step is one command of the other tools, printed before it runs, so it can be copied and changed. A demo that was
stopped goes on where it stopped; steps whose command, recipe or code has changed, and all after them, are done again.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sage_trl.command_line import run_tool, seed_number
from sage_trl.evaluation.demo_steps import StepLog, sources_key, step_key
from sage_trl.evaluation.demo_summary import STAGES, SUMMARY_FILE, write_demo_summary
from sage_trl.evaluation.predictions import CONTROLS, SETTINGS
from sage_trl.evaluation.report import print_table
from sage_trl.storage import read_json

REPOSITORY = Path(os.path.relpath(Path(__file__).resolve().parent.parent))
RECIPES = REPOSITORY / "recipes" / "demo"
CONTROLLED_STAGE = "sfe"
REPORT_FILE = "report.html"
TEST_SPLITS = ("test", "unseen")
# What a source needs so that the tiny model learns from it in minutes; without an entry, the builder's defaults.
# Crops of 64 px are 16 tokens each: on crops of 128 px a step takes two to three times as long.
BUILD_OPTIONS: dict[str, tuple[str, ...]] = {
    "deep_pcb": ("--image-size", "64", "--crops-per-defect", "4", "--groups", "validation=200", "test=200"),
}
# Threads that wait by spinning made a step 30 times slower when another process had one of the two cores.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Step:
    """One command of the demo.

    `arguments` begin with the tool's file. `produces` is the directory that the step fills alone; `resume` is what to
    add to the command if it was stopped half way.
    """

    name: str
    arguments: tuple[str, ...]
    produces: Path | None = None
    resume: tuple[str, ...] = ()


def main() -> int:
    """Run all steps, then show the summary; the exit code is that of the first step that fails."""
    arguments = _parser().parse_args()
    output = arguments.output or Path("runs", "demo" if arguments.source == "synthetic" else f"demo-{arguments.source}")
    start = time.monotonic()
    runner = StepRunner(output, quiet=arguments.quiet)
    runner.say("environment of all steps: " + " ".join(f"{name}={value}" for name, value in _environment().items()))
    dataset, evaluation = output / "data", output / "evaluation"
    code = runner.run(data_steps(arguments.source, arguments.root, dataset, arguments.seed))
    if code:
        return code
    splits = [split for split in TEST_SPLITS if split in read_json(dataset / "dataset.json")["splits"]]
    recipes = RECIPES / arguments.source if (RECIPES / arguments.source).is_dir() else RECIPES
    code = runner.run(
        training_steps(recipes, dataset, output, arguments.seed) + evaluation_steps(dataset, output, evaluation, splits)
    )
    if code:
        return code
    controls = [(CONTROLLED_STAGE, control) for control in (*CONTROLS, "no_facts")]
    table = write_demo_summary(output, evaluation, splits, controls, title=f"{arguments.source}, held-out groups")
    if not arguments.quiet:
        print_table(table)
    report = output / REPORT_FILE
    code = runner.run([Step("write the report", ("report.py", str(output), "--output", str(report)))])
    if code:
        return code
    runner.say(f"total {_minutes(time.monotonic() - start)}; results in {output}, figures in {output / SUMMARY_FILE}")
    runner.say(f"open in a browser: {report}")
    return 0


def data_steps(source: str, root: Path | None, dataset: Path, seed: int) -> list[Step]:
    """Build the dataset and write its facts."""
    where = () if root is None else ("--root", str(root))
    to = ("--output", str(dataset), "--seed", str(seed))
    build = ("build_dataset.py", "--source", source, *where, *BUILD_OPTIONS.get(source, ()), *to)
    return [
        Step("build the dataset", build, produces=dataset, resume=("--force",)),
        Step("write the facts", ("generate_facts.py", "--dataset", str(dataset), "--model", "template")),
    ]


def training_steps(recipes: Path, dataset: Path, output: Path, seed: int) -> list[Step]:
    """Train the four models; the preference stages start from SFE and from the judge's scores."""

    def train(stage: str, *more: str) -> Step:
        common = ("--dataset", str(dataset), "--output_dir", str(output / stage), "--seed", str(seed))
        command = ("train.py", str(recipes / f"{stage}.yaml"), *common, *more)
        return Step(f"train {stage}", command, produces=output / stage, resume=("--resume", "true"))

    first_stage = ("--model", str(output / "sfe"))
    score = Step("score the ranked answers", ("score_mle.py", "--dataset", str(dataset), "--judge", "rule"))
    return [train("sft"), train("sfe"), score, train("dpo", *first_stage), train("edpo", *first_stage)]


def evaluation_steps(dataset: Path, output: Path, evaluation: Path, splits: Sequence[str]) -> list[Step]:
    """Evaluate all stages in both settings, then the controls, one-shot, on one of them."""

    def command(stages: Sequence[str], settings: Sequence[str], *more: str) -> tuple[str, ...]:
        models = [str(output / stage) for stage in stages]
        to = ("--output", str(evaluation), "--judge", "rule")
        selected = ("--setting", *settings, "--split", *splits)
        return ("evaluate.py", "--model", *models, "--dataset", str(dataset), *selected, *to, *more)

    controlled = [CONTROLLED_STAGE]
    return [
        Step("evaluate all stages", command(STAGES, SETTINGS), produces=evaluation),
        Step("evaluate the controls", command(controlled, ["one_shot"], "--control", *CONTROLS)),
        Step("evaluate without facts", command(controlled, ["one_shot"], "--no-facts")),
    ]


class StepRunner:
    """Runs the steps that are not done yet, one after the other."""

    def __init__(self, output: Path, quiet: bool = False) -> None:
        self._quiet = quiet
        self._log = StepLog(output / "steps.json")
        self._key = sources_key([REPOSITORY / "sage_trl", REPOSITORY / "tools"])

    def say(self, text: str) -> None:
        """Print at once, unless quiet."""
        if not self._quiet:
            print(text, flush=True)

    def run(self, steps: Sequence[Step]) -> int:
        """Run the steps up to the first that fails; returns its exit code, or 0."""
        for step in steps:
            arguments = (str(REPOSITORY / "tools" / step.arguments[0]), *step.arguments[1:])
            self._key = step_key(arguments, self._key)
            state = self._log.state(step.name, self._key)
            if state == "done":
                self.say(f"== {step.name}: done before")
                continue
            code = self._run_step(step, arguments + (step.resume if state == "stopped" else ()), state == "new")
            if code:
                print(f"error: step {step.name!r} failed with exit code {code}", file=sys.stderr)
                return code
        return 0

    def _run_step(self, step: Step, arguments: Sequence[str], is_new: bool) -> int:
        # Only what an earlier demo has made is removed; anything else there is for the tool to refuse.
        if is_new and step.produces is not None and step.produces.exists() and self._log.is_known(step.name):
            self.say(f"\n== {step.name}: removing {step.produces}, made by an earlier demo")
            shutil.rmtree(step.produces)
        self._log.note(step.name, self._key, None)
        # Not through `accelerate launch`, which turns every failure of the tool into exit code 1.
        command = [os.path.relpath(sys.executable), *arguments, *(["--quiet"] if self._quiet else [])]
        self.say(f"\n== {step.name}\n$ {shlex.join(command)}")
        start = time.monotonic()
        code = _run(command)
        seconds = time.monotonic() - start
        self.say(f"== {step.name}: {_minutes(seconds)}")
        if code == 0:
            self._log.note(step.name, self._key, seconds)
        return code


def _run(command: Sequence[str]) -> int:
    with subprocess.Popen(command, env={**os.environ, **_environment()}) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            # The terminal has sent the interrupt to the step as well: it is saving what it has.
            process.wait()
            raise
        except BaseException:
            process.terminate()
            raise
    return code if code >= 0 else 128 - code


def _environment() -> dict[str, str]:
    return {name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()}


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="synthetic", metavar="NAME", help="as build_dataset.py takes it")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where the source's images are")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: runs/demo, or runs/demo-SOURCE")
    parser.add_argument("--seed", type=seed_number, default=0, help="of the data and of all trainings, default 0")
    parser.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")
    return parser


if __name__ == "__main__":
    run_tool(main)
