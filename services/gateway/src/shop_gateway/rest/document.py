"""The OpenAPI document, which is served as it is, and by whose schemas requests are checked.

`openapi.json` is written by `make openapi` from the operations and the descriptors; a test compares them.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

_WHERE = "urn:openapi"
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_FORMATS = FormatChecker(())


@_FORMATS.checks("line")
def is_line(value: object) -> bool:
    """Return whether a text can be written on one line: printable, and not blank."""
    return not isinstance(value, str) or (bool(value.strip()) and value.isprintable())


@_FORMATS.checks("email")
def is_email_address(value: object) -> bool:
    """Return whether a text looks like an e-mail address, as identity and customers have it."""
    return not isinstance(value, str) or bool(
        re.fullmatch(r"[^\s@<>()\[\],;:\\\"]{1,64}@[^\s@<>()\[\],;:\\\"]{1,189}", value) and value.isprintable()
    )


class Schema:
    """A schema of the document."""

    def __init__(self, schema: Mapping[str, Any], validator: Validator) -> None:
        """Check values by `validator`; `schema` says how a text becomes one."""
        self._schema = schema
        self._validator = validator

    def read(self, text: str) -> Any:
        """Return the value that a text in a URL or a header stands for; the text itself if it stands for none."""
        kind = self._schema.get("type")
        if kind == "integer" and _INTEGER.fullmatch(text):
            return int(text)
        if kind == "boolean":
            return {"true": True, "false": False}.get(text, text)
        return text

    def wrong(self, value: Any) -> str:
        """Return what is wrong with a value, to go on after its name; empty when nothing is."""
        if self._validator.is_valid(value):
            return ""
        error = best_match(self._validator.iter_errors(value))
        assert error is not None
        place = ".".join(str(part) for part in error.absolute_path)
        at = f"at {place} " if place else ""
        if error.validator == "additionalProperties":
            unknown = sorted(set(error.instance) - set(error.schema["properties"]))
            return f"{at}has the unknown member {unknown[0][:100]!r}"
        if error.validator == "required":
            missing = next(name for name in error.validator_value if name not in error.instance)
            return f"{at}lacks {missing}"
        return f"{at}does not fit {error.validator} {json.dumps(error.validator_value)[:200]}"


@cache
def text() -> bytes:
    """Return the document as it is served."""
    return files("shop_gateway.rest").joinpath("openapi.json").read_bytes()


@cache
def document() -> dict[str, Any]:
    """Return the document."""
    parsed: dict[str, Any] = json.loads(text())
    return parsed


@cache
def _operations() -> dict[str, dict[str, Any]]:
    paths = document()["paths"].values()
    return {one["operationId"]: one for path in paths for one in path.values()}


@cache
def _registry() -> Registry[Any]:
    resource: Resource[Any] = Resource.from_contents(document(), DRAFT202012)
    registry: Registry[Any] = Registry().with_resource(_WHERE, resource)
    return registry


def _schema(schema: Mapping[str, Any]) -> Schema:
    absolute = json.loads(json.dumps(schema).replace('"#/', f'"{_WHERE}#/'))
    validator = Draft202012Validator(absolute, registry=_registry(), format_checker=_FORMATS)
    return Schema(schema, validator)


def schema_of_parameter(operation: str, name: str) -> Schema:
    """Return the schema of a parameter of an operation. Raises KeyError, StopIteration when the document has none."""
    parameters = _operations()[operation]["parameters"]
    resolved = (_resolved(one) for one in parameters)
    return _schema(next(one["schema"] for one in resolved if one["name"] == name))


def schema_of_body(operation: str) -> Schema:
    """Return the schema of the body of an operation. Raises KeyError when the document has none."""
    content = _operations()[operation]["requestBody"]["content"]
    return _schema(content["application/json"]["schema"])


def _resolved(parameter: dict[str, Any]) -> dict[str, Any]:
    reference = parameter.get("$ref", "")
    if not reference:
        return parameter
    found: dict[str, Any] = document()["components"]["parameters"][reference.rpartition("/")[2]]
    return found
