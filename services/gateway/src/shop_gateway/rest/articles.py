"""Articles: what the shop sells."""

from google.protobuf.json_format import MessageToJson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from shop.catalog.v1 import catalog_pb2
from shop_gateway.gateway import Gateway


def routes(gateway: Gateway) -> list[BaseRoute]:
    """Return the routes of articles."""
    catalog = gateway.upstreams.catalog

    async def article(request: Request) -> Response:
        asked = catalog_pb2.GetArticleRequest(sku=request.path_params["sku"])
        answer = await catalog.ask(catalog.stub.GetArticle, asked)
        return Response(MessageToJson(answer.article), media_type="application/hal+json")

    return [Route("/v1/articles/{sku}", article, name="article")]
