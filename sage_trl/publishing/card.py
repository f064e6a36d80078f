"""The model card: what a reader must know before they use a published model, from its records alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sage_trl.errors import DataError
from sage_trl.evaluation.report import LEVEL_NAMES, count_notes, percent
from sage_trl.evaluation.results_files import Results
from sage_trl.run_record import RunRecord

TEMPLATE = "model_card.md.jinja"
SCORE_NAMES = ("mle", "mle_rule")
RULE_JUDGE = "rule"

MARGINS = {
    "dpo": (
        r"\beta \left( \log\frac{\pi(a_w)}{\pi_{ref}(a_w)} - \log\frac{\pi(a_l)}{\pi_{ref}(a_l)} \right)",
        "",
    ),
    "paper": (r"\log \pi(a_w) - \log \pi(a_l)", r" + \lambda \, \mathrm{KL}(\pi \,\|\, \pi_{ref})"),
}
ENTROPIES = {"term": r"-p_i \log p_i", "surprisal": r"-\log p_i"}
PAIRS = {
    "both": "the neighbours in rank whose entropies are closest, and the best with the worst",
    "min": "the neighbours in rank whose entropies are closest",
    "max": "the best with the worst",
}
SETTINGS = {
    "rows a step": "rows_per_step",
    "of these per device": "per_device_train_batch_size",
    "accumulated": "gradient_accumulation_steps",
    "processes": "processes",
    "steps": "steps",
    "epochs": "epochs",
    "peak learning rate": "learning_rate",
    "schedule": "lr_scheduler",
    "warm-up steps": "warmup_steps",
    "optimizer": "optimizer",
    "gradient clip": "max_grad_norm",
    "weights": "dtype",
    "seed": "seed",
}


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from.

    Attributes:
        repo_id: where the model will lie; the usage snippet loads it from there.
        record: `sage_run.json`, or None if the run has none.
        inference: how the model wants to be prompted, `facts` and `reference_in_prompt`.
        is_adapter: a PEFT adapter rather than a whole model.
        results: an evaluation, model -> setting -> figures, or None.
        model_name: what `results` calls this model.
        licence: of the weights, as the hub's identifier, if known.
    """

    repo_id: str
    record: RunRecord | None
    inference: Mapping[str, Any]
    is_adapter: bool = False
    results: Results | None = None
    model_name: str = ""
    licence: str | None = None


def render_card(facts: CardFacts) -> str:
    """The model card in the hub's Markdown, with its YAML header.

    Raises:
        DataError: the evaluation does not hold this model.
    """
    record = facts.record
    stages = () if record is None else record.stages
    return (
        card_environment()
        .get_template(TEMPLATE)
        .render(
            front_matter=to_yaml(_front_matter(facts)),
            title=facts.repo_id.rpartition("/")[2],
            repo_id=facts.repo_id,
            base_model=_base_model(record),
            base_revision=(record and record.base_revision) or "not recorded",
            adapter=facts.is_adapter,
            stages=stages,
            **facts.inference,
            **_method(stages),
            judge_wording=_judge_wording(stages),
            settings=[(name, [getattr(stage.training, key) for stage in stages]) for name, key in SETTINGS.items()],
            versions=[
                (name, [stage.versions.get(name, "-") for stage in stages])
                for name in dict.fromkeys(name for stage in stages for name in stage.versions)
            ],
            results=None if facts.results is None else _results(facts.results, facts.model_name),
        )
    )


def card_environment() -> Environment:
    """For the templates of cards; `cell` fits a value into a table, `yaml` into a header."""
    # Markdown, not HTML: escaping would spoil it, and every value comes from the user's own files.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": _cell, "yaml": to_yaml}
    return environment


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    record = facts.record
    header: dict[str, Any] = {}
    if record is not None and record.base_model is not None:
        header["base_model"] = record.base_model
        header["base_model_relation"] = "adapter" if facts.is_adapter else "finetune"
    header["library_name"] = "peft" if facts.is_adapter else "transformers"
    header["pipeline_tag"] = "image-text-to-text"
    if facts.licence is not None:
        header["license"] = facts.licence
    stages = () if record is None else record.stages
    header["tags"] = ["sage", "trl", "industrial-inspection", "anomaly-detection", *(stage.stage for stage in stages)]
    sources = dict.fromkeys(source for stage in stages for source in stage.data.sources)
    return header | ({"datasets": list(sources)} if sources else {})


def _base_model(record: RunRecord | None) -> str:
    if record is None:
        return "not recorded"
    if record.base_model is None:
        return f"none on the hub: training started from `{record.stages[0].model}`"
    return f"`{record.base_model}`"


def _method(stages: Sequence[RunRecord]) -> dict[str, Any]:
    if not stages:
        return {"pairs": None}
    method = stages[-1].method
    found = {
        "method": method,
        "patch_extreme": r"\min" if method["patch_similarity"] == "farthest" else r"\max",
        "pairs": None,
    }
    if "pairs" not in method:
        return found
    margin, kl = MARGINS[method["objective"]]
    values = (
        {r"\beta": "beta", r"\eta": "eta"} if method["objective"] == "dpo" else {r"\lambda": "kl_coef", r"\eta": "eta"}
    )
    return found | {
        "pairs": method,
        "pair_wording": PAIRS[method["pairs"]],
        "entropy_formula": ENTROPIES[method["entropy"]],
        "margin_formula": margin,
        "kl_formula": kl,
        "objective_values": " and ".join(f"${symbol} = {method[key]}$" for symbol, key in values.items()),
    }


def _judge_wording(stages: Sequence[RunRecord]) -> str:
    judges = sorted({judge for stage in stages for judge in stage.data.judges})
    if not judges:
        return "No judge took part in the training."
    by_rule = (
        " The judge `rule` reads the ground truth of the data and asks no language model: its scores are `mle_rule`, "
        "not the MLE of the paper."
    )
    names = ", ".join(f"`{judge}`" for judge in judges)
    return f"The ranked answers were scored by {names}." + (by_rule if RULE_JUDGE in judges else "")


@dataclass(frozen=True)
class _ResultsTable:
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]
    has_rule_scores: bool


def _results(results: Results, model_name: str) -> _ResultsTable:
    """This model first, then the others of the same evaluation, which it is compared with."""
    if model_name not in results:
        problem = f"the evaluation holds no model {model_name!r}, only {', '.join(sorted(results)) or 'none'}"
        raise DataError(f"{problem}\n  remedy: give --metrics of an evaluation of this run, or leave it out")
    ordered = {model_name: results[model_name], **results}
    entries = [
        (model, setting, entry) for model, by_setting in ordered.items() for setting, entry in by_setting.items()
    ]
    scores = [name for name in SCORE_NAMES if any(entry.get(name) for _, _, entry in entries)]
    figures = ["accuracy", "95%", *LEVEL_NAMES.values(), "macro", "Acc-G", "majority", "unreadable", "questions"]
    rows = [[_cell(model), _cell(setting), *_figures(entry, scores)] for model, setting, entry in entries]
    columns = ["model", "setting", *figures, *scores]
    return _ResultsTable(columns, rows, [_cell(note) for note in count_notes(ordered)], "mle_rule" in scores)


def _figures(entry: Mapping[str, Any], scores: Sequence[str]) -> Iterator[str]:
    interval = (entry.get("intervals") or {}).get("accuracy")
    by_level = entry.get("accuracy_by_level") or {}
    yield percent(entry.get("accuracy"))
    yield "-" if interval is None else f"{percent(interval[0])} to {percent(interval[1])}"
    yield from (percent(by_level.get(level)) for level in LEVEL_NAMES)
    yield from (percent(entry.get(name)) for name in ("accuracy_macro", "acc_g", "majority_accuracy"))
    yield from (str(entry.get(name, "-")) for name in ("unreadable", "questions"))
    yield from ("-" if entry.get(name) is None else f"{entry[name]['mean']:.2f}" for name in scores)


def _cell(text: object) -> str:
    return str(text).replace("|", r"\|").replace("\n", " ")


def to_yaml(value: Any) -> str:
    """A value as the header of a card holds it."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
