"""Equations 1 and 2 against numbers derived by hand and a float64 path of loops."""

import math

import pytest
import torch

from sage_trl.models.fusion_attention import (
    ComparisonPatches,
    FusionAttention,
    comparison_patches,
    select_distinct_patches,
)

# Directions in the plane: cosines between them are easy.
EAST, NORTH, NORTHEAST = [1.0, 0.0], [0.0, 2.0], [3.0, 3.0]
DIAGONAL = math.cos(math.pi / 4)


def test_nearest_and_farthest_by_hand():
    test = torch.tensor([[EAST, NORTH, NORTHEAST]])
    reference = torch.tensor([[EAST, NORTHEAST]])
    # East has a twin in the reference, so has northeast; north is 45 degrees from its nearest, 90 from its farthest.
    indices, similarity = select_distinct_patches(test, reference, 2)
    assert indices[0, 0].item() == 1
    assert similarity[0].tolist() == pytest.approx([DIAGONAL, 1.0])
    indices, similarity = select_distinct_patches(test, reference, 3, "farthest")
    assert indices.tolist() == [[1, 0, 2]]
    assert similarity[0].tolist() == pytest.approx([0.0, DIAGONAL, DIAGONAL], abs=1e-6)


def test_the_literal_minimum_chooses_other_patches_than_the_text():
    test = torch.tensor([[EAST, NORTHEAST]])
    reference = torch.tensor([[EAST, NORTH]])
    assert select_distinct_patches(test, reference, 1)[0].item() == 1
    assert select_distinct_patches(test, reference, 1, "farthest")[0].item() == 0


def test_masks_hide_patches_on_both_sides():
    test = torch.tensor([[EAST, NORTH, NORTHEAST]])
    reference = torch.tensor([[EAST, NORTH]])
    hidden_north = torch.tensor([[True, False]])
    assert select_distinct_patches(test, reference, 1, reference_mask=hidden_north)[0].item() == 1
    only_first = torch.tensor([[True, False, False]])
    indices, similarity = select_distinct_patches(test, reference, 5, test_mask=only_first)
    assert indices.shape == (1, 3)
    assert indices[0, 0].item() == 0
    assert similarity[0, 1:].isinf().all()


def test_select_matches_a_loop_and_chunks_do_not_matter(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    test = torch.randn(3, 7, 5, generator=generator)
    reference = torch.randn(3, 4, 5, generator=generator)
    whole = select_distinct_patches(test, reference, 3)
    monkeypatch.setattr("sage_trl.models.fusion_attention.MAX_SIMILARITY_ELEMENTS", 1)
    chunked = select_distinct_patches(test, reference, 3)
    for row in range(3):
        scores = [
            max(torch.nn.functional.cosine_similarity(patch, other, dim=0).item() for other in reference[row])
            for patch in test[row]
        ]
        expected = sorted(range(7), key=lambda index: scores[index])[:3]
        assert whole[0][row].tolist() == expected == chunked[0][row].tolist()


@pytest.mark.parametrize(("k", "kind"), [(0, "nearest"), (1, "middle")])
def test_bad_arguments_are_refused(k, kind):
    with pytest.raises(ValueError):
        select_distinct_patches(torch.ones(1, 2, 2), torch.ones(1, 2, 2), k, kind)


def compare(test, reference, reference_mask, **settings):
    chosen = {"k": 1, "patch_similarity": "nearest", "fusion_keys": "patch", "fusion_values": "difference", **settings}
    mask = torch.ones(test.shape[:2], dtype=torch.bool)
    return comparison_patches(test, mask, reference, reference_mask, **chosen)


def test_difference_is_to_the_nearest_reference_patch():
    test, reference = torch.tensor([[EAST, NORTH]]), torch.tensor([[[4.0, 0.0], [1.0, 1.0]]])
    patches = compare(test, reference, torch.ones(1, 2, dtype=torch.bool))
    assert patches.keys.tolist() == [[NORTH]]
    assert patches.values.tolist() == [[[-1.0, 1.0]]]
    assert patches.indices.tolist() == [[1]]
    assert patches.similarity.tolist() == [[pytest.approx(math.sqrt(0.5))]]


def test_a_row_without_reference_uses_all_its_patches_beside_one_with():
    test = torch.tensor([[EAST, NORTH], [EAST, NORTH]])
    reference = torch.tensor([[EAST, EAST], [EAST, EAST]])
    patches = compare(test, reference, torch.tensor([[True, True], [False, False]]))
    assert patches.mask.tolist() == [[True, False], [True, True]]
    assert patches.values[0, 0].tolist() == [-1.0, 2.0]
    alone = compare(test[1:], None, None)
    assert sorted(patches.values[1].tolist()) == sorted(alone.values[0].tolist())
    assert torch.equal(patches.keys[1], patches.values[1])
    assert patches.indices[0, 0] == 1
    assert patches.indices[1].sort().values.tolist() == [0, 1]
    assert torch.equal(patches.keys[1], test[1, patches.indices[1]])
    assert alone.indices.tolist() == [[0, 1]]
    assert patches.similarity.isnan().tolist() == [[False, False], [True, True]]
    assert alone.similarity.isnan().all()


@torch.no_grad()
def test_attention_matches_float64_loops():
    torch.manual_seed(0)
    layer = FusionAttention(hidden_size=8, num_heads=2).double()
    facts, keys, values = (torch.randn(1, n, 8, dtype=torch.float64) for n in (2, 3, 3))
    mask = torch.tensor([[True, True, False]])
    patches = ComparisonPatches(keys, values, mask, torch.arange(3)[None], torch.zeros(1, 3))
    image_rms = torch.full((1, 1, 1), 3.0, dtype=torch.float64)
    fused, attention = layer(facts, patches, image_rms), layer.attention(facts, patches, image_rms)
    unit_facts = facts / facts.square().mean(-1, keepdim=True).sqrt()
    query, key, value = layer.query(unit_facts)[0], layer.key(keys / 3)[0], layer.value(values / 3)[0]
    for fact in range(2):
        merged = []
        for number, head in enumerate((slice(0, 4), slice(4, 8))):
            logits = [float(query[fact, head] @ key[i, head]) / math.sqrt(4) for i in range(2)]
            weights = [math.exp(logit) / sum(math.exp(other) for other in logits) for logit in logits]
            assert attention[0, number, fact].tolist() == pytest.approx([*weights, 0.0])
            merged.append(sum(weight * value[i, head] for i, weight in enumerate(weights)))
        expected = layer.projection(layer.norm(torch.cat(merged))) * 3
        assert torch.allclose(fused[0, fact], expected, atol=1e-12)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="fusion_num_heads 3"):
        FusionAttention(8, 3)
