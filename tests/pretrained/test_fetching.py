"""Named weights are fetched whole and right, from a server on this machine, which fails in many ways."""

from __future__ import annotations

import hashlib
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

import reblur_plugin
from reblur_plugin import checkpoints, cli, weights
from reblur_plugin.archs.dmphn_arch import DHN
from reblur_plugin.pretrained import catalogue as names
from reblur_plugin.pretrained import fetching
from reblur_plugin.pretrained.catalogue import Named, Remote, WeightsError
from reblur_plugin.pretrained.dmphn import FILES

CONTENT = bytes(range(256)) * 1000


class Server(ThreadingHTTPServer):
    """Sends files as it is told to: what each of the next answers leaves out, and whether it goes on where asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.breaks: list[int] = []  # bytes after which each of the next answers ends
        self.knows_ranges = True
        self.asked: list[tuple[str, str | None]] = []  # path, Range

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    """One answer of the server."""

    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append((self.path, asked))
        content = self.server.files.get(self.path.rpartition("/")[2])
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.knows_ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = self.server.breaks.pop(0) if self.server.breaks else len(content)
        self.wfile.write(content[start : start + end])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


@pytest.fixture
def known(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Named:
    """Weights of one file, which becomes M_D's as it is."""
    server.files = {"a.pkl": CONTENT}
    remote = Remote(f"{server.url}/some/a.pkl", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(fetching, "_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(
        fetching, "convert", lambda folder, out: out.write_bytes((folder / "a.pkl").read_bytes()) and None
    )
    cache = tmp_path / "cache"
    return Named("some", "of a test", "none", cache / "net_g_some.pth", cache / "net_r_some.pth", 3e-6, (remote,))


def left(known: Named) -> list[str]:
    """Return what lies in the cache."""
    return sorted(path.relative_to(known.deblur_net.parent).as_posix() for path in known.deblur_net.parent.rglob("*"))


def test_fetched_once(known: Named, server: Server) -> None:
    fetching.fetch(known)
    fetching.fetch(known)
    assert known.deblur_net.read_bytes() == CONTENT
    assert server.asked == [("/some/a.pkl", None)]
    assert left(known) == ["net_g_some.pth"]


def test_what_is_here_is_not_locked(known: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    fetching.fetch(known)
    monkeypatch.setattr(fetching, "locked", lambda folder: pytest.fail(f"{folder} is locked"))
    fetching.fetch(known)


def test_goes_on_where_it_broke_off_also_in_another_run(known: Named, server: Server) -> None:
    server.breaks = [1000, 2000, 4000]
    with pytest.raises(WeightsError, match=r"a\.pkl: can't be fetched \(.+\); try again with a network, which goes on"):
        fetching.fetch(known)
    assert left(known) == ["some", "some/a.pkl.partial"]
    fetching.fetch(known)
    assert [asked for _, asked in server.asked] == [None, "bytes=1000-", "bytes=3000-", "bytes=7000-"]
    assert known.deblur_net.read_bytes() == CONTENT
    assert left(known) == ["net_g_some.pth"]


def test_a_server_that_can_only_begin_anew(known: Named, server: Server) -> None:
    server.breaks, server.knows_ranges = [1000], False
    fetching.fetch(known)
    assert known.deblur_net.read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [CONTENT[:-1] + b"x", CONTENT + b"more", CONTENT[:500]])
def test_another_file_is_refused_and_deleted(known: Named, server: Server, wrong: bytes) -> None:
    server.files["a.pkl"] = wrong
    if wrong.startswith(CONTENT):  # what is beyond its size isn't taken
        fetching.fetch(known)
        assert known.deblur_net.read_bytes() == CONTENT
        return
    expected = "ended after 500 of 256000" if len(wrong) < len(CONTENT) else "expected the published file (sha256 "
    with pytest.raises(WeightsError, match=re.escape(expected)):
        fetching.fetch(known)
    assert not known.deblur_net.exists()
    assert "some/a.pkl" not in left(known)


def test_a_file_that_is_gone_is_asked_for_once(known: Named, server: Server) -> None:
    server.files = {}
    with pytest.raises(WeightsError, match="HTTP Error 404"):
        fetching.fetch(known)
    assert len(server.asked) == 1


def test_without_a_network_a_file_may_be_put_there_by_hand(known: Named, server: Server) -> None:
    (remote,) = known.remotes
    offline = replace(known, remotes=(replace(remote, url="http://127.0.0.1:9/some/a.pkl"),))
    place = known.deblur_net.parent / "some" / "a.pkl"
    with pytest.raises(WeightsError, match=f"put the file to {re.escape(str(place))}$"):
        fetching.fetch(offline)
    place.write_bytes(CONTENT[::-1])
    with pytest.raises(WeightsError, match="expected the published file"):
        fetching.fetch(offline)
    place.write_bytes(CONTENT)
    fetching.fetch(offline)
    assert known.deblur_net.read_bytes() == CONTENT


def test_processes_wait_for_each_other(known: Named, server: Server) -> None:
    def fetch() -> None:
        try:
            fetching.fetch(known)
        except Exception as error:
            failed.append(error)

    failed: list[Exception] = []
    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(server.asked) == 1


def test_the_published_checksums_are_those_of_the_official_files(shared: Path) -> None:
    official = names.must_be_named("dhn-official")
    for remote in official.remotes:
        content = (shared / "weights" / "dmphn_1_2_4_8" / remote.url.rpartition("/")[2]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (remote.size, remote.sha256)


def test_official_weights_by_their_name(
    shared: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REBLUR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(names, "_DMPHN", server.url)
    folder = shared / "weights" / "dmphn_1_2_4_8"
    server.files = {name: (folder / name).read_bytes() for name in FILES}
    monkeypatch.setattr(sys, "argv", ["weights", "fetch", "dhn-official"])
    assert cli.guarded(weights.main) == 0
    said = capsys.readouterr()
    assert "dhn-official: licence: none stated by its authors" in said.err
    assert said.out == f"dhn-official: {tmp_path}/cache/net_g_dhn-official.pth\n"
    server.files = {}
    deblur_net, reblur_net = reblur_plugin.load("dhn-official")
    expected = DHN()
    for name in FILES:
        checkpoints.load_weights(expected.get_submodule(name.removesuffix(".pkl")), folder / name)
    assert type(deblur_net) is DHN
    assert all(torch.equal(value, deblur_net.state_dict()[name]) for name, value in expected.state_dict().items())
    assert reblur_net is not None
    assert names.best_here()[0].name == "dhn-official"
    assert names.best_here()[1] == ""
