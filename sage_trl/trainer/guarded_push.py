"""`push_to_hub: true` that cannot end a training: a process of its own publishes what is already whole."""

from __future__ import annotations

import atexit
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

from huggingface_hub import get_token
from transformers.trainer_utils import HubStrategy

from sage_trl.trainer.fact_arguments import refuse_options

logger = logging.getLogger(__name__)
PUBLISH_MODULE = "sage_trl.publishing.command"
PUSHED_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""What is kept for a push of a checkpoint; which of it goes out is for the publishing to decide."""
HUB_OPTIONS: dict[str, tuple[Any, ...]] = {
    "hub_strategy": (HubStrategy.EVERY_SAVE, HubStrategy.END),
    "hub_revision": (None,),
    "hub_always_push": (False,),
}


class GuardedPush:
    """Comes before a TRL trainer in the bases and takes the place of the `Trainer`'s own pushes.

    Those create the repository before training, end the training when the hub fails, make public repositories, and
    send `training_args.bin`. Here a push is `tools/publish.py` in another process: it can fail, hang or be killed, and
    training goes on.
    """

    args: Any
    state: Any
    hub_model_id: str | None
    _push: _Push | None = None

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:  # noqa: ARG002 the Trainer's
        """Name the repository. It is created by the first push: a dead hub must not keep a training from starting.

        Raises:
            ValueError: options for what publishing never does: optimizer state, branches, making the training wait.
        """
        reason = "a push publishes the model alone, on the main branch, while no other push is under way"
        refuse_options(self.args, HUB_OPTIONS, reason)
        self.hub_model_id = self.args.hub_model_id or Path(self.args.output_dir).absolute().name
        if self.is_world_process_zero() and (token or self.args.hub_token or get_token()) is None:  # type: ignore[attr-defined]
            logger.warning("push_to_hub: no token for the hub yet; set HF_TOKEN, or run `hf auth login` meanwhile")

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Save the model, publish it, and wait; a failure is a warning with the command that tries again.

        Args:
            commit_message: of the commit.
            blocking: wait for the upload.
            token: instead of `hub_token`, HF_TOKEN or the login.
            revision: None or the main branch only.
            private: instead of `hub_private_repo`; None is private.
            kwargs: refused. The model card is written by the publishing.

        Raises:
            ValueError: an option that would have no effect.
        """
        if kwargs or revision not in (None, "main"):
            raise ValueError(f"push_to_hub takes no {', '.join(kwargs) or 'revision'}; use tools/publish.py")
        if self.hub_model_id is None:
            self.init_hf_repo(token, private)
        self.save_model(_internal_call=True)  # type: ignore[attr-defined]
        if not self.is_world_process_zero():  # type: ignore[attr-defined]
            return
        self._finish_current_push()
        self._start_push(Path(self.args.output_dir), commit_message, token, private)
        if blocking:
            self._finish_current_push()

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Publish a checkpoint beside the training, unless the push before is still under way."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:  # type: ignore[attr-defined]
            return
        if self._push is not None and self._push.is_running:
            return
        self._finish_current_push()
        checkpoint = Path(checkpoint_folder)
        self._start_push(checkpoint, f"Training in progress, step {self.state.global_step}", keep=True)

    def _start_push(
        self,
        directory: Path,
        message: str | None,
        token: str | None = None,
        private: bool | None = None,
        keep: bool = False,
    ) -> None:
        is_private = private if private is not None else self.args.hub_private_repo
        options = ["--repo-id", str(self.hub_model_id), *(["--public"] if is_private is False else [])]
        self.callback_handler.on_push_begin(self.args, self.state, self.control)  # type: ignore[attr-defined]
        try:
            self._push = _Push(directory, options, message, token or self.args.hub_token, keep=keep)
        except OSError as error:
            logger.warning("pushing %s failed: %s\n%s", directory, error, _retry(directory, options))

    def _finish_current_push(self) -> None:
        if self._push is not None:
            push, self._push = self._push, None
            push.finish()


class _Push:
    """A publishing process.

    Args:
        directory: the run or checkpoint to publish.
        options: `--repo-id` and what else to publish it with.
        message: of the commit.
        token: for the process's environment, never its command line.
        keep: hold on to the files by hard links, because training may delete the checkpoint during the upload.
    """

    def __init__(
        self, directory: Path, options: list[str], message: str | None, token: str | None, *, keep: bool
    ) -> None:
        self._retry = _retry(directory, options)
        self._directory = directory
        self._kept = _linked(directory) if keep else None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 closed in `finish`
        words = ["--quiet", *options, *([] if message is None else ["--message", message])]
        atexit.register(self.finish)  # a run that diverges does not come to the Trainer's own wait
        package = Path(__file__).resolve().parents[2]
        path = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", PUBLISH_MODULE, str(self._kept or directory), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": path, **({} if token is None else {"HF_TOKEN": token})},
        )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def finish(self) -> None:
        """Wait, and warn if it failed."""
        atexit.unregister(self.finish)
        if self.is_running:
            logger.info("waiting for the push of %s", self._directory)
        code = self._process.wait()
        with self._errors:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip()
        if self._kept is not None:
            shutil.rmtree(self._kept, ignore_errors=True)
            said = said.replace(str(self._kept), str(self._directory))
        if code:
            logger.warning(
                "pushing %s failed, training is not affected and all files are there\n%s\n%s",
                self._directory,
                said or f"the push ended with code {code}",
                "" if "retry:" in said else self._retry,
            )


def _retry(directory: Path, options: list[str]) -> str:
    return f"  retry: {shlex.join(['python', 'tools/publish.py', str(directory), *options])}"


def _linked(directory: Path) -> Path:
    """A hidden folder beside the checkpoint with the same files under the same name."""
    for left in directory.parent.glob(".push-*"):  # by a training that was killed during a push
        shutil.rmtree(left, ignore_errors=True)
    kept = Path(tempfile.mkdtemp(prefix=".push-", dir=directory.parent))
    for pattern in PUSHED_FILES:
        for path in directory.glob(pattern):
            try:
                os.link(path, kept / path.name)
            except OSError:  # a file system without hard links
                shutil.copyfile(path, kept / path.name)
    return kept
