"""Resources and bodies: protobuf messages as a client over HTTP sees them.

A resource is a message in proto JSON with `_links`; a body is the part of a request message that a client may say. Both
are declared here once: answers and requests are made by them, and so is the OpenAPI document (tools/openapi.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from amends_chassis.errors import InvalidArgument
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message

Links = dict[str, dict[str, Any]]


def link(href: str, *, method: str = "GET", templated: bool = False) -> dict[str, Any]:
    """Return a link object (draft-kelly-json-hal); a method other than GET is named."""
    made: dict[str, Any] = {"href": href}
    if templated:
        made["templated"] = True
    if method != "GET":
        made["method"] = method
    return made


@dataclass(frozen=True, slots=True)
class Resource:
    """What a client is shown of a message."""

    name: str
    """The name of its schema."""
    message: type[Message]
    description: str
    hidden: tuple[str, ...] = ()
    """Fields that nobody outside is shown."""
    links: Mapping[str, str] = field(default_factory=dict)
    """When which link is there, for the document."""
    more: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Members that are no fields of the message, as JSON Schema."""

    embedded: "Mapping[str, Resource]" = field(default_factory=dict)
    """Fields that are resources themselves, with links of their own."""

    def document(self, message: Message, links: Links, **more: Any) -> dict[str, Any]:
        """Return the resource of a message."""
        document = shown(message)
        for name in self.hidden:
            document.pop(_camel(name), None)
        return document | more | {"_links": links}


@dataclass(frozen=True, slots=True)
class RequestBody:
    """What a client says in the body of a request: some fields of its message."""

    name: str
    """The name of its schema."""
    message: type[Message]
    description: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    example: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of the fields that may be said."""
        return (*self.required, *self.optional)

    def parse(self, said: Mapping[str, Any]) -> Any:
        """Return the message that a body says, which fits its schema. Raises InvalidArgument."""
        try:
            return ParseDict(dict(said), self.message())
        except ParseError as error:
            raise InvalidArgument("BODY_INVALID", "The body does not fit its schema.") from error


def shown(message: Message) -> dict[str, Any]:
    """Return a message as proto JSON, with every field that has a value by default."""
    return MessageToDict(message, always_print_fields_with_no_presence=True)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
