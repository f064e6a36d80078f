"""Recipes: YAML and command line to typed arguments, strictly."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from sage_trl.errors import RecipeError
from sage_trl.models.fusion_attention import PatchFeature, PatchSimilarity
from sage_trl.models.fusion_settings import FUSION_SETTINGS
from sage_trl.models.tiny import TinySize
from sage_trl.preferences.entropy import EntropyKind
from sage_trl.preferences.selection import PairChoice
from sage_trl.recipe_numbers import number_fault
from sage_trl.records import Turns
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig
from sage_trl.trainer.sfe_config import SFEConfig

Stage = Literal["sft", "sfe", "dpo", "edpo"]
TINY_MODEL = "tiny"


@dataclass
class RunArguments:
    """Recipe keys beside those of the trainer's configuration."""

    stage: Stage = field(
        metadata={"help": "sft: no facts, reference in the prompt; sfe: stage 1; dpo: eta 0; edpo: stage 2."}
    )
    model: str = field(metadata={"help": "Directory or hub id; `tiny` makes a small model from configuration alone."})
    dataset: str = field(metadata={"help": "AD-PL directory."})
    tiny: dict[str, int] | None = field(default=None, metadata={"help": "Sizes of the `tiny` model, see TinySize."})
    datasets: list[str] | None = field(default=None, metadata={"help": "Train on groups of these sources only."})
    split: str = field(default="train", metadata={"help": "Split to train on."})
    validation_split: str | None = field(
        default=None, metadata={"help": "Split for the evaluation loss (with `eval_strategy`)."}
    )
    facts_file: str | None = field(default=None, metadata={"help": "facts.jsonl; by default the one in the dataset."})
    scores: str | None = field(default=None, metadata={"help": "scores.jsonl; by default the one in the dataset."})
    turns: Turns = field(default="single", metadata={"help": "`conversation`: a group's earlier turns come before."})
    pairs: PairChoice = field(default="both", metadata={"help": "Which pairs of each question (eq. 5)."})
    entropy: EntropyKind = field(default="term", metadata={"help": "Entropy of one answer (eq. 4)."})
    drop_inverted: bool = field(default=False, metadata={"help": "Drop pairs that the judge orders the other way."})
    drop_incomplete: bool = field(
        default=False, metadata={"help": "Leave out, and count, questions with an answer that has no score."}
    )
    num_selected_patches: int | None = field(default=None, metadata={"help": "K of eq. 1, for a new fusion."})
    fusion_num_heads: int | None = field(default=None, metadata={"help": "Heads of eq. 2, for a new fusion."})
    patch_similarity: PatchSimilarity | None = field(default=None, metadata={"help": "Eq. 1, for a new fusion."})
    fusion_keys: PatchFeature | None = field(default=None, metadata={"help": "Eq. 2, for a new fusion."})
    fusion_values: PatchFeature | None = field(default=None, metadata={"help": "Eq. 2, for a new fusion."})
    learned_queries: int | None = field(
        default=None,
        metadata={"help": "So many learned embeddings in the place of the facts, for a new fusion: a control."},
    )
    lora_r: int | None = field(
        default=None,
        metadata={"help": "Rank of LoRA on the language model; projector and fusion train whole. None: full weights."},
    )
    lora_alpha: int | None = field(default=None, metadata={"help": "Scale of LoRA. None: twice the rank."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout on LoRA's input."})
    lora_target: list[str] | None = field(
        default=None, metadata={"help": "Linear layers with LoRA, such as q_proj. None: all but the head."}
    )
    load_in_4bit: bool = field(
        default=False, metadata={"help": "QLoRA: the frozen language model in 4-bit NF4 (bitsandbytes)."}
    )
    attn_implementation: str = field(
        default="auto", metadata={"help": "`auto`: FlashAttention where installed and usable, else SDPA."}
    )
    revision: str | None = field(default=None, metadata={"help": "Commit of a model from the hub."})
    resume: bool = field(default=False, metadata={"help": "Go on from the newest whole checkpoint in output_dir."})
    resume_anyway: bool = field(
        default=False,
        metadata={"help": "With `resume`: go on although recipe, versions, code, data or rows of a step differ."},
    )

    @property
    def fusion(self) -> dict[str, Any]:
        """The settings of a new fusion that the recipe names."""
        return {name: getattr(self, name) for name in FUSION_SETTINGS if getattr(self, name) is not None}

    @property
    def tiny_size(self) -> TinySize:
        """The sizes of the `tiny` model."""
        known = {item.name for item in dataclasses.fields(TinySize)}
        for name in self.tiny or {}:
            if name not in known:
                raise RecipeError(unknown_key(f"tiny.{name}", [f"tiny.{one}" for one in known], "recipe"))
        return TinySize(**(self.tiny or {}))


# What a stage changes of the configuration's defaults; a recipe may still say otherwise.
STAGE_DEFAULTS: dict[Stage, dict[str, Any]] = {
    "sft": {"facts": "none", "reference_in_prompt": True, "train_parts": ["projector", "language_model"]},
    "sfe": {},
    "dpo": {"eta": 0.0},
    "edpo": {},
}
CONFIGS: dict[Stage, type] = {"sft": SFEConfig, "sfe": SFEConfig, "dpo": EntropyDPOConfig, "edpo": EntropyDPOConfig}


@dataclass(frozen=True)
class Recipe:
    """A validated recipe."""

    run: RunArguments
    training: SFEConfig | EntropyDPOConfig
    values: Mapping[str, Any] = field(default_factory=dict)
    """What the recipe and the overrides set, without defaults."""


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a YAML recipe, apply overrides, and check every key and value.

    Args:
        path: the recipe.
        overrides: `--key value` or `--key=value` words; a value is read as YAML.

    Raises:
        RecipeError: names the file or the override, the key, the value and the nearest valid key.
    """
    values = {**read_yaml(path), **parse_overrides(overrides)}
    if "hub_token" in values:
        raise RecipeError(f"{path}: hub_token is no recipe key\n  remedy: set HF_TOKEN, or run `hf auth login`")
    stage = values.get("stage")
    if not isinstance(stage, str) or stage not in CONFIGS:
        raise RecipeError(f"{path}: stage is {stage!r}\n  remedy: set it to one of {', '.join(CONFIGS)}")
    config_class = CONFIGS[stage]
    run_types, config_types = field_types(RunArguments), field_types(config_class)
    checked = _check_keys(values, run_types | config_types, str(path))
    run = RunArguments(**{key: value for key, value in checked.items() if key in run_types})
    _ = run.tiny_size  # checks its keys
    _check_lora(run, str(path))
    settings = {**STAGE_DEFAULTS[stage], **{key: value for key, value in checked.items() if key in config_types}}
    try:
        training = config_class(**settings)
    except (ValueError, TypeError, ImportError) as error:
        remedy = "mend the recipe's training arguments"
        if "support bf16" in str(error):
            remedy = "without a GPU, set use_cpu: true and bf16: false"
        raise RecipeError(f"{path}: {error}\n  remedy: {remedy}") from None
    if training.eval_strategy != "no" and run.validation_split is None:
        problem = f"eval_strategy is {training.eval_strategy.value}, and validation_split is not set"
        raise RecipeError(f"{path}: {problem}\n  remedy: set validation_split to a split of the dataset")
    return Recipe(run, training, checked)


def _check_keys(values: Mapping[str, Any], types: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The values as the keys' types, numbers in their ranges; all faults are told in one error."""
    checked: dict[str, Any] = {}
    faults: list[str] = []
    for key, value in values.items():
        if key not in types:
            faults.append(unknown_key(key, list(types), source))
            continue
        try:
            checked[key] = check_type(key, value, types[key], source)
        except RecipeError as error:
            faults.append(str(error))
            continue
        fault = number_fault(key, checked[key], source)
        if fault is not None:
            faults.append(fault)
    faults += [
        f"{source}: {key!r} is missing\n  remedy: set it in the recipe or with --{key}"
        for key in ("model", "dataset", "output_dir")
        if key not in values
    ]
    if faults:
        raise RecipeError("\n".join(faults))
    return checked


def _check_lora(run: RunArguments, source: str) -> None:
    settings = {"lora_alpha": run.lora_alpha, "lora_dropout": run.lora_dropout, "lora_target": run.lora_target}
    idle = [name for name, value in settings.items() if value]
    if idle and run.lora_r is None:
        raise RecipeError(f"{source}: {idle[0]} has no effect without lora_r\n  remedy: set lora_r, or leave it out")


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """`--key value` and `--key=value` words to a mapping; a bare `--key` is true.

    Raises:
        RecipeError: a word that belongs to no key.
    """
    values: dict[str, Any] = {}
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("--") or len(word) == 2:
            raise RecipeError(f"{word!r} belongs to no key\n  remedy: write overrides as --key value")
        key, equals, text = word[2:].partition("=")
        if not equals:
            has_value = position < len(words) and not words[position].startswith("--")
            text = words[position] if has_value else "true"
            position += has_value
        try:
            values[key.replace("-", "_")] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise RecipeError(
                f"--{key}: {text!r} is not YAML\n  remedy: quote the value, or close its brackets"
            ) from None
    return values


def field_types(config_class: type) -> dict[str, Any]:
    """Name -> type of every field that a recipe may set."""
    hints = typing.get_type_hints(config_class)
    return {item.name: hints[item.name] for item in dataclasses.fields(config_class) if item.init}


def check_type(key: str, value: Any, kind: Any, source: str) -> Any:
    """The value as the field's type; numbers such as `2e-6`, which YAML reads as text, included.

    Raises:
        RecipeError: the value has another type.
    """
    adapter = TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))
    # A bare `--learning_rate` is true, which must not become the number 1.
    strict = True if isinstance(value, bool) else None
    try:
        return adapter.validate_python(value, strict=strict)
    except ValidationError as error:
        if value is False and _accepts(adapter, "no"):
            return adapter.validate_python("no")  # YAML reads `save_strategy: no` as a false
        reason = error.errors(include_url=False)[0]["msg"]
        remedy = f"write a value of type {describe(kind)}"
        if isinstance(value, str) and _accepts(adapter, [value]):
            remedy = f"write a list, [{value}]"
        raise RecipeError(f"{source}: key {key!r} has the value {value!r}: {reason}\n  remedy: {remedy}") from None


def _accepts(adapter: TypeAdapter[Any], value: Any) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


def describe(kind: Any) -> str:
    """A type as a person would write it."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(describe(part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is Literal:
        return " | ".join(repr(choice) for choice in typing.get_args(kind))
    if kind is type(None):
        return "null"
    return str(kind) if typing.get_args(kind) else getattr(kind, "__name__", str(kind))


def unknown_key(key: str, known: Sequence[str], source: str) -> str:
    """The message for a key nobody knows, with the nearest valid one."""
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
    return f"{source}: unknown key {key!r}\n  remedy: did you mean {nearest!r}?"


def read_yaml(path: Path, kind: str = "recipe") -> Mapping[str, Any]:
    """Keys and values of a YAML file; `kind` is what errors call it.

    Raises:
        RecipeError: no such file, not YAML, or not keys with values.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such {kind}\n  remedy: check the path; recipes/ holds ready ones") from None
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}\n  remedy: give a YAML file; recipes/ holds ready ones") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not YAML: {error}\n  remedy: mend the {kind}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: holds {type(values).__name__}, not keys with values\n  remedy: write 'key: value'")
    odd = [key for key in values if not isinstance(key, str)]
    if odd:
        raise RecipeError(f"{path}: key {odd[0]!r} is not a word\n  remedy: write 'key: value'")
    return values
