"""Conversion of a released InternVL2 checkpoint, shard by shard, to a directory that is whole or absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from sage_trl.errors import DataError
from sage_trl.models.internvl2.chat import END_OF_TURN, chat_template
from sage_trl.models.internvl2.config import SourceConfig, read_source_config
from sage_trl.models.internvl2.shards import Header, native_shard_name, read_headers
from sage_trl.models.internvl2.tensors import TensorRule, head_name, tensor_rules
from sage_trl.models.internvl2.tokenizer import IMAGE_TOKENS, begins_with_bos, check_saved, read_tokenizer
from sage_trl.storage import atomic_directory, write_json

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NAMES_SHOWN = 5


def convert_checkpoint(source: Path, destination: Path, on_shard: Callable[[int, int], None]) -> None:
    """Write the native form of the released checkpoint `source` to `destination`.

    Everything that can be refused is refused before the first tensor is read. A native shard holds what one source
    shard held, so memory holds one source shard and the native tensors made of it.

    Args:
        source: directory of a released checkpoint; no code in it is run.
        destination: directory to make; it may exist, if empty.
        on_shard: called with (shards done, shards in all) before the first shard and after each.

    Raises:
        DataError: `source` cannot be converted as it is, or `destination` holds something.
    """
    if not source.is_dir():
        raise DataError.at(source, None, "no such directory", "give the directory of a downloaded checkpoint")
    config = read_source_config(source)
    headers = read_headers(source)
    # The released code loads a stored head whatever `tie_word_embeddings` says.
    config.text.tie_word_embeddings &= head_name(config) not in {name for header in headers for name in header.shapes}
    rules = tensor_rules(config)
    _check_tensors(source, headers, rules)
    tokenizer = read_tokenizer(source, config.text.vocab_size)
    tokenizer.chat_template = chat_template(config, tokenizer.bos_token if begins_with_bos(tokenizer) else None)
    with atomic_directory(destination) as directory:
        _write_settings(config, tokenizer, directory)
        _write_shards(headers, rules, directory, on_shard)


def _check_tensors(source: Path, headers: list[Header], rules: dict[str, TensorRule]) -> None:
    stored = {name: (shape, header.path) for header in headers for name, shape in header.shapes.items()}
    missing, unknown = sorted(rules.keys() - stored.keys()), sorted(stored.keys() - rules.keys())
    wrong = [
        f"{name} is {list(stored[name][0])}, not {list(rule.shape)}"
        for name, rule in rules.items()
        if name in stored and stored[name][0] != rule.shape
    ]
    kinds = {"missing": missing, "left over": unknown, "of another shape than config.json says": wrong}
    found = [f"tensors {kind} ({len(names)}): {_listed(names)}" for kind, names in kinds.items() if names]
    if found:
        raise DataError.at(source, None, "; ".join(found), "use a whole checkpoint as it was released")


def _listed(names: list[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _write_settings(config: SourceConfig, tokenizer: Any, directory: Path) -> None:
    """Everything but the weights: configuration, stop tokens, tokenizer with chat template, image settings."""
    end_of_turn = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    config.native(tokenizer.convert_tokens_to_ids(IMAGE_TOKENS["context_image_token"])).save_pretrained(directory)
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=end_of_turn, pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    check_saved(tokenizer, directory)
    normalization = {
        "size": {"height": config.tile_size, "width": config.tile_size},
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    }
    images = GotOcr2ImageProcessorPil(
        crop_to_patches=config.max_tiles > 1,
        min_patches=config.min_tiles,
        max_patches=config.max_tiles,
        **normalization,
    )
    processor = {
        "processor_class": "InternVLProcessor",
        "image_seq_length": config.image_seq_length,
        "image_processor": images.to_dict(),
        "video_processor": {"video_processor_type": "InternVLVideoProcessor", **normalization},
    }
    write_json(directory / "processor_config.json", processor)


def _write_shards(
    headers: list[Header], rules: dict[str, TensorRule], directory: Path, on_shard: Callable[[int, int], None]
) -> None:
    weight_map: dict[str, str] = {}
    total_size = 0
    on_shard(0, len(headers))
    for number, header in enumerate(headers, start=1):
        name = native_shard_name(number, len(headers))
        sizes = _write_shard(header, rules, directory / name)
        weight_map |= dict.fromkeys(sizes, name)
        total_size += sum(sizes.values())
        on_shard(number, len(headers))
    if len(headers) > 1:
        index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
        write_json(directory / "model.safetensors.index.json", index)


def _write_shard(header: Header, rules: dict[str, TensorRule], path: Path) -> dict[str, int]:
    """Convert one shard; returns the bytes of every native tensor."""
    native: dict[str, Tensor] = {}
    try:
        with safe_open(header.path, framework="pt") as shard:
            for name in header.shapes:
                parts = rules[name].split(shard.get_tensor(name))
                native |= zip(rules[name].targets, parts, strict=True)
    except (OSError, SafetensorError) as error:
        raise DataError.at(header.path, None, f"the shard cannot be read: {error}", "fetch it anew") from None
    save_file(native, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes files that nobody else can read
    return {name: tensor.nbytes for name, tensor in native.items()}
