"""The bare framework with one gRPC call behind it: the peer of the gateway. Started by `gateway`.

It does what a few lines do: no limits, no deadline, no tokens, no links, no metrics.
"""

import json
import os
from pathlib import Path
from typing import Any

import uvicorn
from amends_chassis.dial import dial
from google.protobuf.json_format import MessageToDict
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from shop.catalog.v1 import catalog_pb2
from shop.catalog.v1.catalog_pb2_grpc import CatalogServiceStub


class Reporting(uvicorn.Server):
    """Says where it listens, as `amends_embedded.Child` wants it."""

    async def startup(self, sockets: Any = None) -> None:
        """Listen, then report."""
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        report = Path(os.environ["AMENDS_REPORT_FILE"])
        draft = report.with_suffix(".draft")
        where = f"127.0.0.1:{port}"
        draft.write_text(json.dumps({"service": "framework", "pid": os.getpid(), "grpc": where, "http": where}))
        draft.replace(report)


def application() -> Starlette:
    """Return the application; the channel is opened by the first request, in its event loop."""
    stub: Any = None

    async def article(request: Request) -> JSONResponse:
        nonlocal stub
        if stub is None:
            stub = CatalogServiceStub(dial(os.environ["AMENDS_CATALOG_TARGET"]))
        asked = catalog_pb2.GetArticleRequest(sku=request.path_params["sku"])
        answer = await stub.GetArticle(asked)
        return JSONResponse(MessageToDict(answer.article))

    return Starlette(routes=[Route("/v1/articles/{sku}", article)])


if __name__ == "__main__":
    Reporting(uvicorn.Config(application(), host="127.0.0.1", port=0, loop="uvloop", log_level="error")).run()
