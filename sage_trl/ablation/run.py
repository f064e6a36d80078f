"""Runs a plan: data, trainings, choices on validation data, evaluations and the table, each once, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sage_trl.ablation.arms import Arm, Changes, build_arms, trainings_of
from sage_trl.ablation.choosing import Choice, can_choose, choose, needs_choice
from sage_trl.ablation.commands import VALIDATION_SPLIT, Commands
from sage_trl.ablation.first_facts import write_first_facts
from sage_trl.ablation.plan import Plan, read_plan
from sage_trl.ablation.table import TABLE_FILE, write_table
from sage_trl.data.dataset import INFO_FILE, SCORES_FILE, read_info
from sage_trl.data.fact_sets import FACTS_FILE
from sage_trl.errors import DataError
from sage_trl.steps.dataset import data_steps, score_step
from sage_trl.steps.runner import Step, StepRunner
from sage_trl.storage import file_sha256

OWN_DATA = "data"


@dataclass(frozen=True)
class AblationOptions:
    """What `tools/ablate.py` takes.

    Attributes:
        plan: the plan file.
        output: where everything goes.
        tools: the directory of the tools.
        dataset: AD-PL directory; None to make one from `source`, below `output`.
        source, root: as `tools/build_dataset.py` takes them.
        seeds: of the trainings; the first also decides what tuning chooses.
        changes: what the command line changes of the plan.
        limit: groups of each split to evaluate; None for all.
        sbert: sentence-transformers model for the similarity to the best answers.
    """

    plan: Path
    output: Path
    tools: Path
    dataset: Path | None = None
    source: str = "synthetic"
    root: Path | None = None
    seeds: Sequence[int] = (0,)
    changes: Changes = field(default_factory=Changes)
    limit: int | None = None
    sbert: str | None = None
    quiet: bool = False


class Ablation:
    """One plan on one dataset.

    Raises:
        SageError: the plan, a recipe or the dataset cannot be used; nothing was run.
    """

    def __init__(self, options: AblationOptions) -> None:
        self._options = options
        self.plan: Plan = read_plan(options.plan)
        self.arms: list[Arm] = build_arms(self.plan, options.plan.parent, options.changes)
        self._candidates = [training for arm in self.arms for training in arm.candidates]
        self._own_data = self._data_steps()
        self._check_dataset()
        self.commands = Commands(
            plan=self.plan,
            output=options.output,
            dataset=options.dataset or options.output / OWN_DATA,
            needs=tuple(step.name for step in self._own_data),
            limit=options.limit,
            sbert=options.sbert,
        )

    def run(self) -> int:
        """Run what is not done yet and write the table after each seed.

        Returns:
            The exit code of the first step that fails, or 0.
        """
        seeds = self._options.seeds
        with self._runner() as runner:
            code = runner.run(self._own_data)
            if code:
                return code
            self._write_facts()
            for done, seed in enumerate(seeds, start=1):
                runner.say(f"\n==== seed {seed}, {done} of {len(seeds)}")
                code = runner.run(self._preparing(seed)) or runner.run(self._measuring(seed))
                if code:
                    return code
                write_table(self.plan, self._choices(), self.commands, seeds[:done])
            runner.say(f"\n{self._options.output / TABLE_FILE}")
        return 0

    def show(self) -> None:
        """Print every step's command and how far it is, and run nothing."""
        runner = self._runner()
        steps = list(self._own_data)
        for seed in self._options.seeds:
            steps += self._preparing(seed) + self._measuring(seed)
        for step in steps:
            runner.say(f"== {step.name}: {runner.state(step)}\n$ {runner.command(step)}")
        waiting = len(self.arms) - len(self._choices())
        runner.say(
            f"{len(steps)} steps" + (f"; {waiting} arms wait for their choice on validation data" if waiting else "")
        )

    def _preparing(self, seed: int) -> list[Step]:
        """Trainings, and at the first seed the evaluations that the choices go by."""
        first = self._options.seeds[0]
        last = self._candidates if seed == first else [choice.training for choice in self._choices().values()]
        steps = [step for training in trainings_of(last) for step in self.commands.train(training, seed)]
        if seed == first:
            tuned = {one.name: one for arm in self.arms if needs_choice(arm) for one in arm.candidates}
            steps += [self.commands.validate(training, seed) for training in tuned.values()]
        return steps

    def _measuring(self, seed: int) -> list[Step]:
        return [self.commands.measure(arm, choice.training, seed) for arm, choice in self._choices().items()]

    def _choices(self) -> dict[Arm, Choice]:
        """The arms that have been decided, in the plan's order."""
        first = self._options.seeds[0]
        decided = [arm for arm in self.arms if can_choose(arm, self.commands, first)]
        return {arm: choose(arm, self.commands, first) for arm in decided}

    def _data_steps(self) -> list[Step]:
        options = self._options
        if options.dataset is not None:
            return []
        steps = data_steps(options.source, options.root, options.output / OWN_DATA, seed=0)
        return [*steps, score_step(options.output / OWN_DATA)] if self._needs_scores() else steps

    def _needs_scores(self) -> bool:
        return any(training.is_preference for training in trainings_of(self._candidates))

    def _check_dataset(self) -> None:
        """Refuse a user's dataset that lacks what some step will need."""
        dataset = self._options.dataset
        if dataset is None:
            return
        splits = {*self.plan.splits, *([VALIDATION_SPLIT] if any(map(needs_choice, self.arms)) else ())}
        missing = sorted(splits - set(read_info(dataset).splits))
        if missing:
            problem = f"no split {missing[0]!r}, which the plan evaluates on"
            raise DataError.at(dataset / INFO_FILE, None, problem, "mend the plan's splits, or use another dataset")
        makers = {FACTS_FILE: "tools/generate_facts.py --model MODEL"}
        makers |= {SCORES_FILE: "tools/score_mle.py --judge rule"} if self._needs_scores() else {}
        for name, command in makers.items():
            if not (dataset / name).is_file():
                raise DataError.at(dataset / name, None, "no such file", f"run {command} --dataset {dataset} first")

    def _write_facts(self) -> None:
        files = {one.num_facts: self.commands.facts(one) for one in trainings_of(self._candidates)}
        for count, path in files.items():
            if count is not None:
                write_first_facts(self.commands.dataset / FACTS_FILE, count, path)

    def _runner(self) -> StepRunner:
        options = self._options
        key = "" if options.dataset is None else file_sha256(options.dataset / INFO_FILE)
        return StepRunner(options.output, options.tools, key=key, replaces=False, quiet=options.quiet)
