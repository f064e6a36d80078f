"""The options of `tools/build_dataset.py` that share a dataset, and what they do."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rich.console import Console


def add_sharing_options(parser: argparse.ArgumentParser) -> None:
    """`--push-to-hub` and what belongs to it; `--from-hub` is one of the tool's own tasks."""
    options = parser.add_argument_group("sharing", "the token comes from HF_TOKEN or `hf auth login`")
    options.add_argument("--push-to-hub", metavar="NAME", help="publish the dataset at --output, privately")
    options.add_argument("--public", action="store_true", help="create the repository public, or accept that it is")
    options.add_argument(
        "--dry-run",
        action="store_true",
        help="show what --push-to-hub sends, or the cost of --author openai; contact nobody, write nothing",
    )
    options.add_argument(
        "--with-images",
        nargs="+",
        default=[],
        metavar="SOURCE",
        help="publish the images of these sources although their licence is not known to allow it",
    )
    options.add_argument(
        "--image-root",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="with --from-hub: folders to find left-out images in, by SHA-256",
    )


def push_to_hub(arguments: argparse.Namespace, console: Console) -> None:
    """Publish the dataset at `arguments.output`, or show what would go."""
    _plain_https()
    from sage_trl.publishing.dataset_publication import (  # noqa: PLC0415
        DatasetPublication,
        DatasetPublishOptions,
        prepared_dataset,
        publish_dataset,
    )
    from sage_trl.publishing.showing import show_upload  # noqa: PLC0415

    options = DatasetPublishOptions(
        arguments.output, arguments.push_to_hub, arguments.public, tuple(arguments.with_images)
    )

    def announce(publication: DatasetPublication) -> None:
        visibility = "public" if options.public else "private"
        console.print(f"{options.dataset} to dataset {options.repo_id} ({visibility}):", markup=False, soft_wrap=True)
        for file in publication.files:
            console.print(f"  {file.size:>14,}  {file.name}", markup=False)
        for name in publication.without_images:
            console.print(f"left out: the images of {name}, see --with-images", markup=False, soft_wrap=True)

    if arguments.dry_run:
        with prepared_dataset(options, options.repo_id) as publication:
            announce(publication)
            console.print(publication.card, markup=False, soft_wrap=True)
        return
    show_upload(publish_dataset(options, announce), console)


def fetch_from_hub(arguments: argparse.Namespace, console: Console) -> None:
    """Download a published dataset and write it to `arguments.output`."""
    _plain_https()
    from sage_trl.publishing.dataset_download import download_dataset, restore_dataset  # noqa: PLC0415

    with console.status("looking for left-out images") as status:
        restored = restore_dataset(
            download_dataset(arguments.from_hub),
            arguments.output,
            arguments.image_root,
            lambda done: status.update(f"looking for left-out images: {done:,} files hashed"),
        )
    counts = f"{restored.groups} groups, {restored.images} images from the hub, {restored.found} found locally"
    console.print(f"written: {arguments.output} ({counts})", soft_wrap=True)


def _plain_https() -> None:
    # See sage_trl/publishing/command.py: read when huggingface_hub is imported.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
