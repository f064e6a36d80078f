"""From a recipe to the model it trains: loaded or made, quantised, with an adapter or without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sage_trl.data.dataset import read_ad_pl
from sage_trl.data.fact_sets import read_facts
from sage_trl.errors import DataError, RecipeError
from sage_trl.models.adapters import add_lora, is_adapted
from sage_trl.models.checkpoints import is_adapter, is_plain_model, load_pretrained
from sage_trl.models.parts import POLICY_ADAPTER
from sage_trl.models.prompt import question_messages, with_images_and_facts
from sage_trl.models.tiny import build_tiny_internvl
from sage_trl.recipe import TINY_MODEL, Recipe, RunArguments
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig


def _refuse_random_fusion(recipe: Recipe) -> None:
    model = recipe.run.model
    is_random = model == TINY_MODEL or (
        recipe.training.facts == "fusion" and is_plain_model(model, recipe.run.revision)
    )
    if is_random:
        problem = f"model {model}: its fusion would be random and frozen; stage 2 starts from a stage 1 run"
        raise RecipeError(f"{problem}\n  remedy: set model to the output_dir of stage 1")


class Models(NamedTuple):
    """What a stage trains: the model, its processor, and the frozen reference where the model holds none itself."""

    model: Any
    processor: Any
    reference: Any


def build_models(recipe: Recipe, *, weights: bool = True) -> Models:
    """All that the stage's trainer needs; see `build_model`."""
    model, processor = build_model(recipe, weights=weights)
    args = recipe.training
    needs_reference = isinstance(args, EntropyDPOConfig) and not is_adapted(model) and args.reference_cache is None
    return Models(model, processor, build_model(recipe, weights=weights)[0] if needs_reference else None)


def build_model(recipe: Recipe, *, weights: bool = True) -> tuple[Any, Any]:
    """The model to train, with an adapter where the recipe asks for one or the model has one, and its processor.

    Args:
        recipe: the recipe.
        weights: false gives a model that is not `tiny` on the meta device, and reads no weights.

    Raises:
        SageError: the model cannot be loaded, or the recipe's keys do not go together with it.
    """
    run, args = recipe.run, recipe.training
    if isinstance(args, EntropyDPOConfig):
        _refuse_random_fusion(recipe)
    if run.model == TINY_MODEL:
        _refuse_adapter_without_base(run)
        model, processor = _build_tiny(recipe)
    else:
        autocast = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else torch.float32
        has_frozen_base = run.lora_r is not None or is_adapter(run.model, run.revision)
        _refuse_idle_quantization(run, has_frozen_base=has_frozen_base)
        model, processor = load_pretrained(
            run.model,
            # What trains stays in fp32 under autocast: at lr 2e-6 an update of a bf16 weight rounds to nothing.
            dtype=autocast if has_frozen_base else torch.float32,
            compute_dtype=autocast,
            fusion=run.fusion,
            seed=args.seed,
            load_in_4bit=run.load_in_4bit,
            is_trainable=True,
            attn_implementation=run.attn_implementation,
            revision=run.revision,
            trust_remote_code=args.trust_remote_code,
            weights=weights,
        )
    if is_adapted(model):
        _refuse_other_lora(run, model)
    elif run.lora_r is not None:
        model = _add_lora(recipe, model)
    return model, processor


def _refuse_adapter_without_base(run: RunArguments) -> None:
    if run.lora_r is not None or run.load_in_4bit:
        key = "load_in_4bit" if run.load_in_4bit else "lora_r"
        problem = f"{key}: the tiny model is made from configuration and lies nowhere, so an adapter would have no base"
        raise RecipeError(f"{problem}\n  remedy: set model to a directory or hub id, or leave {key} out")


def _refuse_idle_quantization(run: RunArguments, *, has_frozen_base: bool) -> None:
    if run.load_in_4bit and not has_frozen_base:
        problem = "load_in_4bit: 4-bit weights cannot train, and the recipe adds no adapter to them"
        raise RecipeError(f"{problem}\n  remedy: set lora_r, or load_in_4bit to false")


def _refuse_other_lora(run: RunArguments, model: Any) -> None:
    adapter = model.peft_config[POLICY_ADAPTER]
    wanted = {
        "lora_r": (run.lora_r, adapter.r),
        "lora_alpha": (run.lora_alpha, adapter.lora_alpha),
        "lora_dropout": (run.lora_dropout or None, adapter.lora_dropout),
        "lora_target": (run.lora_target, run.lora_target if _has_targets(model, run.lora_target) else "others"),
    }
    for name, (value, own) in wanted.items():
        if value is not None and value != own:
            problem = f"{name} is {value}, but the adapter {run.model} goes on training with {own}"
            raise RecipeError(f"{problem}\n  remedy: leave {name} out, or merge the adapter first: tools/merge.py")


def _has_targets(model: Any, names: list[str] | None) -> bool:
    """Whether exactly the linear layers of these names have LoRA."""
    layers = {
        name.partition(".lora_A.")[0].rpartition(".")[2] for name, _ in model.named_parameters() if ".lora_A." in name
    }
    return layers == set(names or ())


def _add_lora(recipe: Recipe, model: Any) -> Any:
    run = recipe.run
    try:
        return add_lora(
            model,
            recipe.training.train_parts,
            r=run.lora_r or 0,
            alpha=run.lora_alpha,
            dropout=run.lora_dropout,
            target=run.lora_target,
        )
    except ValueError as error:
        raise RecipeError(f"{error}\n  remedy: mend the recipe's keys") from None


def _build_tiny(recipe: Recipe) -> tuple[Any, Any]:
    run = recipe.run
    try:
        return build_tiny_internvl(_texts(recipe), run.tiny_size, recipe.training.seed, run.fusion)
    except ValueError as error:
        raise RecipeError(f"the tiny model cannot be built: {error}\n  remedy: mend its sizes or heads") from error


def _texts(recipe: Recipe) -> Iterator[str]:
    """All that the tiny model's tokenizer learns from; what every prompt holds is as frequent as in the prompts."""
    for inspection in read_ad_pl(recipe.run.dataset).select(splits=[recipe.run.split]):
        for question in inspection.questions:
            for message in with_images_and_facts(
                question_messages(question.question), ["one"], "fusion", with_reference=True
            ):
                yield f"{message['role']}\n"
                yield from (part["text"] for part in message["content"] if part["type"] == "text")
            yield "assistant\n"
            yield from question.answers
    path = facts_path(recipe.run)
    if not path.is_file():
        raise DataError.at(path, None, "no such file", "run tools/generate_facts.py: the tokenizer learns from facts")
    for fact_set in read_facts(path).values():
        yield from fact_set.facts


def facts_path(run: RunArguments) -> Path:
    """The recipe's facts, by default those in the dataset."""
    return Path(run.facts_file) if run.facts_file else Path(run.dataset) / "facts.jsonl"
