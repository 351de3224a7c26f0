"""A small server that speaks the model hub's protocol: what huggingface_hub asks to fetch a model, and what goes wrong with it.

It serves folders as repositories. A fault is switched on by setting an attribute; ``requests`` is what was asked.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from pathlib import Path

COMMIT = "1234567890abcdef1234567890abcdef12345678"
BLOCK_BYTES = 16 << 10


class HubServer:
    """Serves the models in ``folders`` (hub id → folder). Files whose names end in ``.safetensors`` are large ones.

    Attributes:
        token: if set, whoever does not bring it is refused with 401.
        gated: hub ids whose owner has to permit it.
        hanging: whether nothing is answered any more, until the server stops.
        cut_after: bytes of a large file after which the connection is dropped, as often as ``cuts`` says.
        corrupt: whether large files come with a wrong byte.
        pause_s: a pause after each block of a large file.
        pretended_bytes: what the listing says of the size of large files.
        status: answered to everything, if set.
    """

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders
        self.token = ""
        self.gated: set[str] = set()
        self.hanging = False
        self.cut_after = 0
        self.cuts = 0
        self.corrupt = False
        self.pause_s = 0.0
        self.pretended_bytes = 0
        self.status = 0
        #: Method, path and the Range header of all that was asked.
        self.requests: list[tuple[str, str, str]] = []
        #: The authorization that came to the place of large files, which is another one's.
        self.leaked: list[str] = []
        self.stopping = threading.Event()
        server = self

        class Handler(_Handler):
            hub = server

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        """Its address, for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def downloads(self) -> list[tuple[str, str]]:
        """The large files that were fetched: name and range."""
        return [(path.rpartition("/")[2], bytes_) for method, path, bytes_ in self.requests if "/cdn/" in path]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class's name
        """Tests look at ``requests``."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        with suppress(ConnectionError):  # whoever fetched was killed
            self._answer()

    def _answer(self) -> None:
        hub, path = self.hub, urlsplit(self.path).path
        hub.requests.append((self.command, path, self.headers.get("Range", "")))
        if hub.hanging:
            hub.stopping.wait()
            self.close_connection = True
        elif hub.status:
            self._json({"error": "as the test wants it"}, hub.status)
        elif path.startswith("/cdn/"):
            hub.leaked += [self.headers["Authorization"]] if "Authorization" in self.headers else []
            self._send_large(path)
        elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._json({"error": "Invalid credentials in Authorization header"}, 401)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            self._listing(*match.groups())
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*match.groups())
        else:
            self._json({"error": "no such page"}, 404)

    def _listing(self, model: str, what: str | None, revision: str | None) -> None:
        if model not in self.hub.folders:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif model in self.hub.gated:
            self._json({"error": "Access to this model is restricted"}, 403, {"X-Error-Code": "GatedRepo"})
        elif revision not in (None, "main", COMMIT):
            self._json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        elif what == "tree":
            self._json([self._tree_entry(path) for path in self._files(model)])
        else:
            self._json({"id": model, "sha": COMMIT, "siblings": [self._sibling(path) for path in self._files(model)]})

    def _files(self, model: str) -> list[Path]:
        return sorted(path for path in self.hub.folders[model].iterdir() if path.is_file())

    def _sibling(self, path: Path) -> dict[str, Any]:
        entry = self._tree_entry(path)
        sibling = {"rfilename": path.name, "size": entry["size"], "blobId": entry["oid"]}
        if "lfs" in entry:
            sibling["lfs"] = {"size": entry["size"], "sha256": entry["lfs"]["oid"], "pointerSize": 100}
        return sibling

    def _tree_entry(self, path: Path) -> dict[str, Any]:
        content = path.read_bytes()
        entry = {"type": "file", "path": path.name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}  # noqa: S324 -- git's
        if _is_large(path.name):
            entry["size"] = self.hub.pretended_bytes or len(content)
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": entry["size"], "pointerSize": 100}
        return entry

    def _resolve(self, model: str, _revision: str, name: str) -> None:
        path = self.hub.folders[model] / name
        content = path.read_bytes()
        digest = (hashlib.sha256 if _is_large(name) else hashlib.sha1)(content).hexdigest()
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if _is_large(name):
            # As from "127.0.0.1" to "localhost": another host, which must not see the token.
            other = self.hub.url.replace("127.0.0.1", "localhost")
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-ETag": headers["ETag"]}
            self._send(b"", 302, headers | {"Location": f"{other}/cdn/{model}/{name}"})
        else:
            self._send(content, 200, headers)

    def _send_large(self, path: str) -> None:
        model, name = path.removeprefix("/cdn/").rsplit("/", 1)
        content = (self.hub.folders[model] / name).read_bytes()
        if self.hub.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int((re.search(r"bytes=(\d+)-", self.headers.get("Range", "")) or ["", "0"])[1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        end = len(content)
        if self.hub.cuts and self.command == "GET":
            self.hub.cuts -= 1
            end = min(end, start + self.hub.cut_after)
            self.close_connection = True
        for at in range(start, end if self.command == "GET" else start, BLOCK_BYTES):
            self.wfile.write(content[at : min(at + BLOCK_BYTES, end)])
            self.hub.stopping.wait(self.hub.pause_s)

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        message = {"X-Error-Message": value["error"]} if isinstance(value, dict) and "error" in value else {}
        self._send(
            json.dumps(value).encode(), status, {"Content-Type": "application/json", **message, **(headers or {})}
        )

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _is_large(name: str) -> bool:
    return name.endswith(".safetensors")
