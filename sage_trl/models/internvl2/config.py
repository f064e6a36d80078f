"""`config.json` of a released InternVL2 checkpoint, read strictly: what has no native equivalent is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from transformers import InternVLConfig, InternVLVisionConfig, LlamaConfig, Qwen2Config

from sage_trl.errors import DataError
from sage_trl.storage import read_json

LanguageModel = Literal["Qwen2ForCausalLM", "InternLM2ForCausalLM", "LlamaForCausalLM"]
LANGUAGE_MODELS: tuple[LanguageModel, ...] = get_args(LanguageModel)
# The native q/k norm has no setting for its epsilon.
NATIVE_QK_NORM_EPS = 1e-6


class Section:
    """A mapping of `config.json`, whose values are read with their type checked.

    Args:
        path: the file, for messages.
        prefix: where the section stands in it, for example `llm_config.`.
    """

    def __init__(self, path: Path, prefix: str, values: Mapping[str, Any]) -> None:
        self._path, self._prefix, self._values = path, prefix, values

    def section(self, key: str) -> Section:
        return Section(self._path, f"{self._prefix}{key}.", cast("Mapping[str, Any]", self._read(key, dict, None)))

    def integer(self, key: str, default: int | None = None) -> int:
        return int(self._read(key, int, default))

    def number(self, key: str, default: float | None = None) -> float:
        return float(self._read(key, (int, float), default))

    def flag(self, key: str, default: bool | None = None) -> bool:
        return bool(self._read(key, bool, default))

    def text(self, key: str, default: str | None = None) -> str:
        return str(self._read(key, str, default))

    def optional(self, key: str) -> Any:
        return self._values.get(key)

    def refuse(self, key: str, reason: str, remedy: str) -> DataError:
        """The error for a value that cannot be converted."""
        problem = f"{self._prefix}{key} is {self._values.get(key)!r}: {reason}"
        return DataError.at(self._path, None, problem, remedy)

    def _read(self, key: str, kind: Any, default: Any) -> Any:
        value = self._values.get(key, default)
        # JSON has true and false for flags only: `true` is no number, though Python's bool is an int.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
            raise self.refuse(key, f"expected {names}", "take config.json as it was released")
        return value


@dataclass(frozen=True)
class SourceConfig:
    """What a released `config.json` says, in native terms.

    Args:
        language_model: class of the language model in the source, which decides the tensor names.
        tile_size: pixels of a square tile.
        template: name of the released conversation template.
        system_message: the message the checkpoint sets in place of the template's, or None.
        max_tiles: most tiles of an image, the thumbnail apart; 1 if images are not cut.
        dtype: weight type as released, or None.
    """

    path: Path
    vision: InternVLVisionConfig
    text: Qwen2Config | LlamaConfig
    language_model: LanguageModel
    downsample_ratio: float
    tile_size: int
    template: str
    system_message: str | None
    min_tiles: int
    max_tiles: int
    dtype: str | None

    @property
    def image_seq_length(self) -> int:
        """Image tokens of one tile."""
        return int((self.tile_size // self.vision.patch_size[0] * self.downsample_ratio) ** 2)

    def refuse(self, key: str, reason: str, remedy: str) -> DataError:
        """The error for a key that a later step cannot convert."""
        return DataError.at(self.path, None, f"{key}: {reason}", remedy)

    def native(self, image_token_id: int) -> InternVLConfig:
        """The native configuration.

        Args:
            image_token_id: id of `<IMG_CONTEXT>`, which only the tokenizer knows.
        """
        return InternVLConfig(
            vision_config=self.vision,
            text_config=self.text,
            image_token_id=image_token_id,
            image_seq_length=self.image_seq_length,
            downsample_ratio=self.downsample_ratio,
            tie_word_embeddings=self.text.tie_word_embeddings,
            architectures=["InternVLForConditionalGeneration"],
            dtype=self.dtype,
        )


def read_source_config(directory: Path) -> SourceConfig:
    """Read `config.json` of a released checkpoint.

    Where a key may be absent, its default is that of the released configuration classes.

    Raises:
        DataError: no such file, another model type, or a setting without a native equivalent; names the key.
    """
    path = directory / "config.json"
    values = read_json(path)
    root = Section(path, "", values if isinstance(values, dict) else {})
    if root.optional("model_type") != "internvl_chat":
        raise root.refuse("model_type", "not a released InternVL2 checkpoint", "only `internvl_chat` is converted")
    _refuse_what_has_no_native_form(root)
    vision = _vision_config(root.section("vision_config"))
    language_model, text = _text_config(root.section("llm_config"))
    tile_size = root.integer("force_image_size") if root.optional("force_image_size") else vision.image_size[0]
    cut = root.flag("dynamic_image_size", False)
    source = SourceConfig(
        path=path,
        vision=vision,
        text=text,
        language_model=language_model,
        downsample_ratio=root.number("downsample_ratio"),
        tile_size=tile_size,
        template=root.text("template"),
        system_message=root.optional("system_message"),
        min_tiles=root.integer("min_dynamic_patch", 1) if cut else 1,
        max_tiles=root.integer("max_dynamic_patch", 6) if cut else 1,
        dtype=root.optional("torch_dtype"),
    )
    _check_grid(root, source)
    return source


def _refuse_what_has_no_native_form(root: Section) -> None:
    if root.optional("ps_version") != "v2":
        raise root.refuse("ps_version", "the native pixel shuffle is v2", "v1 checkpoints cannot be converted")
    if root.integer("select_layer", -1) != -1:
        remedy = "checkpoints that read another layer cannot be converted"
        raise root.refuse("select_layer", "only the last vision layer, -1, is converted", remedy)
    if root.optional("pad2square"):
        raise root.refuse("pad2square", "the native image processor does not pad", "use a checkpoint without it")
    for key in ("use_backbone_lora", "use_llm_lora"):
        if root.optional(key):
            raise root.refuse(key, "the weights hold LoRA adapters", "merge them into the model first")
    cut = root.flag("dynamic_image_size", False) and root.integer("max_dynamic_patch", 6) > 1
    if cut and not root.flag("use_thumbnail", False):
        reason = "the native image processor always adds a thumbnail to a cut image"
        raise root.refuse("use_thumbnail", reason, "set it to true if the model shall see one")


def _vision_config(section: Section) -> InternVLVisionConfig:
    norm_type, eps = section.text("norm_type", "rms_norm"), section.number("layer_norm_eps", 1e-6)
    if norm_type not in ("layer_norm", "rms_norm"):
        raise section.refuse("norm_type", "unknown norm", "layer_norm and rms_norm are converted")
    qk_norm = section.flag("qk_normalization")
    if qk_norm and eps != NATIVE_QK_NORM_EPS:
        reason = f"with qk_normalization only {NATIVE_QK_NORM_EPS} is native"
        raise section.refuse("layer_norm_eps", reason, "such a checkpoint cannot be converted")
    return InternVLVisionConfig(
        hidden_size=section.integer("hidden_size"),
        intermediate_size=section.integer("intermediate_size"),
        num_hidden_layers=section.integer("num_hidden_layers"),
        num_attention_heads=section.integer("num_attention_heads"),
        num_channels=section.integer("num_channels", 3),
        image_size=section.integer("image_size"),
        patch_size=section.integer("patch_size"),
        attention_bias=section.flag("qkv_bias"),
        use_qk_norm=qk_norm,
        norm_type=norm_type,
        layer_norm_eps=eps,
        hidden_act=section.text("hidden_act", "gelu"),
        projection_dropout=section.number("dropout", 0.0),
        attention_dropout=section.number("attention_dropout", 0.0),
        initializer_range=section.number("initializer_range", 0.02),
        # The released layer scale starts at `initializer_factor`; the weights replace it.
        layer_scale_init_value=section.number("initializer_factor", 0.1),
    )


def _text_config(section: Section) -> tuple[LanguageModel, Qwen2Config | LlamaConfig]:
    architectures = section.optional("architectures")
    name = architectures[0] if isinstance(architectures, list) and architectures else None
    if name not in LANGUAGE_MODELS:
        raise section.refuse("architectures", "unknown language model", f"one of {', '.join(LANGUAGE_MODELS)}")
    heads = section.integer("num_attention_heads")
    settings: dict[str, Any] = {
        "vocab_size": section.integer("vocab_size"),
        "hidden_size": section.integer("hidden_size"),
        "intermediate_size": section.integer("intermediate_size"),
        "num_hidden_layers": section.integer("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": section.integer("num_key_value_heads", heads),
        "max_position_embeddings": section.integer("max_position_embeddings"),
        "hidden_act": section.text("hidden_act", "silu"),
        "rms_norm_eps": section.number("rms_norm_eps", 1e-6),
        "initializer_range": section.number("initializer_range", 0.02),
        "tie_word_embeddings": section.flag("tie_word_embeddings", False),
        "rope_parameters": _rope_parameters(section, name),
        **{key: section.optional(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")},
    }
    if name == "Qwen2ForCausalLM":
        windows = ("use_sliding_window", "sliding_window", "max_window_layers")
        settings |= {key: section.optional(key) for key in windows if section.optional(key) is not None}
        return name, Qwen2Config(**settings, attention_dropout=section.number("attention_dropout", 0.0))
    # InternLM2 is Llama with its query, key and value weights in one tensor; its `bias` is that of the attention.
    bias = section.flag("bias", True) if name == "InternLM2ForCausalLM" else section.flag("attention_bias", False)
    mlp_bias = name == "LlamaForCausalLM" and section.flag("mlp_bias", False)
    return name, LlamaConfig(**settings, attention_bias=bias, mlp_bias=mlp_bias)


def _rope_parameters(section: Section, language_model: str) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": section.number("rope_theta", 10000.0)}
    scaling = section.optional("rope_scaling")
    if scaling is None:
        return rope
    if language_model == "Qwen2ForCausalLM":
        raise section.refuse("rope_scaling", "the released Qwen2 code has none", "set it to null")
    kind = scaling.get("type") if isinstance(scaling, dict) else None
    factor = scaling.get("factor") if isinstance(scaling, dict) else None
    if kind not in ("dynamic", "linear") or not isinstance(factor, int | float):
        raise section.refuse("rope_scaling", "unknown scaling", 'such as {"type": "dynamic", "factor": 2.0}')
    return {**rope, "rope_type": kind, "factor": float(factor)}


def _check_grid(root: Section, source: SourceConfig) -> None:
    """Every division that the layout relies on comes out even."""
    vision, text = source.vision, source.text
    if text.hidden_size % text.num_attention_heads or text.num_attention_heads % text.num_key_value_heads:
        reason = "heads do not divide the width, or key/value heads the heads"
        raise root.section("llm_config").refuse("num_attention_heads", reason, "take config.json as it was released")
    if vision.hidden_size % vision.num_attention_heads:
        reason = "heads do not divide the width"
        raise root.section("vision_config").refuse("num_attention_heads", reason, "take config.json as it was released")
    if not 0 < source.downsample_ratio <= 1 or (1 / source.downsample_ratio) % 1:
        raise root.refuse("downsample_ratio", "expected one over a whole number", "0.5 in every release")
    for key, size in (("force_image_size", source.tile_size), ("vision_config", vision.image_size[0])):
        patch = vision.patch_size[0]
        if size % patch or (size // patch) * source.downsample_ratio % 1:
            reason = f"{size} px are no whole number of {patch} px patches after downsampling"
            raise root.refuse(key, reason, "take config.json as it was released")
