"""An S3 store for the tests: moto behind one lock, with answers that fail, get lost or lie when told to.

Run as a process of its own, it serves on a port of the loopback and prints it. POST /_rules takes a list of
rules; each is used for the next `times` requests of its `method` whose path holds `path`:

    status  answer so, with the error `code`, without doing anything
    lose    do it, then cut the connection
    cut     do it, then cut the answer after so many bytes
    strip   do it without this header
    flip    do it with one bit of the body changed
    later   let the clock of the answer be so many seconds ahead
"""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from functools import cached_property
from pathlib import Path
from time import time
from typing import Any

HERE = Path(__file__).parent


class Unruly:
    """Moto's application, one request at a time since its check-then-put is not atomic, and under rules."""

    def __init__(self, app: Any) -> None:
        self.app, self.lock = app, threading.Lock()
        self.rules: list[dict[str, Any]] = []
        self.seen: list[str] = []

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        with self.lock:
            if environ["PATH_INFO"].startswith("/_"):
                return self._told(environ, start)
            return self._answered(environ, start)

    def _told(self, environ: dict[str, Any], start: Any) -> list[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            self.rules = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            self.seen = []
        start("200 OK", [])
        return [json.dumps({"rules": self.rules, "seen": self.seen}).encode()]

    def _rule(self, environ: dict[str, Any]) -> dict[str, Any]:
        path = environ["PATH_INFO"] + "?" + environ.get("QUERY_STRING", "")
        self.seen.append(f"{environ['REQUEST_METHOD']} {path}")
        for rule in self.rules:
            fits = rule.get("method", environ["REQUEST_METHOD"]) == environ["REQUEST_METHOD"]
            if fits and rule.get("path", "") in path and rule.get("times", 1) > 0:
                rule["times"] = rule.get("times", 1) - 1
                return rule
        return {}

    def _answered(self, environ: dict[str, Any], start: Any) -> list[bytes]:
        rule = self._rule(environ)
        if "status" in rule:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start(f"{rule['status']} told", [("Content-Type", "application/xml")])
            return [f"<Error><Code>{rule['code']}</Code><Message>as told</Message></Error>".encode()]
        if "strip" in rule:
            environ.pop(rule["strip"], None)
        if "flip" in rule:
            body = bytearray(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            body[len(body) // 2] ^= 1
            environ["wsgi.input"] = io.BytesIO(bytes(body))
        answer: list[Any] = []
        body = b"".join(self.app(environ, lambda status, headers, *_: answer.extend((status, headers))))
        if "lose" in rule:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionError("told to lose the answer")
        later = [("Date", formatdate(time() + rule["later"], usegmt=True))] if "later" in rule else []
        start(answer[0], [*answer[1], *later])
        return [body[: rule["cut"]]] if "cut" in rule else [body]


def serve() -> None:
    """Serve until killed."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: Any) -> None:
            """Say nothing."""

    app = Unruly(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    print(server.server_port, flush=True)
    server.serve_forever()


class S3:
    """The store as a test speaks to it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.bucket = "data"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, None if body is None else json.dumps(body))
        content = connection.getresponse().read()
        connection.close()
        return json.loads(content) if path.startswith("/_") else content

    def rules(self, *rules: dict[str, Any]) -> None:
        """Obey these from now on, and none of before; forget what was seen."""
        self.ask("POST", "/_rules", list(rules))

    def seen(self, *words: str) -> list[str]:
        """Requests since the last rules that hold all the words."""
        return [line for line in self.ask("GET", "/_rules")["seen"] if all(word in line for word in words)]

    @cached_property
    def client(self) -> Any:
        """A plain client, to look at the store without our code."""
        import boto3

        settings = environment(self.port)
        return boto3.client(
            "s3",
            endpoint_url=settings["AWS_ENDPOINT_URL"],
            aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
            region_name=settings["AWS_DEFAULT_REGION"],
        )

    def files(self, prefix: str) -> dict[str, bytes]:
        """Every object of a dataset by its relative name."""
        client = self.client
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{prefix}/")
        keys = [one["Key"] for page in pages for one in page.get("Contents", ())]
        read = {key: client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}
        return {key.removeprefix(f"{prefix}/"): content for key, content in read.items()}


def environment(port: int) -> dict[str, str]:
    """What a process needs to find the store."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@contextmanager
def running() -> Iterator[S3]:
    """A store in a process of its own, with an empty bucket."""
    command = [sys.executable, str(HERE / "s3_server.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            found = S3(int(process.stdout.readline()))
            found.ask("PUT", f"/{found.bucket}")
            yield found
            found.client.close()
        finally:
            process.kill()


if __name__ == "__main__":
    serve()
