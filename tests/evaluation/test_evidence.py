"""Which patches a model selects and where they lie, on pairs that differ in one known place; every backbone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from sage_trl.data.dataset import read_ad_pl
from sage_trl.data.fact_sets import read_facts
from sage_trl.errors import DataError
from sage_trl.evaluation.evidence import EvidenceFinder, record_evidence
from sage_trl.evaluation.evidence_rows import Evidence, EvidenceRow, FactEvidence, PatchEvidence, strongest
from sage_trl.evaluation.questions import build_questions
from sage_trl.models.adapters import add_lora
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.models.encoding import encode_prompts
from sage_trl.records import iterate_records
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


@pytest.mark.parametrize("reference_in_prompt", [False, True])
@pytest.mark.parametrize("size", [(96, 40), (30, 96), (97, 50), (200, 4)])
def test_padding_is_never_selected(loaded, size, reference_in_prompt):
    # All patches that can be compared are selected, so that one of nothing but padding could not hide.
    loaded[0].config.num_selected_patches = 10**6
    find = EvidenceFinder(*loaded, reference_in_prompt=reference_in_prompt)
    [found] = find([planted(size, (0.1, 0.1, 0.4, 0.4))])
    loaded[0].config.num_selected_patches = FUSION["num_selected_patches"]
    sides = [(x2 - x1, y2 - y1) for x1, y1, x2, y2 in (patch.box for patch in found.patches)]
    assert found.selected and found.attended == len(sides)
    assert all(width > 0 and height > 0 for width, height in sides)
    if reference_in_prompt and hasattr(loaded[1], "num_image_tokens"):
        # LLaVA-OneVision, four by four patches of a quarter of the longer side: 40, 30 and 50 pixels in the middle of
        # 96 or 97 show 20, 15 and 24 pixels of the two middle lines, and nothing or one of the outer ones; 4 of 200
        # show 2 of each.
        assert len(sides) == 8
    else:
        # The whole image but for slivers that LLaVA drops with the padding: of 97 x 50, a line of pixels of 33 in two
        # by two tiles, or two of 50 in three by three.
        assert 48 / 50 - 1e-4 < sum(width * height for width, height in sides) < 1 + 1e-4


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
    assert not found.selected and found.attended == len(boxes)
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


def unselected(*attention: tuple[float, ...]) -> Evidence:
    """Patches in one line that nothing has selected, with the attention of facts to them."""
    count = len(attention[0])
    boxes = [(place / count, 0.0, (place + 1) / count, 1.0) for place in range(count)]
    return Evidence(
        selected=False,
        attended=count,
        patches=tuple(PatchEvidence(box=box, similarity=None) for box in boxes),
        facts=tuple(FactEvidence(text="It shines.", attention=shares) for shares in attention),
    )


def test_of_unselected_patches_those_with_most_attention_are_kept_in_order():
    # The second fact's 0.5 and the first one's 0.6 and 0.3 are the most of any fact; equals go to the first.
    whole = unselected((0.05, 0.6, 0.05, 0.3), (0.5, 0.2, 0.15, 0.15))
    kept = strongest(whole, 2)
    assert [patch.box[0] for patch in kept.patches] == [0.0, 0.25]
    assert [fact.attention for fact in kept.facts] == [(0.05, 0.6), (0.5, 0.2)]
    assert (kept.selected, kept.attended) == (False, 4)
    assert strongest(whole, 4) == whole
    assert [patch.box[0] for patch in strongest(unselected((0.25,) * 4), 3).patches] == [0.0, 0.25, 0.5]


def test_a_selection_keeps_all_its_patches(loaded):
    [found] = EvidenceFinder(*loaded)([row(0)])
    assert found.selected and strongest(found, 1) == found


def test_the_last_line_about_a_group_is_of_the_last_run(ad_pl, tmp_path):
    """A model trained anew and put back."""
    directory, facts = read_ad_pl(ad_pl), read_facts(ad_pl / "facts.jsonl")
    asked = {
        version: build_questions(directory, facts, split="test", setting="one_shot", identity={"version": version})
        for version in ("1", "2")
    }

    def run(version, share):
        found = []

        def find(rows):
            found.extend(rows)
            return [unselected((share, 1 - share))] * len(rows)

        condition = {"model": "sfe", "setting": "one_shot", "split": "test", "control": None}
        record_evidence(find, asked[version], condition, tmp_path, lambda done, total: None)
        lines = [line for _, line in iterate_records(EvidenceRow, tmp_path / "evidence.jsonl")]
        shown = {row.group_id: row.facts[0].attention[0] for row in lines}
        return len(found), len(lines), set(shown.values())

    assert run("1", 0.25) == (4, 4, {0.25})
    assert run("2", 0.75) == (4, 8, {0.75})
    assert run("1", 0.5) == (0, 12, {0.25})
    assert run("1", 0.5) == (0, 12, {0.25})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"attended": 3}, "4 patches of 3 attended to"),
        ({"selected": True}, "only if, they are selected"),
        ({"selected": True, "attended": 5}, "4 patches of 5 attended to"),
    ],
)
def test_evidence_that_contradicts_itself_is_refused(changes, expected):
    whole = unselected((0.25,) * 4)
    with pytest.raises(ValidationError, match=expected):
        Evidence(**{**dict(whole), **changes})
