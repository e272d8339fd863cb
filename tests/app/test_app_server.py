"""The page's server as other programs may call it: who is let in, what becomes a path, what ends with it."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import cv2
import numpy as np
import pytest

from reblur_plugin.app import visitors

WISHES = {"weights": None, "steps": 1, "amp": "none", "max_memory": ""}


class Client:
    """One visitor that is no browser."""

    def __init__(self, url: str, **headers: str) -> None:
        self.address = urlsplit(url).netloc
        self.headers = headers

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=20)
        body = json.dumps(body) if isinstance(body, dict) else body
        connection.request(method, path, body, {**self.headers, **headers})
        answer = connection.getresponse()
        self.answered = dict(answer.getheaders())
        content = answer.read()
        connection.close()
        return answer.status, content

    def visit(self) -> str:
        status, content = self.ask("POST", "/visits")
        assert status == 200, content
        return f"/visits/{json.loads(content)['token']}"


def png() -> bytes:
    return cv2.imencode(".png", np.full((16, 24, 3), 90, np.uint8))[1].tobytes()


def until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def client(server: Any) -> Client:
    return Client(server.url)


@pytest.fixture
def visit(client: Client) -> Any:
    visit = client.visit()
    yield visit
    client.ask("POST", f"{visit}/leave")


class TestWhoIsLetIn:
    def test_other_names_of_this_machine_are_refused(self, client: Client) -> None:
        assert client.ask("GET", "/", Host="evil.example")[0] == 400  # a name that was bent to the loopback address
        assert client.ask("GET", "/")[0] == 200

    def test_other_sites_pages_are_refused(self, client: Client) -> None:
        for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200)):
            found, content = client.ask("POST", "/visits", **{"Sec-Fetch-Site": site})
            assert found == status
        client.ask("POST", f"/visits/{json.loads(content)['token']}/leave")

    def test_nothing_of_others_runs_in_the_page(self, client: Client) -> None:
        client.ask("GET", "/")
        policy = client.answered["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert client.answered["x-content-type-options"] == "nosniff"
        assert client.answered["cache-control"] == "no-store"

    def test_elsewhere_it_asks_for_a_password(self, started: Any, tiny_weights: Path) -> None:
        with started("--weights", str(tiny_weights), "--host", "0.0.0.0") as running:
            line = next(line for line in running.errors.read_text().splitlines() if line.startswith("password: "))
            password = line.split()[1]
            url = running.url.replace("0.0.0.0", "127.0.0.1")
            for given, status in (
                (None, 401),
                ("Basic", 401),
                ("Basic §", 401),
                (f"Bearer {encoded(password)}", 401),
                (f"Basic {encoded('')}", 401),
                (f"Basic {encoded(password + 'x')}", 401),
                (f"Basic {encoded(password)}", 200),
            ):
                headers = {} if given is None else {"Authorization": given}
                for path in ("/", "/static/page.js"):
                    assert Client(url).ask("GET", path, **headers)[0] == status, given
            assert Client(url).ask("POST", "/visits")[0] == 401

    def test_the_password_can_be_chosen(self, started: Any, tiny_weights: Path) -> None:
        with started("--weights", str(tiny_weights), "--host", "0.0.0.0", REBLUR_PASSWORD="größe") as running:
            url = running.url.replace("0.0.0.0", "127.0.0.1")
            assert Client(url).ask("GET", "/", Authorization=f"Basic {encoded('größe')}")[0] == 200
            assert "größe" not in running.errors.read_text()

    def test_a_demonstration_is_open(self, started: Any, tiny_weights: Path) -> None:
        with started("--weights", str(tiny_weights), "--host", "0.0.0.0", "--open-to-all") as running:
            client = Client(running.url.replace("0.0.0.0", "127.0.0.1"))
            assert client.ask("GET", "/", Host="somebody.example")[0] == 200
            assert "frame-ancestors" not in client.answered["content-security-policy"]


def encoded(password: str) -> str:
    return base64.b64encode(f"anybody:{password}".encode()).decode()


class TestNoNameBecomesAPath:
    @pytest.mark.parametrize(
        "path",
        [
            "/static/page.py",
            "/static/../server.py",
            "/static/%2e%2e%2fserver.py",
            "/examples/..%2fserver.py",
            "/visits/x/events",
            "/visits/..%2f..%2fetc/events",
        ],
    )
    def test_addresses(self, client: Client, path: str) -> None:
        assert client.ask("GET", path)[0] in (400, 404)

    def test_pictures_are_those_that_were_made(self, client: Client, visit: str, tiny_weights: Path) -> None:
        client.ask("POST", f"{visit}/wishes", {**WISHES, "weights": tiny_weights.name})
        _, content = client.ask("POST", f"{visit}/photographs?name=a.png", png())
        shot = f"{visit}/photographs/{json.loads(content)['id']}"
        until(lambda: client.ask("GET", f"{shot}/pictures/blurry.png")[0] == 200)
        for name in ("photograph.png", "../x", "..%2f..%2f", "%2fetc%2fpasswd", "1/", ""):
            assert client.ask("GET", f"{shot}/pictures/{name}")[0] == 404, name
        assert client.ask("GET", f"{shot}/result")[0] == 404

    @pytest.mark.parametrize(
        "name", ["../../../escaped.png", "..\\..\\escaped.png", "/etc/escaped.png", "a\0b.png", ""]
    )
    def test_photographs_names(self, client: Client, server: Any, visit: str, name: str) -> None:
        assert client.ask("POST", f"{visit}/photographs?name={quote(name)}", png())[0] == 201
        assert list(server.files.parent.rglob("*escaped*")) == []

    @pytest.mark.parametrize("name", ["..%2fnet.pth", "net%3a.pth", "con.pth", ".pth", "a%00.pth"])
    def test_weights_names(self, client: Client, server: Any, visit: str, name: str) -> None:
        status, _ = client.ask("POST", f"{visit}/weights?name={name}", b"x")
        folder = server.files
        assert [path for path in folder.rglob("*.pth") if path.parent.name != "weights"] == []
        assert status == (201 if name == "..%2fnet.pth" else 400)  # a browser's fake path: the name alone counts

    def test_weights_are_those_that_are_offered(self, client: Client, visit: str, tiny_weights: Path) -> None:
        for field in ("weights", "reblur_weights"):
            wishes = {**WISHES, "weights": tiny_weights.name, field: "/etc/passwd"}
            status, content = client.ask("POST", f"{visit}/wishes", wishes)
            assert status == 400
            assert b"weights: expected one of" in content
        assert client.ask("POST", f"{visit}/wishes", {**WISHES, "weights": tiny_weights.name})[0] == 204


class TestBounds:
    @pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"null", b'{"weights": []}', b'{"weights": {"a": 1}}'])
    def test_choices_that_are_none(self, client: Client, visit: str, body: bytes) -> None:
        status, content = client.ask("POST", f"{visit}/wishes", body)
        assert status == 400
        assert "expected" in json.loads(content)["error"]

    def test_choices_that_never_end(self, client: Client, visit: str) -> None:
        assert client.ask("POST", f"{visit}/wishes", b" " * 20_000)[0] == 400

    def test_a_file_that_is_too_large_leaves_nothing(self, client: Client, server: Any, visit: str) -> None:
        before = set(server.kept)
        status, content = client.ask("POST", f"{visit}/photographs?name=a.png", bytes(21 * 2**20))
        assert status == 400
        assert b"a.png: expected at most 20 MiB" in content
        assert set(server.kept) == before

    def test_one_that_does_not_tell_its_size_either(self, client: Client, server: Any, visit: str) -> None:
        before = set(server.kept)
        pieces = (bytes(2**20) for _ in range(25))
        try:
            status, _ = client.ask("POST", f"{visit}/photographs?name=a.png", pieces)
            assert status == 400
        except ConnectionError:  # it need not wait for the rest
            pass
        until(lambda: set(server.kept) == before)

    def test_half_a_file_leaves_nothing(self, client: Client, server: Any, visit: str) -> None:
        before = set(server.kept)
        with socket.create_connection(client.address.split(":")) as connection:
            head = f"POST {visit}/photographs?name=a.png HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n"
            connection.sendall(head.encode() + bytes(1000))
            until(lambda: set(server.kept) != before)
        until(lambda: set(server.kept) == before)
        assert client.ask("POST", f"{visit}/photographs?name=a.png", png())[0] == 201

    def test_photographs_at_once(self, client: Client, visit: str) -> None:
        for _ in range(visitors.MOST_PHOTOGRAPHS):
            assert client.ask("POST", f"{visit}/photographs?name=a.png", png())[0] == 201
        status, content = client.ask("POST", f"{visit}/photographs?name=b.png", png())
        assert status == 400
        assert b"b.png: expected at most 20 photographs at once; remove some" in content

    def test_visitors_at_once(self, started: Any, tiny_weights: Path) -> None:
        with started("--weights", str(tiny_weights)) as running:
            client = Client(running.url)
            known = [client.visit() for _ in range(32)]
            status, content = client.ask("POST", "/visits")
            assert status == 400
            assert b"page: expected at most 32 at once; close one, or try again later" in content
            client.ask("POST", f"{known[0]}/leave")
            client.visit()

    def test_who_has_left_is_not_known(self, client: Client) -> None:
        visit = client.visit()
        assert client.ask("POST", f"{visit}/leave")[0] == 204
        status, content = client.ask("POST", f"{visit}/photographs?name=a.png", png())
        assert status == 400
        assert b"page: the server knows it no more; load it again" in content


class TestItsEnd:
    def test_a_signal_ends_all(self, started: Any, tiny_weights: Path) -> None:
        with started("--weights", str(tiny_weights)) as running:
            client = Client(running.url)
            client.ask("POST", f"{client.visit()}/photographs?name=a.png", png())
            assert running.kept
            running.process.send_signal(signal.SIGTERM)
            running.process.wait(20)

    def test_what_is_left_by_a_kill_goes_at_the_next_start(self, started: Any, tiny_weights: Path) -> None:
        with started("--weights", str(tiny_weights)) as first:
            client = Client(first.url)
            client.ask("POST", f"{client.visit()}/photographs?name=a.png", png())
            first.process.kill()
            first.process.wait()
            assert first.kept
            until(lambda: first.workers() == [])  # which see that nobody waits
            with started("--weights", str(tiny_weights), TMPDIR=str(first.files)):
                assert first.kept == []


class TestCommandLine:
    def run(self, *arguments: str, code: str = "pass", **environment: str) -> subprocess.CompletedProcess[str]:
        start = f"import sys; {code}; import runpy; sys.argv = ['app', *sys.argv[1:]]; "
        start += "runpy.run_module('reblur_plugin.app', run_name='__main__')"
        command = [sys.executable, "-c", start, *arguments]
        env = {**os.environ, **environment}
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env)

    def test_help_needs_nothing_heavy(self) -> None:
        names = ("torch", "starlette", "uvicorn", "cv2", "numpy")
        done = self.run("--help", code="; ".join(f"sys.modules[{name!r}] = None" for name in names))
        assert done.returncode == 0, done.stderr
        assert "--max-megapixels" in done.stdout

    def test_without_the_packages_it_says_what_to_install(self) -> None:
        code = "import importlib.util as u; real = u.find_spec; "
        code += "u.find_spec = lambda name, *rest: None if name == 'uvicorn' else real(name, *rest)"
        done = self.run(code=code)
        assert done.returncode == 1
        assert done.stderr == "error: app: expected the packages starlette and uvicorn; pip install uvicorn\n"

    def test_a_port_that_is_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = self.run("--port", str(port), "--no-browser")
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: --host 127.0.0.1 --port {port}: can't be listened at (")
        assert done.stderr.endswith("; give another --port, 0 for a free one\n")

    @pytest.mark.parametrize("arguments", [("--host", "203.0.113.7"), ("--host", "no such name")])
    def test_where_nobody_can_listen(self, arguments: tuple[str, ...]) -> None:
        done = self.run(*arguments, "--no-browser")
        assert done.returncode == 1
        assert done.stderr.startswith("error: --host ")
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--port", "99999"),
            ("--port", "-1"),
            ("--max-upload", "much"),
            ("--max-megapixels", "0"),
            ("--max-memory", "-1"),
        ],
    )
    def test_bounds_that_are_none(self, arguments: tuple[str, ...]) -> None:
        assert self.run(*arguments).returncode == 2
