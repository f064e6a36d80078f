"""The released InternVL2 model once more, as plain functions of its released tensors and configuration.

Written from the released architecture (InternVisionModel, InternLM2, Llama and Qwen2 as of transformers 4.37), in the
order of its computations, and sharing nothing with the native model or with the conversion.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Weights = dict[str, Tensor]


def released_logits(w: Weights, config: dict[str, Any], image_token_id: int, ids: Tensor, tiles: Tensor) -> Tensor:
    """Logits `[T, vocabulary]` of one sequence `ids` [T] whose image tokens stand for `tiles` [N, 3, H, W]."""
    llm = config["llm_config"]
    is_internlm2 = llm["architectures"] == ["InternLM2ForCausalLM"]
    table = w[f"language_model.model.{'tok_embeddings' if is_internlm2 else 'embed_tokens'}.weight"]
    x = table[ids].clone()
    x[ids == image_token_id] = projected_tiles(w, config, tiles).flatten(0, 1)
    cos, sin = rotary(llm, len(ids))
    for number in range(llm["num_hidden_layers"]):
        layer = f"language_model.model.layers.{number}"
        x = (internlm2_layer if is_internlm2 else llama_layer)(w, llm, layer, x, cos, sin)
    x = rms_norm(x, w["language_model.model.norm.weight"], llm["rms_norm_eps"])
    head = w.get(f"language_model.{'output' if is_internlm2 else 'lm_head'}.weight", table)
    return x @ head.T


def projected_tiles(w: Weights, config: dict[str, Any], tiles: Tensor) -> Tensor:
    """Image tokens `[N, S, C]`: vision tower without its class token, pixel shuffle v2, projector."""
    x = vision_tower(w, config["vision_config"], tiles)[:, 1:]
    grid = int(x.shape[1] ** 0.5)
    x = x.reshape(len(tiles), grid, grid, -1)
    # v2: each square of four neighbours becomes one token, row by row within the square.
    corners = [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    x = torch.cat(corners, dim=-1).flatten(1, 2)
    x = functional.layer_norm(x, x.shape[-1:], w["mlp1.0.weight"], w["mlp1.0.bias"], 1e-5)
    x = functional.gelu(x @ w["mlp1.1.weight"].T + w["mlp1.1.bias"])
    return x @ w["mlp1.3.weight"].T + w["mlp1.3.bias"]


def vision_tower(w: Weights, vision: dict[str, Any], tiles: Tensor) -> Tensor:
    embeddings, patch = "vision_model.embeddings", vision["patch_size"]
    x = functional.conv2d(
        tiles, w[f"{embeddings}.patch_embedding.weight"], w[f"{embeddings}.patch_embedding.bias"], stride=patch
    )
    grid = x.shape[-1]
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([w[f"{embeddings}.class_embedding"].expand(len(tiles), -1, -1), x], dim=1)
    positions = w[f"{embeddings}.position_embedding"]
    trained = vision["image_size"] // patch
    square = positions[:, 1:].reshape(1, trained, trained, -1).permute(0, 3, 1, 2)
    square = functional.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    x = x + torch.cat([positions[:, :1], square.flatten(2).transpose(1, 2)], dim=1)
    for number in range(vision["num_hidden_layers"]):
        layer = f"vision_model.encoder.layers.{number}"
        x = x + vision_attention(w, vision, layer, vision_norm(w, vision, f"{layer}.norm1", x)) * w[f"{layer}.ls1"]
        hidden = vision_norm(w, vision, f"{layer}.norm2", x)
        hidden = functional.gelu(hidden @ w[f"{layer}.mlp.fc1.weight"].T + w[f"{layer}.mlp.fc1.bias"])
        x = x + (hidden @ w[f"{layer}.mlp.fc2.weight"].T + w[f"{layer}.mlp.fc2.bias"]) * w[f"{layer}.ls2"]
    return x


def vision_norm(w: Weights, vision: dict[str, Any], name: str, x: Tensor) -> Tensor:
    if vision["norm_type"] == "rms_norm":
        return rms_norm(x, w[f"{name}.weight"], vision["layer_norm_eps"])
    return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], vision["layer_norm_eps"])


def vision_attention(w: Weights, vision: dict[str, Any], layer: str, x: Tensor) -> Tensor:
    tiles, length, width = x.shape
    heads = vision["num_attention_heads"]
    qkv = x @ w[f"{layer}.attn.qkv.weight"].T
    if vision["qkv_bias"]:
        qkv = qkv + w[f"{layer}.attn.qkv.bias"]
    q, k, v = qkv[..., :width], qkv[..., width : 2 * width], qkv[..., 2 * width :]
    if vision["qk_normalization"]:  # over all heads together
        q = rms_norm(q, w[f"{layer}.attn.q_norm.weight"], vision["layer_norm_eps"])
        k = rms_norm(k, w[f"{layer}.attn.k_norm.weight"], vision["layer_norm_eps"])
    q, k, v = (part.reshape(tiles, length, heads, width // heads).transpose(1, 2) for part in (q, k, v))
    weights = ((q * (width // heads) ** -0.5) @ k.transpose(-1, -2)).softmax(dim=-1)
    out = (weights @ v).transpose(1, 2).reshape(tiles, length, width)
    return out @ w[f"{layer}.attn.proj.weight"].T + w[f"{layer}.attn.proj.bias"]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * (x / (x.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt())


def rotary(llm: dict[str, Any], length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines `[T, D]`; beyond the trained length the base grows (dynamic NTK)."""
    size, base = llm["hidden_size"] // llm["num_attention_heads"], float(llm["rope_theta"])
    scaling, trained = llm["rope_scaling"], llm["max_position_embeddings"]
    if scaling is not None and scaling["type"] == "dynamic" and length > trained:
        factor = scaling["factor"]
        base = base * ((factor * length / trained) - (factor - 1)) ** (size / (size - 2))
    frequencies = 1.0 / (base ** (torch.arange(0, size, 2).float() / size))
    positions = torch.arange(length).float()
    if scaling is not None and scaling["type"] == "linear":
        positions = positions / scaling["factor"]
    angles = torch.outer(positions, frequencies)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


def causal_head(q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """One query head `[T, D]`."""
    scores = rotate(q, cos, sin) @ rotate(k, cos, sin).T / q.shape[-1] ** 0.5
    future = torch.ones_like(scores).triu(1).bool()
    return scores.masked_fill(future, float("-inf")).softmax(dim=-1) @ v


def internlm2_layer(w: Weights, llm: dict[str, Any], layer: str, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    heads, key_heads = llm["num_attention_heads"], llm["num_key_value_heads"]
    group, size = heads // key_heads, llm["hidden_size"] // heads
    wqkv = w[f"{layer}.attention.wqkv.weight"]
    qkv = rms_norm(x, w[f"{layer}.attention_norm.weight"], llm["rms_norm_eps"]) @ wqkv.T
    if llm["bias"]:
        qkv = qkv + w[f"{layer}.attention.wqkv.bias"]
    outputs = []
    for key_head in range(key_heads):
        start = key_head * (group + 2) * size
        slots = [qkv[:, start + slot * size : start + (slot + 1) * size] for slot in range(group + 2)]
        outputs += [causal_head(slots[query], slots[group], slots[group + 1], cos, sin) for query in range(group)]
    attended = torch.cat(outputs, dim=-1) @ w[f"{layer}.attention.wo.weight"].T
    if llm["bias"]:
        attended = attended + w[f"{layer}.attention.wo.bias"]
    x = x + attended
    y = rms_norm(x, w[f"{layer}.ffn_norm.weight"], llm["rms_norm_eps"])
    gate = functional.silu(y @ w[f"{layer}.feed_forward.w1.weight"].T)
    up = y @ w[f"{layer}.feed_forward.w3.weight"].T
    return x + (gate * up) @ w[f"{layer}.feed_forward.w2.weight"].T


def llama_layer(w: Weights, llm: dict[str, Any], layer: str, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    heads, size = llm["num_attention_heads"], llm["hidden_size"] // llm["num_attention_heads"]
    group = heads // llm["num_key_value_heads"]
    y = rms_norm(x, w[f"{layer}.input_layernorm.weight"], llm["rms_norm_eps"])
    q, k, v = (
        y @ w[f"{layer}.self_attn.{name}_proj.weight"].T + w.get(f"{layer}.self_attn.{name}_proj.bias", torch.zeros(1))
        for name in ("q", "k", "v")
    )
    outputs = []
    for head in range(heads):
        own, shared = slice(head * size, (head + 1) * size), slice(head // group * size, (head // group + 1) * size)
        outputs.append(causal_head(q[:, own], k[:, shared], v[:, shared], cos, sin))
    x = x + torch.cat(outputs, dim=-1) @ w[f"{layer}.self_attn.o_proj.weight"].T
    y = rms_norm(x, w[f"{layer}.post_attention_layernorm.weight"], llm["rms_norm_eps"])
    gate = functional.silu(y @ w[f"{layer}.mlp.gate_proj.weight"].T)
    return x + (gate * (y @ w[f"{layer}.mlp.up_proj.weight"].T)) @ w[f"{layer}.mlp.down_proj.weight"].T
