"""Tokens keep their ids and texts are encoded as by the released tokenizers; expected ids are sentencepiece's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from sage_trl.errors import DataError
from sage_trl.models import checkpoints
from sage_trl.models.encoding import encode_prompts
from sage_trl.models.internvl2.conversion import convert_checkpoint
from sage_trl.models.internvl2.sentencepiece import bpe_tokenizer, read_sentencepiece
from sage_trl.models.internvl2.tokenizer import read_tokenizer
from tests.conftest import row
from tests.models.internvl2.released import HERE, IMAGE_TOKENS, INTERNLM2_TOKENS, KINDS, WRITE_TOKENIZER, write_released

# `sentencepiece_ids.json` and the two models were written by sentencepiece 0.2.3, which trained them on a few words.
EXPECTED = json.loads((HERE / "sentencepiece_ids.json").read_text(encoding="utf-8"))
SYSTEM = "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"


@pytest.mark.parametrize(("name", "prefix_space"), [("internlm2", "none"), ("llama", "each")])
def test_texts_are_encoded_as_sentencepiece_does(name, prefix_space):
    path = HERE / f"{name}_tokenizer.model"
    tokenizer = bpe_tokenizer(read_sentencepiece(path), {}, prefix_space, path)
    for sample in EXPECTED[name]:
        assert tokenizer.encode(sample["text"]).ids == sample["ids"], sample["text"]


def convert(directory: Path, kind: str, **changes) -> Path:
    write_released(directory / "source", kind, **changes)
    convert_checkpoint(directory / "source", directory / "native", lambda done, total: None)
    return directory / "native"


def test_internlm2_keeps_every_id_and_its_texts(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(convert(tmp_path, "internlm2"))
    expected = dict(enumerate(["<unk>", "<s>", "</s>", *INTERNLM2_TOKENS])) | dict(enumerate(IMAGE_TOKENS, 460))
    for index, token in expected.items():
        assert tokenizer.convert_tokens_to_ids(token) == index
        assert tokenizer.encode(token, add_special_tokens=False) == [index]
    for sample in EXPECTED["internlm2"]:
        # The released tokenizer begins every text with <s>.
        assert tokenizer(sample["text"]).input_ids == [1, *sample["ids"]]
        assert tokenizer.decode(sample["ids"]) == sample["text"]
    words = next(sample for sample in EXPECTED["internlm2"] if sample["text"] == "inspect the plate")["ids"]
    assert tokenizer.encode("inspect the plate<|im_end|><img>", add_special_tokens=False) == [*words, 7, 460]
    assert tokenizer.decode([8, *words, 7], skip_special_tokens=True) == "inspect the plate"


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_video_token_is_new_and_lies_beyond_the_embeddings(tmp_path, kind):
    native = convert(tmp_path, kind)
    vocabulary = AutoTokenizer.from_pretrained(native).get_vocab()
    rows = json.loads((native / "config.json").read_text())["text_config"]["vocab_size"]
    assert {token: index for token, index in vocabulary.items() if index >= rows} == {"<video>": rows}
    declared = json.loads((tmp_path / "source" / "tokenizer_config.json").read_text()).get("added_tokens_decoder", {})
    for index, token in declared.items():
        assert vocabulary[token["content"]] == int(index)
    config = json.loads((native / "config.json").read_text())
    assert config["image_token_id"] == vocabulary["<IMG_CONTEXT>"]


def test_qwen2_splits_words_as_its_released_tokenizer(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(convert(tmp_path, "qwen2"))
    assert tokenizer.tokenize("It's 12 plates\n") == [
        piece
        for word in ("It", "'s", "Ġ", "1", "2", "Ġplates", "Ċ")
        for piece in tokenizer.backend_tokenizer.model.tokenize(word)
        for piece in [piece.value]
    ]
    assert "<|im_start|>" not in tokenizer.decode(tokenizer.encode("<|im_start|>plate"), skip_special_tokens=True)


def llama_directory(path: Path, **settings) -> Path:
    """Files of a Llama tokenizer that has a `tokenizer.model` alone."""
    WRITE_TOKENIZER["llama"](path)
    (path / "tokenizer.json").unlink()
    shutil.copy(HERE / "llama_tokenizer.model", path / "tokenizer.model")
    tokens = ["<|im_start|>", "<|im_end|>", *IMAGE_TOKENS]
    (path / "added_tokens.json").write_text(json.dumps({token: index for index, token in enumerate(tokens, 440)}))
    written = json.loads((path / "tokenizer_config.json").read_text()) | settings
    (path / "tokenizer_config.json").write_text(json.dumps(written))
    return path


def test_llama_with_a_sentencepiece_model_alone(tmp_path):
    tokenizer = read_tokenizer(llama_directory(tmp_path), 440 + 11)
    for sample in EXPECTED["llama"]:
        assert tokenizer(sample["text"]).input_ids == sample["ids"]
    words = next(sample for sample in EXPECTED["llama"] if sample["text"] == "inspect the plate")["ids"]
    # The released tokenizer hands each stretch between added tokens to sentencepiece, which puts a space before it.
    assert tokenizer("inspect the plate<|im_end|>inspect the plate").input_ids == [*words, 441, *words]
    # Not so with `legacy: false`: a space before the whole text only.
    tokenizer = read_tokenizer(llama_directory(tmp_path, legacy=False), 440 + 11)
    assert tokenizer("inspect the plate").input_ids == words
    assert tokenizer.tokenize("<|im_end|>plate")[1][0] != "▁"


@pytest.mark.parametrize(("kind", "begin"), [("qwen2", ""), ("internlm2", "<s>"), ("llama", "")])
def test_chats_are_written_as_by_the_released_code(tmp_path, kind, begin):
    _, processor = checkpoints.load_pretrained(convert(tmp_path, kind))
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it good?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
        {"role": "user", "content": [{"type": "text", "text": "Why?"}]},
    ]
    # MPT style of the released conversation.py: role, message, separator, with no line break in between.
    turns = (
        "<|im_start|>user\n<IMG_CONTEXT>\nIs it good?<|im_end|><|im_start|>assistant\nYes.<|im_end|>"
        "<|im_start|>user\nWhy?<|im_end|><|im_start|>assistant\n"
    )
    chat = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert chat == f"{begin}<|im_start|>system\n{SYSTEM}<|im_end|>{turns}"
    messages.insert(0, {"role": "system", "content": "Be brief."})
    chat = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert chat == f"{begin}<|im_start|>system\nBe brief.<|im_end|>{turns}"
    ids = encode_prompts(processor, [row(0)], facts="none")["input_ids"][0].tolist()
    tokenizer = processor.tokenizer
    opening = [tokenizer.bos_token_id] if begin else []
    assert ids[: len(opening) + 1] == [*opening, tokenizer.convert_tokens_to_ids("<|im_start|>")]
    assert ids.count(tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")) == 16


def test_a_system_message_of_the_checkpoint_comes_first(tmp_path):
    quoted = 'Say "yes" or \\no.\n'
    _, processor = checkpoints.load_pretrained(convert(tmp_path, "qwen2", config={"system_message": quoted}))
    chat = processor.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert chat == f"<|im_start|>system\n{quoted}<|im_end|><|im_start|>user\nHi<|im_end|>"


def refusal(directory: Path, rows: int = 1000) -> str:
    with pytest.raises(DataError) as error:
        read_tokenizer(directory, rows)
    return str(error.value)


def test_a_token_that_cannot_keep_its_id(tmp_path):
    WRITE_TOKENIZER["internlm2"](tmp_path)
    path = tmp_path / "added_tokens.json"
    tokens = json.loads(path.read_text())
    path.write_text(json.dumps(tokens | {"<extra>": 600}))
    assert "'<extra>' has id 600 in the source and 469" in refusal(tmp_path)
    path.write_text(json.dumps(tokens | {"<extra>": 460}))
    assert "'<extra>' has id 460, which tokenizer_config.json gives to '<img>'" in refusal(tmp_path)
    path.write_text(json.dumps(tokens | {"▁the": 9}))
    assert "'▁the' has the ids 9 and" in refusal(tmp_path)


def test_tokens_without_a_row_in_the_embeddings(tmp_path):
    WRITE_TOKENIZER["internlm2"](tmp_path)
    assert "'<IMG_CONTEXT>' has no id below the 462 rows" in refusal(tmp_path, rows=462)


@pytest.mark.parametrize(
    ("kind", "file", "message"),
    [
        ("internlm2", "tokenizer.model", "no tokenizer.json, tokenizer.model, or vocab.json"),
        ("qwen2", "merges.txt", "no tokenizer.json, tokenizer.model, or vocab.json"),
        ("llama", "tokenizer_config.json", "no such file"),
    ],
)
def test_missing_files(tmp_path, kind, file, message):
    WRITE_TOKENIZER[kind](tmp_path)
    (tmp_path / file).unlink()
    assert message in refusal(tmp_path)


def test_broken_files(tmp_path):
    WRITE_TOKENIZER["internlm2"](tmp_path)
    model = (tmp_path / "tokenizer.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(model[:-1])
    assert "not a SentencePiece model: it ends within" in refusal(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "not a SentencePiece model" in refusal(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "the tokenizer cannot be read" in refusal(tmp_path)


def test_sentencepiece_models_of_another_kind(tmp_path):
    WRITE_TOKENIZER["internlm2"](tmp_path)
    model = (tmp_path / "tokenizer.model").read_bytes()
    # Fields that come later count: a trainer with `model_type` 1 (unigram), a normaliser with a table.
    (tmp_path / "tokenizer.model").write_bytes(model + bytes([0x12, 2, 0x18, 1]) + bytes([0x1A, 3, 0x12, 1, 0x61]))
    assert "it has another algorithm than BPE, a normalization table" in refusal(tmp_path)


def test_unknown_tokenizer_classes(tmp_path):
    for kind in ("internlm2", "qwen2"):
        directory = tmp_path / kind
        directory.mkdir()
        WRITE_TOKENIZER[kind](directory)
        path = directory / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "OtherTokenizer"}))
        assert "tokenizer_class is 'OtherTokenizer'" in refusal(directory)
