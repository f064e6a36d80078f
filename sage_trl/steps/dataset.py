"""The steps that make a dataset on which the tiny model learns in minutes."""

from __future__ import annotations

from pathlib import Path

from sage_trl.steps.runner import Step

# What a source needs so that the tiny model learns from it in minutes; without an entry, the builder's defaults.
# Crops of 64 px are 16 tokens each: on crops of 128 px a step takes two to three times as long.
BUILD_OPTIONS: dict[str, tuple[str, ...]] = {
    "deep_pcb": ("--image-size", "64", "--crops-per-defect", "4", "--groups", "validation=200", "test=200"),
}


def data_steps(source: str, root: Path | None, dataset: Path, seed: int) -> list[Step]:
    """Build the dataset and write its facts."""
    where = () if root is None else ("--root", str(root))
    to = ("--output", str(dataset), "--seed", str(seed))
    build = ("build_dataset.py", "--source", source, *where, *BUILD_OPTIONS.get(source, ()), *to)
    return [
        Step("build the dataset", build, produces=dataset, resume=("--force",)),
        Step("write the facts", ("generate_facts.py", "--dataset", str(dataset), "--model", "template")),
    ]


def score_step(dataset: Path) -> Step:
    """Score the ranked answers by the rule judge."""
    return Step("score the ranked answers", ("score_mle.py", "--dataset", str(dataset), "--judge", "rule"))
