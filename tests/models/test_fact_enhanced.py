"""The forward with facts, and generation: cached and uncached, with and without references."""

import pytest
import torch

from sage_trl.models.encoding import encode_prompts
from tests.conftest import picture, row


def generate(model, batch, **options):
    prompt = batch["input_ids"].shape[1]
    return model.generate(**batch, max_new_tokens=8, do_sample=False, **options)[:, prompt:].tolist()


def test_cached_and_uncached_generation_agree_token_for_token(tiny):
    model, processor = tiny
    batch = encode_prompts(processor, [row(0), row(1, reference=False), row(2, num_facts=3)])
    assert generate(model, batch) == generate(model, batch, use_cache=False)


def test_rows_in_a_mixed_batch_answer_as_they_do_alone(tiny):
    model, processor = tiny
    rows = [row(0), row(1, reference=False), row(2, num_facts=1), row(3, num_facts=0)]
    together = model(**encode_prompts(processor, rows), logits_to_keep=1).logits
    for index, one in enumerate(rows):
        alone = model(**encode_prompts(processor, [one]), logits_to_keep=1).logits
        assert torch.allclose(alone[0], together[index], atol=1e-5)


@pytest.mark.parametrize("changed", ["images", "reference_image", "facts"])
def test_image_reference_and_facts_all_reach_the_answer(tiny, changed):
    model, processor = tiny
    new = {"images": [picture(7)], "reference_image": picture(8), "facts": ["Other words altogether."] * 2}
    before = model(**encode_prompts(processor, [row(0)])).logits[:, -1]
    after = model(**encode_prompts(processor, [row(0, **{changed: new[changed]})])).logits[:, -1]
    assert not torch.allclose(before, after, atol=1e-5)


def test_images_of_several_tiles_and_the_thumbnail(tiny):
    model, processor = tiny
    processor.image_processor.crop_to_patches = True
    wide = row(0, images=[picture(0, 64, 32)], reference_image=picture(1, 96, 32))
    batch = encode_prompts(processor, [wide, row(1)])
    # Two tiles and a thumbnail beside one tile; three tiles and a thumbnail as reference beside one tile.
    assert batch["pixel_values"].shape[0] == 3 + 1
    assert batch["reference_num_tiles"].tolist() == [4, 1]
    alone = model(**encode_prompts(processor, [row(1)]), logits_to_keep=1).logits
    assert torch.allclose(model(**batch, logits_to_keep=1).logits[1], alone[0], atol=1e-5)
    features = model.model.get_image_features(batch["pixel_values"]).pooler_output
    patches = model.model.split_test_images(batch["input_ids"], features)
    per_tile = processor.image_seq_length
    assert [len(patch) for patch in patches] == [2 * per_tile, per_tile]


def test_a_reference_in_the_prompt_is_not_taken_for_the_test_image(tiny):
    model, processor = tiny
    batch = encode_prompts(processor, [row(0), row(1, reference=False)], reference_in_prompt=True)
    assert batch["pixel_values"].shape[0] == 3
    features = model.model.get_image_features(batch["pixel_values"]).pooler_output
    patches = model.model.split_test_images(batch["input_ids"], features, batch["test_num_tiles"])
    assert torch.equal(patches[0], features[1])
    assert torch.equal(patches[1], features[2])


def test_facts_are_pooled_over_real_tokens_without_gradient(tiny):
    model, _ = tiny
    ids = torch.tensor([[[5, 6, 0], [9, 0, 0]]])
    mask = torch.tensor([[[1, 1, 0], [0, 0, 0]]])
    pooled, is_real = model.model.embed_facts(ids, mask)
    weight = model.get_input_embeddings().weight
    assert torch.allclose(pooled[0, 0], (weight[5] + weight[6]) / 2)
    assert is_real.tolist() == [[True, False]]
    assert not pooled.requires_grad


def test_fused_tokens_start_at_the_image_tokens_size(tiny):
    model, processor = tiny
    seen = {}
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    batch = encode_prompts(processor, [row(0)])
    model(**batch)
    hook.remove()
    embeds, ids = seen["inputs_embeds"][0], batch["input_ids"][0]
    rms = {
        token: embeds[ids == number].square().mean().sqrt().item()
        for token, number in (("image", model.config.image_token_id), ("fact", model.config.fact_token_id))
    }
    assert rms["fact"] == pytest.approx(rms["image"], rel=0.5)


def test_a_placeholder_id_beyond_the_embedding_matrix_works(tiny):
    model, processor = tiny
    batch = encode_prompts(processor, [row(0)])
    expected = model(**batch).logits
    beyond = model.get_input_embeddings().num_embeddings + 3
    batch["input_ids"] = batch["input_ids"].masked_fill(batch["input_ids"] == model.config.fact_token_id, beyond)
    model.config.fact_token_id = beyond
    assert torch.equal(model(**batch).logits, expected)


def test_placeholders_that_do_not_match_the_facts_are_an_error(tiny):
    model, processor = tiny
    batch = encode_prompts(processor, [row(0)])
    batch["fact_attention_mask"][0, 1] = 0
    with pytest.raises(ValueError, match="2 <fact> placeholders for 1 facts"):
        model(**batch)


def test_later_steps_of_generation_get_no_fact_inputs(tiny):
    model, processor = tiny
    batch = encode_prompts(processor, [row(0)])
    later = model.prepare_inputs_for_generation(**batch, is_first_iteration=False, use_cache=True)
    first = model.prepare_inputs_for_generation(**batch, is_first_iteration=True, use_cache=True)
    assert not set(model.all_fact_inputs) & set(later)
    assert "fact_input_ids" in first
