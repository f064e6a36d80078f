"""The processes that tests/warm.py forks: they have the heavy libraries, and their copies become what is asked for.

`warm_server.py PLAIN HUB...`: file descriptors of sockets. On each a server of its own answers until it is closed;
those of HUB are copies of the other. Each loads `HUB_LIBRARIES` and our modules when it is first asked, in the
environment of that request.

A request is a line of JSON: what `become` takes, answered by the process's id; or the id of such a process as `wait`,
answered by its exit code once it has ended.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import random
import runpy
import struct
import sys
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sage_trl

REPLY = struct.Struct("q")
# Huge, and indifferent to the environment.
PLAIN_LIBRARIES = (
    *("torch._inductor.compile_fx", "torch.distributed.tensor", "bitsandbytes", "sklearn", "scipy.optimize", "pandas"),
    *("pyarrow.dataset", "pydantic", "rich.progress", "openai", "PIL.Image", "tokenizers", "safetensors.torch"),
    *("httpx2", "trio", "truststore", "yaml", "jinja2", "fsspec", "multiprocess", "xxhash", "configparser"),
)
# These read HF_* variables while they are imported; after them come all modules of ours.
HUB_LIBRARIES = ("peft", "trl", "datasets")


def main() -> None:
    """Load the libraries once and become the servers."""
    ends = list(map(int, sys.argv[1:]))
    load(PLAIN_LIBRARIES)
    mine, copies = ends[0], []
    for end in ends[1:]:
        copies.append(os.fork())
        if copies[-1] == 0:
            mine, copies = end, []
            break
    for end in ends:
        if end != mine:
            os.close(end)
    serve(mine, () if mine == ends[0] else HUB_LIBRARIES)
    for copy in copies:
        os.waitpid(copy, 0)


def load(libraries: Iterable[str]) -> None:
    """Import libraries for good."""
    for name in libraries:
        importlib.import_module(name)
    gc.freeze()  # collecting would copy the pages that the processes share
    for finalizer in weakref.finalize._registry:
        finalizer.atexit = False  # each copy would unregister every operator of torch in its last tenth of a second


def serve(replies: int, libraries: Iterable[str]) -> None:
    """Answer requests, one line of JSON each; a fork leaves the loop and becomes the process asked for."""
    requests = os.fdopen(os.dup(replies))
    for number, line in enumerate(requests):
        request = json.loads(line)
        if number == 0 and libraries:
            os.environ.clear()
            os.environ.update(request["env"])
            load(libraries)
            load(module.name for module in pkgutil.walk_packages(sage_trl.__path__, "sage_trl."))
        if "wait" in request:
            os.write(replies, REPLY.pack(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])))
            continue
        process = os.fork()
        if process == 0:
            requests.close()
            os.close(replies)
            end(become(request))
        os.write(replies, REPLY.pack(process))


def become(request: dict[str, Any]) -> int:
    """Take over arguments, environment, directory and outputs, run the script or the `-c` code; the exit code."""
    for descriptor, path in ((0, os.devnull), (1, request["stdout"]), (2, request["stderr"])):
        opened = os.open(path, os.O_RDWR)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    random.seed()
    script, *arguments = request["arguments"]
    try:
        if script == "-c":
            sys.argv, sys.path[0] = ["-c", *arguments[1:]], ""
            exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv, sys.path[0] = [script, *arguments], str(Path(script).parent)
            runpy.run_path(script, run_name="__main__")
    except SystemExit as stopped:
        if stopped.code is None or isinstance(stopped.code, int):
            return stopped.code or 0
        print(stopped.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def end(code: int) -> None:
    """End as the interpreter does, except that it would take seconds to free every object of every library."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
