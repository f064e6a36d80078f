"""From trainings and arms to steps: the commands, where their results lie, and what they need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sage_trl.ablation.arms import Arm, Training, recipe_words
from sage_trl.ablation.plan import Plan
from sage_trl.data.dataset import SCORES_FILE
from sage_trl.data.fact_sets import FACTS_FILE
from sage_trl.steps.runner import Step

# What tuning goes by.
VALIDATION_SPLIT = "validation"
VALIDATION_SETTING = "one_shot"


@dataclass(frozen=True)
class Commands:
    """Makes the steps of one ablation.

    Attributes:
        plan: the plan.
        output: where all results go, by seed.
        dataset: AD-PL directory with facts and, where needed, scores.
        needs: names of the steps that make the dataset; none if it is there.
        limit: groups of each split to evaluate; None for all.
        sbert: sentence-transformers model for the similarity to the best answers; None for none.
    """

    plan: Plan
    output: Path
    dataset: Path
    needs: tuple[str, ...] = ()
    limit: int | None = None
    sbert: str | None = None

    def train(self, training: Training, seed: int) -> list[Step]:
        """The steps that give the model of one training; none where a model takes its place."""
        if training.model is not None:
            return []
        name, made = _train_name(training, seed), self._trained(training, seed)
        start = () if training.start is None else ("--model", self.model(training.start, seed))
        # Named although they are the defaults: a step is known by the files in its command.
        files: tuple[str, ...] = ("--facts_file", str(self.facts(training)))
        files += ("--scores", str(self.dataset / SCORES_FILE)) if training.is_preference else ()
        common = ("--dataset", str(self.dataset), "--output_dir", str(made), "--seed", str(seed))
        arguments = ("train.py", str(training.recipe), *common, *start, *files, *recipe_words(training.values))
        before = () if training.start is None else _model_needs(training.start, seed)
        steps = [Step(name, arguments, made, resume=("--resume", "true"), needs=(*self.needs, *before))]
        if training.plain:
            plain = made.with_name(f"{made.name}-plain")
            export = ("merge.py", str(made), str(plain), "--plain")
            steps.append(Step(_plain_name(training, seed), export, plain, resume=None, needs=(name,)))
        return steps

    def measure(self, arm: Arm, training: Training, seed: int) -> Step:
        """Evaluate an arm on the plan's splits in the plan's settings."""
        where = ("--setting", *self.plan.settings, "--split", *self.plan.splits)
        control = {None: (), "no_facts": ("--no-facts",), "hard_facts": ("--facts-as-text",)}
        how = control.get(arm.control, ("--control", str(arm.control)))
        return self._evaluate(f"evaluate {arm.name}", training, seed, self.evaluation(arm, seed), (*where, *how))

    def validate(self, training: Training, seed: int) -> Step:
        """Evaluate one candidate on the validation split."""
        where = ("--setting", VALIDATION_SETTING, "--split", VALIDATION_SPLIT)
        return self._evaluate(f"validate {training.name}", training, seed, self.validation(training, seed), where)

    def model(self, training: Training, seed: int) -> str:
        """Directory or hub id of the model of one training."""
        if training.model is not None:
            return training.model
        made = self._trained(training, seed)
        return str(made.with_name(f"{made.name}-plain") if training.plain else made)

    def evaluation(self, arm: Arm, seed: int) -> Path:
        """Where `metrics.json` of an arm is."""
        return self._seed(seed) / "evaluation" / arm.name

    def validation(self, training: Training, seed: int) -> Path:
        """Where `metrics.json` of a candidate is."""
        return self._seed(seed) / "validation" / training.name

    def facts(self, training: Training) -> Path:
        """The facts that one training sees, and its evaluation."""
        if training.num_facts is None:
            return self.dataset / FACTS_FILE
        return self.output / "facts" / f"first-{training.num_facts}.jsonl"

    def _evaluate(self, name: str, training: Training, seed: int, output: Path, more: tuple[str, ...]) -> Step:
        what: tuple[str, ...] = ("--model", self.model(training, seed), "--dataset", str(self.dataset))
        what += ("--facts", str(self.facts(training)), "--output", str(output), "--judge", "rule")
        what += () if self.limit is None else ("--limit", str(self.limit))
        what += () if self.sbert is None else ("--sbert", self.sbert)
        needs = (*self.needs, *_model_needs(training, seed))
        return Step(f"seed {seed}: {name}", ("evaluate.py", *what, *more), needs=needs)

    def _trained(self, training: Training, seed: int) -> Path:
        return self._seed(seed) / "models" / training.name

    def _seed(self, seed: int) -> Path:
        return self.output / f"seed-{seed}"


def _model_needs(training: Training, seed: int) -> tuple[str, ...]:
    if training.model is not None:
        return ()
    return (_plain_name(training, seed) if training.plain else _train_name(training, seed),)


def _train_name(training: Training, seed: int) -> str:
    return f"seed {seed}: train {training.name}"


def _plain_name(training: Training, seed: int) -> str:
    return f"seed {seed}: leave the fusion out of {training.name}"
