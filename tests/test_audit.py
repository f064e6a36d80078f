"""The audit's verdict, and that what is locked is what is pinned."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest

from tests.conftest import REPOSITORY

SOUND = {"name": "sound", "version": "1.0", "vulns": []}
FAULTY = {
    "name": "faulty",
    "version": "2.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.1"], "description": "..."}],
}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found on PyPI and could not be audited: unknown (1.0)"}


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", REPOSITORY / ".ci" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("packages", "exceptions", "code", "words"),
    [
        ([SOUND], {}, 0, "audited: 1 packages, 0 exceptions"),
        ([SOUND, FAULTY], {}, 1, "faulty 2.0: PYSEC-1; fixed in: 2.1"),
        ([SOUND, FAULTY], {"PYSEC-1": "unused"}, 0, "1 exceptions"),
        ([SOUND, FAULTY], {"CVE-1": "unused"}, 0, "1 exceptions"),
        ([SOUND], {"CVE-1": "unused"}, 1, "CVE-1 is no longer reported"),
        ([UNKNOWN, SOUND], {"CVE-1": "unused"}, 3, "no advisory database answers for 1 of 2 packages (unknown)"),
        ([UNKNOWN], {}, 3, "for 1 of 1 packages. Run `make audit`"),
        ([UNKNOWN, FAULTY], {}, 1, "PYSEC-1"),
        ([], {}, 2, "NOT AUDITED: pip-audit reports on no package"),
    ],
)
def test_verdict(audit, packages, exceptions, code, words):
    found, lines = audit.verdict({"dependencies": packages}, exceptions)
    assert found == code
    assert words in "\n".join(lines)


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("Traceback ...\nrequests.exceptions.ConnectionError: Max retries exceeded", 3),
        ("Traceback ...\npip_audit._service.interface.ServiceError", 3),
        ("CRITICAL: Tip: your network may be blocking this service. Try another service with `-s SERVICE`", 3),
        ("usage: pip-audit\npip-audit: error: unrecognized arguments: --no-deps", 2),
        ("No module named pip_audit", 2),
        ("", 2),
    ],
)
def test_only_a_database_that_does_not_answer_is_no_failure(audit, written, code):
    found, lines = audit.failure(written)
    assert found == code
    assert lines[0].startswith("NOT AUDITED")
    assert lines[1] == written


def test_an_exception_has_a_reason(audit, tmp_path):
    path = tmp_path / "exceptions.txt"
    path.write_text("# a comment\n\nCVE-1 only on Windows\n")
    assert audit.read_exceptions(path) == {"CVE-1": "only on Windows"}
    path.write_text("CVE-1\n")
    with pytest.raises(ValueError, match=r"exceptions\.txt:1: CVE-1 has no reason"):
        audit.read_exceptions(path)
    audit.read_exceptions(audit.EXCEPTIONS)


def test_the_lock_holds_what_is_pinned_with_hashes_and_all_but_torch():
    def pinned(text: str) -> dict[str, str]:
        found = re.findall(r"^([\w.-]+)==([^\s\\]+)", text, re.MULTILINE)
        return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}

    locked = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    constraints = pinned((REPOSITORY / "constraints.txt").read_text(encoding="utf-8"))
    assert pinned(locked) == {name: version for name, version in constraints.items() if name != "torch"}
    entries = [entry for entry in re.split(r"\n(?=[\w.-]+==)", locked) if "==" in entry]
    assert len(entries) == len(constraints) - 1
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
