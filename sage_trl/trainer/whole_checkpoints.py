"""Saving that is whole or absent, under one process or many, whatever happens in the middle of it."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sage_trl.errors import MachineError, SageError
from sage_trl.models.adapters import is_adapted
from sage_trl.trainer.agreement import from_all_processes
from sage_trl.trainer.checkpoint_files import (
    PARTIAL_FOLDER,
    checkpoints,
    clear_partial,
    fault_of,
    flush,
    move,
    publish,
    read_manifest,
    rotate,
    seal,
)

logger = logging.getLogger(__name__)

_STATE_FILE = "trainer_state.json"
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.ENOENT)
# torch and safetensors turn the operating system's error into words of their own.
_DISK_WORDS = ("PytorchStreamWriter failed", "unexpected pos", "os error", "No space left on device")


class WholeCheckpoints:
    """Comes before a TRL trainer in the bases.

    A checkpoint is written to `.partial` below the run, sealed with a manifest, and renamed once every process has
    written its files; then the oldest beyond `save_total_limit` go. The model itself is written the same way.

    Attributes:
        run_identity: what the manifest holds of the run; `run_training` sets it.
    """

    args: Any
    state: Any
    model: Any
    optimizer: Any
    run_identity: dict[str, Any] | None = None
    _is_saving: bool = False
    _published: Path | None = None

    def _get_output_dir(self, trial: Any) -> str:
        run_dir: str = super()._get_output_dir(trial)  # type: ignore[misc]
        return os.path.join(run_dir, PARTIAL_FOLDER) if self._is_saving else run_dir  # noqa: PTH118 the Trainer's type

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The `Trainer`'s, made whole.

        Raises:
            MachineError: there is no room, or writing failed; nothing new is there and what was there stays.
        """
        run_dir = Path(self._get_output_dir(trial))
        final = run_dir / f"checkpoint-{self.state.global_step}"
        partial = run_dir / PARTIAL_FOLDER / final.name
        # An epoch and a step may both ask for it. What an earlier run has left may be damaged, whatever its size.
        is_there = self.args.should_save and fault_of(final, hashes=final != self._published) is None
        if any(from_all_processes(is_there)):
            return
        self._writing(final, lambda: self.make_room(run_dir))
        with self._saving():
            self._writing(final, lambda: super(WholeCheckpoints, self)._save_checkpoint(model, trial), on_all=True)  # type: ignore[misc]
        if self.state.best_global_step == self.state.global_step:
            self.state.best_model_checkpoint = str(final)
        self._writing(final, lambda: self._publish(partial, final))
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(final))

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        """The `Trainer`'s, which for a `save_total_limit` of 1 would delete all but the best."""
        limit = self.args.save_total_limit
        self.args.save_total_limit = None
        try:
            return super()._finalize_training(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.args.save_total_limit = limit

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self._is_saving:
            super()._push_from_checkpoint(checkpoint_folder)  # type: ignore[misc]

    def make_room(self, run_dir: Path) -> None:
        """Remove what a killed process left in a run, and see whether a checkpoint fits.

        Raises:
            MachineError: there is no room for one.
        """
        clear_partial(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        refuse_full_disk(run_dir, self.checkpoint_bytes(run_dir))

    def checkpoint_bytes(self, run_dir: Path) -> int:
        """Bytes that a checkpoint will take: those of the newest one; before there is one, those of weights and state.

        With FSDP or DeepSpeed the first estimate counts this process's shard, so that it is never too high.
        """
        for checkpoint in checkpoints(run_dir):
            if fault_of(checkpoint, hashes=False) is None:
                return read_manifest(checkpoint).total_bytes
        only_trained = is_adapted(self.model)
        weights = [one for one in self.model.parameters() if one.requires_grad or not only_trained]
        held = [] if self.optimizer is None or self.args.save_only_model else self.optimizer.state.values()
        state = [value for values in held for value in values.values() if hasattr(value, "element_size")]
        return sum(tensor.numel() * tensor.element_size() for tensor in (*weights, *state))

    def _publish(self, partial: Path, final: Path) -> None:
        self.state.save_to_json(str(partial / _STATE_FILE))
        weights_only = self.args.save_only_model
        seal(partial, step=self.state.global_step, weights_only=weights_only, run=self.run_identity or {})
        publish(partial, final)
        self._published = final
        rotate(final, self.args.save_total_limit, self.state.best_model_checkpoint)
        clear_partial(final.parent)

    def _writing(self, final: Path, action: Callable[[], None], *, on_all: bool = False) -> None:
        """Let the process that saves, or all, do something; an error of one is an error of all."""
        error: Exception | None = None
        if on_all or self.args.should_save:
            try:
                action()
            except Exception as caught:
                error = caught if isinstance(caught, SageError) else disk_error(caught, final) or caught
                self._clear_up(final)
                if self.args.world_size > 1:
                    # The others may be in a collective that never ends for them, and so never be told.
                    logger.error("process %d cannot save: %s", self.args.process_index, error)
        told = from_all_processes(None if error is None else str(error))
        failed = [(process, words) for process, words in enumerate(told) if words is not None]
        if failed:
            self._clear_up(final)
        if error is not None:
            raise error
        if failed:
            raise MachineError(f"process {failed[0][0]} could not save: {failed[0][1]}")

    def _clear_up(self, final: Path) -> None:
        if self.args.should_save:
            shutil.rmtree(final.parent / PARTIAL_FOLDER, ignore_errors=True)

    @contextmanager
    def _saving(self) -> Iterator[None]:
        # With a best step the `Trainer` lets all wait for process 0, for ever if that one has failed.
        best_step = self.state.best_global_step
        self.state.best_global_step = None
        self._is_saving = True
        try:
            yield
        finally:
            self._is_saving = False
            self.state.best_global_step = best_step

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """The `Trainer`'s; the run's own model is written aside, and each file renamed once all are on the disk.

        Raises:
            MachineError: writing failed; what was there stays.
        """
        run_dir = Path(self.args.output_dir)
        if not self.args.should_save or Path(output_dir or run_dir) != run_dir:
            super()._save(output_dir, state_dict)  # type: ignore[misc]
            return
        partial = run_dir / PARTIAL_FOLDER / "model"
        try:
            clear_partial(run_dir)
            super()._save(str(partial), state_dict)  # type: ignore[misc]
            # Weights come last: a model is taken for finished by them.
            written = sorted(partial.iterdir(), key=lambda path: (".safetensors" in path.name, path.name))
            for path in written:
                flush(path)
            for path in written:
                move(path, run_dir / path.name)
            clear_partial(run_dir)
        except Exception as error:
            shutil.rmtree(run_dir / PARTIAL_FOLDER, ignore_errors=True)
            raise disk_error(error, run_dir) or error from error


def refuse_full_disk(directory: Path, needed: int) -> None:
    """Check that a checkpoint fits beside what is there.

    Raises:
        MachineError: names the directory, what is needed and what is free.
    """
    free = shutil.disk_usage(directory).free
    if free < needed:
        problem = f"{directory}: a checkpoint takes about {needed / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free"
        raise MachineError(f"{problem}\n{_way_on(directory)}")


def disk_error(error: Exception, target: Path) -> MachineError | None:
    """The same as an error of the disk, or None if it is none."""
    words = str(error).splitlines()[0] if str(error) else type(error).__name__
    is_disk = isinstance(error, OSError) and error.errno in _DISK_ERRORS
    if not is_disk and not any(word in str(error) for word in _DISK_WORDS):
        return None
    return MachineError(f"{target}: cannot be written: {words}\n{_way_on(target.parent)}")


def _way_on(run_dir: Path) -> str:
    whole = [path for path in checkpoints(run_dir) if fault_of(path, hashes=False) is None]
    there = f"{whole[0].name} is whole: the same command with --resume goes on from there" if whole else "start anew"
    return f"  remedy: free space or make the directory writable, or lower save_total_limit; then {there}"
