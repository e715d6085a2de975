"""Writes the OpenAPI document of the gateway: its operations, with the schemas and words of the contracts.

Run by `make openapi`; a test compares the file with what this would write. Messages, fields and their descriptions are
read from protos/; what a text must look like, which protobuf has no words for, stands below.
https://spec.openapis.org/oas/v3.1.1.html
"""

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from amends_contracts import descriptor_set
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from shop_gateway.problems import MEDIA_TYPE, TITLES
from shop_gateway.rest import OPERATIONS
from shop_gateway.rest.operation import HAL, Operation, Parameter, Replies
from shop_gateway.rest.resource import RequestBody, Resource

DOCUMENT = (
    Path(__file__).resolve().parent.parent / "services" / "gateway" / "src" / "shop_gateway" / "rest" / "openapi.json"
)
MESSAGE_TYPE, SERVICE, FIELD, METHOD = 4, 6, 2, 2  # the numbers of these fields in the descriptors of descriptors
ALWAYS = (400, 408, 413, 429, 431, 500)
"""What any operation may be refused with."""
LINE = {"format": "line", "minLength": 1, "maxLength": 200}
IDENTIFIER = {"pattern": "^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$"}
TEXTS: Mapping[str, Mapping[str, Any]] = {
    **{f"shop.types.v1.Address.{name}": LINE for name in ("recipient", "street", "city", "postal_code")},
    "shop.types.v1.Address.country": {"pattern": "^[A-Z]{2}$"},
    "shop.types.v1.Line.sku": IDENTIFIER,
    "shop.types.v1.Line.quantity": {"minimum": 1, "maximum": 1_000_000},
    "shop.orders.v1.PlaceOrderRequest.lines": {"minItems": 1, "maxItems": 100},
    "shop.orders.v1.PlaceOrderRequest.card_token": LINE,
    "shop.customers.v1.ChangeCustomerRequest.name": LINE,
    "shop.customers.v1.ChangeCustomerRequest.email_address": {"format": "email", "maxLength": 254},
    "shop.customers.v1.ChangeCustomerRequest.locale": {"pattern": "^[a-z]{2,3}(-[A-Z]{2})?$"},
    "shop.customers.v1.DeliveryAddress.label": LINE,
    "shop.customers.v1.PutPaymentMethodRequest.card_token": LINE,
    "shop.customers.v1.PaymentMethod.brand": LINE,
    "shop.customers.v1.PaymentMethod.last_four": {"pattern": "^[0-9]{4}$"},
    "shop.marketing.v1.SetConsentRequest.wording": IDENTIFIER,
    "shop.identity.v1.SignUpRequest.email_address": {"format": "email", "maxLength": 254},
    "shop.identity.v1.SignUpRequest.password": {"minLength": 12, "maxLength": 128},
    "shop.identity.v1.SignInRequest.email_address": {"format": "email", "maxLength": 254},
    "shop.identity.v1.SignInRequest.password": {"minLength": 1, "maxLength": 128},
    "shop.identity.v1.RefreshRequest.refresh_token": {"pattern": "^[!-~]{1,1000}$"},
    "shop.identity.v1.SignOutRequest.refresh_token": {"pattern": "^[!-~]{1,1000}$"},
    "shop.identity.v1.CloseAccountRequest.password": {"minLength": 1, "maxLength": 128},
}
"""What requests must look like, by field; the services hold to the same."""
UNSAID = {"shop.customers.v1.PaymentMethod.payment_method_id"}
"""Fields of a part of a body that are not said there, because the path says them."""
LINKED = {"shop.customers.v1.DeliveryAddress", "shop.customers.v1.PaymentMethod", "shop.search.v1.Hit"}
"""Parts of a resource that have links of their own."""
SCALARS: Mapping[int, Mapping[str, Any]] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_INT64: {"type": "string", "pattern": "^-?[0-9]{1,19}$"},
}
LINKS = {
    "type": "object",
    "description": "What can be done next, by name.",
    "additionalProperties": {"$ref": "#/components/schemas/Link"},
}
LINK = {
    "type": "object",
    "required": ["href"],
    "properties": {
        "href": {"type": "string", "description": "The address, or the template of one (RFC 6570)."},
        "method": {"type": "string", "description": "The method, where it is not GET."},
        "templated": {"type": "boolean", "description": "True where the address is a template."},
    },
    "additionalProperties": False,
}
PROBLEM = {
    "type": "object",
    "description": "What went wrong, as RFC 9457 has it.",
    "required": ["type", "title", "status", "detail", "reason"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "Names the kind of problem."},
        "title": {"type": "string", "description": "The name of the status."},
        "status": {"type": "integer", "description": "The status."},
        "detail": {"type": "string", "description": "A sentence for people."},
        "reason": {"type": "string", "description": "The reason, for programs: it does not change."},
        "correlationId": {"type": "string", "description": "Names the log entry of an error that nobody foresaw."},
    },
    "additionalProperties": False,
}


class Words:
    """The comments in the contracts."""

    def __init__(self) -> None:
        self._words: dict[str, str] = {}
        for file in descriptor_set().file:
            self._read(file)

    def of(self, name: str) -> str:
        """Return what the contracts say about a message, a field or a method."""
        return self._words.get(name, "")

    def _read(self, file: FileDescriptorProto) -> None:
        names: dict[tuple[int, ...], str] = {}
        for i, message in enumerate(file.message_type):
            names[MESSAGE_TYPE, i] = f"{file.package}.{message.name}"
            for j, one in enumerate(message.field):
                names[MESSAGE_TYPE, i, FIELD, j] = f"{file.package}.{message.name}.{one.name}"
        for i, service in enumerate(file.service):
            for j, method in enumerate(service.method):
                names[SERVICE, i, METHOD, j] = f"{file.package}.{service.name}/{method.name}"
        for location in file.source_code_info.location:
            if name := names.get(tuple(location.path)):
                self._words[name] = " ".join(location.leading_comments.split())


class Schemas:
    """The schemas of messages, made as they are needed."""

    def __init__(self, words: Words) -> None:
        self.made: dict[str, Any] = {"Link": LINK, "Links": LINKS, "Problem": PROBLEM}
        self._words = words

    def resource(self, resource: Resource) -> dict[str, Any]:
        """Return the reference to a resource's schema."""
        if resource.name not in self.made:
            descriptor = resource.message.DESCRIPTOR
            fields = [one for one in descriptor.fields if one.name not in resource.hidden]
            plain = [one for one in fields if one.name not in resource.embedded]
            schema = self._object(plain, resource.description, [one for one in fields if not one.has_presence])
            for name, embedded in resource.embedded.items():
                words = self._words.of(descriptor.fields_by_name[name].full_name)
                listed = {"type": "array", "items": self.resource(embedded), "description": words}
                schema["properties"][descriptor.fields_by_name[name].json_name] = listed
            told = "; ".join(f"`{name}` {when}" for name, when in resource.links.items())
            schema["properties"] |= resource.more
            schema["properties"]["_links"] = {"$ref": "#/components/schemas/Links", "description": f"{told}."}
            schema["required"] += [*resource.more, "_links"]
            self.made[resource.name] = schema
        return _reference(resource.name)

    def body(self, body: RequestBody) -> dict[str, Any]:
        """Return the reference to a body's schema."""
        if body.name not in self.made:
            by_name = body.message.DESCRIPTOR.fields_by_name
            schema = self._object(
                [by_name[name] for name in body.fields],
                body.description,
                [by_name[name] for name in body.required],
                said=True,
            )
            if body.example:
                schema["examples"] = [body.example]
            self.made[body.name] = schema
        return _reference(body.name)

    def _object(
        self,
        fields: Iterable[Any],
        description: str,
        required: Iterable[Any],
        *,
        said: bool = False,
    ) -> dict[str, Any]:
        return {
            "type": "object",
            "description": description,
            "required": [one.json_name for one in required],
            "properties": {one.json_name: self._field(one, said) for one in fields},
            "additionalProperties": False,
        }

    def _field(self, field: FieldDescriptor, said: bool) -> dict[str, Any]:
        one = self._value(field, said) | (dict(TEXTS.get(field.full_name, {})) if not field.is_repeated else {})
        if field.is_repeated:
            one = {"type": "array", "items": one, **TEXTS.get(field.full_name, {})}
        return one | {"description": self._words.of(field.full_name)}

    def _value(self, field: FieldDescriptor, said: bool) -> dict[str, Any]:
        if field.enum_type is not None:
            return _enum(field.enum_type)
        if field.message_type is not None:
            return self._message(field.message_type, said)
        return dict(SCALARS[field.type])

    def _message(self, descriptor: Descriptor, said: bool) -> dict[str, Any]:
        if descriptor.full_name == "google.protobuf.Timestamp":
            return {"type": "string", "format": "date-time"}
        fields = [one for one in descriptor.fields if not (said and one.full_name in UNSAID)]
        name = _component(descriptor) + ("Said" if len(fields) < len(descriptor.fields) else "")
        if name not in self.made:
            self.made[name] = {}  # a message may have itself as a part
            required = [one for one in fields if not one.has_presence or said]
            self.made[name] = self._object(fields, self._words.of(descriptor.full_name), required, said=said)
            if descriptor.full_name in LINKED and not said:
                self.made[name]["properties"]["_links"] = {"$ref": "#/components/schemas/Links"}
        return _reference(name)


def _component(descriptor: Descriptor) -> str:
    """Return the name of a message's schema: with that of its service where resources have names like it."""
    service = descriptor.full_name.split(".")[1]
    return descriptor.name if service == "types" else f"{service.capitalize()}{descriptor.name}"


def _enum(descriptor: EnumDescriptor) -> dict[str, Any]:
    return {"type": "string", "enum": [value.name for value in descriptor.values if value.number]}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "required": parameter.required,
        "schema": dict(parameter.schema),
    }
    if parameter.example is not None:
        made["example"] = parameter.example
    return made


def _answer(schemas: Schemas, replies: Replies) -> dict[str, Any]:
    made: dict[str, Any] = {"description": replies.description}
    if replies.headers:
        made["headers"] = {
            name: {"description": what, "schema": {"type": "string"}} for name, what in replies.headers.items()
        }
    if replies.resource is not None:
        made["content"] = {HAL: {"schema": schemas.resource(replies.resource)}}
    elif replies.media_type != HAL:
        made["content"] = {replies.media_type: {}}
    elif replies.status != HTTPStatus.NO_CONTENT:
        made["content"] = {HAL: {"schema": schemas_of_links()}}
    if replies.links:
        made["links"] = {name: dict(link) for name, link in replies.links.items()}
    return made


def schemas_of_links() -> dict[str, Any]:
    """Return the schema of an answer that has nothing but links."""
    return {
        "type": "object",
        "required": ["_links"],
        "properties": {"_links": {"$ref": "#/components/schemas/Links"}},
        "additionalProperties": False,
    }


def _refusals(operation: Operation) -> list[int]:
    found = {*ALWAYS, *operation.refusals}
    if operation.body is not None:
        found.add(415)
    found.add(401)  # also of one that asks for no token: a wrong one is refused
    return sorted(found)


def _operation(schemas: Schemas, words: Words, operation: Operation) -> dict[str, Any]:
    answers = {str(one.status): _answer(schemas, one) for one in operation.replies}
    if operation.method == "GET":
        answers["304"] = {"description": "The client has it already (`If-None-Match`)."}
    for status in _refusals(operation):
        answers[str(status)] = {"$ref": f"#/components/responses/{status}"}
    made: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": words.of(operation.rpc),
        "parameters": [_parameter(one) for one in operation.parameters],
        "responses": answers,
        "security": [{"token": []}] if operation.secured else [{}, {"token": []}],
    }
    if operation.body is not None:
        content: dict[str, Any] = {"schema": schemas.body(operation.body)}
        if operation.body.example:
            content["example"] = operation.body.example
        made["requestBody"] = {"required": True, "content": {"application/json": content}}
    return made


def document() -> str:
    """Return the document as it is written."""
    words = Words()
    schemas = Schemas(words)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(schemas, words, operation)
    statuses = sorted({status for operation in OPERATIONS for status in _refusals(operation)})
    made = {
        "openapi": "3.1.0",
        "info": {
            "title": "The shop",
            "version": "1.0.0",
            "description": "Begin at `/v1/` and follow links. Errors are problem documents (RFC 9457).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.made.items())),
            "responses": {str(status): _refused(status) for status in statuses},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def _refused(status: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "description": TITLES.get(status) or HTTPStatus(status).phrase,
        "content": {MEDIA_TYPE: {"schema": _reference("Problem")}},
    }
    if status in (429, 503):
        made["headers"] = {"Retry-After": {"description": "In how many seconds.", "schema": {"type": "string"}}}
    return made


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
