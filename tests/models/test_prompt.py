"""What a prompt shows, as text."""

import pytest

from sage_trl.models.encoding import encode_prompts, render_prompt
from sage_trl.models.prompt import question_messages, with_images_and_facts
from tests.conftest import row

FACTS = ["Plates get scratched.", "Holes may be missing."]


@pytest.mark.parametrize(
    ("fact_use", "shown"),
    [
        ("fusion", ["<fact><fact>\nAbove is the feature related to the anomaly facts.\n"]),
        ("hard", ["Plates get scratched.\nHoles may be missing.\nAbove are facts about parts of this kind.\n"]),
        ("none", []),
    ],
)
def test_facts_are_placeholders_text_or_nothing(fact_use, shown):
    [message] = with_images_and_facts(question_messages("Is it whole?"), FACTS, fact_use, with_reference=False)
    *before, question = [part["text"] for part in message["content"] if part["type"] == "text"]
    assert before == shown
    assert question == "Is it whole?\nAnswer Yes or No first, then give the reason."


def test_options_are_chosen_by_letter() -> None:
    options = "Where is it?\nA. At the top.\nB. Nowhere."
    [asked, _, then] = question_messages("Is it whole?", [(options, "A. At the top.")])
    assert asked["content"] == f"{options}\nAnswer with the letter of the right option first, then give the reason."
    assert then["content"] == "Is it whole?\nAnswer Yes or No first, then give the reason."
    [initial] = question_messages("Is vitamin\nB. Braun's?")
    assert initial["content"].endswith("Answer Yes or No first, then give the reason.")


def test_hard_facts_are_read_by_the_plain_model_alone(tiny):
    model, processor = tiny
    batch = encode_prompts(processor, [row(0)], facts="hard")
    assert not any(name.startswith(("fact_", "reference_")) for name in batch)
    text = render_prompt(processor, row(0), facts="hard", reference_in_prompt=False)
    assert all(text.count(fact) == 1 for fact in row(0)["facts"])
    other = encode_prompts(processor, [row(0, facts=["Other words altogether."] * 2)], facts="hard")
    assert not model(**batch).logits[:, -1].allclose(model(**other).logits[:, -1], atol=1e-5)
