"""What a served model under test is shown, and what counts as its reply."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sage_trl.data.dataset import read_ad_pl
from sage_trl.evaluation.questions import build_questions
from sage_trl.evaluation.served_model import ServedModel
from sage_trl.llm_client.replies import UnreadableError, read_reply
from sage_trl.llm_client.request import ChatRequest
from sage_trl.llm_client.service import ServiceOptions
from sage_trl.models.prompt import ANSWER_INSTRUCTION, REFERENCE_SENTENCE, TEST_SENTENCE


@pytest.fixture
def model(tmp_path: Path) -> ServedModel:
    return ServedModel(ServiceOptions(model="m", base_url="http://h/v1", cache=tmp_path / "c.sqlite"), 48)


def requests(model: ServedModel, ad_pl: Path, folder: Path, **condition: Any) -> list[ChatRequest]:
    asked = build_questions(read_ad_pl(ad_pl), None, split="test", identity={}, **condition)
    return list(model._requests([item.row for item in asked], folder))


def decoded(part: dict[str, Any]) -> bytes:
    head, _, data = part["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    return base64.b64decode(data)


def test_one_shot_shows_the_bytes_of_both_files_in_the_order_of_the_text(
    model: ServedModel, ad_pl: Path, tmp_path: Path
) -> None:
    body = requests(model, ad_pl, tmp_path, setting="one_shot")[0].body()

    [message] = body["messages"]
    reference, test, text = message["content"]
    assert decoded(reference) == (ad_pl / "images/0_reference.png").read_bytes()
    assert decoded(test) == (ad_pl / "images/0_test.png").read_bytes()
    assert text["text"] == f"{REFERENCE_SENTENCE}\n{TEST_SENTENCE}\nIs the part scratched?\n{ANSWER_INSTRUCTION}"
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("m", 48, 0)


def test_zero_shot_and_groups_without_a_reference_show_one_image(
    model: ServedModel, ad_pl: Path, tmp_path: Path
) -> None:
    zero_shot = requests(model, ad_pl, tmp_path, setting="zero_shot")
    without = requests(model, ad_pl, tmp_path, setting="one_shot")[-1]

    for request in (*zero_shot, without):
        [image, text] = request.body()["messages"][0]["content"]
        assert image["type"] == "image_url" and REFERENCE_SENTENCE not in text["text"]


def test_a_blank_image_is_sent_blank_and_equal_ones_are_one_request(
    model: ServedModel, ad_pl: Path, tmp_path: Path
) -> None:
    blank = requests(model, ad_pl, tmp_path, setting="zero_shot", control="blank_image")

    picture = Image.open(io.BytesIO(decoded(blank[0].body()["messages"][0]["content"][0])))
    assert picture.getcolors() == [(16 * 16, (128, 128, 128))]
    assert len({request.key("http://h/v1") for request in blank}) == 2, "two questions, one picture"


@pytest.mark.parametrize(
    ("message", "finish_reason", "reply"),
    [
        ({"content": "Yes, a scr"}, "length", "Yes, a scr"),
        ({"content": None, "refusal": "I cannot say."}, "stop", "I cannot say."),
        ({"content": "", "refusal": None}, "stop", ""),
        ({"content": None}, "stop", ""),
    ],
)
def test_what_a_model_says_is_its_reply(message: dict[str, Any], finish_reason: str, reply: str) -> None:
    body = json.dumps({"choices": [{"message": message, "finish_reason": finish_reason}]})

    assert read_reply(body, takes_any=True) == reply
    with pytest.raises(UnreadableError):
        read_reply(body)


@pytest.mark.parametrize(
    "body", ["<html>", '{"error": {"message": "overloaded"}}', '{"choices": [{"message": {"content": 5}}]}']
)
def test_what_is_no_chat_completion_is_no_reply(body: str) -> None:
    with pytest.raises(UnreadableError):
        read_reply(body, takes_any=True)
