"""What the user sees: the list of files before an upload, and what it did."""

from __future__ import annotations

from rich.console import Console

from sage_trl.publishing.files import left_out
from sage_trl.publishing.publication import Publication, PublishOptions
from sage_trl.publishing.upload import Upload


def show_plan(publication: Publication, options: PublishOptions, console: Console) -> None:
    """The files with their sizes, and what stays at home."""
    visibility = "public" if options.public else "private"
    console.print(f"{options.run} to {options.repo_id} ({visibility}):", markup=False)
    for file in publication.files:
        console.print(f"  {file.size:>14,}  {file.name}", markup=False)
    staying = left_out(options.run, publication.files)
    if staying:
        console.print(f"left out: {', '.join(staying)}", markup=False)


def show_upload(upload: Upload, console: Console) -> None:
    """What was sent, what was there already, and where it lies."""
    if upload.commit is None:
        console.print(f"nothing to send: all {len(upload.unchanged)} files are there already")
    else:
        console.print(f"sent {len(upload.sent)} files, {len(upload.unchanged)} were there already")
    if upload.deleted:
        console.print(f"deleted weights of an earlier upload: {', '.join(upload.deleted)}", markup=False)
    console.print(f"{upload.url} ({'private' if upload.is_private else 'public'})", markup=False)
