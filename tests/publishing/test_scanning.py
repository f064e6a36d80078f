"""What the scan finds, what it leaves alone, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sage_trl.errors import DataError
from sage_trl.publishing.files import UploadFile
from sage_trl.publishing.scanning import refuse_findings, scan, secrets_of_this_process

# Put together here, so that no scanner takes this file for a leak.
PLANTED = {
    "a Hugging Face token": "hf" + "_" + "aB3" * 11,
    "an OpenAI-style key": "sk" + "-proj-" + "a1B2" * 8,
    "a GitHub token": "ghp" + "_" + "a1B2" * 9,
    "an AWS access key": "AKIA" + "ABCDEFGH12345678",
    "a Google API key": "AIza" + "Sy" + "a" * 33,
    "a Slack token": "xoxb" + "-" + "123456789012",
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
}


def findings(text: str, name: str = "config.json", secrets: dict[str, str] | None = None) -> list[str]:
    return [str(finding) for finding in scan(UploadFile(name, text.encode()), secrets or {})]


@pytest.mark.parametrize("kind", PLANTED)
def test_tokens_are_found_with_their_line_and_never_shown(kind):
    [found] = findings(f'{{\n"a": 1,\n"b": "{PLANTED[kind]}"\n}}')
    assert found.startswith(f"config.json:3: holds {kind}")
    assert "revoke" in found
    assert PLANTED[kind] not in found


@pytest.mark.parametrize(
    "path",
    [
        "/home/ann/runs/sfe",
        "/Users/ann/runs",
        "/root/data",
        "/tmp/run-7",
        r"C:\\Users\\ann\\runs",
        "C:/Users/ann",
        "file:///data/x",
    ],
)
def test_local_paths_are_found(path):
    [found] = findings(f'{{"_name_or_path": "{path}"}}')
    assert "config.json:1: holds the local path" in found and "relative path" in found


def test_a_path_that_exists_here_is_found_wherever_it_lies(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda self: str(self) == "/scratch/ann")
    assert len(findings('{"dataset": "/scratch/ann/plates/ad_pl"}')) == 1
    assert findings('{"dataset": "/elsewhere/ann/plates"}') == []


@pytest.mark.parametrize(
    "text",
    [
        '"/home": 4217, "/tmp": 88, "hf": 1, "sk-": 7, "/usr/local/bin": 9',
        "https://example.org/home/ann/model and arxiv.org/abs/2507.07939",
        "risk-averse-decisions-are-a-long-word sk-learn-is-a-library-name",
        "accuracy/macro, yes/no, 1/2",
        "hf_" + "short",
    ],
)
def test_ordinary_text_is_no_finding(text):
    assert findings(text) == []


def test_the_value_of_a_secret_variable_is_found(monkeypatch):
    monkeypatch.setenv("ACME_API_KEY", "entirely-unusual")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-false")
    monkeypatch.setenv("SHORT_TOKEN", "dummy")
    secrets = secrets_of_this_process("login-token-of-the-hub")
    assert secrets["$ACME_API_KEY"] == "entirely-unusual"
    assert secrets["the hub login"] == "login-token-of-the-hub"
    assert not {"$TOKENIZERS_PARALLELISM", "$SHORT_TOKEN"} & set(secrets)
    [found] = findings("x = entirely-unusual", secrets=secrets)
    assert "$ACME_API_KEY" in found and "entirely-unusual" not in found


def test_the_header_of_weights_is_read(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.zeros(2)}, path, metadata={"note": "from /home/ann/runs/sfe", "format": "pt"})
    [found] = scan(UploadFile(path.name, path), {})
    assert "model.safetensors, metadata 'note'" in str(found)
    path.write_bytes(b"no header at all")
    with pytest.raises(DataError, match="is no safetensors file"):
        list(scan(UploadFile(path.name, path), {}))


@pytest.mark.parametrize("base", ["/home/ann/runs/sfe", "runs/sfe"])
def test_an_adapter_s_local_base_model_names_the_ways_out(tmp_path, monkeypatch, base):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "sfe").mkdir(parents=True)
    [found] = findings(json.dumps({"base_model_name_or_path": base}), "adapter_config.json")
    assert "--base-model HUB_ID" in found and "--merged" in found
    assert findings(json.dumps({"base_model_name_or_path": "acme/base-vlm"}), "adapter_config.json") == []


def test_all_findings_are_named_at_once():
    files = [UploadFile(name, b"/home/ann/runs/x") for name in ("config.json", "vocab.txt")]
    with pytest.raises(DataError, match=r"(?s)2 finding\(s\), nothing was published.*config.json:1.*vocab.txt:1"):
        refuse_findings(files, {})
