"""`metrics.json` and `comparisons.json`: results for programs, brought up to date run by run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sage_trl.errors import DataError
from sage_trl.storage import read_json, write_json

METRICS_FILE = "metrics.json"
COMPARISONS_FILE = "comparisons.json"
Results = dict[str, dict[str, dict[str, Any]]]
"""model -> setting (see `results_key`) -> the fields of `Metrics`."""
SCORES = ("sbert", "mle_rule", "mle")
"""Figures that only some runs measure, and that may have cost money."""
COMPARED = ("first", "second")


def merge_metrics(output: Path, results: Results, tell: Callable[[str], object] | None = None) -> Results:
    """Put the results into `metrics.json` below `output`, keeping those of other models and settings.

    Scores (`SCORES`) that were not measured this time stay if they are of the same replies.

    Args:
        output: directory of the file.
        results: of this run.
        tell: called with a sentence where earlier scores are dropped.

    Returns:
        The results with what they keep of earlier ones.

    Raises:
        DataError: an existing file is no metrics file.
    """
    path = output / METRICS_FILE
    merged = read_metrics(path) if path.exists() else {}
    kept: Results = {}
    for model, by_setting in results.items():
        entries = merged.setdefault(model, {})
        kept[model] = {}
        for setting, figures in by_setting.items():
            kept[model][setting], dropped = _with_earlier_scores(figures, entries.get(setting, {}))
            if dropped and tell is not None:
                tell(
                    f"{model}, {setting}: dropped {', '.join(dropped)} of an earlier run, which nothing says to be of "
                    "the same replies; --judge and --sbert measure them again"
                )
        entries.update(kept[model])
    write_json(path, merged)
    return kept


def _with_earlier_scores(figures: Mapping[str, Any], before: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The figures with the scores that they lack, and which ones of other replies were left out."""
    result, intervals = dict(figures), dict(figures["intervals"])
    earlier = [name for name in SCORES if figures.get(name) is None and before.get(name) is not None]
    if figures.get("mle_unscored"):  # a judge has run, and has scored nothing
        earlier = [name for name in earlier if name != "mle"]
    digest = figures.get("replies_sha256")
    is_same = digest is not None and digest == before.get("replies_sha256")
    for name in earlier if is_same else ():
        result[name] = before[name]
        intervals |= {key: bounds for key, bounds in before["intervals"].items() if key.partition("/")[0] == name}
        if name == "mle":
            result["mle_unscored"] = before["mle_unscored"]
    # In one order, whichever run has measured what.
    result["intervals"] = dict(sorted(intervals.items()))
    return result, [] if is_same else earlier


def drop_comparisons(output: Path, results: Results) -> None:
    """Take out of `comparisons.json` what these results make untrue; to be called before they are merged.

    An entry stays if the replies of its models are those that `metrics.json` counts.

    Raises:
        DataError: one of the two files is damaged.
    """
    path, metrics = output / COMPARISONS_FILE, output / METRICS_FILE
    if not path.exists():
        return
    before = read_metrics(metrics) if metrics.exists() else {}

    def has_changed(model: str, setting: str) -> bool:
        now, then = (found.get(model, {}).get(setting, {}) for found in (results, before))
        digest = now.get("replies_sha256")
        return bool(now) and (digest is None or digest != then.get("replies_sha256"))

    entries = read_comparisons(path)
    true = [entry for entry in entries if not any(has_changed(entry[one], entry["setting"]) for one in COMPARED)]
    if len(true) < len(entries):
        write_json(path, true)


def merge_comparisons(output: Path, comparisons: Iterable[Mapping[str, Any]]) -> None:
    """Put the entries into `comparisons.json` below `output`, keeping those of other models and settings.

    Raises:
        DataError: an existing file is no list of comparisons.
    """
    path = output / COMPARISONS_FILE
    entries = [*(read_comparisons(path) if path.exists() else []), *comparisons]
    merged = {(entry["setting"], frozenset(entry[one] for one in COMPARED)): entry for entry in entries}
    write_json(path, list(merged.values()))


def read_comparisons(path: Path) -> list[dict[str, Any]]:
    """Read `comparisons.json`.

    Raises:
        DataError: missing, not JSON, or no list of comparisons.
    """
    content = read_json(path)
    names = {"setting", *COMPARED}
    if not isinstance(content, list) or not all(isinstance(entry, dict) and names <= {*entry} for entry in content):
        raise DataError.at(
            path,
            None,
            "is no list of comparisons",
            "move the file away; the next comparison writes it anew",
        )
    return content


def read_metrics(path: Path) -> Results:
    """Read `metrics.json`.

    Raises:
        DataError: missing, not JSON, or not model -> setting -> figures.
    """
    content = read_json(path)
    entries = content.values() if isinstance(content, dict) else [content]
    if not all(isinstance(entry, dict) and all(isinstance(m, dict) for m in entry.values()) for entry in entries):
        raise DataError.at(
            path, None, "is not {model: {setting: figures}}", "move the file away; the next evaluation writes it anew"
        )
    return dict(content)
