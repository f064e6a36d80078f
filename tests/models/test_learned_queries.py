"""`learned_queries`: embeddings of the fusion's own ask in the place of the facts."""

import pytest
import torch

from sage_trl.models.checkpoints import load_pretrained, save_pretrained
from sage_trl.models.encoding import encode_prompts
from sage_trl.models.fusion_attention import ComparisonPatches, FusionAttention
from sage_trl.models.parts import part_of
from tests.conftest import picture, row

OTHER_WORDS = ["Nothing of this kind was ever seen before.", "Rust."]


@pytest.fixture
def learned(stock):
    """A stock checkpoint with a new fusion of three learned queries, and its processor."""
    directory, _ = stock
    fusion = {"num_selected_patches": 2, "fusion_num_heads": 2, "learned_queries": 3}
    return load_pretrained(directory, seed=5, fusion=fusion)


def logits(model, processor, **columns):
    with torch.no_grad():
        return model(**encode_prompts(processor, [row(0, **columns)])).logits[:, -1]


@torch.no_grad()
def test_the_queries_take_the_facts_place():
    torch.manual_seed(0)
    layer, plain = FusionAttention(8, 2, learned_queries=3), FusionAttention(8, 2)
    plain.load_state_dict({name: value for name, value in layer.state_dict().items() if name != "learned_queries"})
    patches = ComparisonPatches(
        keys=torch.randn(2, 4, 8),
        values=torch.randn(2, 4, 8),
        mask=torch.ones(2, 4, dtype=torch.bool),
        indices=torch.arange(4).expand(2, -1),
        similarity=torch.zeros(2, 4),
    )
    fused = layer(torch.randn(2, 2, 8), patches, torch.ones(2, 1, 1))
    as_facts = layer.learned_queries[:2].expand(2, -1, -1)
    assert torch.equal(fused, plain(as_facts, patches, torch.ones(2, 1, 1)))


def test_words_of_the_facts_tell_nothing_and_images_all(learned):
    before = logits(*learned)
    assert torch.equal(logits(*learned, facts=OTHER_WORDS), before)
    for changed in ({"images": [picture(7)]}, {"reference_image": picture(8)}):
        assert not torch.allclose(logits(*learned, **changed), before, atol=1e-5)


def test_they_are_of_the_fusion_and_learn(learned):
    model, processor = learned
    name = "model.fusion.learned_queries"
    assert part_of(model, name) == "fusion"
    model(**encode_prompts(processor, [row(0)])).logits.sum().backward()
    # Two facts ask with the first two queries.
    assert model.get_parameter(name).grad.abs().sum(-1).gt(0).tolist() == [True, True, False]


def test_they_are_drawn_by_the_seed_saved_and_loaded(learned, stock, tmp_path):
    model, processor = learned
    queries = model.model.fusion.learned_queries
    assert queries.std().item() == pytest.approx(1, abs=0.3)
    again, _ = load_pretrained(stock[0], seed=5, fusion={"fusion_num_heads": 2, "learned_queries": 3})
    assert torch.equal(again.model.fusion.learned_queries, queries)
    save_pretrained(model, processor, tmp_path / "saved")
    loaded, loaded_processor = load_pretrained(tmp_path / "saved")
    assert loaded.config.learned_queries == 3
    assert torch.equal(logits(loaded, loaded_processor), logits(model, processor))


def test_more_facts_than_queries_are_refused(learned):
    with pytest.raises(ValueError, match="4 facts, and learned_queries is 3"):
        logits(*learned, facts=["A scratch."] * 4)


def test_without_them_a_model_is_what_it_was(tiny):
    assert not any("learned_queries" in name for name in tiny[0].state_dict())
