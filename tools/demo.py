"""Run the whole method end to end on one source: data, facts, four models, preferences, evaluation, controls, report.

    python tools/demo.py
    python tools/demo.py --source deep_pcb --root path/to/deep_pcb

Every step is one command of the other tools, printed before it runs, so it can be copied and changed. Steps that do not
need each other run at once, where there are cores for it. A demo that was stopped goes on where it stopped; steps whose
command, recipe or code has changed, and all that need them, are done again.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sage_trl.command_line import positive_number, run_tool, seed_number
from sage_trl.evaluation.demo_summary import STAGES, SUMMARY_FILE, write_demo_summary
from sage_trl.evaluation.predictions import CONTROLS, SETTINGS
from sage_trl.evaluation.report import print_table
from sage_trl.steps.dataset import data_steps, score_step
from sage_trl.steps.log import sources_key
from sage_trl.steps.runner import Step, StepRunner, available_cores, environment_of_steps, minutes
from sage_trl.storage import read_json

REPOSITORY = Path(os.path.relpath(Path(__file__).resolve().parent.parent))
RECIPES = REPOSITORY / "recipes" / "demo"
CONTROLLED_STAGE = "sfe"
FIRST_STAGES = ("sft", "sfe")
REPORT_FILE = "report.html"
# On one core 750 answers of the tiny model took a quarter less time than in the tool's batches of 64.
BATCH_SIZE = 256
TEST_SPLITS = ("test", "unseen")


def main() -> int:
    """Run all steps, then show the summary; the exit code is that of the first step that fails."""
    arguments = _parser().parse_args()
    output = arguments.output or Path("runs", "demo" if arguments.source == "synthetic" else f"demo-{arguments.source}")
    start = time.monotonic()
    dataset, evaluation = output / "data", output / "evaluation"
    key = sources_key([REPOSITORY / "sage_trl", REPOSITORY / "tools"])
    jobs = arguments.jobs
    with StepRunner(output, REPOSITORY / "tools", key=key, replaces=True, quiet=arguments.quiet, jobs=jobs) as runner:
        settings = " ".join(f"{name}={value}" for name, value in environment_of_steps(jobs).items())
        runner.say(f"environment of all steps: {settings}")
        code = runner.run(data_steps(arguments.source, arguments.root, dataset, arguments.seed))
        if code:
            return code
        splits = [split for split in TEST_SPLITS if split in read_json(dataset / "dataset.json")["splits"]]
        recipes = RECIPES / arguments.source if (RECIPES / arguments.source).is_dir() else RECIPES
        training = training_steps(recipes, dataset, output, arguments.seed)
        *first, last = evaluation_steps(dataset, output, evaluation, splits)
        # A core that falls free measures before it trains more: these wait for each other, and would be left over.
        code = runner.run([*first, *training, last])
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
        total = minutes(time.monotonic() - start)
        runner.say(f"total {total}; results in {output}, figures in {output / SUMMARY_FILE}")
        runner.say(f"open in a browser: {report}")
    return 0


def training_steps(recipes: Path, dataset: Path, output: Path, seed: int) -> list[Step]:
    """Train the four models; the preference stages start from SFE and from the judge's scores."""

    def train(stage: str, needs: Sequence[str], *more: str) -> Step:
        common = ("--dataset", str(dataset), "--output_dir", str(output / stage), "--seed", str(seed))
        command = ("train.py", str(recipes / f"{stage}.yaml"), *common, *more)
        resume = ("--resume", "true")
        return Step(_training_of(stage), command, produces=output / stage, resume=resume, needs=tuple(needs))

    data = [step.name for step in data_steps("", None, dataset, seed)]
    score = replace(score_step(dataset), needs=tuple(data))
    scored = [_training_of("sfe"), score.name]
    second_stage = [train(stage, scored, "--model", str(output / "sfe")) for stage in ("dpo", "edpo")]
    # All else waits for SFE, so SFE comes first.
    return [train("sfe", data), score, train("sft", data), *second_stage]


def evaluation_steps(dataset: Path, output: Path, evaluation: Path, splits: Sequence[str]) -> list[Step]:
    """Evaluate the controls, one-shot, on one stage, then the first stages and all stages in both settings.

    They go one after the other, because all write into one directory, but beside the trainings that still run.
    """

    def command(stages: Sequence[str], settings: Sequence[str], *more: str) -> tuple[str, ...]:
        models = [str(output / stage) for stage in stages]
        to = ("--output", str(evaluation), "--judge", "rule", "--batch-size", str(BATCH_SIZE))
        selected = ("--setting", *settings, "--split", *splits)
        return ("evaluate.py", "--model", *models, "--dataset", str(dataset), *selected, *to, *more)

    controlled = command([CONTROLLED_STAGE], ["one_shot"], "--control", *CONTROLS)
    controls = Step("evaluate the controls", controlled, evaluation, needs=(_training_of(CONTROLLED_STAGE),))
    without = command([CONTROLLED_STAGE], ["one_shot"], "--no-facts")
    without_facts = Step("evaluate without facts", without, needs=(controls.name,))
    # What is answered here is not asked again below, where all stages are compared.
    first = command(FIRST_STAGES, SETTINGS, "--evidence")
    first_stages = Step(
        "evaluate the first stages", first, needs=(without_facts.name, *map(_training_of, FIRST_STAGES))
    )
    everything = Step("evaluate all stages", command(STAGES, SETTINGS, "--evidence"))
    return [controls, without_facts, first_stages, everything]


def _training_of(stage: str) -> str:
    return f"train {stage}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="synthetic", metavar="NAME", help="as build_dataset.py takes it")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where the source's images are")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: runs/demo, or runs/demo-SOURCE")
    parser.add_argument("--seed", type=seed_number, default=0, help="of the data and of all trainings, default 0")
    parser.add_argument(
        "--jobs",
        type=positive_number,
        default=min(2, available_cores()),
        metavar="N",
        help="steps that run at once and share the cores, default %(default)s",
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")
    return parser


if __name__ == "__main__":
    run_tool(main)
