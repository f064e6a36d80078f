"""Loading and saving: a Sage model, or a plain base model that gets a new fusion."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from sage_trl.errors import DataError
from sage_trl.models.backbones import BY_BASE_MODEL_TYPE, BY_MODEL_TYPE
from sage_trl.models.fact_enhanced import FACT_TOKEN

FUSION_PREFIX = "model.fusion."
COMPONENTS = {"image_processor", "tokenizer"}


def load_pretrained(
    name_or_path: str | Path,
    *,
    dtype: torch.dtype | str = torch.float32,
    fusion: Mapping[str, Any] | None = None,
    seed: int = 0,
    **model_kwargs: Any,
) -> tuple[Any, Any]:
    """Load a model of ours, or a plain base model with a new, randomly initialised fusion.

    Args:
        name_or_path: directory or hub id.
        dtype: weight type; trainable weights should be fp32 (at lr 2e-6 an update of a bf16 weight rounds to nothing).
        fusion: settings of the new fusion (`num_selected_patches`, `fusion_num_heads`, ...), for a base model only.
        seed: seed of the new fusion's weights.
        model_kwargs: handed to `from_pretrained`, for example `attn_implementation` or `revision`.

    Returns:
        The model in evaluation mode and its processor.

    Raises:
        DataError: no such model, an unsupported architecture, or a checkpoint whose tensors do not all fit.
    """
    source = str(name_or_path)
    revision = {key: value for key, value in model_kwargs.items() if key in ("revision", "cache_dir")}
    config = _load_config(source, revision)
    is_plain = config.model_type in BY_BASE_MODEL_TYPE
    backbone = (BY_BASE_MODEL_TYPE | BY_MODEL_TYPE)[config.model_type]
    processor = _load_processor(source, backbone.processor, revision)
    if is_plain:
        fact_token_id = _add_fact_token(processor.tokenizer)
        plain = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "architectures")}
        config = backbone.config(**{**plain, **(fusion or {}), "fact_token_id": fact_token_id})
    else:
        _refuse_other_fusion(source, config, fusion or {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model, report = backbone.model.from_pretrained(
                source,
                config=config,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported, and refused below with their names
                **model_kwargs,
            )
        except (OSError, SafetensorError) as error:
            problem = f"the weights cannot be read: {error}"
            raise DataError.at(source, None, problem, "fetch or save the model anew") from None
    _refuse_partial_load(source, report, may_lack_fusion=is_plain)
    return model.eval(), processor


def is_plain_model(name_or_path: str | Path) -> bool:
    """Whether this is a base model without a fusion.

    Raises:
        DataError: no such model, or an unsupported architecture.
    """
    return _load_config(str(name_or_path), {}).model_type in BY_BASE_MODEL_TYPE


def save_pretrained(model: Any, processor: Any, directory: Path) -> None:
    """Save model and processor so that `load_pretrained` finds both."""
    model.save_pretrained(directory)
    processor.save_pretrained(directory)


def _load_config(source: str, revision: Mapping[str, Any]) -> Any:
    # A path is not looked for on the hub, which would take half a minute to say no.
    is_path = Path(source).is_absolute() or (Path(source).parent.is_dir() and "/" in source)
    if is_path and not Path(source).is_dir():
        raise DataError.at(source, None, "no such model directory", "check the path, or train the model first")
    try:
        config = AutoConfig.from_pretrained(source, **revision)
    except (OSError, ValueError) as error:
        raise DataError.at(source, None, f"no model can be loaded: {error}", "check the path or the hub id") from None
    supported = BY_BASE_MODEL_TYPE | BY_MODEL_TYPE
    if config.model_type not in supported:
        problem = f"model type {config.model_type!r} is not supported"
        raise DataError.at(source, None, problem, f"use one of {', '.join(sorted(supported))}")
    return config


def _refuse_other_fusion(source: str, config: Any, fusion: Mapping[str, Any]) -> None:
    for name, value in fusion.items():
        if getattr(config, name) != value:
            raise DataError.at(
                source,
                None,
                f"{name} is {getattr(config, name)!r} in this model, not {value!r}",
                f"leave {name} out: the fusion was made in stage 1",
            )


def _refuse_partial_load(source: str, report: Mapping[str, Any], *, may_lack_fusion: bool) -> None:
    may_lack = FUSION_PREFIX if may_lack_fusion else ()
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(may_lack))
    faults = {
        "missing tensors": missing,
        "unknown tensors": sorted(report["unexpected_keys"]),
        "tensors of another shape": sorted(str(key) for key in report["mismatched_keys"]),
    }
    found = [f"{len(names)} {kind}, first {names[0]!r}" for kind, names in faults.items() if names]
    if found:
        problem = f"the checkpoint does not fit: {'; '.join(found)}"
        raise DataError.at(source, None, problem, "use a whole checkpoint of this model type")


def _load_processor(source: str, processor_class: type, revision: Mapping[str, Any]) -> Any:
    # torchvision's image processors are used where it is installed, PIL's elsewhere: AutoImageProcessor decides.
    try:
        image_processor = AutoImageProcessor.from_pretrained(source, **revision)
        tokenizer = AutoTokenizer.from_pretrained(source, **revision)
    except (OSError, ValueError) as error:
        problem = f"no processor can be loaded: {error}"
        raise DataError.at(source, None, problem, "save the processor beside the model") from None
    settings, _ = processor_class.get_processor_dict(source, **revision)  # type: ignore[attr-defined]
    settings["chat_template"] = settings.get("chat_template") or tokenizer.chat_template
    accepted = settings.keys() & inspect.signature(processor_class).parameters.keys()
    return processor_class(image_processor, tokenizer, **{name: settings[name] for name in accepted - COMPONENTS})


def _add_fact_token(tokenizer: Any) -> int:
    tokenizer.add_special_tokens({"extra_special_tokens": [FACT_TOKEN]}, replace_extra_special_tokens=False)
    token_id: int = tokenizer.convert_tokens_to_ids(FACT_TOKEN)
    return token_id
