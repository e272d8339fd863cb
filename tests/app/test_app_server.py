"""The page's server as other programs may call it: who is let in, what becomes a path, what ends with it."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import cv2
import numpy as np
import pytest
import tifffile

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
        assert client.ask("POST", f"{visit}/weights?name=net_g_tiny.pth", b"x")[0] == 400
        assert status == (201 if name == "..%2fnet.pth" else 400)  # a browser's fake path: the name alone counts

    def test_weights_are_those_that_are_offered(self, client: Client, visit: str, tiny_weights: Path) -> None:
        for field in ("weights", "reblur_weights"):
            wishes = {**WISHES, "weights": tiny_weights.name, field: "/etc/passwd"}
            status, content = client.ask("POST", f"{visit}/wishes", wishes)
            assert status == 400
            assert b"weights: expected one of" in content
        assert client.ask("POST", f"{visit}/wishes", {**WISHES, "weights": tiny_weights.name})[0] == 204


class TestBounds:
    @pytest.mark.parametrize(
        "body", [b"[" * 9999, b"", b"[]", b"{", b"\xff", b"null", b'{"weights": []}', b'{"weights": {"a": 1}}']
    )
    def test_choices_that_are_none(self, client: Client, visit: str, body: bytes) -> None:
        status, content = client.ask("POST", f"{visit}/wishes", body)
        assert status == 400
        assert "expected" in json.loads(content)["error"]

    @pytest.mark.parametrize("size", ["9" * 400, "1" * 300 + "T", "nan", "1e5G"])
    def test_memory_beyond_all_numbers(self, client: Client, visit: str, tiny_weights: Path, size: str) -> None:
        wishes = {**WISHES, "weights": tiny_weights.name, "max_memory": size}
        status, content = client.ask("POST", f"{visit}/wishes", wishes)
        assert status == 400
        assert b"memory: expected a size" in content

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

    def test_a_photograph_is_not_there_until_it_is_whole(self, client: Client, visit: str, tiny_weights: Path) -> None:
        content = png()
        with socket.create_connection(client.address.split(":")) as connection:
            head = f"POST {visit}/photographs?name=a.png HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            head += f"Content-Length: {len(content)}\r\n\r\n"
            connection.sendall(head.encode() + content[:20])
            time.sleep(0.2)
            client.ask("POST", f"{visit}/wishes", {**WISHES, "weights": tiny_weights.name})
            assert shots(client, visit) == []
            connection.sendall(content[20:])
            assert b" 201 " in connection.recv(100)
        until(lambda: [shot["state"] for shot in shots(client, visit)] == ["ready"])

    def test_weights_at_once(self, client: Client, visit: str) -> None:
        for number in range(visitors.MOST_WEIGHTS):
            assert client.ask("POST", f"{visit}/weights?name={number}.pth", b"x")[0] == 201
        status, content = client.ask("POST", f"{visit}/weights?name=more.pth", b"x")
        assert status == 400
        assert b"more.pth: expected at most 4 files of weights" in content

    def test_a_disk_that_is_full(self, started: Any, tiny_weights: Path, tmp_path: Path) -> None:
        code = "import pathlib, errno\n"
        code += "def full(*rest): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        code += "pathlib.Path.write_bytes = full\n"
        with started("--weights", str(tiny_weights), code=code) as running:
            client = Client(running.url)
            visit = client.visit()
            status, content = client.ask("POST", f"{visit}/examples/cars.jpg")
            assert status == 507
            assert json.loads(content)["error"] == (
                "the server's disk refuses (No space left on device); free some of it"
            )
            assert shots(client, visit) == []

    def test_photographs_at_once(self, client: Client, visit: str) -> None:
        with socket.create_connection(client.address.split(":")) as arriving:
            head = f"POST {visit}/photographs?name=a.png HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n"
            arriving.sendall(head.encode() + b"half")
            time.sleep(0.3)
            for _ in range(visitors.MOST_PHOTOGRAPHS - 1):
                assert client.ask("POST", f"{visit}/photographs?name=a.png", png())[0] == 201
            assert client.ask("POST", f"{visit}/photographs?name=b.png", png())[0] == 400  # one is on its way
        until(lambda: client.ask("POST", f"{visit}/photographs?name=a.png", png())[0] == 201)
        status, content = client.ask("POST", f"{visit}/photographs?name=b.png", png())
        assert status == 400
        assert b"b.png: expected at most 20 photographs at once; remove some" in content

    def test_visitors_at_once(self, started: Any, tiny_weights: Path) -> None:
        with started("--weights", str(tiny_weights)) as running:
            client = Client(running.url)
            known = [client.visit() for _ in range(32)]
            streams = []
            for visit in known:
                streams.append(http.client.HTTPConnection(client.address, timeout=20))
                streams[-1].request("GET", f"{visit}/events")
                assert streams[-1].getresponse().readline()
            status, content = client.ask("POST", "/visits")
            assert status == 400
            assert b"page: expected at most 32 at once; close one, or try again later" in content
            client.ask("POST", f"{known[0]}/leave")
            client.visit()
            assert client.ask("POST", "/visits")[0] == 200  # the last one, which never listened, makes room
            for stream in streams:
                stream.close()
            until(lambda: client.ask("POST", "/visits")[0] == 200)

    def test_who_has_left_is_not_known(self, client: Client) -> None:
        visit = client.visit()
        assert client.ask("POST", f"{visit}/leave")[0] == 204
        status, content = client.ask("POST", f"{visit}/photographs?name=a.png", png())
        assert status == 400
        assert b"page: the server knows it no more; load it again" in content


def shots(client: Client, visit: str) -> list[dict[str, Any]]:
    """Return what the page is told now."""
    connection = http.client.HTTPConnection(client.address, timeout=20)
    connection.request("GET", f"{visit}/events")
    line = connection.getresponse().readline()
    connection.close()
    return json.loads(line.removeprefix(b"data: "))["photographs"]


class TestAnyOrder:
    """Requests come as they like, each photograph ends in a state that can be gone on from."""

    @pytest.fixture
    def wishes(self, tiny_weights: Path) -> dict[str, Any]:
        return {**WISHES, "weights": tiny_weights.name}

    def sent(self, client: Client, visit: str, name: str = "a.png", content: bytes | None = None) -> str:
        status, answer = client.ask("POST", f"{visit}/photographs?name={name}", content or png())
        assert status == 201
        return f"{visit}/photographs/{json.loads(answer)['id']}"

    def test_deblur_before_it_is_checked(self, client: Client, visit: str, wishes: dict[str, Any]) -> None:
        shot = self.sent(client, visit)  # nothing is looked at before there are wishes
        status, content = client.ask("POST", f"{shot}/deblur", wishes)
        assert status == 400
        assert b"a.png: expected a photograph that is checked" in content
        until(lambda: shots(client, visit)[0]["state"] == "ready")
        assert client.ask("POST", f"{shot}/deblur", wishes)[0] == 204
        until(lambda: shots(client, visit)[0]["state"] == "done")

    def test_cancel_just_behind_deblur(self, client: Client, visit: str, wishes: dict[str, Any]) -> None:
        client.ask("POST", f"{visit}/wishes", wishes)
        shot = self.sent(client, visit)
        until(lambda: shots(client, visit)[0]["state"] == "ready")
        body = json.dumps({**wishes, "steps": 50}).encode()
        for _ in range(10):
            address = client.address.split(":")
            with socket.create_connection(address) as first, socket.create_connection(address) as second:
                head = "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n"
                first.sendall(head.format(f"{shot}/deblur", len(body)).encode() + body[:-1])
                second.sendall(head.format(f"{shot}/cancel", 1).encode())
                time.sleep(0.05)
                first.sendall(body[-1:])
                second.sendall(b"x")
                assert b" 204 " in first.recv(100)
                assert b" 204 " in second.recv(100)
            client.ask("POST", f"{shot}/cancel")
            until(lambda: shots(client, visit)[0]["state"] in ("ready", "done"))

    def test_a_cancel_while_others_wait_leaves_no_process(
        self, client: Client, server: Any, wishes: dict[str, Any]
    ) -> None:
        visits = [client.visit() for _ in range(2)]
        large = cv2.imencode(".png", np.zeros((1000, 1400, 3), np.uint8))[1].tobytes()
        for visit in visits:
            client.ask("POST", f"{visit}/wishes", wishes)
        found = {visit: self.sent(client, visit, content=large) for visit in visits}
        for visit in visits:
            until(lambda visit=visit: shots(client, visit)[0]["state"] == "ready")  # type: ignore[misc]
        for _ in range(3):
            for shot in found.values():
                client.ask("POST", f"{shot}/deblur", {**wishes, "steps": 50})
            until(lambda: shots(client, visits[0])[0]["state"] == "deblurring")
            time.sleep(0.3)
            client.ask("POST", f"{found[visits[0]]}/cancel")
            until(lambda: shots(client, visits[1])[0]["state"] == "deblurring")
            client.ask("POST", f"{found[visits[1]]}/cancel")
            until(lambda: shots(client, visits[1])[0]["state"] == "ready")
        time.sleep(1)
        assert len(server.workers()) == 2
        for visit in visits:
            client.ask("POST", f"{visit}/leave")

    def test_leaving_while_it_is_looked_at(self, client: Client, server: Any, wishes: dict[str, Any]) -> None:
        before = set(server.kept)
        large = cv2.imencode(".png", np.zeros((1500, 1900, 3), np.uint8))[1].tobytes()
        for pause in (0.0, 0.1, 0.2, 0.4):
            visit = client.visit()
            client.ask("POST", f"{visit}/wishes", wishes)
            self.sent(client, visit, content=large)
            time.sleep(pause)
            client.ask("POST", f"{visit}/leave")
        time.sleep(3)
        assert set(server.kept) == before

    def test_pictures_while_they_are_removed(self, client: Client, visit: str, wishes: dict[str, Any]) -> None:
        client.ask("POST", f"{visit}/wishes", wishes)
        for _ in range(5):
            shot = self.sent(client, visit)
            until(lambda: shots(client, visit)[0]["state"] == "ready")
            with ThreadPoolExecutor(8) as threads:
                asked = [threads.submit(client.ask, "GET", f"{shot}/pictures/blurry.png") for _ in range(20)]
                removed = threads.submit(client.ask, "DELETE", shot)
                assert {one.result()[0] for one in asked} <= {200, 400, 404}
                assert removed.result()[0] == 204

    def test_a_file_that_leads_in_circles_stops_nobody(
        self, client: Client, visit: str, wishes: dict[str, Any]
    ) -> None:
        client.ask("POST", f"{visit}/wishes", wishes)
        self.sent(client, visit, "circle.tif", circle())
        self.sent(client, visit, "b.png")
        until(lambda: {shot["state"] for shot in shots(client, visit)} == {"ready"})

    def test_messages_name_no_folder_of_the_server(
        self, client: Client, server: Any, visit: str, wishes: dict[str, Any]
    ) -> None:
        client.ask("POST", f"{visit}/weights?name=own.pth", b"no weights")
        client.ask("POST", f"{visit}/wishes", {**wishes, "weights": "own.pth"})
        self.sent(client, visit)
        until(lambda: shots(client, visit)[0]["problem"] != "")
        problem = shots(client, visit)[0]["problem"]
        assert problem.startswith("own.pth: ")
        assert str(server.files) not in problem


def circle() -> bytes:
    """Return a TIFF file whose chain of pages leads back to its first."""
    file = io.BytesIO()
    tifffile.imwrite(file, np.full((16, 24, 3), 90, np.uint8), photometric="rgb", byteorder="<")
    content = bytearray(file.getvalue())
    first = int.from_bytes(content[4:8], "little")
    entries = int.from_bytes(content[first : first + 2], "little")
    content[first + 2 + 12 * entries : first + 6 + 12 * entries] = content[4:8]
    return bytes(content)


class TestItsEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])  # the latter: a terminal that is closed
    def test_a_signal_ends_all(self, started: Any, tiny_weights: Path, number: int) -> None:
        with started("--weights", str(tiny_weights)) as running:
            client = Client(running.url)
            client.ask("POST", f"{client.visit()}/photographs?name=a.png", png())
            assert running.kept
            running.process.send_signal(number)
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
            ("--max-megapixels", "1e303"),
            ("--max-upload", "9" * 400),
            ("--max-memory", "-1"),
        ],
    )
    def test_bounds_that_are_none(self, arguments: tuple[str, ...]) -> None:
        assert self.run(*arguments).returncode == 2
