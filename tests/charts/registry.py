"""A simulated registry on loopback: the calls of buildah and helm to push and pull, without TLS or login."""

import hashlib
import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

UPLOAD = re.compile(r"/v2/(.+)/blobs/uploads/(.*)")
TAGS = re.compile(r"/v2/(.+)/tags/list")
CONTENT = re.compile(r"/v2/(.+)/(blobs|manifests)/(.+)")


class Registry:
    """The pushed content. `blobs`: by digest. `manifests`: media type and content by repository and tag or digest."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self.host = ""


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextmanager
def played_registry() -> Generator[Registry]:
    """Serves at `host` until the block ends."""
    registry = Registry()
    handler = type("Handler", (_Handler,), {"registry": registry})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    registry.host = f"127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: Registry

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if urlsplit(self.path).path == "/v2/":
            return self._answer(200)
        if listed := TAGS.fullmatch(urlsplit(self.path).path):
            names = [
                name for repository, name in self.registry.manifests if repository == listed[1] and ":" not in name
            ]
            return self._answer(200, json.dumps({"name": listed[1], "tags": names}).encode())
        found = CONTENT.fullmatch(urlsplit(self.path).path)
        if found is None:
            return self._answer(404)
        repository, kind, name = found.groups()
        if kind == "blobs":
            kept = ("application/octet-stream", self.registry.blobs[name]) if name in self.registry.blobs else None
        else:
            kept = self.registry.manifests.get((repository, name))
        if kept is None:
            return self._answer(404)
        return self._answer(200, kept[1], {"Content-Type": kept[0], "Docker-Content-Digest": digest_of(kept[1])})

    def do_POST(self) -> None:
        self._upload(uuid4().hex, self._body())

    def do_PATCH(self) -> None:
        found = UPLOAD.fullmatch(urlsplit(self.path).path)
        assert found, self.path
        self._upload(found[2], self._body())

    def do_PUT(self) -> None:
        address, body = urlsplit(self.path), self._body()
        if upload := UPLOAD.fullmatch(address.path):
            content = self.registry.uploads.pop(upload[2]) + body
            (named,) = parse_qs(address.query)["digest"]
            if named != digest_of(content):
                return self._answer(400)
            self.registry.blobs[named] = content
            return self._answer(201, headers={"Location": f"/v2/{upload[1]}/blobs/{named}"})
        found = CONTENT.fullmatch(address.path)
        assert found, self.path
        repository, _, name = found.groups()
        for reference in (name, digest_of(body)):
            self.registry.manifests[repository, reference] = (self.headers["Content-Type"], body)
        return self._answer(201, headers={"Docker-Content-Digest": digest_of(body)})

    def _upload(self, name: str, body: bytes) -> None:
        kept = self.registry.uploads[name] = self.registry.uploads.get(name, b"") + body
        repository = urlsplit(self.path).path.removeprefix("/v2/").partition("/blobs/")[0]
        place = f"/v2/{repository}/blobs/uploads/{name}"
        self._answer(202, headers={"Location": place, "Range": f"0-{max(len(kept) - 1, 0)}"})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces: list[bytes] = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing: the test reports failures."""
