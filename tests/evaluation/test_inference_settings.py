"""The note beside a saved model, and its fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_trl.errors import DataError
from sage_trl.evaluation.inference_settings import InferenceSettings, model_fingerprint, read_inference_settings
from sage_trl.storage import write_json


def model_directory(path: Path, weights: bytes = b"weights") -> Path:
    path.mkdir()
    (path / "model.safetensors").write_bytes(weights)
    write_json(path / "config.json", {"model_type": "sage_internvl"})
    return path


def test_settings_are_read(tmp_path: Path) -> None:
    write_json(tmp_path / "sage_inference.json", {"facts": "none", "reference_in_prompt": True, "stage": "sft"})

    assert read_inference_settings(str(tmp_path)) == InferenceSettings(
        facts="none", reference_in_prompt=True, stage="sft"
    )


@pytest.mark.parametrize(("model_type", "is_plain"), [("sage_internvl", False), ("internvl", True)])
def test_without_a_note_only_a_fact_enhanced_model_takes_facts(tmp_path: Path, model_type: str, is_plain: bool) -> None:
    write_json(tmp_path / "config.json", {"model_type": model_type})

    settings = read_inference_settings(str(tmp_path))

    assert settings == InferenceSettings(facts="none" if is_plain else "fusion", reference_in_prompt=is_plain)


@pytest.mark.parametrize("content", [{"facts": "yes"}, {"fact": "hard"}, []])
def test_a_malformed_note_is_refused(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / "sage_inference.json", content)

    with pytest.raises(DataError, match=r"sage_inference\.json"):
        read_inference_settings(str(tmp_path))


def test_the_fingerprint_follows_weights_and_configuration(tmp_path: Path) -> None:
    first = model_directory(tmp_path / "first")
    same = model_directory(tmp_path / "same")
    other = model_directory(tmp_path / "other", b"other weights")

    assert model_fingerprint(str(first)) == model_fingerprint(str(same))
    assert model_fingerprint(str(first)) != model_fingerprint(str(other))
    (same / "trainer_state.json").write_text("{}")
    (same / "optimizer.pt").write_bytes(b"")
    assert model_fingerprint(str(first)) == model_fingerprint(str(same))
    write_json(same / "config.json", {"model_type": "sage_internvl", "num_selected_patches": 4})
    assert model_fingerprint(str(first)) != model_fingerprint(str(same))


def test_an_adapters_fingerprint_includes_its_base(tmp_path: Path) -> None:
    base = model_directory(tmp_path / "base")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    write_json(adapter / "adapter_config.json", {"base_model_name_or_path": str(base)})
    before = model_fingerprint(str(adapter))

    (base / "model.safetensors").write_bytes(b"trained further")

    assert model_fingerprint(str(adapter)) != before


def test_hub_models_differ_by_revision() -> None:
    assert model_fingerprint("someone/model", "abc") != model_fingerprint("someone/model", "def")
