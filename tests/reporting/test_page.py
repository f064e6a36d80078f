"""The report's content, from the real command line: tables, charts, the gallery's data, and strangers' text."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from tests.reporting.made_runs import HOSTILE
from tests.reporting.parsed_page import ParsedPage


@pytest.fixture(scope="module")
def page(demo_report: tuple[Path, str]) -> ParsedPage:
    return ParsedPage.read(demo_report[0])


def rows_of(page: ParsedPage, table: int) -> dict[str, list[str]]:
    """Cells by the first of a row; of rows of one name the first."""
    rows: dict[str, list[str]] = {}
    for first, *cells in (row for row in page.tables[table] if row):
        rows.setdefault(first, cells)
    return rows


def test_the_tool_says_what_it_recognised(demo_report):
    output, printed = demo_report
    lines = printed.splitlines()

    assert [line.partition(":")[0] for line in lines[:-1]] == ["evaluation", "training", "training", "dataset"]
    assert "evaluation: alpha, <b>beta</b>; 11 replies" in lines[0]
    assert lines[1].endswith("sfe: stage unknown, 30 steps")
    assert lines[-1] == str(output)


def test_table_1_has_ours_and_the_published_rows(page):
    ours = rows_of(page, 0)

    # 5 graded questions: right are 2 of 2, 1 of 2 and 0 of 1 by level.
    assert ours["alpha"] == ["– / 100.0", "– / 50.0", "– / 0.0", "– / –", "– / 60.0"]
    assert ours["<b>beta</b>"] == ["– / 50.0", "– / 0.0", "– / 100.0", "– / –", "– / 40.0"]
    assert ours["GPT-4o"] == ["58.4 / 60.1", "57.4 / 59.3", "75.4 / 76.1", "0.71 / 0.73", "62.1 / 63.7"]
    headings = [row[0] for row in page.tables[0] if len(row) == 1]
    assert headings == [
        "Measured here, small, split test",
        "Published (arXiv 2507.07939), MANTA",
        "Published (arXiv 2507.07939), MPDD QA",
    ]
    published = [
        attributes for tag, attributes in page.elements if tag == "tbody" and attributes.get("class") == "published"
    ]
    assert len(published) == 4  # two in table 1, one each in tables 2 and 3
    assert [row[0] for row in page.tables[0]].count("SAGE") == 2


def test_table_2_tells_the_rule_judge_apart(page):
    assert rows_of(page, 1)["alpha"] == ["– / 5.00 r", "– / 4.00 r", "– / 3.00 r"]
    assert rows_of(page, 1)["SAGE"] == ["4.05 / 4.09", "3.75 / 3.68", "4.35 / 4.47"]
    assert "r: by the rule judge, from ground truth" in page.text()


def test_table_3_has_one_shot_beside_zero_shot(page):
    # One of three groups has every question right.
    assert rows_of(page, 2)["alpha"] == ["–", "–", "–", "–", "60.0", "–", "33.3", "4.00 r"]
    assert rows_of(page, 2)["Full Model"] == ["69.64", "0.70", "17.32", "4.05", "–", "–", "–", "–"]


def test_controls_and_comparisons_have_their_rows(page):
    everything = rows_of(page, 3)
    assert list(everything)[2:] == ["alpha, one-shot", "alpha, one-shot, blank image", "<b>beta</b>, one-shot"]
    assert everything["alpha, one-shot, blank image"][0] == "0.0"
    assert page.tables[4][-1] == ["alpha against <b>beta</b>", "one-shot, test", "+20.0", "2", "1", "0.75", "5"]


def test_the_gallery_holds_what_was_asked(page):
    index = page.data("index")

    assert index["models"] == ["alpha", "<b>beta</b>"]
    assert index["inputs"] == ["one-shot", "one-shot, blank image"]
    assert index["splits"] == ["small, test"] and index["categories"] == ["plate"]
    # group, level, category, split, question, and one letter for each input and model.
    assert index["items"] == [
        [0, 0, 0, 0, 0, "rrw-"],
        [0, 0, 0, 0, 1, "rw--"],
        [1, 1, 0, 0, 0, "rw--"],
        [1, 1, 0, 0, 1, "ww--"],
        [2, 2, 0, 0, 0, "ur--"],
    ]
    first = page.groups()[0]
    assert (first["id"], first["level"], first["defects"][0]["type"]) == ("g0", "comparison", "scratch")
    assert first["facts"] == ["Parts of kind 0 get scratched.", "They get stained."]
    assert first["evidence"][0]["patches"][0] == {"box": [0.0, 0.0, 0.5, 0.5], "similarity": 0.125}
    assert first["evidence"][0]["facts"][0]["attention"] == [0.9, 0.1]
    question = first["questions"][0]
    assert [answer["scores"] for answer in question["answers"]] == [[5, 5, 5], [4, 4, 4], [3, 3, 3], [1, 1, 1]]
    assert question["replies"][0]["judged"] == [
        {"judge": "gpt-4o/prompt-1", "scores": [5, 2, 4], "rationale": HOSTILE.strip()}
    ]


def test_each_image_is_embedded_once_and_small(page, demo):
    groups = page.groups()

    # The first test image is black and the others differ; a 16 px image stays as it is, to the pixel.
    assert sorted({group[kind] for group in groups for kind in ("test", "reference")}) == list(
        range(len(page.images()))
    )
    assert len(set(page.images())) == len(page.images()) == 6
    kind, _, content = page.images()[groups[1]["test"]].partition(",")
    assert kind == "data:image/webp;base64"
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert image.size == (16, 16) and image.convert("RGB").getpixel((3, 3)) == (40, 10, 10)


def test_strangers_text_stays_text(page):
    # One script runs, the report's own; the others are data.
    kinds = [attributes.get("type") for attributes, _ in page.scripts]
    assert kinds == ["application/json"] * 4 + ["text/plain"] * 6 + [None]
    assert page.groups()[2]["questions"][0]["replies"][0]["text"] == HOSTILE
    assert page.groups()[0]["evidence"][0]["facts"][1]["text"] == HOSTILE.strip()
    assert not [tag for tag, attributes in page.elements if tag in ("b", "img") and "onerror" in attributes]
    assert "alpha against <b>beta</b>" in page.text()


def test_nothing_is_asked_of_another_address(page, demo_report):
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    [policy] = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and re.search(r"script-src 'sha256-[\w+/=]+'$", policy)
    styles = re.findall(r"<style>(.*?)</style>", demo_report[0].read_text(), flags=re.DOTALL)
    assert not any("url(" in style or "@import" in style for style in styles)


def test_charts_follow_the_page_s_colours(page, demo_report):
    drawings = re.findall(r"<svg.*?</svg>", demo_report[0].read_text(), flags=re.DOTALL)

    titles = [a["aria-label"] for tag, a in page.elements if a.get("class") == "chart"]
    assert titles == [
        "Accuracy by level, one-shot: small, test",
        "Acc-G: small, test",
        "Loss, fine-tuning",
        "Token accuracy, fine-tuning",
        "Loss, preferences",
        "Pairs ordered as the ranks",
        "Reward margins: edpo",
        "Scores by rank: small",
        "Entropy gaps of the pairs: small",
    ]
    assert len(drawings) == len(titles)
    for drawing in drawings:
        ElementTree.fromstring(drawing)
        assert not re.search("#[0-9a-f]{6}[^0-9a-f]", drawing)  # a colour that would not change with the scheme
    assert "&lt;b&gt;beta&lt;/b&gt;" in drawings[0]
    assert [name for name, count in page.ids().items() if count > 1] == []


def test_entropy_gaps_are_counted(page):
    # p of 5, 4, 3, 1 is 0.657, 0.242, 0.089, 0.012 (softmax): -p log p is 0.276, 0.343, 0.215, 0.053. The smallest
    # adjacent gap is 0.067, best against worst 0.223: never the smaller one.
    assert "10 questions with both pairs. In 0 of them (0.0%) best against worst has the smaller gap" in page.text()


def test_a_smaller_gallery_says_what_it_leaves_out(demo, tmp_path, run_tool):
    output = tmp_path / "report.html"
    assert run_tool(demo, "--output", output, "--gallery", 2, "--image-size", 8, "--quiet") == 0

    page = ParsedPage.read(output)
    assert [group["id"] for group in page.groups()] == ["g0", "g1"]  # every 3/2-th of three
    assert "4 questions on 2 image pairs. 1 more pairs are left out" in page.text()
    assert Image.open(io.BytesIO(base64.b64decode(page.images()[0].partition(",")[2]))).size == (8, 8)
    assert rows_of(page, 0)["alpha"][-1] == "– / 60.0"
