"""The page's server: what browsers may ask for. Every address but the page's own holds a visitor's token."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from reblur_plugin.app import pages
from reblur_plugin.app.guard import Guard
from reblur_plugin.app.settings import Settings
from reblur_plugin.app.visitors import Visitor, Visitors
from reblur_plugin.app.workshop import Workshop
from reblur_plugin.errors import ReblurError
from reblur_plugin.files import temporary_folder
from reblur_plugin.names import problem

_MOST_JSON = 10_000  # bytes


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
        middleware.append(Middleware(Guard, settings=settings))
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
                yield f"data: {json.dumps(self._state(visitor))}\n\n"
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
        content = pages.example(name)
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
        if (why := problem(name)) or PurePath(name).suffix.lower() not in pages.WEIGHTS:
            why = why or f"it is none of {', '.join(pages.WEIGHTS)}"
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
        wishes = await self._wishes(request, visitor)
        if not shot.is_busy:
            self._workshop.deblur(visitor, shot, wishes)
        self._follow(visitor, wishes)
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


async def _refuse(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)


def _missing() -> Response:
    return Response("not found", 404)


def _shown_name(request: Request) -> str:
    """Return the name of a file that is sent, without folders; it becomes no path here."""
    name = request.query_params.get("name", "").replace("\\", "/").rpartition("/")[2]
    return name[-200:] or "photograph"
