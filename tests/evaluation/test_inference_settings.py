"""The note beside a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_trl.errors import DataError
from sage_trl.evaluation.inference_settings import InferenceSettings, read_inference_settings
from sage_trl.storage import write_json


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
