"""`python -m reblur_plugin.app`: open the page on which photographs are dropped."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import secrets
import socket
import sys
import webbrowser

from reblur_plugin import cli, deblur
from reblur_plugin.app.settings import Settings
from reblur_plugin.errors import ReblurError
from reblur_plugin.pretrained.catalogue import catalogue

_PASSWORD = "REBLUR_PASSWORD"
_MOST_MEGAPIXELS = 1e6
_LOOPBACK = ("127.0.0.1", "localhost")


def main() -> int:
    """Serve the page until Ctrl-C."""
    arguments = _parser().parse_args()
    cli.alone("app")
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ReblurError(f"app: expected the packages starlette and uvicorn; pip install {' '.join(missing)}")
    settings = _settings(arguments)
    with _listening(arguments.host, arguments.port) as listener:
        from reblur_plugin.app import server

        server.serve(settings, listener, lambda: _announce(listener, settings, arguments))
    return 0


def _settings(arguments: argparse.Namespace) -> Settings:
    is_local = arguments.host in _LOOPBACK
    password = os.environ.get(_PASSWORD) or (None if is_local or arguments.open_to_all else secrets.token_urlsafe(9))
    return Settings(
        weights=arguments.weights,
        reblur_weights=None if arguments.reblur_weights is None else str(arguments.reblur_weights),
        network=arguments.network,
        deblurred_output=arguments.deblurred_output,
        device=arguments.device,
        modules=tuple(arguments.modules),
        max_memory=arguments.max_memory,
        max_upload=arguments.max_upload,
        max_pixels=arguments.max_megapixels * 1e6,
        password=password,
        hosts=_LOOPBACK if is_local else ("*",),
        in_frames=arguments.open_to_all,
    )


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens there.

    Raises:
        ReblurError: if it can't be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ReblurError(
            f"--host {host} --port {port}: can't be listened at ({reason}); give another --port, 0 for a free one"
        ) from error


def _announce(listener: socket.socket, settings: Settings, arguments: argparse.Namespace) -> None:
    if settings.password is not None and not os.environ.get(_PASSWORD):
        sys.stderr.write(f"password: {settings.password} (any name; {_PASSWORD} sets another)\n")
    if better := settings.better():
        sys.stderr.write(f"{better}\n")
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    address = f"http://{host}:{listener.getsockname()[1]}/"
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    has_screen = sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if arguments.browser and has_screen and arguments.host in _LOOPBACK:
        webbrowser.open(address)


def _port(word: str) -> int:
    if word.isdecimal() and int(word) < 2**16:
        return int(word)
    raise argparse.ArgumentTypeError(f"expected a number from 0 to 65535, got {word!r}")


def _megapixels(word: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(word) < _MOST_MEGAPIXELS:
            return float(word)
    raise argparse.ArgumentTypeError(f"expected a number > 0 and < {_MOST_MEGAPIXELS:g}, got {word!r}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m reblur_plugin.app",
        description="Open a page in the browser: photographs that are dropped on it are deblurred on this machine.",
        epilog="example: python -m reblur_plugin.app",
    )
    names = ", ".join(one.name for one in catalogue())
    offered = f"weights that the page offers first: net_g_*.pth of a training, anybody's checkpoint, or {names}"
    parser.add_argument("--weights", metavar="FILE|NAME", help=offered)
    deblur.add_networks(parser)
    size = "memory that each of two processes holds at most, such as 4G, whatever visitors choose; else what is free"
    parser.add_argument("--max-memory", type=deblur.size, metavar="SIZE", help=size)
    parser.add_argument("--device", default="auto", help="cuda, cpu, ...; auto takes a GPU if there is one")
    where = "address to listen at (127.0.0.1: this machine alone); others ask for a password"
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help=where)
    parser.add_argument("--port", type=_port, default=7860, help="to listen at, 0 for a free one (7860)")
    open_to_all = "no password, and other pages may show this one in a frame: for a public demonstration"
    parser.add_argument("--open-to-all", action="store_true", help=open_to_all)
    largest = "the largest file that may be sent, photograph or weights (256M)"
    parser.add_argument("--max-upload", type=deblur.size, default="256M", metavar="SIZE", help=largest)
    pixels = "the largest photograph in millions of pixels (64)"
    parser.add_argument("--max-megapixels", type=_megapixels, default=64, metavar="N", help=pixels)
    parser.add_argument("--no-browser", action="store_false", dest="browser", help="don't open a browser")
    cli.add_import(parser, "your own networks")
    return parser


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
