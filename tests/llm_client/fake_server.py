"""A server that speaks chat completions and the Batch API, fails on purpose, and counts what it charges.

    python -m tests.llm_client.fake_server --faults 0.2 --latency 0.01

prints its port. `GET /stats` tells what it has seen. Its judgements follow from the words it is shown, so a test knows
them without asking.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import re
from collections import Counter
from typing import Any

from tests.llm_client.fake_author import AUTHORED, authored_reply

PRICE_INPUT, PRICE_OUTPUT = 2.5, 10.0
FAULTS = (
    "429",
    "429 with Retry-After",
    "500",
    "drop",
    "drip",
    "truncated",
    "garbage",
    "html",
    "wrong schema",
    "score 0",
    "score 6",
    "score 4.5",
    "error object",
)
REFUSALS = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
    "instead.",
    "temperature": "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is "
    "supported.",
}
NOT_CHARGED = ("429", "429 with Retry-After", "500")
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    429: "Too Many",
    500: "Broken",
}


def content_hash(body: dict[str, Any]) -> str:
    """What identifies a request on this side: the text of its last message."""
    content = body["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    return hashlib.sha256(text.encode()).hexdigest()


def true_scores(digest: str) -> dict[str, int]:
    """The scores that this server gives."""
    return {name: 1 + int(digest[i], 16) % 5 for i, name in enumerate(("type", "location", "logic"))}


def says_yes(digest: str) -> bool:
    """Whether this server, as a model under test, answers a question with yes."""
    return int(digest[0], 16) % 2 == 1


class FakeServer:
    """State of the server, and one method per path."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.random = random.Random(options.seed)
        self.received: Counter[str] = Counter()
        self.charged: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.prompt_tokens = self.completion_tokens = 0
        self.in_flight = self.most_in_flight = 0
        self.files: dict[str, dict[str, Any]] = {}
        self.batches: dict[str, dict[str, Any]] = {}

    def stats(self) -> dict[str, Any]:
        nano = round((self.prompt_tokens * PRICE_INPUT + self.completion_tokens * PRICE_OUTPUT) * 1000)
        return {
            "received": dict(self.received),
            "charged": dict(self.charged),
            "faults": dict(self.faults),
            "nano_usd": nano,
            "most_in_flight": self.most_in_flight,
            "batches": len(self.batches),
        }

    def refusal(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """What a model that does not take some parameter, or some word, says for free."""
        refused = next((name for name in self.options.refuses if name in body), None)
        if refused:
            return {"error": {"message": REFUSALS[refused], "param": refused}}
        word = self.options.refuses_word
        return {"error": {"message": "against our policy"}} if word and word in json.dumps(body) else None

    def completion(self, body: dict[str, Any], fault: str | None) -> bytes:
        """Charge for a request and make its answer."""
        digest = content_hash(body)
        self.charged[digest] += 1
        usage = {"prompt_tokens": len(json.dumps(body["messages"])) // 4, "completion_tokens": 30}
        usage["total_tokens"] = sum(usage.values())
        self.prompt_tokens += usage["prompt_tokens"]
        self.completion_tokens += usage["completion_tokens"]
        reply: dict[str, Any] = {"rationale": f"Seen {digest[:6]} {self.options.says}", **true_scores(digest)}
        if fault == "wrong schema":
            reply = {"rationale": "x", "scores": [5, 5, 5]}
        elif fault and fault.startswith("score"):
            reply["type"] = json.loads(fault.split()[1])
        written = json.dumps(reply, ensure_ascii=not self.options.raw_text)
        schema = body.get("response_format", {}).get("json_schema", {}).get("name", "")
        if schema.startswith(AUTHORED):
            reply = authored_reply(body, schema, fault, self.options.says)
            written = json.dumps(reply, ensure_ascii=not self.options.raw_text)
        if self.options.inspects and body["messages"][0]["role"] == "user":
            written = "Yes, a scratch." if says_yes(digest) else "No, nothing is wrong."
        text = "Sure! I would say 4, 4 and 5." if fault == "garbage" else written
        message = {"role": "assistant", "content": text, "refusal": None}
        choices = [{"index": 0, "finish_reason": "stop", "message": message}]
        answer = {"id": "c1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": choices}
        if fault == "error object":
            answer = {"error": {"message": "overloaded"}}
        content = json.dumps({**answer, "usage": usage}).encode()
        if fault == "truncated":
            content = content[: len(content) // 2]
        return b"<html><body>502 Bad Gateway</body></html>" if fault == "html" else content

    async def chat(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.received[content_hash(body)] += 1
        await asyncio.sleep(self.options.latency)
        if self.options.status:
            status, text = self.options.status.split(":", 1)
            answer(writer, int(status), text.encode())
            return
        if self.options.no_schema and "response_format" in body:
            answer(writer, 400, b'{"error": {"message": "response_format is not supported"}}')
            return
        if refusal := self.refusal(body):
            answer(writer, 400, json.dumps(refusal).encode())
            return
        fault = self.random.choice(FAULTS) if self.random.random() < self.options.faults else None
        if fault:
            self.faults[fault] += 1
        if fault in NOT_CHARGED:
            header = "Retry-After: 0.05\r\n" if fault == "429 with Retry-After" else ""
            answer(writer, 500 if fault == "500" else 429, b'{"error": {"message": "later"}}', header)
            return
        content = self.completion(body, fault)
        if fault == "drop":
            writer.close()
            return
        if fault == "drip":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
            for _ in range(1000):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.1)
            writer.close()
            return
        answer(writer, 200, content)

    def upload(self, content: bytes) -> dict[str, Any]:
        name = re.search(rb'filename="([^"]+)"', content)
        start = content.index(b'{"custom_id"')
        lines = content[start : content.rindex(b"\r\n--")]
        file = {"id": f"file-{len(self.files)}", "object": "file", "bytes": len(lines), "created_at": 1}
        file |= {"filename": name.group(1).decode() if name else "", "purpose": "batch", "status": "processed"}
        self.files[str(file["id"])] = {"described": file, "content": lines}
        return file

    def create_batch(self, body: dict[str, Any]) -> dict[str, Any]:
        number = len(self.batches)
        described = {"id": f"batch_{number}", "object": "batch", "endpoint": body["endpoint"], "created_at": 1}
        described |= {"input_file_id": body["input_file_id"], "completion_window": "24h", "status": "completed"}
        described |= {"metadata": body.get("metadata"), "output_file_id": f"out-{number}", "errors": None}
        lines = []
        for line in self.files[body["input_file_id"]]["content"].splitlines():
            asked = json.loads(line)
            self.received[content_hash(asked["body"])] += 1
            fault = self.random.choice(FAULTS[5:]) if self.random.random() < self.options.faults else None
            refusal = self.refusal(asked["body"])
            content = json.dumps(refusal).encode() if refusal else self.completion(asked["body"], fault)
            try:
                reply = json.loads(content)
            except ValueError:
                reply = content.decode()
            response = {"status_code": 400 if refusal else 200, "request_id": "r", "body": reply}
            output = {"id": "x", "custom_id": asked["custom_id"], "response": response, "error": None}
            lines.append(json.dumps(output, ensure_ascii=not self.options.raw_text))
        self.files[f"out-{number}"] = {"described": None, "content": "\n".join(lines).encode()}
        self.batches[f"batch_{number}"] = described
        return described

    def other(self, method: str, path: str, content: bytes) -> tuple[int, bytes]:
        """Everything but chat: (status, body)."""
        made: Any
        if path == "/stats":
            made = self.stats()
        elif path == "/files" and method == "POST":
            made = self.upload(content)
        elif path == "/files":
            made = listed([file["described"] for file in self.files.values() if file["described"]])
        elif match := re.fullmatch(r"/files/([^/]+)/content", path):
            return 200, self.files[match[1]]["content"]
        elif path == "/batches" and method == "POST":
            made = self.create_batch(json.loads(content))
        elif path == "/batches":
            made = listed(list(self.batches.values()))
        elif match := re.fullmatch(r"/batches/([^/]+)", path):
            made = self.batches[match[1]]
        else:
            return 404, b'{"error": {"message": "no such path"}}'
        return 200, json.dumps(made).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, target, _ = head.split(" ", 2)
                length = re.search(r"content-length: *(\d+)", head, re.IGNORECASE)
                content = await reader.readexactly(int(length[1]) if length else 0)
                path = target.split("?")[0].removeprefix("/v1")
                if path != "/chat/completions":
                    answer(writer, *self.other(method, path, content))
                    continue
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                try:
                    await self.chat(json.loads(content), writer)
                finally:
                    self.in_flight -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def listed(data: list[Any]) -> dict[str, Any]:
    return {"object": "list", "data": data, "has_more": False}


def answer(writer: asyncio.StreamWriter, status: int, content: bytes, header: str = "") -> None:
    head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/json\r\n{header}"
    writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--status", default="", help="STATUS:BODY, the answer to everything")
    parser.add_argument("--no-schema", action="store_true")
    parser.add_argument("--refuses", nargs="*", default=[], choices=REFUSALS, help="parameters that the model lacks")
    parser.add_argument("--refuses-word", default="", help="requests that hold this are refused")
    parser.add_argument("--inspects", action="store_true", help="answer a chat without a system message yes or no")
    parser.add_argument("--raw-text", action="store_true", help="write letters beyond ASCII as they are, not escaped")
    parser.add_argument("--says", default="", help="added to every rationale")
    server = await asyncio.start_server(FakeServer(parser.parse_args()).serve, "127.0.0.1", 0, limit=1 << 24)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
