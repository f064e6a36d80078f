"""LoRA adapters that carry the fusion (PEFT): what they wrap, what of them trains, and the frozen reference."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers.utils import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from sage_trl.errors import DataError
from sage_trl.models.parts import POLICY_ADAPTER, Part, adapter_of, part_of

# TRL's name for the frozen copy of the policy's adapter.
REFERENCE_ADAPTER = "ref"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
LORA_PARTS: frozenset[Part] = frozenset({"vision_encoder", "language_model"})
WHOLE_PARTS: tuple[Part, ...] = ("projector", "fusion")


class Source(NamedTuple):
    """Where a model or an adapter is loaded from: a directory or hub id, and the revision on the hub.

    `trust_remote_code` lets the checkpoint's own code make its configuration, tokenizer and image processor.
    """

    name: str
    revision: str | None = None
    trust_remote_code: bool = False


def add_lora(
    model: Any,
    train_parts: Collection[str],
    *,
    r: int,
    alpha: int | None = None,
    dropout: float = 0.0,
    target: Collection[str] | None = None,
) -> PeftModel:
    """Wrap a fact-enhanced model: LoRA on the linear layers, projector and fusion whole.

    The fusion always travels with the adapter, also where it is frozen, because no base has it. The language head is
    not adapted: the losses read its weight directly.

    Args:
        model: a fact-enhanced model, quantised or not.
        train_parts: what will train. LoRA goes into `vision_encoder` and `language_model`; `projector` and `fusion`
            are copied whole.
        r: rank.
        alpha: scale, by default twice the rank.
        dropout: dropout on LoRA's input.
        target: names of the linear layers, such as `q_proj`; by default all of the parts'.

    Returns:
        The wrapped model, whose trainable weights are in fp32.

    Raises:
        ValueError: no linear layer to adapt, or `input_embeddings` among the parts.
    """
    if "input_embeddings" in train_parts:
        raise ValueError("train_parts: LoRA leaves input_embeddings as they are; leave them out, or train without LoRA")
    config = LoraConfig(
        r=r,
        lora_alpha=2 * r if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=_target_pattern(model, train_parts, target),
        modules_to_save=[
            prefix.removesuffix(".")
            for part in WHOLE_PARTS
            if part == "fusion" or part in train_parts
            for prefix in model.part_prefixes[part]
            # A bare parameter, such as LLaVA's `image_newline`, stays with the base.
            if prefix.endswith(".")
        ],
        task_type="CAUSAL_LM",
        revision=getattr(model.config, "_commit_hash", None),
    )
    wrapped = get_peft_model(model, config, low_cpu_mem_usage=model.device.type == "meta")
    base = Path(model.name_or_path)
    if base.is_dir():
        # As an absolute path, so that from elsewhere it is not taken for a repository on the hub.
        wrapped.peft_config[POLICY_ADAPTER].base_model_name_or_path = str(base.resolve())
    keep_trainable_in_fp32(wrapped)
    return wrapped


def _target_pattern(model: Any, train_parts: Collection[str], target: Collection[str] | None) -> str:
    """A pattern for exactly the layers to adapt, whatever the number of their block."""
    head = model.get_output_embeddings()
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module is not head
        and part_of(model, f"{name}.weight") in set(train_parts) & LORA_PARTS
        and (target is None or name.rpartition(".")[2] in target)
    ]
    unknown = sorted(set(target or ()) - {name.rpartition(".")[2] for name in names})
    if unknown or not names:
        raise ValueError(f"lora_target {unknown or target}: no such linear layer in train_parts {sorted(train_parts)}")
    patterns = {r"\.".join(r"\d+" if word.isdigit() else re.escape(word) for word in name.split(".")) for name in names}
    return "|".join(sorted(patterns))


def has_adapter(source: Source) -> bool:
    """Whether a directory or hub repository holds an adapter."""
    return find_adapter_config_file(source.name, revision=source.revision) is not None


def read_adapter_config(source: Source) -> PeftConfig | None:
    """The adapter's configuration, or None where there is no adapter but a model, or nothing.

    Raises:
        DataError: an adapter of which the base is not known.
    """
    if not has_adapter(source):
        return None
    try:
        config = PeftConfig.from_pretrained(source.name, revision=source.revision)
    except (ValueError, KeyError, TypeError) as error:
        problem = f"adapter_config.json cannot be read: {error}"
        raise DataError.at(source.name, None, problem, "fetch or save the adapter anew") from None
    if not config.base_model_name_or_path:
        problem = "adapter_config.json names no base model"
        raise DataError.at(source.name, None, problem, "set base_model_name_or_path to the base it was trained on")
    return config


def attach_adapter(model: Any, source: Source, *, is_trainable: bool) -> PeftModel:
    """Put a saved adapter on its base.

    Args:
        model: a fact-enhanced model without adapter.
        source: where the adapter lies.
        is_trainable: keep the adapter in fp32, ready to train; otherwise it takes the base's type.

    Raises:
        DataError: the adapter's tensors are not exactly those that this base and its configuration need, the fusion's
            among them. PEFT would load it with a warning at most.
    """
    try:
        weights = cached_file(
            source.name,
            ADAPTER_WEIGHTS,
            revision=source.revision,
            _raise_exceptions_for_missing_entries=False,
        )
        if weights is None:
            raise ValueError(f"it has no {ADAPTER_WEIGHTS}; other formats are not read")
        tensors = load_file(weights)
        saved = set(tensors)
        if not any(".fusion." in name for name in saved):
            raise ValueError("it carries no fusion")
        adapted = PeftModel.from_pretrained(
            model,
            source.name,
            is_trainable=is_trainable,
            revision=source.revision,
            autocast_adapter_dtype=is_trainable,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        problem = f"the adapter cannot be put on its base: {error}"
        raise DataError.at(
            source.name, None, problem, "fetch or save the adapter anew, with the base it names"
        ) from None
    needed = set(get_peft_model_state_dict(adapted))
    differing = sorted(saved ^ needed)
    if differing:
        problem = f"the adapter lacks or exceeds {len(differing)} tensors, first {differing[0]!r}"
        raise DataError.at(source.name, None, problem, "use an adapter that this toolkit trained, on the base it names")
    _set_types(adapted, model.dtype, is_trainable=is_trainable)
    if is_trainable:
        # PEFT reads projector and fusion into copies of the base's type: once more, now that they are fp32.
        set_peft_model_state_dict(adapted, tensors)
    return adapted.eval()


def attach_adapter_shapes(model: Any, config: PeftConfig, *, is_trainable: bool) -> PeftModel:
    """As `attach_adapter`, for a model without weights: the adapter's tensors are those its configuration names."""
    config.inference_mode = not is_trainable
    adapted: PeftModel = get_peft_model(model, config, autocast_adapter_dtype=is_trainable, low_cpu_mem_usage=True)
    _set_types(adapted, model.dtype, is_trainable=is_trainable)
    return adapted.eval()


def _set_types(adapted: PeftModel, dtype: torch.dtype, *, is_trainable: bool) -> None:
    if is_trainable:
        keep_trainable_in_fp32(adapted)
    else:
        for name, parameter in adapted.named_parameters():
            if adapter_of(name):
                parameter.data = parameter.data.to(dtype)


def save_adapter(model: PeftModel, directory: Path) -> None:
    """Save the policy's adapter, not the frozen reference, with the configuration that has the fusion's settings."""
    model.save_pretrained(str(directory), selected_adapters=[POLICY_ADAPTER])
    model.get_base_model().config.save_pretrained(directory)


def keep_trainable_in_fp32(model: nn.Module) -> None:
    """Trainable weights to fp32: at small learning rates an update of a bf16 weight rounds to nothing."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()


def copy_policy_to_reference(model: PeftModel) -> None:
    """Make the reference adapter equal the policy's to the bit; TRL's copy has the base's type."""
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if adapter_of(name) == POLICY_ADAPTER:
            reference = parameters[name.replace(f".{POLICY_ADAPTER}.", f".{REFERENCE_ADAPTER}.")]
            reference.data = parameter.data.clone()


@contextmanager
def reference_adapter(model: PeftModel) -> Iterator[None]:
    """Run with the frozen copy of the stage 1 adapter, pi_ref.

    PEFT makes every module of the adapter it switches to trainable, whereupon a frozen fusion would get gradients
    again; so each parameter leaves as it came.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.set_adapter(REFERENCE_ADAPTER, inference_mode=True)
    try:
        yield
    finally:
        model.set_adapter(POLICY_ADAPTER, inference_mode=True)
        for parameter in trainable:
            parameter.requires_grad_(True)


def is_adapted(model: Any) -> bool:
    """Whether a model is wrapped by PEFT."""
    return isinstance(model, PeftModel)


def unwrapped(model: Any) -> Any:
    """The model itself, without what PEFT wraps around it."""
    return model.get_base_model() if is_adapted(model) else model
