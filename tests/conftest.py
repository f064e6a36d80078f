"""Fixtures: a tiny model, a small dataset, and the real images where they are."""

from __future__ import annotations

import gc
import os
import subprocess
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tests run side by side on few cores, where threads, and above all threads that spin, get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import torch
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
TEXTS = [
    "Is there a scratch on this plate? Yes, there is a scratch on the left, probably because a tool slipped.",
    "Does the plate match the reference? No, nothing is wrong, because every detail agrees with the reference.",
    "Above is the feature related to the anomaly facts. Answer Yes or No first, then give the reason.",
] * 4


def pytest_collection_modifyitems(items):
    """The longest first, or one process ends up waiting for the other's last."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish():
    """Every training collects garbage twice, and would walk all that the libraries have made: most of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tests run side by side on few cores: threads would only get in each other's way."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real inspection images; the test is skipped where it is not."""
    folder = Path(os.environ.get("SAGE_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; set SAGE_TEST_DATA to their folder")
    return folder


@pytest.fixture
def tiny():
    """A new tiny model (32 px, one layer each) and its processor."""
    from sage_trl.models.tiny import TinySize, build_tiny_internvl

    size = TinySize(
        image_size=32,
        patch_size=8,
        vision_width=16,
        vision_layers=1,
        vision_heads=2,
        text_width=32,
        text_layers=2,
        text_heads=2,
        vocab_size=340,
    )
    model, processor = build_tiny_internvl(TEXTS, size, fusion={"num_selected_patches": 2, "fusion_num_heads": 2})
    return model.eval(), processor


@pytest.fixture
def stock(tiny, tmp_path):
    """A directory as the stock class saves it, and the model."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    model, processor = tiny
    settings = {key: value for key, value in model.config.to_dict().items() if key in ("vision_config", "text_config")}
    config = InternVLConfig(
        **settings,
        image_token_id=model.config.image_token_id,
        image_seq_length=model.config.image_seq_length,
        tie_word_embeddings=False,
    )
    torch.manual_seed(1)
    plain = InternVLForConditionalGeneration(config).eval()
    plain.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path, plain


@pytest.fixture
def small_disk(tmp_path):
    """A mounted file system of 64 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def picture(seed: int, width: int = 32, height: int = 32) -> Image.Image:
    """A random picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def row(index: int, *, reference: bool = True, num_facts: int = 2, **columns) -> dict:
    """A row as `load_ad_pl` makes them, with pictures in place of paths; `columns` replace what it has."""
    from sage_trl.models.prompt import question_messages

    return {
        "images": [picture(index)],
        "reference_image": picture(100 + index) if reference else None,
        "facts": [f"A plate can have a scratch {word}." for word in ("left", "right", "above")[:num_facts]],
        "prompt": question_messages(f"Is there a scratch {'here ' * index}on this plate?"),
        "group_id": f"g{index}",
        "question_id": "q1",
        **columns,
    }


def assistant(text: str) -> list[dict]:
    """An answer as a row holds it."""
    return [{"role": "assistant", "content": text}]
