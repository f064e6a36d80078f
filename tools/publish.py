"""Publish a trained run on the Hugging Face Hub: python tools/publish.py RUN --repo-id NAME."""

from __future__ import annotations

from sage_trl.command_line import run_tool

# The command lives in the package, because a trainer with push_to_hub starts it too.
from sage_trl.publishing.command import main

if __name__ == "__main__":
    run_tool(main)
