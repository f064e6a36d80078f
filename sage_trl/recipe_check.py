"""Finds all that would stop a training, or spoil it, before it starts: recipe, data, model, memory, disk, hub."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub import HfApi, get_token
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HfHubHTTPError
from transformers.utils import cached_file

from sage_trl.data.checks.findings import Finding, Report, error, from_exception, in_order, show
from sage_trl.data.checks.pictures import Progress
from sage_trl.data.dataset import SCORES_FILE, read_ad_pl
from sage_trl.data.rows import PairCounts
from sage_trl.data.validation import examine_dataset
from sage_trl.errors import DataError, RecipeError, SageError
from sage_trl.model_building import build_model, facts_path
from sage_trl.models.adapters import is_adapted, unwrapped
from sage_trl.models.encoding import refuse_placeholders
from sage_trl.planning.longest_rows import row_lengths
from sage_trl.planning.memory import OVERRIDES, MemoryPlan, plan_memory
from sage_trl.publishing.hub_errors import explained
from sage_trl.recipe import TINY_MODEL, Recipe, load_recipe
from sage_trl.resuming import find_checkpoint
from sage_trl.trainer.collators import EntropyDPOCollator, FactCollator, SFECollator
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig
from sage_trl.trainer.fact_trainer import collator_options, keep_images_encoded
from sage_trl.training import load_rows

_WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
_SECONDS = 10.0


@dataclass
class _Check:
    """What has been found so far."""

    path: Path
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, key: str, value: Any, problem: str, remedy: str) -> None:
        """A fault of one recipe key."""
        line = self._line_of(key)
        self.findings.append(error(kind, self.path, problem, remedy, line=line, field=key, value=value))

    def add_exception(self, kind: str, fault: SageError, key: str | None = None, value: Any = None) -> None:
        """A fault that a step of the training would end with."""
        found = from_exception(kind, fault, self.path)
        if key is not None:
            line = self._line_of(key)
            found = dataclasses.replace(found, path=str(self.path), line=line, field=key, value=show(value))
        self.findings.append(found)

    def _line_of(self, key: str) -> int | None:
        """Where the recipe sets a key; None if a default or the command line does."""
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((number for number, line in enumerate(lines, 1) if line.startswith(f"{key}:")), None)

    def report(self) -> Report:
        return Report(str(self.path), in_order(self.findings), self.counts)


def check_recipe(path: Path, overrides: Sequence[str], progress: Progress) -> Report:
    """Every fault of a recipe, of its dataset, and of the machine it would train on. Nothing is written.

    The plan runs one step on tensors without memory, and reads no weights. What cannot be looked at because of an
    earlier fault is not reported; all that can be, is.

    Args:
        path: the recipe.
        overrides: as for training.
        progress: as for `examine_dataset`.
    """
    check = _Check(path)
    try:
        recipe = load_recipe(path, [*overrides, *OVERRIDES])
    except RecipeError as fault:
        for message in re.split(r"\n(?! )", str(fault)):
            named = re.search(r"'(\w+)'", message)
            check.add_exception("recipe", RecipeError(message), named and named[1])
        return check.report()
    _check_output(recipe, check)
    _check_hub(recipe, check)
    is_sound = _check_data(recipe, check, progress)
    progress("model and memory", 0, None)
    model, processor = _check_model(recipe, check) if is_sound or recipe.run.model != TINY_MODEL else (None, None)
    if is_sound and model is not None:
        try:
            rows = load_rows(recipe, recipe.run.split, PairCounts())
        except DataError as fault:
            check.add_exception("rows", fault)
            return check.report()
        check.counts["rows"] = len(rows)
        _check_tokens(recipe, rows, model, processor, check)
        _check_memory_and_disk(recipe, is_adapted(model), check)
    return check.report()


def _check_output(recipe: Recipe, check: _Check) -> None:
    try:
        find_checkpoint(Path(recipe.training.output_dir), resume=recipe.run.resume)
    except RecipeError as fault:
        check.add_exception("output", fault, "output_dir", recipe.training.output_dir)


def _check_data(recipe: Recipe, check: _Check, progress: Progress) -> bool:
    """Check the dataset with what the stage needs of it; whether rows can be made."""
    run = recipe.run
    needs_facts = recipe.training.facts != "none" or run.model == TINY_MODEL
    needs_scores = isinstance(recipe.training, EntropyDPOConfig)
    report = examine_dataset(
        run.dataset,
        progress,
        facts=facts_path(run) if needs_facts else None,
        scores=Path(run.scores or Path(run.dataset) / SCORES_FILE) if needs_scores else None,
    )
    check.findings += report.findings
    check.counts |= report.counts
    try:
        ad_pl = read_ad_pl(run.dataset)
    except DataError:
        return False  # reported above
    splits = {"split": run.split, "validation_split": run.validation_split}
    chosen: dict[str, tuple[Any, Any]] = {key: ([split], None) for key, split in splits.items() if split is not None}
    known = len(check.findings)
    for key, choice in {**chosen, "datasets": (None, run.datasets)}.items():
        try:
            ad_pl.select(*choice)
        except DataError as fault:
            check.add("rows", key, getattr(run, key), fault.problem, fault.remedy or "")
    for split, _ in chosen.values() if len(check.findings) == known else ():
        if not ad_pl.select(split, run.datasets):
            problem = f"no group of split {split[0]!r} is of these sources"
            check.add("rows", "datasets", run.datasets, problem, "change datasets, or set it to null for all")
    return not report.errors and len(check.findings) == known


def _check_model(recipe: Recipe, check: _Check) -> tuple[Any, Any]:
    """The model's shapes and its processor, or None and None with the fault noted."""
    name = recipe.run.model
    try:
        model, processor = build_model(recipe, weights=False)
    except SageError as fault:
        check.add_exception("model", fault, "model", name)
        return None, None
    if name != TINY_MODEL:
        fault_of_weights = _missing_weights(name, recipe.run.revision)
        if fault_of_weights is not None:
            check.add("model", "model", name, *fault_of_weights)
    return model, processor


def _missing_weights(name: str, revision: str | None) -> tuple[str, str] | None:
    """Problem and remedy if there are no weights to train from."""
    if Path(name).is_dir():
        is_whole = any(Path(name).glob("*.safetensors"))
        return None if is_whole else ("the directory holds no *.safetensors", "train or save the model first")
    cached = {"revision": revision, "local_files_only": True, "_raise_exceptions_for_missing_entries": False}
    if any(cached_file(name, file, **cached) for file in _WEIGHT_FILES):
        return None
    try:
        siblings = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=_SECONDS).siblings or []
    except (HfHubHTTPError, OSError, ValueError) as fault:
        return f"no weights in the cache, and the hub gives none: {fault}", "check the network, HF_TOKEN and the name"
    needed = sum(one.size or 0 for one in siblings if one.rfilename.endswith(".safetensors"))
    if not needed:
        return "the repository has no *.safetensors", "choose another model or revision"
    free = shutil.disk_usage(_existing(Path(HF_HUB_CACHE))).free
    if needed > free:
        return f"its weights take {_gib(needed)}, and {_gib(free)} are free", "free space, or set HF_HOME"
    return None


def _check_tokens(recipe: Recipe, rows: Dataset, model: Any, processor: Any, check: _Check) -> None:
    """Rows that are longer than the model's context once the images are expanded, or hold its placeholders."""
    kind = EntropyDPOCollator if isinstance(recipe.training, EntropyDPOConfig) else SFECollator
    collator: FactCollator = kind(processor, **collator_options(recipe.training))
    rows = keep_images_encoded(rows)
    for fault in _placeholders(rows, processor):
        check.add_exception("placeholder", fault, "dataset", recipe.run.dataset)
    limit = getattr(unwrapped(model).config.get_text_config(), "max_position_embeddings", None)
    lengths = row_lengths(rows, collator, count_references=recipe.training.reference_in_prompt)
    check.counts["longest_row_tokens"] = max(lengths)
    if limit is None:
        return
    for index, length in enumerate(lengths):
        if length > limit:
            row = rows[index]
            name = f"{row['group_id']}/{row['question_id']}"
            problem = f"{length} tokens with its images and longest answer, and the model's context has {limit}"
            check.add("tokens", "dataset", name, problem, "scale the images down, or cut facts or earlier turns")


def _placeholders(rows: Dataset, processor: Any) -> Iterator[DataError]:
    for row in rows:
        try:
            refuse_placeholders(processor, row)
        except DataError as fault:
            yield fault


def _check_memory_and_disk(recipe: Recipe, is_adapter: bool, check: _Check) -> None:
    try:
        plan = plan_memory(recipe)
    except SageError as fault:
        check.add_exception("plan", fault)
        return
    total = plan.usage.total
    check.counts["bytes_per_gpu"] = total
    if torch.cuda.is_available():
        capacity = torch.cuda.get_device_properties(0).total_memory
        if total > capacity:
            problem = f"needs {_gib(total)} on one GPU, which has {_gib(capacity)}"
            remedy = "lower the batch, use gradient_checkpointing, LoRA, or shards: see tools/train.py --plan"
            counts_rows = recipe.training.max_tokens_per_batch is None
            key = "per_device_train_batch_size" if counts_rows else "max_tokens_per_batch"
            check.add("memory", key, getattr(recipe.training, key), problem, remedy)
    needed = disk_bytes(plan, recipe.training, is_adapter=is_adapter)
    check.counts["bytes_on_disk"] = needed
    free = shutil.disk_usage(_existing(Path(recipe.training.output_dir))).free
    if needed > free:
        problem = f"checkpoints and model take about {_gib(needed)}, and {_gib(free)} are free"
        remedy = "free space, lower save_total_limit, or save_only_model"
        check.add("disk", "output_dir", recipe.training.output_dir, problem, remedy)


def disk_bytes(plan: MemoryPlan, args: Any, *, is_adapter: bool) -> int:
    """Bytes that a run leaves at most: the checkpoints it keeps, one being written, and the model.

    Args:
        plan: the memory plan.
        args: the training arguments.
        is_adapter: only what trains is saved.
    """
    trained = 4 * sum(size.trainable for size in plan.part_sizes)
    model = trained if is_adapter else plan.usage.weights
    checkpoint = model + (0 if args.save_only_model else plan.usage.optimizer)
    saves = {"no": 0, "epoch": math.ceil(args.num_train_epochs)}.get(args.save_strategy.value)
    if saves is None:
        saves = plan.steps // max(1, int(args.save_steps if args.save_steps >= 1 else plan.steps * args.save_steps))
    kept = saves if args.save_total_limit is None else min(saves, args.save_total_limit + 1)
    return kept * checkpoint + model


def _check_hub(recipe: Recipe, check: _Check) -> None:
    if not recipe.training.push_to_hub:
        return
    name = recipe.training.hub_model_id or Path(recipe.training.output_dir).name
    if get_token() is None:
        check.add("hub", "push_to_hub", True, "there is no token", "set HF_TOKEN, or run `hf auth login`")
        return
    try:
        with explained(name, f"python tools/check.py {check.path}"):
            HfApi().whoami()
    except SageError as fault:
        check.add_exception("hub", fault, "push_to_hub", True)


def _existing(path: Path) -> Path:
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.is_dir())


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
