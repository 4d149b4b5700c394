"""`POST /images/pass`: the page trades its key for a cookie that opens images (`service.access.passes`)."""

import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.access.passes import COOKIE, PASS_SECONDS
from service.edge.middleware import context_of
from service.routes.parts import serving_of

router = APIRouter(tags=["gallery"])


@router.post("/images/pass", status_code=204, include_in_schema=False)
async def give_pass(request: Request) -> Response:
    """Sets the cookie, which the browser sends with images only; without API keys there is nothing to do."""
    response = Response(status_code=204)
    key = context_of(request).caller.key
    if key is not None:
        response.set_cookie(
            COOKIE,
            serving_of(request).access.passes.issue(key, now=time.time()),
            max_age=PASS_SECONDS,
            path=None,  # the folder of this very path, so /images under whatever prefix a proxy adds
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
    return response
