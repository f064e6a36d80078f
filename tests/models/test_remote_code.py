"""Code of a checkpoint runs only if it is asked for, from the hub, at a commit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import transformers.utils.hub
from huggingface_hub import constants

from sage_trl.errors import DataError
from sage_trl.models import remote_code
from sage_trl.models.attention import choose_attention
from sage_trl.models.checkpoints import load_pretrained
from tests.models.stock_checkpoints import save_stock

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "acme/with-code"
# It is read as text, and would show that it ran.
CODE = """
from transformers import PreTrainedTokenizerFast

class OwnTokenizer(PreTrainedTokenizerFast):
    is_own = True
"""


@pytest.fixture
def hub_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model in the cache of the hub whose tokenizer is code."""
    repository = tmp_path / "hub" / "models--acme--with-code"
    snapshot = repository / "snapshots" / COMMIT
    save_stock("internvl", snapshot)
    (snapshot / "own.py").write_text(CODE)
    settings = json.loads((snapshot / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
    (snapshot / "tokenizer_config.json").write_text(json.dumps(settings))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    return NAME


def load(name: str, **options: object):
    return load_pretrained(name, fusion={"num_selected_patches": 2, "fusion_num_heads": 2}, weights=False, **options)


def test_code_runs_at_a_commit_and_only_if_it_is_asked_for(hub_model):
    _, processor = load(hub_model, trust_remote_code=True, revision=COMMIT)
    assert processor.tokenizer.is_own
    _, processor = load(hub_model, revision=COMMIT)
    assert not hasattr(processor.tokenizer, "is_own")


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:12], COMMIT.upper(), f"{COMMIT}0"])
def test_without_a_commit_it_is_refused(hub_model, revision):
    with pytest.raises(DataError) as refused:
        load(hub_model, trust_remote_code=True, revision=revision)
    message = str(refused.value)
    assert f"trust_remote_code: revision is {revision!r}" in message
    assert "remedy: set revision to the 40 hex digits of a commit" in message


def test_a_directory_has_no_commit(hub_model, tmp_path):
    shutil.copytree(tmp_path / "hub" / "models--acme--with-code" / "snapshots" / COMMIT, tmp_path / "copy")
    with pytest.raises(DataError, match=r"trust_remote_code: no revision pins the code in a directory\n.*leave"):
        load(str(tmp_path / "copy"), trust_remote_code=True, revision=COMMIT)


@pytest.mark.parametrize("kernel", ["kernels/attention", "kernels/attention@main", "kernels/attention@v1:forward"])
def test_a_kernel_from_the_hub_needs_its_commit(kernel):
    with pytest.raises(DataError, match=r"attention kernel .*\n  remedy: set attn_implementation to OWNER/NAME@"):
        choose_attention(kernel, None)
    assert choose_attention(f"{kernel.partition('@')[0]}@{COMMIT}:forward", None).endswith(":forward")


@pytest.mark.parametrize("version", [2, 3, 4])
def test_a_kernel_from_the_hub_is_not_taken_in_place_of_what_is_not_installed(version, monkeypatch):
    attention = f"flash_attention_{version}"
    check = remote_code.FLASH_ATTENTION_COMPATIBILITY_MATRIX[version]
    monkeypatch.setitem(check, "general_availability_check", lambda: False)
    monkeypatch.setattr(remote_code, "is_kernels_available", lambda: True)
    with pytest.raises(DataError, match=rf"'{attention}': it is not installed.* kernels-community/.*\n.*install"):
        choose_attention(attention, None)
    monkeypatch.setattr(remote_code, "is_kernels_available", lambda: False)
    assert choose_attention(attention, None) == attention
