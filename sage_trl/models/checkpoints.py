"""Loading and saving: a Sage model, or a plain base model that gets a new fusion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig
from transformers.utils import CONFIG_NAME, cached_file, extract_commit_hash

from sage_trl.errors import DataError
from sage_trl.models.adapters import (
    Source,
    attach_adapter,
    attach_adapter_shapes,
    has_adapter,
    is_adapted,
    read_adapter_config,
    save_adapter,
)
from sage_trl.models.attention import choose_attention
from sage_trl.models.backbones import BY_BASE_MODEL_TYPE, BY_MODEL_TYPE
from sage_trl.models.fusion_settings import FUSION_SETTINGS, check_fusion_settings
from sage_trl.models.processors import load_processor
from sage_trl.models.prompt import FACT_TOKEN
from sage_trl.models.quantization import four_bit_settings, keep_weight_format
from sage_trl.models.remote_code import refuse_unpinned_code
from sage_trl.models.shapes import build_on_meta

FUSION_PREFIX = "model.fusion."


def load_pretrained(
    name_or_path: str | Path,
    *,
    dtype: torch.dtype | str = torch.float32,
    compute_dtype: torch.dtype | str | None = None,
    fusion: Mapping[str, Any] | None = None,
    seed: int = 0,
    load_in_4bit: bool = False,
    is_trainable: bool = False,
    attn_implementation: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    weights: bool = True,
    **model_kwargs: Any,
) -> tuple[Any, Any]:
    """Load a model of ours, a plain base model with a new, randomly initialised fusion, or an adapter on its base.

    Args:
        name_or_path: directory or hub id of a model or of an adapter. An adapter names its base and the base's
            revision itself.
        dtype: weight type; trainable weights should be fp32 (at lr 2e-6 an update of a bf16 weight rounds to nothing).
        compute_dtype: what the model will compute in, where autocast makes that another type than `dtype`.
        fusion: settings of the new fusion (`num_selected_patches`, `fusion_num_heads`, ...), for a base model only.
        seed: seed of the new fusion's weights.
        load_in_4bit: quantise the language model to NF4 (bitsandbytes).
        is_trainable: keep an adapter ready for training, in fp32.
        attn_implementation: `auto` picks FlashAttention where usable, else SDPA.
        revision: commit, tag or branch on the hub; of the adapter, if it is one.
        trust_remote_code: let the checkpoint's own code make its configuration, tokenizer and image processor, never
            its model; for a hub id with `revision` as the 40 hex digits of a commit only.
        weights: false reads no weights and gives the model on the meta device, which has shapes only.
        model_kwargs: handed to `from_pretrained`.

    Returns:
        The model in evaluation mode, a `PeftModel` for an adapter, and its processor.

    Raises:
        DataError: no such model, an unsupported architecture, or a checkpoint whose tensors do not all fit.
    """
    source = Source(str(name_or_path), revision, trust_remote_code)
    refuse_unpinned_code(source)
    check_fusion_settings(fusion or {})
    options = LoadOptions(dtype, compute_dtype, attn_implementation, seed, load_in_4bit, weights, model_kwargs)
    config = _load_config(source)
    adapter = read_adapter_config(source)
    if adapter is None:
        return _load_model(source, fusion or {}, options)
    if config.model_type not in BY_MODEL_TYPE:
        problem = f"an adapter without a fusion, for its model type is {config.model_type!r}"
        raise DataError.at(source.name, None, problem, "use an adapter that this toolkit trained")
    _refuse_other_fusion(source.name, config, fusion or {})
    base = Source(adapter.base_model_name_or_path, adapter.revision)
    try:
        is_plain = is_plain_model(base.name, base.revision)
        own = {name: getattr(config, name) for name in FUSION_SETTINGS} if is_plain else {}
        model, _ = _load_model(base, own, options)
    except DataError as error:
        raise DataError(
            f"{source.name}: the base of this adapter cannot be loaded\n  {error}\n"
            "  or set base_model_name_or_path in adapter_config.json to where the base lies"
        ) from None
    processor = load_processor(source, BY_MODEL_TYPE[config.model_type].processor)
    if not weights:
        return attach_adapter_shapes(model, adapter, is_trainable=is_trainable), processor
    return attach_adapter(model, source, is_trainable=is_trainable), processor


@dataclass(frozen=True)
class LoadOptions:
    """How weights are loaded; see `load_pretrained`."""

    dtype: torch.dtype | str
    compute_dtype: torch.dtype | str | None
    attn_implementation: str
    seed: int
    load_in_4bit: bool
    weights: bool
    model_kwargs: Mapping[str, Any]

    def attention(self, config: Any) -> str:
        """The attention for a checkpoint of that configuration."""
        computed = self.compute_dtype or self.dtype
        if computed == "auto":
            computed = config.dtype or torch.float32
        named: torch.dtype = getattr(torch, computed) if isinstance(computed, str) else computed
        return choose_attention(self.attn_implementation, named)


def _load_model(source: Source, fusion: Mapping[str, Any], options: LoadOptions) -> tuple[Any, Any]:
    config = _load_config(source)
    is_plain = config.model_type in BY_BASE_MODEL_TYPE
    backbone = (BY_BASE_MODEL_TYPE | BY_MODEL_TYPE)[config.model_type]
    processor = load_processor(source, backbone.processor)
    attention = options.attention(config)
    if is_plain:
        fact_token_id = _add_fact_token(processor.tokenizer)
        plain = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "architectures")}
        config = backbone.config(**{**plain, **fusion, "fact_token_id": fact_token_id})
    else:
        _refuse_other_fusion(source.name, config, fusion)
    if not options.weights:
        dtype = config.dtype if options.dtype == "auto" else options.dtype
        settings = {"dtype": dtype, "attn_implementation": options.attention(config), **options.model_kwargs}
        return build_on_meta(backbone.model, config, settings, load_in_4bit=options.load_in_4bit), processor
    quantization = four_bit_settings(backbone.model, options.dtype) if options.load_in_4bit else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        try:
            model, report = backbone.model.from_pretrained(
                source.name,
                config=config,
                revision=source.revision,
                dtype=options.dtype,
                attn_implementation=attention,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported, and refused below with their names
                **quantization,
                **options.model_kwargs,
            )
        except (OSError, ValueError, ImportError, SafetensorError) as error:
            problem = f"the model cannot be loaded: {error}"
            remedy = "fetch or save the model anew, or mend the settings it is loaded with"
            raise DataError.at(source.name, None, problem, remedy) from None
    refuse_partial_load(source.name, report, may_lack_fusion=is_plain)
    keep_weight_format(model)
    # Where an adapter notes its base's revision, and results the model's; transformers leaves it empty.
    model.config._commit_hash = hub_commit(source.name, source.revision)
    return model.eval(), processor


def is_plain_model(name_or_path: str | Path, revision: str | None = None) -> bool:
    """Whether this is a base model without a fusion.

    Raises:
        DataError: no such model, or an unsupported architecture.
    """
    return _load_config(Source(str(name_or_path), revision)).model_type in BY_BASE_MODEL_TYPE


def hub_commit(name_or_path: str | Path, revision: str | None = None) -> str | None:
    """The commit of a model that has been loaded from the hub, None for a directory."""
    if Path(name_or_path).is_dir():
        return None
    path = cached_file(
        str(name_or_path),
        CONFIG_NAME,
        revision=revision,
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
    )
    commit: str | None = extract_commit_hash(path, None)
    return commit


def is_adapter(name_or_path: str | Path, revision: str | None = None) -> bool:
    """Whether this is an adapter and not a whole model.

    Raises:
        DataError: no such model, or an unsupported architecture.
    """
    source = Source(str(name_or_path), revision)
    _load_config(source)
    return has_adapter(source)


def save_pretrained(model: Any, processor: Any, directory: Path) -> None:
    """Save model or adapter, and processor, so that `load_pretrained` finds both."""
    if is_adapted(model):
        save_adapter(model, directory)
    else:
        model.save_pretrained(directory)
    processor.save_pretrained(directory)


def read_config(source: Source) -> Any:
    """Read a model's configuration, of whatever type; no code of the checkpoint is run unless the source is trusted.

    Raises:
        DataError: no such model, or one that this version of transformers does not know.
    """
    # A path is not looked for on the hub, which would take half a minute to say no.
    path = Path(source.name)
    is_path = path.is_absolute() or (path.parent.is_dir() and "/" in source.name)
    if is_path and not path.is_dir():
        raise DataError.at(source.name, None, "no such model directory", "check the path, or train the model first")
    try:
        return AutoConfig.from_pretrained(
            source.name, revision=source.revision, trust_remote_code=source.trust_remote_code
        )
    except (OSError, ValueError) as error:
        if (path / "adapter_config.json").is_file():
            problem = "an adapter without a fusion, for it has no config.json of this toolkit"
            raise DataError.at(source.name, None, problem, "use an adapter that this toolkit trained") from None
        problem = f"no model can be loaded: {error}"
        raise DataError.at(source.name, None, problem, "check the path or the hub id") from None


def _load_config(source: Source) -> Any:
    config = read_config(source)
    supported = BY_BASE_MODEL_TYPE | BY_MODEL_TYPE
    if config.model_type not in supported:
        problem = f"model type {config.model_type!r} is not supported"
        raise DataError.at(source.name, None, problem, f"use one of {', '.join(sorted(supported))}")
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


def refuse_partial_load(source: str, report: Mapping[str, Any], *, may_lack_fusion: bool) -> None:
    """Refuse a checkpoint that does not fit its model.

    Args:
        source: what the message calls it.
        report: transformers' `output_loading_info`.
        may_lack_fusion: whether our fusion may be missing.

    Raises:
        DataError: tensors are missing, left over or of another shape.
    """
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


def _add_fact_token(tokenizer: Any) -> int:
    tokenizer.add_special_tokens({"extra_special_tokens": [FACT_TOKEN]}, replace_extra_special_tokens=False)
    token_id: int = tokenizer.convert_tokens_to_ids(FACT_TOKEN)
    return token_id
