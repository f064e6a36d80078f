"""The tokenizer of a released InternVL2 checkpoint, read from its files alone; every token keeps its id.

Releases come with `tokenizer.json`, with `vocab.json` and `merges.txt` (Qwen2), or with `tokenizer.model` and code for
it (InternLM2). The code is never run: what it does is in `sage_trl.models.internvl2.sentencepiece`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer, Qwen2Tokenizer
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

from sage_trl.errors import DataError
from sage_trl.models.internvl2.chat import END_OF_TURN
from sage_trl.models.internvl2.sentencepiece import PrefixSpace, SentencePieceModel, bpe_tokenizer, read_sentencepiece
from sage_trl.storage import read_json

IMAGE_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
}
# The native processor names one, as the hub's conversions have it. It is replaced before the text is encoded: its id,
# which lies beyond the embedding matrix where the source has no such token, never reaches the model.
VIDEO_TOKEN = {"video_token": "<video>"}
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
SENTENCEPIECE_CLASSES = ("LlamaTokenizer", "InternLM2Tokenizer")
# Settings that mean the same in the native tokenizer.
KEPT_SETTINGS = ("model_max_length", "clean_up_tokenization_spaces", "padding_side", "add_bos_token", "add_eos_token")
_AS_RELEASED = "take the tokenizer's files as they were released"


def read_tokenizer(directory: Path, vocab_size: int) -> PreTrainedTokenizerFast:
    """The native tokenizer of a released checkpoint.

    Args:
        directory: the checkpoint.
        vocab_size: rows of the embedding matrix, which every image and turn token must have an id below.

    Raises:
        DataError: a file is missing or cannot be read, or a token would not keep its id.
    """
    path = directory / "tokenizer_config.json"
    settings = _settings(directory, path)
    added = _added_tokens(directory, settings)
    backend, defaults = _backend(directory, settings, added)
    backend.add_tokens([token for _, token in sorted(added.items())])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **_special_tokens(settings),
        **{**defaults, **{key: settings[key] for key in KEPT_SETTINGS if settings.get(key) is not None}},
        model_specific_special_tokens={**IMAGE_TOKENS, **VIDEO_TOKEN},
    )
    check_ids(tokenizer, {token.content: index for index, token in added.items()}, path)
    _check_needed_tokens(tokenizer, vocab_size, path)
    return tokenizer


def check_ids(tokenizer: Any, ids: Mapping[str, int], path: Path) -> None:
    """Refuse a tokenizer in which a token has another id than in `ids`."""
    for token, index in ids.items():
        found = tokenizer.convert_tokens_to_ids(token)
        if found != index:
            problem = f"token {token!r} has id {index} in the source and {found} in the native tokenizer"
            raise DataError.at(path, None, problem, _AS_RELEASED)


def check_saved(tokenizer: Any, directory: Path) -> None:
    """Refuse a saved tokenizer that does not come back as it was."""
    saved = AutoTokenizer.from_pretrained(directory)
    check_ids(saved, tokenizer.get_vocab(), directory / "tokenizer.json")


def begins_with_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts its begin-of-sequence token before every text."""
    ids = tokenizer("").input_ids
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def _settings(directory: Path, path: Path) -> dict[str, Any]:
    settings = read_json(path)
    named = directory / "special_tokens_map.json"
    special = read_json(named) if named.is_file() else {}
    if not isinstance(settings, dict) or not isinstance(special, dict):
        raise DataError.at(path, None, "expected a mapping", _AS_RELEASED)
    return {**special, **settings}


def _added_tokens(directory: Path, settings: Mapping[str, Any]) -> dict[int, AddedToken]:
    path = directory / "tokenizer_config.json"
    try:
        declared = {
            int(index): AddedToken(**token) for index, token in settings.get("added_tokens_decoder", {}).items()
        }
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError.at(path, None, f"added_tokens_decoder cannot be read: {error}", _AS_RELEASED) from None
    file = directory / "added_tokens.json"
    for token, index in (read_json(file) if file.is_file() else {}).items():
        known = declared.setdefault(index, AddedToken(token, special=True, normalized=False))
        if known.content != token:
            problem = f"{token!r} has id {index}, which tokenizer_config.json gives to {known.content!r}"
            raise DataError.at(file, None, problem, _AS_RELEASED)
    return declared


def _special_tokens(settings: Mapping[str, Any]) -> dict[str, Any]:
    special: dict[str, Any] = {key: _content(settings.get(key)) for key in SPECIAL_TOKENS}
    return {
        **special,
        "extra_special_tokens": [_content(one) for one in settings.get("additional_special_tokens") or []],
    }


def _content(token: Any) -> Any:
    return token["content"] if isinstance(token, dict) else token


def _backend(
    directory: Path, settings: Mapping[str, Any], added: Mapping[int, AddedToken]
) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer without its added tokens, and the settings its released class has unless told otherwise."""
    if (directory / "tokenizer.json").is_file():
        return _from_json(directory / "tokenizer.json"), {}
    if (directory / "tokenizer.model").is_file():
        path = directory / "tokenizer.model"
        model = read_sentencepiece(path)
        renamed = {index: token.content for index, token in added.items() if index < len(model.pieces)}
        return bpe_tokenizer(model, renamed, _prefix_space(model, settings, path), path), {"add_bos_token": True}
    if (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
        return _from_qwen2(directory, settings), {}
    problem = "no tokenizer.json, tokenizer.model, or vocab.json with merges.txt"
    raise DataError.at(directory, None, problem, "copy the tokenizer's files beside the weights")


def _from_json(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise DataError.at(path, None, f"the tokenizer cannot be read: {error}", _AS_RELEASED) from None


def _from_qwen2(directory: Path, settings: Mapping[str, Any]) -> Tokenizer:
    name = str(settings.get("tokenizer_class")).removesuffix("Fast")
    if name != "Qwen2Tokenizer":
        problem = f"tokenizer_class is {name!r}: vocab.json and merges.txt are read for Qwen2Tokenizer only"
        remedy = "save the tokenizer once as tokenizer.json, with its own code, and put that beside it"
        raise DataError.at(directory / "tokenizer_config.json", None, problem, remedy)
    lines = (directory / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    vocabulary = read_json(directory / "vocab.json")
    # Without special tokens of its own, which would take the first free ids.
    base = Qwen2Tokenizer(vocab=vocabulary, merges=merges, unk_token=None, eos_token=None, pad_token=None)
    backend: Tokenizer = base.backend_tokenizer
    return backend


def _prefix_space(model: SentencePieceModel, settings: Mapping[str, Any], path: Path) -> PrefixSpace:
    name = str(settings.get("tokenizer_class")).removesuffix("Fast")
    if name not in SENTENCEPIECE_CLASSES:
        problem = f"tokenizer_class is {name!r}: it is read for {' and '.join(SENTENCEPIECE_CLASSES)} only"
        remedy = "save the tokenizer once as tokenizer.json, with its own code, and put that beside it"
        raise DataError.at(path, None, problem, remedy)
    # Llama's `legacy: false` puts the space before the whole text, whatever the model says.
    if name == "LlamaTokenizer" and settings.get("legacy") is False:
        return "none" if settings.get("add_prefix_space") is False else "first"
    return "each" if model.add_dummy_prefix else "none"


def _check_needed_tokens(tokenizer: Any, vocab_size: int, path: Path) -> None:
    for token in (*IMAGE_TOKENS.values(), "<|im_start|>", END_OF_TURN):
        index = tokenizer.get_vocab().get(token)
        if index is None or index >= vocab_size or tokenizer.tokenize(token) != [token]:
            problem = f"{token!r} has no id below the {vocab_size} rows of the embeddings (found {index})"
            raise DataError.at(path, None, problem, _AS_RELEASED)
    if tokenizer.pad_token_id is None:
        raise DataError.at(path, None, "no pad_token", "name one of the tokenizer's tokens there")
