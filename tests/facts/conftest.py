"""A small dataset, and a tiny model that has learnt to answer the prompts, of dark and bright parts differently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sage_trl.data.dataset import AdPlDirectory, read_ad_pl
from sage_trl.facts.backbone import BackboneWriter
from sage_trl.models.checkpoints import save_pretrained
from sage_trl.models.tiny import TinySize, build_tiny_internvl
from sage_trl.trainer.collators import SFECollator
from tests.conftest import assistant
from tests.evaluation.small_ad_pl import write_small_ad_pl
from tests.tools.conftest import run_tool_file  # noqa: F401

SIZE = TinySize(
    image_size=32,
    patch_size=8,
    vision_width=16,
    vision_layers=1,
    vision_heads=2,
    text_width=32,
    text_layers=2,
    text_heads=2,
)
REPLIES = {
    False: (
        "1. This is a dark plate.\n2. It has no hole.",
        "- Dark plates get scratched.\n- They may rust",
        "A tool may slip.",
    ),
    True: ("It is a bright plate. It shines.", "Bright plates show stains.", "Water leaves stains. It may rust."),
}
FACTS = {
    False: ["This is a dark plate.", "Dark plates get scratched.", "A tool may slip.", "It has no hole."],
    True: ["It is a bright plate.", "Bright plates show stains.", "Water leaves stains.", "It shines.", "It may rust."],
}


def part(is_bright: bool, seed: int) -> Image.Image:
    low = 170 if is_bright else 0
    pixels = np.random.default_rng(seed).integers(low, low + 80, (32, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the model."""
    directory = tmp_path_factory.mktemp("talker") / "talker"
    texts = [reply for replies in REPLIES.values() for reply in replies]
    model, processor = build_tiny_internvl(texts * 4, SIZE, fusion={"num_selected_patches": 2, "fusion_num_heads": 2})
    prompts = BackboneWriter(model, processor, name="", count=5, batch_size=1, max_new_tokens=1).prompts
    collator = SFECollator(processor, facts="none")
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    model.train()
    for step in range(90):
        rows = [
            {
                "images": [part(is_bright, step)],
                "reference_image": None,
                "facts": [],
                "prompt": prompt,
                "completion": assistant(reply),
                "group_id": "g",
                "question_id": "q",
            }
            for is_bright, replies in REPLIES.items()
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
        loss = model(**collator(rows)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.05
    save_pretrained(model.eval(), processor, directory)
    return directory


@pytest.fixture
def parts(tmp_path: Path) -> AdPlDirectory:
    """Five groups; the test images of g0, g2 and g4 are dark, the others bright."""
    root = write_small_ad_pl(tmp_path / "parts")
    for number in range(5):
        part(number % 2 == 1, 1000 + number).save(root / f"images/{number}_test.png")
    (root / "facts.jsonl").unlink()
    return read_ad_pl(root)
