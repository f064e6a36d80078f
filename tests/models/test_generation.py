"""Greedy generation with a tiny model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from sage_trl.models.generation import ModelReplyGenerator
from sage_trl.models.prompt import question_messages
from sage_trl.models.tiny import TinySize, build_tiny_internvl

TEXTS = ["Is the plate scratched? Yes, a scratch at the top left.", "Is a hole missing? No, every hole is there."]
SIZE = TinySize(image_size=32, vision_layers=1, text_layers=2, vision_width=32, text_width=64)


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    """Model and processor; weights larger than usual, so that different inputs give different replies."""
    model, processor = build_tiny_internvl(TEXTS, SIZE)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model, processor


def row(number: int, with_reference: bool) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(number)
    images = [
        Image.frombytes("RGB", (32, 32), torch.randint(256, (3072,), generator=generator).to(torch.uint8).numpy())
        for _ in range(2)
    ]
    question = TEXTS[number % 2].split("?")[0] + "?"
    return {
        "images": images[:1],
        "reference_image": images[1] if with_reference else None,
        "facts": ["Plates get scratched.", "Holes may be missing at the edges."][: 1 + number % 2],
        "prompt": question_messages(question),
        "question": question,
    }


def generator(tiny: tuple[Any, Any], facts: str = "fusion", in_prompt: bool = False) -> ModelReplyGenerator:
    return ModelReplyGenerator(*tiny, max_new_tokens=6, facts=facts, reference_in_prompt=in_prompt)


@pytest.mark.parametrize(
    ("facts", "in_prompt"), [("fusion", False), ("none", True), ("none", False), ("hard", False), ("hard", True)]
)
def test_a_reply_does_not_depend_on_its_batch(tiny: tuple[Any, Any], facts: str, in_prompt: bool) -> None:
    rows = [row(number, with_reference=number % 3 != 0) for number in range(5)]
    reply = generator(tiny, facts, in_prompt)

    together = reply(rows)

    alone = [reply([one])[0] for one in rows]
    assert len({one.text for one in together}) > 1
    assert [one.text for one in together] == [one.text for one in alone]
    # Padding changes the order of sums.
    assert [one.yes_probability for one in together] == pytest.approx([one.yes_probability for one in alone], abs=2e-6)
    assert reply(rows) == together


def test_a_reply_holds_only_what_was_generated(tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    generated: list[list[int]] = []
    generate = tiny[0].generate

    def remember(**batch: Any) -> Any:
        output = generate(**batch)
        generated.append(output[0, batch["input_ids"].shape[1] :].tolist())
        return output

    monkeypatch.setattr(tiny[0], "generate", remember)
    [reply] = generator(tiny)([row(0, with_reference=True)])

    assert 1 <= len(generated[0]) <= 6
    assert reply.text == tiny[1].tokenizer.decode(generated[0], skip_special_tokens=True).strip()


def test_facts_and_reference_reach_the_model(tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    generate = tiny[0].generate
    monkeypatch.setattr(tiny[0], "generate", lambda **batch: seen.append(batch) or generate(**batch))

    generator(tiny)([row(0, with_reference=True), row(1, with_reference=False)])
    generator(tiny, facts="none")([row(0, with_reference=True)])

    assert seen[0]["fact_input_ids"].shape[:2] == (2, 2)
    assert seen[0]["reference_mask"].tolist() == [True, False]
    assert "fact_input_ids" not in seen[1]
    assert seen[1]["generation_config"].do_sample is False


def test_the_models_own_settings_stay_as_they_are(tiny: tuple[Any, Any]) -> None:
    before = tiny[0].generation_config.to_dict()

    generator(tiny)

    assert tiny[0].generation_config.to_dict() == before
