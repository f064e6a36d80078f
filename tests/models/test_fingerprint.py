"""What tells two saved models apart."""

from __future__ import annotations

from pathlib import Path

from sage_trl.models.fingerprint import model_fingerprint
from sage_trl.storage import write_json


def model_directory(path: Path, weights: bytes = b"weights") -> Path:
    path.mkdir()
    (path / "model.safetensors").write_bytes(weights)
    write_json(path / "config.json", {"model_type": "sage_internvl"})
    return path


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
