"""Questions that share their images: one pass over those, the same replies, for every backbone."""

import pytest
import torch

from sage_trl.models.checkpoints import load_pretrained
from sage_trl.models.generation import ModelReplyGenerator
from sage_trl.models.growing_cache import GrowingLayer
from sage_trl.models.prompt import question_messages
from sage_trl.models.shared_prompts import share_prompts
from tests.conftest import picture, row
from tests.models.stock_checkpoints import BUILDERS, save_stock

QUESTIONS = (
    "Is there a scratch on this plate?",
    "Does the plate match the reference?",
    "Is there a scratch or a stain on this plate, or is there something else wrong with it?",
)


@pytest.fixture(scope="module", params=BUILDERS)
def loaded(request, tmp_path_factory):
    """Weights larger than usual, so that different inputs give different replies."""
    directory = tmp_path_factory.mktemp(request.param)
    save_stock(request.param, directory)
    model, processor = load_pretrained(directory, fusion={"num_selected_patches": 2, "fusion_num_heads": 4})
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)
    return model, processor


def asked(index, questions, **columns):
    return [row(index, **columns, prompt=question_messages(question)) for question in questions]


def rows_of_groups():
    """Four groups: of three questions, of one, of two without reference, of two with an image of another size."""
    groups = [
        asked(0, QUESTIONS),
        asked(1, QUESTIONS[2:]),
        asked(2, QUESTIONS[:2], reference=False, num_facts=1),
        asked(3, QUESTIONS[1:], images=[picture(3, 64, 32)], num_facts=3),
    ]
    # In turn, so that a group's rows are no neighbours.
    return sorted((one for group in groups for one in group), key=lambda one: len(str(one["prompt"])))


@pytest.mark.parametrize(("facts", "in_prompt"), [("fusion", False), ("hard", False), ("none", True)])
def test_replies_are_those_of_the_rows_alone(loaded, facts, in_prompt, monkeypatch):
    grown = []
    update = GrowingLayer.update
    monkeypatch.setattr(GrowingLayer, "update", lambda *args, **kwargs: grown.append(1) or update(*args, **kwargs))
    rows = rows_of_groups()
    reply = ModelReplyGenerator(*loaded, max_new_tokens=8, facts=facts, reference_in_prompt=in_prompt)
    encoded = []
    encode = loaded[0].model.get_image_features
    loaded[0].model.get_image_features = lambda *args, **inputs: encoded.append(1) or encode(*args, **inputs)
    together = reply(rows)
    passes = len(encoded)
    assert grown  # in place; those of a row alone are of transformers' own kind
    del loaded[0].model.get_image_features
    alone = [reply([one])[0] for one in rows]
    assert len({one.text for one in together}) > len(rows) // 2
    assert [one.text for one in together] == [one.text for one in alone]
    # Sums over a batch of another shape round otherwise.
    chances = [one.yes_probability for one in alone]
    assert [one.yes_probability for one in together] == pytest.approx(chances, abs=1e-5)
    # All prompts in one pass, and all references in another.
    assert passes == (2 if facts == "fusion" else 1)


def test_each_prompt_is_cut_where_its_group_parts(loaded):
    _, processor = loaded
    rows = rows_of_groups()
    options = {"facts": "fusion", "reference_in_prompt": False}
    shared = share_prompts(processor, rows, options)
    assert len(shared.prefixes["input_ids"]) == 4
    for index, one in enumerate(rows):
        owner = shared.owners[index]
        before = shared.prefixes["input_ids"][owner][shared.prefixes["attention_mask"][owner].bool()]
        behind = shared.suffix_ids[index][shared.suffix_mask[index].bool()]
        alone = ModelReplyGenerator(*loaded, 1, facts="fusion", reference_in_prompt=False)
        assert torch.equal(torch.cat([before, behind]), prompt_ids(alone, one))
        assert len(behind) >= 1


def prompt_ids(reply, one):
    seen = []
    generate = reply._model.generate
    reply._model.generate = lambda **inputs: seen.append(inputs["input_ids"][0]) or generate(**inputs)
    reply([one])
    del reply._model.generate
    return seen[0]


def test_rows_that_share_nothing_are_not_cut(loaded):
    rows = [row(0), row(1), row(2, reference=False)]
    assert share_prompts(loaded[1], rows, {"facts": "fusion", "reference_in_prompt": False}) is None
