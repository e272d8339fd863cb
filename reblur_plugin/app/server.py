"""The page's server: what browsers may ask for. Every address but the page's own holds a visitor's token."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib import resources
from pathlib import Path, PurePath
from typing import Any

import jinja2
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from reblur_plugin.app.settings import MOST_STEPS, PRECISIONS, Settings
from reblur_plugin.app.visitors import MOST_PHOTOGRAPHS, Visitor, Visitors
from reblur_plugin.app.workshop import Workshop
from reblur_plugin.data.images import SUFFIXES
from reblur_plugin.errors import ReblurError
from reblur_plugin.files import temporary_folder
from reblur_plugin.names import problem

_TYPES = {".css": "text/css", ".js": "text/javascript"}
_STATIC = {"page.css": __package__, "page.js": __package__, "viewer.css": "reblur_plugin.viewer"}
_STATIC |= {"viewer.js": "reblur_plugin.viewer"}
EXAMPLES = {"square.jpg": "people on a square", "cars.jpg": "parked cars"}
_WEIGHTS = (".pth", ".pt", ".safetensors")
_MOST_JSON = 10_000  # bytes
_POLICY = (
    "default-src 'none'; img-src 'self' data:; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)


def serve(settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; `ready` is called when browsers can come. Visitors' files go at the end."""
    with temporary_folder("reblur_app") as folder:
        application = Application(settings, folder, ready)
        config = uvicorn.Config(application.asgi, log_level="warning", timeout_graceful_shutdown=2, server_header=False)
        with suppress(KeyboardInterrupt):  # which Uvicorn raises again when all is closed
            _Uvicorn(config, application.say_goodbye).run(sockets=[listener])


class _Uvicorn(uvicorn.Server):
    """A server that lets its open pages know before it closes their connections."""

    def __init__(self, config: uvicorn.Config, say_goodbye: Callable[[], None]) -> None:
        super().__init__(config)
        self._say_goodbye = say_goodbye

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._say_goodbye()
        await super().shutdown(sockets)


class Application:
    """What is answered.

    Args:
        settings: of the server.
        folder: for visitors' files.
        ready: called when it begins.
    """

    def __init__(self, settings: Settings, folder: Path, ready: Callable[[], None]) -> None:
        self._settings, self._ready = settings, ready
        self._visitors = Visitors(folder)
        self._workshop = Workshop(settings, self._visitors)
        shot = "/visits/{token}/photographs/{shot}"
        routes = [
            Route("/", self._page),
            Route("/static/{name}", self._static),
            Route("/examples/{name}", self._example_picture),
            Route("/visits", self._welcome, methods=["POST"]),
            Route("/visits/{token}/events", self._events),
            Route("/visits/{token}/leave", self._leave, methods=["POST"]),
            Route("/visits/{token}/wishes", self._wish, methods=["POST"]),
            Route("/visits/{token}/weights", self._take_weights, methods=["POST"]),
            Route("/visits/{token}/photographs", self._take_photograph, methods=["POST"]),
            Route("/visits/{token}/examples/{name}", self._take_example, methods=["POST"]),
            Route(shot, self._remove, methods=["DELETE"]),
            Route(f"{shot}/deblur", self._deblur, methods=["POST"]),
            Route(f"{shot}/cancel", self._cancel, methods=["POST"]),
            Route(f"{shot}/result", self._result),
            Route(f"{shot}/pictures/{{name:path}}", self._picture),
        ]
        middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=list(settings.hosts), www_redirect=False)]
        middleware.append(Middleware(_Guard, settings=settings))
        self.asgi = Starlette(
            routes=routes, middleware=middleware, lifespan=self._open, exception_handlers={ReblurError: _refuse}
        )

    @asynccontextmanager
    async def _open(self, _: Starlette) -> AsyncIterator[None]:
        try:
            await self._workshop.open()
            self._ready()
            yield
        finally:
            self._workshop.close()

    def say_goodbye(self) -> None:
        """Let all open pages know that this server ends, and forget them."""
        self._workshop.close()
        for visitor in self._visitors:
            visitor.leave()

    async def _page(self, _: Request) -> Response:
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        template = environment.from_string((resources.files(__package__) / "page/index.html.jinja").read_text("utf-8"))
        facts = {
            "maxUpload": self._settings.max_upload,
            "maxPhotographs": MOST_PHOTOGRAPHS,
            "suffixes": SUFFIXES,
        }
        text = template.render(
            facts=json.dumps(facts),
            accept=",".join(SUFFIXES),
            weights_accept=",".join(_WEIGHTS),
            weights=self._settings.offered(),
            better=self._settings.better(),
            precisions=PRECISIONS,
            most_steps=MOST_STEPS,
            max_megapixels=self._settings.max_pixels / 1e6,
            max_megabytes=self._settings.max_upload / 2**20,
            max_photographs=MOST_PHOTOGRAPHS,
            examples=EXAMPLES,
        )
        return HTMLResponse(text)

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _STATIC:
            return _missing()
        folder = "page/" if _STATIC[name] == __package__ else ""
        content = (resources.files(_STATIC[name]) / f"{folder}{name}").read_bytes()
        return Response(content, media_type=_TYPES[PurePath(name).suffix])

    async def _example_picture(self, request: Request) -> Response:
        return Response(_example(request.path_params["name"]), media_type="image/jpeg")

    async def _welcome(self, _: Request) -> Response:
        return JSONResponse({"token": self._visitors.welcome().token})

    async def _events(self, request: Request) -> Response:
        visitor = self._visitor(request)

        async def lines() -> AsyncIterator[str]:
            async for _ in visitor.changes():
                yield f"data: {json.dumps(self._state(visitor))}\n\n"
            yield 'event: gone\ndata: ""\n\n'

        return StreamingResponse(lines(), media_type="text/event-stream")

    def _state(self, visitor: Visitor) -> dict[str, Any]:
        shots = [shot.for_page(self._workshop.before(shot)) for shot in visitor.shots.values()]
        return {"photographs": shots, "weights": list(visitor.weights)}

    async def _leave(self, request: Request) -> Response:
        self._visitor(request).leave()
        return Response(status_code=204)

    async def _wish(self, request: Request) -> Response:
        visitor = self._visitor(request)
        visitor.wishes = await self._wishes(request, visitor)
        for shot in visitor.shots.values():
            if not shot.is_busy:
                self._workshop.look(visitor, shot)
        return Response(status_code=204)

    async def _wishes(self, request: Request, visitor: Visitor) -> dict[str, Any]:
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > _MOST_JSON:
                raise ReblurError("choices: expected a few hundred bytes, got many more")
        try:
            given = json.loads(content)
        except ValueError:
            given = None
        return self._settings.wishes(given, visitor.weights)

    async def _take_photograph(self, request: Request) -> Response:
        visitor = self._visitor(request)
        shot = visitor.new_shot(_shown_name(request))
        try:
            await self._receive(request, shot.source, shot.name)
        except BaseException:
            visitor.remove(shot)
            raise
        return self._look(visitor, shot)

    async def _take_example(self, request: Request) -> Response:
        visitor = self._visitor(request)
        name = request.path_params["name"]
        content = _example(name)
        shot = visitor.new_shot(name)
        shot.source.write_bytes(content)
        return self._look(visitor, shot)

    def _look(self, visitor: Visitor, shot: Any) -> Response:
        if visitor.wishes is not None:
            self._workshop.look(visitor, shot)
        visitor.changed()
        return JSONResponse({"id": shot.id}, status_code=201)

    async def _take_weights(self, request: Request) -> Response:
        visitor = self._visitor(request)
        name = _shown_name(request)
        if (why := problem(name)) or PurePath(name).suffix.lower() not in _WEIGHTS:
            why = why or f"it is none of {', '.join(_WEIGHTS)}"
            raise ReblurError(f"{name}: expected a file of weights, but {why}; rename it")
        folder = visitor.folder / "weights"
        folder.mkdir(exist_ok=True)
        await self._receive(request, folder / name, name)
        visitor.weights[name] = folder / name
        visitor.changed()
        return JSONResponse({"name": name}, status_code=201)

    async def _receive(self, request: Request, path: Path, name: str) -> None:
        """Write what is sent to a file, as far as it is allowed."""
        most = self._settings.max_upload
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
        except OSError as error:
            path.unlink(missing_ok=True)
            raise ReblurError(f"{name}: can't be kept here ({error.strerror}); free the server's disk") from error
        except ReblurError:
            path.unlink(missing_ok=True)
            raise

    async def _deblur(self, request: Request) -> Response:
        visitor = self._visitor(request)
        shot = visitor.shot(request.path_params["shot"])
        visitor.wishes = await self._wishes(request, visitor)
        if not shot.is_busy:
            self._workshop.deblur(visitor, shot)
        return Response(status_code=204)

    async def _cancel(self, request: Request) -> Response:
        self._visitor(request).shot(request.path_params["shot"]).cancel()
        return Response(status_code=204)

    async def _remove(self, request: Request) -> Response:
        visitor = self._visitor(request)
        visitor.remove(visitor.shot(request.path_params["shot"]))
        return Response(status_code=204)

    async def _result(self, request: Request) -> Response:
        shot = self._visitor(request).shot(request.path_params["shot"])
        if shot.result is None:
            return _missing()
        return FileResponse(shot.result, filename=shot.name, content_disposition_type="attachment")

    async def _picture(self, request: Request) -> Response:
        shot = self._visitor(request).shot(request.path_params["shot"])
        known = {shot.blurry, *(one["src"] for one in (*shot.steps.values(), *shot.blur.values()))}
        name = request.path_params["name"]  # becomes a path only if it is one of these
        return FileResponse(shot.folder / name) if name in known else _missing()

    def _visitor(self, request: Request) -> Visitor:
        return self._visitors.find(request.path_params["token"])


class _Guard:
    """Asks for the password, refuses what other sites' pages send, and says what this page may do."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._headers = {
            "content-security-policy": _POLICY + ("" if settings.in_frames else "; frame-ancestors 'none'"),
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-store",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        app: ASGIApp = self._app
        if not self._may_enter(request):
            app = Response("password?", 401, {"www-authenticate": 'Basic realm="reblur_plugin", charset="UTF-8"'})
        elif request.method not in ("GET", "HEAD") and request.headers.get("sec-fetch-site") not in (
            None,
            "same-origin",
        ):
            app = Response("expected a request of the page itself", 403)

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in self._headers.items()]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await app(scope, receive, send_with_headers)

    def _may_enter(self, request: Request) -> bool:
        if self._settings.password is None:
            return True
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        try:
            password = base64.b64decode(given, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return False
        return kind.lower() == "basic" and secrets.compare_digest(password, self._settings.password.encode())


def _is_from_elsewhere(request: Request) -> bool:
    return request.headers.get("sec-fetch-site", "same-origin") != "same-origin"


async def _refuse(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)


def _missing() -> Response:
    return Response("not found", 404)


def _example(name: str) -> bytes:
    """Return an example's file.

    Raises:
        ReblurError: if there is none of that name.
    """
    if name not in EXAMPLES:
        raise ReblurError(f"example: expected one of {', '.join(EXAMPLES)}, got {name!r}")
    return (resources.files(__package__) / "examples" / name).read_bytes()


def _shown_name(request: Request) -> str:
    """Return the name of a file that is sent, without folders; it becomes no path here."""
    name = request.query_params.get("name", "").replace("\\", "/").rpartition("/")[2]
    return name[-200:] or "photograph"
