"""The composition root: settings in, an ASGI application out; and the one place where errors become HTTP.

Knows every part by name and none by its inside.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from encoders.errors import TwinlensError
from service.access.origins import allow_origins
from service.edge.fast_routes import Endpoint, FastRoutes
from service.edge.middleware import RequestMiddleware, context_of, error_response
from service.errors import ErrorReport, report, without_frames
from service.gauges import watch_service
from service.openapi.description import describe, operation_id
from service.routes import (
    duplicates,
    embed,
    gallery,
    image_pass,
    items,
    openai,
    operation,
    search,
    search_batch,
)
from service.serving import Serving
from service.settings import Settings
from service.wire.bodies import short

API_VERSION = "1"
WEB = Path(__file__).parent / "web"
SWAGGER_UI = ("fastapi_swagger", "resources")  # a package of Swagger UI's files; its code is never imported
REVALIDATED = {"cache-control": "no-cache"}  # kept by the browser, used while its ETag still holds
FAST_ROUTES: Mapping[str, Endpoint] = {
    "/embed/text": embed.embed_text,
    "/search/text": search.search_text,
    "/search/vector": search.search_vector,
    "/search/item": search.search_item,
    "/v1/embeddings": openai.embeddings,
}
_HTTP_CODES = {400: "invalid_request", 404: "not_found", 405: "method_not_allowed"}


def create_app(settings: Settings) -> FastAPI:
    """Load the release and its encoder, then the application that serves them.

    Raises TwinlensError when there is nothing fit to serve. The application is warm once it has started.
    """
    serving = Serving(settings)
    watch_service(serving)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await serving.start()
            yield
        finally:
            await serving.stop()

    app = FastAPI(
        title="Twinlens",
        summary="Image-text retrieval over HTTP",
        version=API_VERSION,
        generate_unique_id_function=operation_id,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page loads Swagger UI from elsewhere; ours is below
        redoc_url=None,
    )
    app.state.serving = serving
    app.add_middleware(FastRoutes, endpoints=FAST_ROUTES)
    app.add_middleware(RequestMiddleware, serving=serving)
    allow_origins(app, settings)  # outside of the edge: its refusals too may be read by those who may call
    for part in (embed, openai, search, search_batch, gallery, duplicates, items, image_pass, operation):
        app.include_router(part.router)
    _serve_pages(app)
    _map_errors(app)
    describe(app, serving)
    return app


def _serve_pages(app: FastAPI) -> None:
    app.mount("/static", _PageFiles(directory=WEB, packages=[SWAGGER_UI]), name="static")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return _WholeFile(WEB / "index.html", headers=REVALIDATED)

    @app.get("/docs", include_in_schema=False)
    async def api_page() -> Response:
        return _WholeFile(WEB / "docs.html", headers=REVALIDATED)


class _WholeFile(FileResponse):
    """A file, all of it: Starlette tells what it takes for a bad range in a shape of its own."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(_without_range(scope), receive, send)


class _PageFiles(StaticFiles):
    """The page's modules: asked for again each time, so that an upgrade never mixes old with new."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(_without_range(scope), receive, send)

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        response = super().file_response(*arguments, **options)
        response.headers.update(REVALIDATED)
        return response


def _without_range(scope: Scope) -> Scope:
    return {**scope, "headers": [header for header in scope["headers"] if header[0] != b"range"]}


def _map_errors(app: FastAPI) -> None:
    """Every error in the one shape. What none of these knows is the edge's to answer."""

    @app.exception_handler(TwinlensError)
    async def ours(request: Request, error: TwinlensError) -> Response:
        return _told(request, report(without_frames(error)))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        problem = error.errors()[0]
        param = ".".join(str(part) for part in problem["loc"][1:]) or None
        message = f"{param or 'the request'}: {problem['msg']}, not {short(problem.get('input'))}"
        return _told(request, ErrorReport(422, "invalid_field", message, param))

    @app.exception_handler(HTTPException)
    async def starlettes(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            allowed = {"allow": ", ".join(allowed_methods(app, request.scope))}
            if request.method == "OPTIONS":
                return Response(status_code=204, headers=allowed)
            error = HTTPException(405, error.detail, headers=allowed)
        code = _HTTP_CODES.get(error.status_code, "http_error")
        message = str(error.detail)
        if error.status_code in (404, 405):
            message = f"{request.method} {request.url.path[:200]}: {error.detail}; /docs lists what there is"
        response = _told(request, ErrorReport(error.status_code, code, message))
        response.headers.update(error.headers or {})
        return response


def allowed_methods(app: FastAPI, scope: Scope) -> list[str]:
    """Of all routes with this path: Starlette's own answer knows the first of them only."""

    def fits(route: BaseRoute, method: str) -> bool:
        whole = route.matches({**scope, "method": method})[0] is Match.FULL
        return whole and (method == "GET" or not isinstance(route, Mount))

    methods = ("GET", "PUT", "POST", "PATCH", "DELETE")
    found = [method for method in methods if any(fits(route, method) for route in app.routes)]
    return [*found, *(["HEAD"] if "GET" in found else []), "OPTIONS"]


def _told(request: Request, problem: ErrorReport) -> Response:
    context_of(request).cause = problem.code
    return error_response(problem)
