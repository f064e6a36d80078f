"""Tensors of a released InternVL2 checkpoint: their names, their shapes, and what each becomes.

Every source tensor becomes one to three native tensors on its own, so a shard can be converted without the others.
Native names are those of hub checkpoints, which transformers and `load_pretrained` rename when they load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import InternVLVisionConfig, LlamaConfig, Qwen2Config

from sage_trl.models.internvl2.config import SourceConfig

Split = Callable[[Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class TensorRule:
    """What a source tensor becomes.

    Args:
        shape: its shape in the source.
        targets: native names, one for each part.
        split: cuts the tensor into the parts.
    """

    shape: tuple[int, ...]
    targets: tuple[str, ...]
    split: Split


def tensor_rules(source: SourceConfig) -> dict[str, TensorRule]:
    """The rule of every tensor that a checkpoint of this configuration holds, by source name."""
    return {**_vision_rules(source.vision), **_projector_rules(source), **dict(_language_rules(source))}


def head_name(source: SourceConfig) -> str:
    """Source name of the language model's head."""
    head = "output" if source.language_model == "InternLM2ForCausalLM" else "lm_head"
    return f"language_model.{head}.weight"


def split_grouped(weight: Tensor, heads: int, key_value_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value rows of InternLM2's `wqkv`.

    Args:
        weight: `[(heads + 2 * key_value_heads) * D, ...]`; for each key/value head the D rows of each query head of
            its group, then those of the key, then those of the value.
        heads: query heads.
        key_value_heads: key/value heads.

    Returns:
        `[heads * D, ...]` and twice `[key_value_heads * D, ...]`, heads in order.
    """
    group = heads // key_value_heads
    rest = weight.shape[1:]
    grouped = weight.reshape(key_value_heads, group + 2, -1, *rest)
    query, key, value = torch.split(grouped, [group, 1, 1], dim=1)
    return query.reshape(-1, *rest), key.reshape(-1, *rest), value.reshape(-1, *rest)


def _whole(tensor: Tensor) -> tuple[Tensor, ...]:
    return (tensor,)


def _thirds(tensor: Tensor) -> tuple[Tensor, ...]:
    return tensor.chunk(3)


def _one(shape: tuple[int, ...], target: str) -> TensorRule:
    return TensorRule(shape, (target,), _whole)


def _linear(source: str, target: str, outputs: int, inputs: int, *, bias: bool) -> dict[str, TensorRule]:
    rules = {f"{source}.weight": _one((outputs, inputs), f"{target}.weight")}
    return rules | ({f"{source}.bias": _one((outputs,), f"{target}.bias")} if bias else {})


def _norm(source: str, target: str, width: int, *, bias: bool) -> dict[str, TensorRule]:
    parts = ("weight", "bias") if bias else ("weight",)
    return {f"{source}.{part}": _one((width,), f"{target}.{part}") for part in parts}


def _vision_rules(vision: InternVLVisionConfig) -> dict[str, TensorRule]:
    width, patch = vision.hidden_size, vision.patch_size[0]
    positions = (vision.image_size[0] // patch) ** 2 + 1
    source, target = "vision_model.embeddings", "vision_tower.embeddings"
    projection = f"{target}.patch_embeddings.projection"
    rules = {
        f"{source}.class_embedding": _one((1, 1, width), f"{target}.cls_token"),
        f"{source}.position_embedding": _one((1, positions, width), f"{target}.position_embeddings"),
        f"{source}.patch_embedding.weight": _one((width, vision.num_channels, patch, patch), f"{projection}.weight"),
        f"{source}.patch_embedding.bias": _one((width,), f"{projection}.bias"),
    }
    for layer in range(vision.num_hidden_layers):
        rules |= _vision_layer_rules(vision, layer)
    return rules


def _vision_layer_rules(vision: InternVLVisionConfig, layer: int) -> dict[str, TensorRule]:
    width, wide = vision.hidden_size, vision.intermediate_size
    source, target = f"vision_model.encoder.layers.{layer}", f"vision_tower.encoder.layer.{layer}"
    projections = tuple(f"{target}.attention.{name}_proj" for name in ("q", "k", "v"))
    weights, biases = (tuple(f"{name}.{part}" for name in projections) for part in ("weight", "bias"))
    rules = {
        f"{source}.attn.qkv.weight": TensorRule((3 * width, width), weights, _thirds),
        f"{source}.ls1": _one((width,), f"{target}.lambda_1"),
        f"{source}.ls2": _one((width,), f"{target}.lambda_2"),
        **_linear(f"{source}.attn.proj", f"{target}.attention.projection_layer", width, width, bias=True),
        **_linear(f"{source}.mlp.fc1", f"{target}.mlp.fc1", wide, width, bias=True),
        **_linear(f"{source}.mlp.fc2", f"{target}.mlp.fc2", width, wide, bias=True),
    }
    if vision.attention_bias:
        rules[f"{source}.attn.qkv.bias"] = TensorRule((3 * width,), biases, _thirds)
    if vision.use_qk_norm:
        for name in ("q_norm", "k_norm"):
            rules |= _norm(f"{source}.attn.{name}", f"{target}.attention.{name}", width, bias=False)
    for name, native in (("norm1", "layernorm_before"), ("norm2", "layernorm_after")):
        rules |= _norm(f"{source}.{name}", f"{target}.{native}", width, bias=vision.norm_type == "layer_norm")
    return rules


def _projector_rules(source: SourceConfig) -> dict[str, TensorRule]:
    joined = source.vision.hidden_size * round(1 / source.downsample_ratio) ** 2
    width, target = source.text.hidden_size, "multi_modal_projector"
    return {
        **_norm("mlp1.0", f"{target}.layer_norm", joined, bias=True),
        **_linear("mlp1.1", f"{target}.linear_1", width, joined, bias=True),
        **_linear("mlp1.3", f"{target}.linear_2", width, width, bias=True),
    }


def _language_rules(source: SourceConfig) -> Iterator[tuple[str, TensorRule]]:
    text, is_internlm2 = source.text, source.language_model == "InternLM2ForCausalLM"
    model, matrix = "language_model.model", (text.vocab_size, text.hidden_size)
    embeddings = "tok_embeddings" if is_internlm2 else "embed_tokens"
    yield f"{model}.{embeddings}.weight", _one(matrix, f"{model}.embed_tokens.weight")
    yield from _norm(f"{model}.norm", f"{model}.norm", text.hidden_size, bias=False).items()
    if not text.tie_word_embeddings:
        yield head_name(source), _one(matrix, "language_model.lm_head.weight")
    layer_rules = _internlm2_layer_rules if is_internlm2 else _llama_layer_rules
    for layer in range(text.num_hidden_layers):
        yield from layer_rules(text, f"{model}.layers.{layer}").items()


def _llama_layer_rules(text: Qwen2Config | LlamaConfig, layer: str) -> dict[str, TensorRule]:
    """Llama and Qwen2 have their native names already."""
    width, wide = text.hidden_size, text.intermediate_size
    head = width // text.num_attention_heads
    queries, keys = text.num_attention_heads * head, text.num_key_value_heads * head
    is_qwen2 = isinstance(text, Qwen2Config)
    qkv_bias = is_qwen2 or text.attention_bias
    output_bias, mlp_bias = (False, False) if is_qwen2 else (text.attention_bias, text.mlp_bias)
    linears = [
        ("self_attn.q_proj", queries, width, qkv_bias),
        ("self_attn.k_proj", keys, width, qkv_bias),
        ("self_attn.v_proj", keys, width, qkv_bias),
        ("self_attn.o_proj", width, queries, output_bias),
        ("mlp.gate_proj", wide, width, mlp_bias),
        ("mlp.up_proj", wide, width, mlp_bias),
        ("mlp.down_proj", width, wide, mlp_bias),
    ]
    rules: dict[str, TensorRule] = {}
    for name, outputs, inputs, bias in linears:
        rules |= _linear(f"{layer}.{name}", f"{layer}.{name}", outputs, inputs, bias=bias)
    for name in ("input_layernorm", "post_attention_layernorm"):
        rules |= _norm(f"{layer}.{name}", f"{layer}.{name}", width, bias=False)
    return rules


def _internlm2_layer_rules(text: Qwen2Config | LlamaConfig, layer: str) -> dict[str, TensorRule]:
    width, wide, bias = text.hidden_size, text.intermediate_size, text.attention_bias
    heads, key_value_heads = text.num_attention_heads, text.num_key_value_heads
    rows = (heads + 2 * key_value_heads) * (width // heads)

    def split(weight: Tensor) -> tuple[Tensor, ...]:
        return split_grouped(weight, heads, key_value_heads)

    projections = tuple(f"{layer}.self_attn.{name}_proj" for name in ("q", "k", "v"))
    weights, biases = (tuple(f"{name}.{part}" for name in projections) for part in ("weight", "bias"))
    rules = {
        f"{layer}.attention.wqkv.weight": TensorRule((rows, width), weights, split),
        **_linear(f"{layer}.attention.wo", f"{layer}.self_attn.o_proj", width, width, bias=bias),
        **_linear(f"{layer}.feed_forward.w1", f"{layer}.mlp.gate_proj", wide, width, bias=False),
        **_linear(f"{layer}.feed_forward.w3", f"{layer}.mlp.up_proj", wide, width, bias=False),
        **_linear(f"{layer}.feed_forward.w2", f"{layer}.mlp.down_proj", width, wide, bias=False),
        **_norm(f"{layer}.attention_norm", f"{layer}.input_layernorm", width, bias=False),
        **_norm(f"{layer}.ffn_norm", f"{layer}.post_attention_layernorm", width, bias=False),
    }
    return rules | ({f"{layer}.attention.wqkv.bias": TensorRule((rows,), biases, split)} if bias else {})
