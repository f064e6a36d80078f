"""Publishing through the real command line against a hub on this machine."""

from __future__ import annotations

import shlex
import signal
import socket
import sys
import time

import pytest

from tests.publishing.conftest import TOOL, hub_environment
from tests.publishing.hub_server import TOKEN, Fault, Repository
from tests.warm import start_warm

MODEL_FILES = {
    *("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("chat_template.jinja", "processor_config.json", "sage_inference.json", "sage_run.json"),
}
NAME = "me/sage-tiny"
ARGUMENTS = ("--repo-id", NAME, "--timeout", 1)


def test_the_allow_list_and_nothing_else_arrives_byte_for_byte_in_a_private_repository(finished_run, hub, publish):
    before = {path: path.read_bytes() for path in finished_run.rglob("*") if path.is_file()}
    result = publish(finished_run, *ARGUMENTS)
    assert result.returncode == 0, result.stderr
    repository = hub.repositories[NAME]
    assert repository.private
    assert set(repository.files) == {*MODEL_FILES, "README.md", ".gitattributes"}
    for name in MODEL_FILES:
        assert repository.files[name] == (finished_run / name).read_bytes(), name
    assert repository.files["README.md"].startswith(b"---\nbase_model: acme/base-vlm\n")
    assert len(repository.commits) == 1, "one commit: whole or absent"
    assert NAME in result.stdout and "private" in result.stdout
    assert "training_args.bin" in result.stdout.partition("left out:")[2]
    assert {path: path.read_bytes() for path in finished_run.rglob("*") if path.is_file()} == before


def test_a_second_run_sends_nothing_and_a_changed_file_alone(finished_run, hub, publish):
    assert publish(finished_run, *ARGUMENTS).returncode == 0
    hub.log.clear()
    again = publish(finished_run, *ARGUMENTS)
    assert again.returncode == 0, again.stderr
    assert "nothing to send" in again.stdout
    assert not any(line.startswith(("POST", "PUT")) for line in hub.log), hub.log
    (finished_run / "generation_config.json").write_text('{"max_new_tokens": 7}')
    third = publish(finished_run, *ARGUMENTS)
    assert third.returncode == 0, third.stderr
    assert hub.repositories[NAME].commits[1]["changed"] == [("file", "generation_config.json")]


def test_a_bare_name_is_the_token_s_owner(finished_run, hub, publish):
    result = publish(finished_run, "--repo-id", "sage-tiny")
    assert result.returncode == 0, result.stderr
    assert set(hub.repositories) == {NAME}
    assert f'load_pretrained("{NAME}")' in hub.repositories[NAME].files["README.md"].decode()


def test_public_is_asked_for_and_an_existing_public_repository_refused_without(finished_run, hub, publish):
    hub.repositories[NAME] = Repository(private=False)
    refused = publish(finished_run, *ARGUMENTS)
    assert refused.returncode == 2
    assert "is public" in refused.stderr and "--public" in refused.stderr
    assert hub.repositories[NAME].commits == [] and hub.large == {}
    assert publish(finished_run, *ARGUMENTS, "--public").returncode == 0
    assert "model.safetensors" in hub.repositories[NAME].files
    created = publish(finished_run, "--repo-id", "me/other", "--public")
    assert created.returncode == 0 and not hub.repositories["me/other"].private
    assert "(public)" in created.stdout


STATUS_WORDS = {
    401: (5, "hf auth login"),
    403: (5, "write access"),
    409: (8, "at the same moment"),
    413: (8, "smaller shards"),
    500: (8, "local files are untouched"),
    "drop": (8, "dropped"),
    "hang": (8, "did not answer in time"),
}


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        *(("/commit/", kind) for kind in STATUS_WORDS),
        *(("PUT /storage", kind) for kind in (403, 413, 500, "drop")),
        *(("GET /api/models", kind) for kind in (401, "drop")),
        *(("repos/create", kind) for kind in (403, 409)),
        ("/preupload/", 500),
    ],
)
def test_a_failing_hub_ends_in_words_an_exit_code_and_a_retry_that_works(finished_run, hub, publish, kind, step):
    hub.fault = Fault(step, kind)
    code, words = STATUS_WORDS[kind]
    failed = publish(finished_run, *ARGUMENTS)
    assert failed.returncode == code, failed.stderr
    assert words in failed.stderr and "Traceback" not in failed.stderr
    assert "signature=secret" not in failed.stderr.partition("error:")[2]
    assert all(not repository.commits for repository in hub.repositories.values()), "half a model is visible"
    hub.fault = None
    retry = shlex.split(failed.stderr.partition("retry: ")[2].strip())
    assert retry[:2] == ["python", "tools/publish.py"]
    again = publish(*retry[2:])
    assert again.returncode == 0, again.stderr
    assert hub.repositories[NAME].files["model.safetensors"] == (finished_run / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("step", "kind"), [("/preupload/", 500), ("PUT /storage", "drop"), ("PUT /storage", 503)])
def test_a_fault_that_passes_is_overcome_without_a_word_from_the_user(finished_run, hub, publish, step, kind):
    hub.fault = Fault(step, kind, times=2)
    result = publish(finished_run, *ARGUMENTS)
    assert result.returncode == 0, result.stderr
    assert len(hub.repositories[NAME].commits) == 1


@pytest.mark.parametrize("step", ["whoami", "GET /api/models", "/preupload/"])
def test_no_request_waits_for_ever(finished_run, hub, publish, step):
    hub.repositories[NAME] = Repository(private=True)
    hub.fault = Fault(step, "hang")
    result = publish(finished_run, "--repo-id", "sage-tiny", "--timeout", 0.3)
    assert result.returncode == 8
    assert "did not answer in time" in result.stderr and "--timeout" in result.stderr


def test_weights_that_arrived_before_a_failure_are_not_sent_again(finished_run, hub, publish):
    hub.fault = Fault("/commit/", 500)
    assert publish(finished_run, *ARGUMENTS).returncode == 8
    hub.fault = None
    assert hub.counts["PUT /storage"] == 1
    assert publish(finished_run, *ARGUMENTS).returncode == 0
    assert hub.counts["PUT /storage"] == 1


def test_no_hub_at_all(finished_run, publish):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        result = publish(finished_run, *ARGUMENTS, url=f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert result.returncode == 8
    assert "cannot be reached" in result.stderr and "HF_ENDPOINT" in result.stderr


def test_without_a_token_and_offline_nobody_is_asked(finished_run, hub, publish):
    no_token = publish(finished_run, *ARGUMENTS, HF_TOKEN=None)
    assert no_token.returncode == 5 and "HF_TOKEN" in no_token.stderr
    offline = publish(finished_run, *ARGUMENTS, HF_HUB_OFFLINE="1")
    assert offline.returncode == 2 and "HF_HUB_OFFLINE" in offline.stderr
    assert hub.log == []


def test_a_change_by_somebody_else_in_between_is_a_conflict(finished_run, hub, publish):
    assert publish(finished_run, *ARGUMENTS).returncode == 0
    (finished_run / "generation_config.json").write_text("{}")
    files = hub.repositories[NAME].files

    def change(line: str) -> None:
        if "/preupload/" in line:
            files["config.json"] = b"somebody else's"

    hub.meanwhile = change
    result = publish(finished_run, *ARGUMENTS)
    assert result.returncode == 8 and "at the same moment" in result.stderr
    assert files["config.json"] == b"somebody else's", "overwritten unseen"


def test_a_file_that_the_repository_ignores_is_not_taken_for_published(finished_run, hub, publish):
    hub.ignored = {"tokenizer.json"}
    result = publish(finished_run, *ARGUMENTS)
    assert result.returncode == 8
    assert "tokenizer.json did not arrive" in result.stderr and ".gitignore" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_upload_leaves_nothing_half_published(finished_run, hub, publish, tmp_path, number):
    hub.fault = Fault("/commit/", "hang")
    command = [sys.executable, str(TOOL), str(finished_run), "--repo-id", NAME]
    with start_warm(command, env=hub_environment(hub.url, tmp_path)) as process:
        deadline = time.monotonic() + 60
        while not hub.counts["/commit/"] and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(30) == 128 + number
        assert "Traceback" not in process.output("stderr")
    assert hub.repositories[NAME].commits == []
    hub.fault = None
    assert publish(finished_run, *ARGUMENTS).returncode == 0


def test_dry_run_shows_files_and_card_and_contacts_nobody(finished_run, hub, publish):
    result = publish(finished_run, *ARGUMENTS, "--dry-run", HF_TOKEN=None, HF_HUB_OFFLINE="1")
    assert result.returncode == 0, result.stderr
    assert hub.log == []
    listed = result.stdout.partition("left out")[0]
    assert all(name in listed for name in MODEL_FILES) and "optimizer" not in listed
    assert "## Evaluation" in result.stdout and "```python" in result.stdout


def test_a_planted_token_stops_the_upload(finished_run, hub, publish):
    planted = "hf" + "_" + "Ab3" * 12
    (finished_run / "chat_template.jinja").write_text("line one\n{# " + planted + " #}\n")
    result = publish(finished_run, *ARGUMENTS)
    assert result.returncode == 2
    assert "chat_template.jinja:2" in result.stderr and "Hugging Face token" in result.stderr
    assert planted not in result.stderr + result.stdout
    assert hub.repositories == {} and hub.large == {}


def test_the_token_in_use_is_found_whatever_it_looks_like(finished_run, hub, publish):
    (finished_run / "generation_config.json").write_text(f'{{"note": "{TOKEN}"}}')
    result = publish(finished_run, *ARGUMENTS)
    assert result.returncode == 2
    assert "generation_config.json:1" in result.stderr and "$HF_TOKEN" in result.stderr
    assert TOKEN not in result.stderr


def test_weights_of_an_earlier_upload_go_in_the_same_commit(finished_run, hub, publish):
    repository = hub.repositories[NAME] = Repository(private=True)
    repository.files |= {"model.safetensors.index.json": b"{}", "model-00001-of-00002.safetensors": b"old"}
    repository.files |= {"notes.md": b"mine"}
    result = publish(finished_run, *ARGUMENTS)
    assert result.returncode == 0, result.stderr
    assert len(repository.commits) == 1
    assert set(repository.files) == {*MODEL_FILES, "README.md", ".gitattributes", "notes.md"}
    assert "model-00001-of-00002.safetensors" in result.stdout


def test_merged_is_for_adapters(finished_run, hub, publish):
    result = publish(finished_run, *ARGUMENTS, "--merged")
    assert result.returncode == 2
    assert "whole model already" in result.stderr and "leave --merged out" in result.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [("a/b/c", ["'a/b/c'", "OWNER/NAME"]), ("-x", ["'-x'"])],
)
def test_a_name_that_the_hub_does_not_take(finished_run, hub, publish, name, words):
    result = publish(finished_run, f"--repo-id={name}")
    assert result.returncode == 2, result.stderr
    assert all(word in result.stderr for word in words)
    assert hub.log == []


def test_an_unfinished_run_names_its_checkpoint(tmp_path, publish):
    (tmp_path / "run" / "checkpoint-20").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-3").mkdir()
    result = publish(tmp_path / "run", *ARGUMENTS)
    assert result.returncode == 2
    assert "no finished model" in result.stderr and "checkpoint-20" in result.stderr
    missing = publish(tmp_path / "none", *ARGUMENTS)
    assert missing.returncode == 2 and "no such run directory" in missing.stderr
