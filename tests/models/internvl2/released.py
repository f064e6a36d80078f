"""Small random checkpoints in the layout in which InternVL2 was released: configuration, shards, tokenizer, code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from tests.conftest import TEXTS

HERE = Path(__file__).resolve().parent
KINDS = ("qwen2", "internlm2", "llama")
IMAGE_TOKENS = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]
# InternLM2 gives names to pieces that its SentencePiece model leaves unused; ids 3 to 8 of `internlm2_tokenizer.model`.
INTERNLM2_TOKENS = ["<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>", "<|im_end|>", "<|im_start|>"]
ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "internlm2": "InternLM2ForCausalLM", "llama": "LlamaForCausalLM"}
TEMPLATES = {"qwen2": "Hermes-2", "internlm2": "internlm2-chat", "llama": "Hermes-2"}
TRAP = "raise SystemExit('code of the checkpoint was run')\n"


def write_released(
    directory: Path,
    kind: str,
    *,
    shards: int = 3,
    dtype: torch.dtype = torch.float32,
    config: dict[str, Any] | None = None,
    llm_config: dict[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Write a checkpoint; returns its configuration and its tensors by their released names."""
    directory.mkdir(parents=True)
    vocab_size = WRITE_TOKENIZER[kind](directory)
    settings = released_config(kind, vocab_size) | (config or {})
    settings["llm_config"] |= llm_config or {}
    tensors = random_tensors(kind, settings, dtype)
    (directory / "config.json").write_text(json.dumps(settings))
    (directory / "modeling_internvl_chat.py").write_text(TRAP)
    write_shards(directory, tensors, shards)
    return settings, tensors


def released_config(kind: str, vocab_size: int) -> dict[str, Any]:
    """A small `config.json` with the keys of the released ones."""
    six_b = kind == "llama"
    rope_scaling = {"type": "dynamic", "factor": 2.0} if kind == "internlm2" else None
    llm = {
        "architectures": [ARCHITECTURES[kind]],
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "vocab_size": vocab_size,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 5000000.0 if six_b else 1000000,
        "rope_scaling": rope_scaling,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "top_k": 50,
    }
    if kind == "internlm2":
        llm |= {"model_type": "internlm2", "bias": False, "attn_implementation": "flash_attention_2"}
        llm |= {"auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config"}}
    vision = {
        "architectures": ["InternVisionModel"],
        "model_type": "intern_vit_6b",
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3 if six_b else 2,
        "image_size": 32,
        "patch_size": 4,
        "num_channels": 3,
        "qkv_bias": not six_b,
        "qk_normalization": six_b,
        "norm_type": "rms_norm" if six_b else "layer_norm",
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu",
        "initializer_factor": 1.0,
        "drop_path_rate": 0.0,
        "use_flash_attn": True,
    }
    return {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": 32,
        "llm_config": llm,
        "vision_config": vision,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 6,
        "pad2square": False,
        "ps_version": "v2",
        "select_layer": -1,
        "template": TEMPLATES[kind],
        "torch_dtype": "float32",
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "use_thumbnail": True,
    }


def random_tensors(kind: str, settings: dict[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor of the released layout, written out here from the released code, not from ours."""
    generator = torch.Generator().manual_seed(7)
    tensors: dict[str, Tensor] = {}

    def put(name: str, *shape: int, around: float = 0.0) -> None:
        scale = shape[-1] ** -0.5 if len(shape) == 2 else 0.2
        tensors[name] = (around + scale * torch.randn(shape, generator=generator)).to(dtype)

    vision = settings["vision_config"]
    width, wide, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    put("vision_model.embeddings.class_embedding", 1, 1, width)
    put("vision_model.embeddings.position_embedding", 1, (vision["image_size"] // patch) ** 2 + 1, width)
    put("vision_model.embeddings.patch_embedding.weight", width, 3, patch, patch)
    put("vision_model.embeddings.patch_embedding.bias", width)
    for number in range(vision["num_hidden_layers"]):
        layer = f"vision_model.encoder.layers.{number}"
        put(f"{layer}.attn.qkv.weight", 3 * width, width)
        if vision["qkv_bias"]:
            put(f"{layer}.attn.qkv.bias", 3 * width)
        if vision["qk_normalization"]:
            put(f"{layer}.attn.q_norm.weight", width, around=1.0)
            put(f"{layer}.attn.k_norm.weight", width, around=1.0)
        for name, rows, columns in (("attn.proj", width, width), ("mlp.fc1", wide, width), ("mlp.fc2", width, wide)):
            put(f"{layer}.{name}.weight", rows, columns)
            put(f"{layer}.{name}.bias", rows)
        for name in ("norm1", "norm2"):
            put(f"{layer}.{name}.weight", width, around=1.0)
            if vision["norm_type"] == "layer_norm":
                put(f"{layer}.{name}.bias", width)
        put(f"{layer}.ls1", width, around=1.0)
        put(f"{layer}.ls2", width, around=1.0)
    llm = settings["llm_config"]
    put("mlp1.0.weight", 4 * width, around=1.0)
    put("mlp1.0.bias", 4 * width)
    put("mlp1.1.weight", llm["hidden_size"], 4 * width)
    put("mlp1.1.bias", llm["hidden_size"])
    put("mlp1.3.weight", llm["hidden_size"], llm["hidden_size"])
    put("mlp1.3.bias", llm["hidden_size"])
    (_put_internlm2 if kind == "internlm2" else _put_llama)(kind, llm, put)
    return tensors


def _put_internlm2(kind: str, llm: dict[str, Any], put: Any) -> None:
    width, wide, model = llm["hidden_size"], llm["intermediate_size"], "language_model.model"
    rows = (llm["num_attention_heads"] + 2 * llm["num_key_value_heads"]) * width // llm["num_attention_heads"]
    put(f"{model}.tok_embeddings.weight", llm["vocab_size"], width)
    put(f"{model}.norm.weight", width, around=1.0)
    put("language_model.output.weight", llm["vocab_size"], width)
    for number in range(llm["num_hidden_layers"]):
        layer = f"{model}.layers.{number}"
        put(f"{layer}.attention.wqkv.weight", rows, width)
        put(f"{layer}.attention.wo.weight", width, width)
        if llm["bias"]:
            put(f"{layer}.attention.wqkv.bias", rows)
            put(f"{layer}.attention.wo.bias", width)
        put(f"{layer}.feed_forward.w1.weight", wide, width)
        put(f"{layer}.feed_forward.w3.weight", wide, width)
        put(f"{layer}.feed_forward.w2.weight", width, wide)
        put(f"{layer}.attention_norm.weight", width, around=1.0)
        put(f"{layer}.ffn_norm.weight", width, around=1.0)


def _put_llama(kind: str, llm: dict[str, Any], put: Any) -> None:
    width, wide, model = llm["hidden_size"], llm["intermediate_size"], "language_model.model"
    keys = llm["num_key_value_heads"] * width // llm["num_attention_heads"]
    put(f"{model}.embed_tokens.weight", llm["vocab_size"], width)
    put(f"{model}.norm.weight", width, around=1.0)
    if not llm["tie_word_embeddings"]:
        put("language_model.lm_head.weight", llm["vocab_size"], width)
    for number in range(llm["num_hidden_layers"]):
        layer = f"{model}.layers.{number}"
        for name, rows in (("q", width), ("k", keys), ("v", keys), ("o", width)):
            put(f"{layer}.self_attn.{name}_proj.weight", rows, width)
            if kind == "qwen2" and name != "o":
                put(f"{layer}.self_attn.{name}_proj.bias", rows)
        put(f"{layer}.mlp.gate_proj.weight", wide, width)
        put(f"{layer}.mlp.up_proj.weight", wide, width)
        put(f"{layer}.mlp.down_proj.weight", width, wide)
        put(f"{layer}.input_layernorm.weight", width, around=1.0)
        put(f"{layer}.post_attention_layernorm.weight", width, around=1.0)


def write_shards(directory: Path, tensors: dict[str, Tensor], shards: int) -> None:
    """The tensors in `shards` files with an index, or in one file without."""
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    names = list(tensors)
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[number::shards]}
        save_file(part, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def _declared(tokens: dict[int, str]) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {str(index): {"content": token, **flags} for index, token in tokens.items()}


def _write_internlm2_tokenizer(directory: Path) -> int:
    """`tokenizer.model` and code for it, as in the 2B, 8B and 26B."""
    shutil.copy(HERE / "internlm2_tokenizer.model", directory / "tokenizer.model")
    pieces = 460
    tokens = dict(enumerate(["<unk>", "<s>", "</s>", *INTERNLM2_TOKENS])) | dict(enumerate(IMAGE_TOKENS, pieces))
    settings = {
        "added_tokens_decoder": _declared(tokens),
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>", *IMAGE_TOKENS],
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
        "tokenizer_class": "InternLM2Tokenizer",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "added_tokens.json").write_text(json.dumps({token: index for index, token in tokens.items()}))
    (directory / "tokenization_internlm2.py").write_text(TRAP)
    return pieces + len(IMAGE_TOKENS)


def _write_qwen2_tokenizer(directory: Path) -> int:
    """`vocab.json` and `merges.txt`, as in the 1B."""
    trained = _byte_level_bpe()
    model = json.loads(trained.to_str())["model"]
    (directory / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n")
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *IMAGE_TOKENS]
    settings = {
        "add_prefix_space": False,
        "added_tokens_decoder": _declared(dict(enumerate(special, len(model["vocab"])))),
        "additional_special_tokens": special[1:],
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 8192,
        "tokenizer_class": "Qwen2Tokenizer",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(model["vocab"]) + len(special)


def _write_llama_tokenizer(directory: Path) -> int:
    """`tokenizer.json` alone."""
    tokenizer = _byte_level_bpe()
    tokens = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", *IMAGE_TOKENS]
    tokenizer.add_special_tokens(tokens)
    tokenizer.save(str(directory / "tokenizer.json"))
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>", "unk_token": "<unk>"}
    settings = {"add_bos_token": False, "tokenizer_class": "LlamaTokenizer", **named}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer.get_vocab_size()


def _byte_level_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


WRITE_TOKENIZER = {
    "qwen2": _write_qwen2_tokenizer,
    "internlm2": _write_internlm2_tokenizer,
    "llama": _write_llama_tokenizer,
}
