"""Folders as the tools leave them, written by hand: no model is needed to report on one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from sage_trl.evaluation.metrics import compute_metrics
from sage_trl.evaluation.predictions import Prediction, grade, results_key
from sage_trl.evaluation.results_files import merge_metrics
from sage_trl.records import Level
from sage_trl.storage import read_json_lines, write_json, write_jsonl
from tests.evaluation.small_ad_pl import write_small_ad_pl

# What a hostile model, dataset or judge could write.
HOSTILE = (
    "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\"> & \u2028 $x$"
)
MODELS = ("alpha", "<b>beta</b>")
# True verdicts: q1 yes, q2 no. Replies by group and question of the split `test`; None cannot be read.
REPLIES: dict[str, dict[tuple[str, str], bool | None]] = {
    "alpha": {("g0", "q1"): True, ("g0", "q2"): False, ("g1", "q1"): True, ("g1", "q2"): True, ("g2", "q1"): None},
    "<b>beta</b>": {
        ("g0", "q1"): True,
        ("g0", "q2"): True,
        ("g1", "q1"): False,
        ("g1", "q2"): True,
        ("g2", "q1"): True,
    },
}
TEXTS = {True: "Yes, a scratch.", False: "No, fine.", None: HOSTILE}


def make_demo(root: Path) -> Path:
    """A folder as `tools/demo.py` leaves it: dataset with scores, evaluation, and a training run of each stage."""
    dataset = write_small_ad_pl(root / "data")
    write_scores(dataset)
    write_evaluation(root / "evaluation", dataset)
    write_training(root / "sfe", "loss", "mean_token_accuracy")
    write_training(
        root / "edpo", "loss", "rewards/accuracies", "rewards/margins_min_pairs", "rewards/margins_max_pairs"
    )
    return root


def write_evaluation(output: Path, dataset: Path) -> Path:
    """What `tools/evaluate.py --judge rule --evidence` leaves, of two models on three groups."""
    output.mkdir(parents=True)
    rows = {
        model: [prediction(model, *place, said) for place, said in said_by.items()]
        for model, said_by in REPLIES.items()
    }
    blank = [prediction("alpha", "g0", "q1", False, control="blank_image")]
    lines = [row.model_dump(mode="json") for row in chain(*rows.values(), blank)]
    write_jsonl(output / "predictions.jsonl", lines)
    scores = [(5.0, 4.0, 3.0)] * 5
    for model, found in rows.items():
        merge_metrics(output, {model: {"one_shot": compute_metrics(found, scores).as_json()}})
    merge_metrics(output, {"alpha": {results_key("one_shot", "test", "blank_image"): compute_metrics(blank).as_json()}})
    write_json(output / "comparisons.json", [comparison(*MODELS)])
    write_json(output / "evaluation.json", manifest(dataset))
    write_jsonl(
        output / "judgements.jsonl", [judgement("alpha", "g0", "q1", HOSTILE), judgement("alpha", "g0", "q2", None)]
    )
    write_jsonl(output / "evidence.jsonl", [evidence("alpha", "g0")])
    return output


def prediction(model: str, group: str, question: str, said: bool | None, control: Any = None) -> Prediction:
    """The reply of a model, one-shot."""
    levels: dict[str, Level] = {
        "g0": "standard_comparison",
        "g1": "defect_identification",
        "g2": "defect_diagnosis",
    }
    verdict = question == "q1"
    return Prediction(
        key=hashlib.sha256(repr((model, group, question, control)).encode()).hexdigest(),
        model=model,
        setting="one_shot",
        split="test",
        control=control,
        group_id=group,
        question_id=question,
        level=levels.get(group, "standard_comparison"),
        question="Is the part scratched?",
        prediction=TEXTS[said],
        predicted_verdict=said,
        verdict=verdict,
        correct=grade(said, verdict),
        seconds=0.1,
    )


def comparison(first: str, second: str) -> dict[str, Any]:
    """An entry of `comparisons.json`."""
    counts = {"questions": 5, "units": 3, "difference": 0.2, "only_first": 2, "only_second": 1, "p_value": 0.75}
    return {"setting": "one_shot", "first": first, "second": second, **counts}


def manifest(dataset: Path) -> dict[str, Any]:
    """The content of `evaluation.json`."""
    return {
        "version": 1,
        "dataset": str(dataset),
        "facts": str(dataset / "facts.jsonl"),
        "seed": 0,
        "splits": ["test"],
        "settings": ["one_shot"],
        "models": {model: f"runs/{model}" for model in MODELS},
    }


def judgement(model: str, group: str, question: str, rationale: str | None) -> dict[str, Any]:
    """A line of `judgements.jsonl`."""
    place = {"model": model, "setting": "one_shot", "split": "test", "control": None}
    scores = {"judge": "gpt-4o/prompt-1", "type": 5, "location": 2, "logic": 4}
    return {**place, "group_id": group, "question_id": question, **scores, "rationale": rationale}


def evidence(model: str, group: str) -> dict[str, Any]:
    """A line of `evidence.jsonl`: two patches, two facts."""
    place = {"model": model, "setting": "one_shot", "split": "test", "control": None, "group_id": group}
    boxes = [([0.0, 0.0, 0.5, 0.5], 0.125), ([0.5, 0.5, 1.0, 1.0], 0.75)]
    facts = [("Parts of kind 0 get scratched.", [0.9, 0.1]), (HOSTILE, [0.25, 0.75])]
    return {
        **place,
        "key": "0" * 64,
        "selected": True,
        "attended": len(boxes),
        "patches": [{"box": box, "similarity": similarity} for box, similarity in boxes],
        "facts": [{"text": text, "attention": attention} for text, attention in facts],
    }


def write_training(output: Path, *names: str) -> Path:
    """A `trainer_state.json` of three logged steps, as the `Trainer` saves it."""
    log = [{"step": 10 * step, "epoch": 0.1 * step, **dict.fromkeys(names, 1.0 / step)} for step in (1, 2, 3)]
    output.mkdir(parents=True)
    write_json(
        output / "trainer_state.json", {"global_step": 30, "log_history": [*log, {"step": 30, "train_runtime": 1.0}]}
    )
    return output


def write_scores(
    dataset: Path, by_rank: Sequence[tuple[int, int, int]] = ((5, 5, 5), (4, 4, 4), (3, 3, 3), (1, 1, 1))
) -> None:
    """A `scores.jsonl` that gives every answer of a rank the same scores."""
    groups: list[Mapping[str, Any]] = [row for _, row in read_json_lines(dataset / "ad_pl.jsonl")]
    write_jsonl(
        dataset / "scores.jsonl",
        (
            {
                **{"group_id": group["id"], "question_id": question["id"], "answer_index": rank},
                **dict(zip(("type", "location", "logic"), scores, strict=True)),
                **{"mle": sum(scores) / 3, "judge": "rule"},
            }
            for group in groups
            for question in group["questions"]
            for rank, scores in enumerate(by_rank)
        ),
    )
