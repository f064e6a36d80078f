"""The local web server of a review: one page, a few JSON routes, images by index.

It listens on 127.0.0.1 alone. A request must name this server as its host (so a foreign page cannot reach it by DNS
rebinding) and carry the key that the printed address holds (so no other user of the machine gets in); an action must
come from our own page as well, with its token in a header.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from hmac import compare_digest
from io import BytesIO
from pathlib import Path

from flask import Flask, Response, abort, jsonify, redirect, render_template, request, send_file, url_for
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Response as AnyResponse

from sage_trl.data.images import open_image
from sage_trl.errors import DataError, SageError
from sage_trl.review.session import ConflictError, ReviewSession
from sage_trl.storage import content_key

ADDRESS = "127.0.0.1"
LONGEST_BODY = 64 * 1024
LARGEST_SIDE = 2048
"""Pixels; larger images are shown scaled down."""
TOKEN_HEADER = "X-Review-Token"
POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class ActionRequest(BaseModel):
    """What the page sends: the question, the revision that the reviewer saw, and the fields of `ReviewAction`."""

    model_config = ConfigDict(extra="allow", strict=True)

    group_id: str
    question_id: str
    revision: int


class ReviewServer:
    """Serves a session until it is shut down.

    Args:
        session: the review.
        port: of 127.0.0.1; 0 takes a free one.

    Raises:
        DataError: the port is taken.
    """

    def __init__(self, session: ReviewSession, port: int) -> None:
        self._key = secrets.token_urlsafe(24)
        try:
            with socket.create_server((ADDRESS, port)) as listening:
                port = listening.getsockname()[1]
                app = create_app(session, self._key, port)
                # From an open socket: where a port is taken, werkzeug would print and exit by itself.
                self._server = make_server(
                    ADDRESS, port, app, threaded=True, request_handler=_QuietHandler, fd=listening.fileno()
                )
        except OSError as error:
            problem = f"port {port} of {ADDRESS} cannot be used: {error.strerror}"
            raise DataError(f"{problem}\n  remedy: stop what listens there, or choose another --port") from None

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{ADDRESS}:{self._server.port}/?key={self._key}"

    def serve(self) -> None:
        """Answer requests until an interrupt."""
        self._server.serve_forever()


class _QuietHandler(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: the address holds the key."""


def create_app(session: ReviewSession, key: str, port: int) -> Flask:
    """The application.

    Args:
        session: the review.
        key: what a browser must show to be let in.
        port: the server's, which the `Host` and `Origin` of requests must name.
    """
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = LONGEST_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]
    token = secrets.token_urlsafe(24)
    app.before_request(_guard(key, token, port))

    @app.after_request
    def _add_headers(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.errorhandler(HTTPException)
    def _explain(error: HTTPException) -> tuple[Response, int]:
        return jsonify(problem=error.description), error.code or 500

    @app.errorhandler(SageError)
    def _explain_ours(error: SageError) -> tuple[Response, int]:
        return jsonify(problem=str(error)), 500

    _add_routes(app, session, token)
    return app


def _guard(key: str, token: str, port: int) -> Callable[[], AnyResponse | None]:
    hosts = {f"{name}:{port}" for name in (ADDRESS, "localhost")}
    cookie = f"sage_review_{port}"  # cookies are shared by all ports of a host

    def guard() -> AnyResponse | None:
        if request.headers.get("Host") not in hosts:
            abort(400, "this server answers under its own address only")
        given = request.args.get("key")
        if request.endpoint == "page" and given is not None and compare_digest(given.encode(), key.encode()):
            entered = redirect(url_for("page"))
            entered.set_cookie(cookie, key, httponly=True, samesite="Strict")
            return entered
        if not compare_digest(request.cookies.get(cookie, "").encode(), key.encode()):
            abort(403, "open the address that tools/review.py printed, with its key")
        if request.method not in ("GET", "HEAD"):
            own_page = request.headers.get("Origin") == f"http://{request.headers['Host']}"
            if not own_page or not compare_digest(request.headers.get(TOKEN_HEADER, "").encode(), token.encode()):
                abort(403, "actions are taken from the review page only; reload it")
        return None

    return guard


def _add_routes(app: Flask, session: ReviewSession, token: str) -> None:
    def checked(index: int) -> int:
        if index >= len(session):
            abort(404, f"there are {len(session)} questions")
        return index

    @app.get("/")
    def page() -> str:
        info = session.dataset.info
        return render_template(
            "review.html", name=info.name, reviewer=session.reviewer, token=token, version=info.sha256[:16]
        )

    @app.get("/api/overview")
    def overview() -> Response:
        return jsonify(statuses=session.statuses())

    @app.get("/api/questions/<int:index>")
    def question(index: int) -> Response:
        return jsonify(session.view(checked(index)))

    @app.post("/api/actions")
    def act() -> tuple[str, int]:
        body = request.get_json()
        try:
            wish = ActionRequest.model_validate(body)
            session.act(wish.group_id, wish.question_id, wish.revision, wish.model_extra or {})
        except ConflictError:
            abort(409, "Not saved: the question was changed in another window meanwhile. This is how it is now.")
        except ValidationError as error:
            abort(400, "; ".join(fault["msg"] for fault in error.errors(include_url=False)))
        except ValueError as error:
            abort(400, str(error))
        return "{}", 200

    @app.get("/images/<int:index>/<any(test, reference):kind>")
    def image(index: int, kind: str) -> AnyResponse:
        path = session.image_path(checked(index), kind)
        if path is None:
            abort(404, "no such image")
        tag = _version(path)
        if request.if_none_match.contains(tag):
            return _to_be_asked_for_again(Response(status=304), tag)
        # Decoded as for training, so that reviewers see what the model sees, whatever the file's format.
        picture = open_image(path)
        picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        content = BytesIO()
        picture.save(content, format="PNG", compress_level=1)
        content.seek(0)
        return _to_be_asked_for_again(send_file(content, mimetype="image/png"), tag)


def _version(path: Path) -> str:
    """Which file, in which state: an index means another image with another split, and a file may be mended."""
    status = path.stat()
    return content_key([str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns])


def _to_be_asked_for_again(response: AnyResponse, tag: str) -> AnyResponse:
    """Let a browser keep an image, but ask each time whether it is still the one."""
    response.set_etag(tag)
    response.headers["Cache-Control"] = "private, no-cache"
    return response
