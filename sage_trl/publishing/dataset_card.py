"""The card of a published dataset: its figures, licences and columns, from the dataset itself."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.data.licences import hub_licence
from sage_trl.data.statistics import compute_statistics
from sage_trl.publishing.card import card_environment, to_yaml

TEMPLATE = "dataset_card.md.jinja"
_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}


def render_dataset_card(dataset: AdPlDirectory, repo_id: str, without_images: Collection[str]) -> str:
    """The card in the hub's Markdown, with its YAML header.

    Args:
        dataset: what is published.
        repo_id: where; the snippets load it from there.
        without_images: sources whose images are left out.
    """
    statistics = compute_statistics(dataset.inspections)
    info = dataset.info
    licences = {name: info.sources.get(name, info.licence) for name in statistics.by["source"]}
    template = card_environment().get_template(TEMPLATE)
    return template.render(
        front_matter=to_yaml(
            _front_matter(list(licences.values()), list(statistics.by["split"]), len(dataset.inspections))
        ),
        title=repo_id.rpartition("/")[2],
        repo_id=repo_id,
        total=statistics.total,
        by=statistics.by,
        licences=licences,
        without_images=sorted(without_images),
    )


def _front_matter(licences: list[str], splits: list[str], groups: int) -> dict[str, Any]:
    ids = sorted({hub_licence(licence) for licence in licences})
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
    return {
        "license": ids[0] if len(ids) == 1 else ids,
        "task_categories": ["visual-question-answering", "image-text-to-text"],
        "tags": ["sage", "industrial-inspection", "anomaly-detection", "preference"],
        "size_categories": [next((name for limit, name in _SIZES.items() if groups < limit), "n>1M")],
        "configs": [{"config_name": "default", "data_files": files}],
    }
