"""Which patches a model selects and where they lie, on pairs that differ in one known place; every backbone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sage_trl.errors import DataError
from sage_trl.evaluation.evidence import EvidenceFinder
from sage_trl.models.adapters import add_lora
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.models.encoding import encode_prompts
from tests.conftest import picture, row
from tests.models.stock_checkpoints import BUILDERS, save_stock

FUSION = {"num_selected_patches": 2, "fusion_num_heads": 4}
# Sizes with several tiles, with padding on either axis, and with features scaled down (LLaVA-OneVision).
SIZES = [(96, 96), (50, 64), (96, 40)]


@pytest.fixture(scope="module", params=BUILDERS)
def loaded(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    save_stock(request.param, directory)
    return load_pretrained(directory, fusion=FUSION)


def planted(size: tuple[int, int], box: tuple[float, float, float, float]) -> dict:
    """A row whose test image is its reference but for a red square at a box in fractions."""
    width, height = size
    pixels = np.array(picture(3, 8, 8).resize(size, Image.Resampling.BICUBIC))
    reference = Image.fromarray(pixels)
    x1, y1, x2, y2 = (round(side * length) for side, length in zip(box, (width, height) * 2, strict=True))
    pixels[y1:y2, x1:x2] = (255, 0, 0)
    return row(0, images=[Image.fromarray(pixels)], reference_image=reference)


def touches(box, other) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


@pytest.mark.parametrize("size", SIZES)
def test_the_most_distinct_patches_lie_where_the_pair_differs(loaded, size):
    find = EvidenceFinder(*loaded)
    for box in ((0.1, 0.1, 0.3, 0.3), (0.7, 0.1, 0.9, 0.3), (0.1, 0.7, 0.3, 0.9), (0.7, 0.7, 0.9, 0.9)):
        [found] = find([planted(size, box)])
        first, second = found.patches
        assert touches(first.box, box), (first, box)
        assert first.similarity <= second.similarity < 1


def test_it_is_what_the_forward_fuses(loaded):
    model, processor = loaded
    rows = [planted((96, 40), (0.1, 0.1, 0.4, 0.4)), row(1, reference=False, num_facts=3), row(2, num_facts=1)]
    seen = {}
    hook = model.model.fusion.register_forward_hook(lambda layer, given, fused: seen.update(given=given, fused=fused))
    with torch.no_grad():
        model(**encode_prompts(processor, rows), logits_to_keep=1)
    hook.remove()
    found = EvidenceFinder(model, processor)(rows)
    fusion, (facts, patches, image_rms) = model.model.fusion, seen["given"]
    weights = fusion.attention(facts, patches, image_rms)
    for number, (one, evidence) in enumerate(zip(rows, found, strict=True)):
        real = patches.mask[number]
        assert [fact.text for fact in evidence.facts] == one["facts"]
        for index, fact in enumerate(evidence.facts):
            assert sum(fact.attention) == pytest.approx(1, abs=1e-4)
            assert fact.attention == pytest.approx(weights[number, :, index, real].mean(dim=0).tolist(), abs=1e-5)
        if one["reference_image"] is not None:
            assert [patch.similarity for patch in evidence.patches] == pytest.approx(
                patches.similarity[number, real].tolist(), abs=1e-5
            )
    # The weights are those of the forward: times the values, through norm and projection, they give its tokens.
    value = fusion._split_heads(fusion.value(patches.values / image_rms))
    merged = (weights @ value).transpose(1, 2).flatten(2)
    assert torch.allclose(fusion.projection(fusion.norm(merged)) * image_rms, seen["fused"], atol=1e-5)


def test_without_a_reference_all_patches_take_part_line_by_line(loaded):
    alone = row(0, reference=False, images=[picture(0, 96, 96)])
    find = EvidenceFinder(*loaded)
    [found] = find([alone])
    boxes = [patch.box for patch in found.patches]
    assert sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes) == pytest.approx(1, abs=1e-4)
    assert (boxes[0][:2], boxes[-1][2:]) == ((0, 0), (1, 1))
    assert {patch.similarity for patch in found.patches} == {None}
    assert [patch.box for patch in find([row(1), alone])[1].patches] == boxes


def test_with_the_reference_in_the_prompt_boxes_are_of_the_test_image(loaded):
    box = (0.1, 0.1, 0.3, 0.3)
    [found] = EvidenceFinder(*loaded, reference_in_prompt=True)([planted((96, 96), box)])
    if hasattr(loaded[1], "num_image_tokens"):
        # LLaVA-OneVision then compares four by four patches with a reference in fine tiles: random weights see nothing.
        assert {(x2 - x1, y2 - y1) for x1, y1, x2, y2 in (patch.box for patch in found.patches)} == {(0.25, 0.25)}
    else:
        assert touches(found.patches[0].box, box)


def test_a_row_without_facts_is_refused(loaded):
    with pytest.raises(DataError, match="group g0: no facts"):
        EvidenceFinder(*loaded)([row(0, num_facts=0)])


def test_an_adapter_shows_its_own_fusion(tiny):
    model, processor = tiny
    [before] = EvidenceFinder(model, processor)([row(0)])
    adapted = add_lora(model, ["fusion", "language_model"], r=2)
    [same] = EvidenceFinder(adapted, processor)([row(0)])
    assert same == before
    with torch.no_grad():
        adapted.get_base_model().model.fusion.modules_to_save["default"].query.weight.mul_(5)
    [moved] = EvidenceFinder(adapted, processor)([row(0)])
    assert moved.patches == before.patches
    assert moved.facts[0].attention != pytest.approx(before.facts[0].attention, abs=1e-4)
