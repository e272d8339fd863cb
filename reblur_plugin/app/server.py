"""The page's server: what browsers may ask for. Every address but the page's own holds a visitor's token."""

from __future__ import annotations

import json
import mimetypes
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from reblur_plugin.app import pages
from reblur_plugin.app.guard import Guard
from reblur_plugin.app.receiving import receive, receive_json, shown_name
from reblur_plugin.app.settings import Settings
from reblur_plugin.app.shots import WEIGHTS
from reblur_plugin.app.visitors import MOST_WEIGHTS, Visitor, Visitors
from reblur_plugin.app.workshop import Workshop
from reblur_plugin.errors import ReblurError
from reblur_plugin.files import temporary_folder
from reblur_plugin.names import problem

_MOST_CONNECTIONS = 500


def serve(settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; `ready` is called when browsers can come. Visitors' files go at the end."""
    with temporary_folder("reblur_app") as folder:
        application = Application(settings, folder, ready)
        config = uvicorn.Config(
            application.asgi,
            log_level="warning",
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=2,
            server_header=False,
        )
        if hasattr(signal, "SIGHUP"):  # a terminal that is closed
            signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
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
        middleware.append(Middleware(Guard, settings=settings))
        self.asgi = Starlette(
            routes=routes,
            middleware=middleware,
            lifespan=self._open,
            exception_handlers=_HANDLERS,
        )

    @asynccontextmanager
    async def _open(self, _: Starlette) -> AsyncIterator[None]:
        try:
            await self._workshop.open()
            self._ready()
            yield
        finally:
            self._workshop.close()
            await self._workshop.closed()

    def say_goodbye(self) -> None:
        """Let all open pages know that this server ends, and forget them."""
        self._workshop.close()
        for visitor in self._visitors:
            visitor.leave()

    async def _page(self, _: Request) -> Response:
        return HTMLResponse(pages.page(self._settings))

    async def _static(self, request: Request) -> Response:
        found = pages.static(request.path_params["name"])
        return _missing() if found is None else Response(found[0], media_type=found[1])

    async def _example_picture(self, request: Request) -> Response:
        return Response(pages.example(request.path_params["name"]), media_type="image/jpeg")

    async def _welcome(self, _: Request) -> Response:
        return JSONResponse({"token": self._visitors.welcome().token})

    async def _events(self, request: Request) -> Response:
        visitor = self._visitor(request)

        async def lines() -> AsyncIterator[str]:
            async for _ in visitor.changes():
                yield f"data: {json.dumps(self._state(visitor), allow_nan=False)}\n\n"
            yield 'event: gone\ndata: ""\n\n'

        return StreamingResponse(lines(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    def _state(self, visitor: Visitor) -> dict[str, Any]:
        shots = [shot.for_page(self._workshop.before(shot)) for shot in visitor.shots.values()]
        return {"photographs": shots, "weights": list(visitor.weights)}

    async def _leave(self, request: Request) -> Response:
        self._visitor(request).leave()
        return Response(status_code=204)

    async def _wish(self, request: Request) -> Response:
        visitor = self._visitor(request)
        self._follow(visitor, await self._wishes(request, visitor))
        return Response(status_code=204)

    def _follow(self, visitor: Visitor, wishes: dict[str, Any]) -> None:
        """Say of all photographs what they will take by other choices."""
        if wishes == visitor.wishes:
            return
        visitor.wishes = wishes
        for shot in visitor.shots.values():
            if not shot.is_busy:
                self._workshop.look(visitor, shot)

    async def _wishes(self, request: Request, visitor: Visitor) -> dict[str, Any]:
        given = await receive_json(request)
        return self._settings.wishes(given, visitor.weights)

    async def _take_photograph(self, request: Request) -> Response:
        visitor = self._visitor(request)
        shot = visitor.new_shot(shown_name(request))
        try:
            await receive(request, shot.source, shot.name, self._settings.max_upload)
            visitor.add(shot)
        except BaseException:
            visitor.remove(shot)
            raise
        return self._look(visitor, shot)

    async def _take_example(self, request: Request) -> Response:
        visitor = self._visitor(request)
        name = request.path_params["name"]
        content = pages.example(name)
        shot = visitor.new_shot(name)
        try:
            shot.source.write_bytes(content)
            visitor.add(shot)
        except BaseException:
            visitor.remove(shot)
            raise
        return self._look(visitor, shot)

    def _look(self, visitor: Visitor, shot: Any) -> Response:
        if visitor.wishes is not None:
            self._workshop.look(visitor, shot)
        return JSONResponse({"id": shot.id}, status_code=201)

    async def _take_weights(self, request: Request) -> Response:
        visitor = self._visitor(request)
        name = shown_name(request)
        if (why := problem(name)) or PurePath(name).suffix.lower() not in pages.WEIGHTS:
            why = why or f"it is none of {', '.join(pages.WEIGHTS)}"
            raise ReblurError(f"{name}: expected a file of weights, but {why}; rename it")
        if name in self._settings.offered():
            raise ReblurError(f"{name}: is a name of weights that are offered to all; rename your file")
        folder = visitor.folder / WEIGHTS
        folder.mkdir(exist_ok=True)
        if len(list(folder.iterdir())) >= MOST_WEIGHTS:
            raise ReblurError(
                f"{name}: expected at most {MOST_WEIGHTS} files of weights; load the page again for others"
            )
        await receive(request, folder / name, name, self._settings.max_upload)
        visitor.weights[name] = folder / name
        visitor.changed()
        return JSONResponse({"name": name}, status_code=201)

    async def _deblur(self, request: Request) -> Response:
        visitor = self._visitor(request)
        shot = visitor.shot(request.path_params["shot"])
        wishes = await self._wishes(request, visitor)
        self._follow(visitor, wishes)
        if not shot.is_busy:
            self._workshop.deblur(visitor, shot, wishes)
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
        return await _file(shot.result, {"content-disposition": f"attachment; filename*=UTF-8''{quote(shot.name)}"})

    async def _picture(self, request: Request) -> Response:
        shot = self._visitor(request).shot(request.path_params["shot"])
        known = {shot.blurry, *(one["src"] for one in (*shot.steps.values(), *shot.blur.values()))}
        name = request.path_params["name"]  # becomes a path only if it is one of these
        return await _file(shot.folder / name) if name in known else _missing()

    def _visitor(self, request: Request) -> Visitor:
        return self._visitors.find(request.path_params["token"])


async def _refuse(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)


async def _refuse_disk(_: Request, error: Exception) -> Response:
    reason = getattr(error, "strerror", None) or error
    return JSONResponse({"error": f"the server's disk refuses ({reason}); free some of it"}, status_code=507)


async def _file(path: Path, headers: dict[str, str] | None = None) -> Response:
    """Answer with a file as it is now; it may be gone in a moment."""
    try:
        content = await run_in_threadpool(path.read_bytes)
    except FileNotFoundError:
        return _missing()
    return Response(content, headers=headers, media_type=mimetypes.guess_type(path.name)[0])


def _missing() -> Response:
    return Response("not found", 404)


_HANDLERS: dict[Any, Any] = {ReblurError: _refuse, OSError: _refuse_disk}
