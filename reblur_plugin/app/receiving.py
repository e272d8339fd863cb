"""What browsers send: files, as far as they are allowed, and choices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request

from reblur_plugin.errors import ReblurError

_MOST_JSON = 10_000  # bytes


async def receive(request: Request, path: Path, name: str, most: int) -> None:
    """Write what is sent to a file, which is whole or not there.

    Args:
        request: its body is the file's content.
        path: where it goes.
        name: what messages call it.
        most: bytes that are allowed.

    Raises:
        ReblurError: if it is larger, has come already, or didn't come whole.
        OSError: if the disk refuses.
    """
    size = int(request.headers.get("content-length", "0"))
    try:
        with path.open("xb") as file:
            async for part in request.stream():
                size = max(size, file.tell() + len(part))
                if size > most:
                    raise ReblurError(
                        f"{name}: expected at most {most / 2**20:g} MiB, got more; use a smaller file, or start "
                        "the page with a larger --max-upload"
                    )
                file.write(part)
    except FileExistsError:
        raise ReblurError(f"{name}: is there already; rename it") from None
    except ClientDisconnect:
        path.unlink(missing_ok=True)
        raise ReblurError(f"{name}: expected a whole file, but the connection ended; drop it again") from None
    except BaseException:
        path.unlink(missing_ok=True)
        raise


async def receive_json(request: Request) -> Any:
    """Return what is sent as JSON; None, if it is none.

    Raises:
        ReblurError: if it is longer than choices are.
    """
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > _MOST_JSON:
            raise ReblurError("choices: expected a few hundred bytes, got many more")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def shown_name(request: Request) -> str:
    """Return the name of a file that is sent, without folders; it becomes no path here."""
    name = request.query_params.get("name", "").replace("\\", "/").rpartition("/")[2]
    return name[-200:] or "photograph"
