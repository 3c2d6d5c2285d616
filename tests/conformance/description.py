"""Checks responses against ``docs/openapi.yaml``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from tests.support import REPOSITORY
from tests.support.response import Response

OPENAPI_FILE = REPOSITORY / "docs" / "openapi.yaml"

_DOCUMENT_URI = "urn:login-service:openapi"
_HTTP_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


class UndescribedError(AssertionError):
    """A response differs from the description."""


class Description:
    """An OpenAPI 3.1 document without path templates.

    :param document: the document, as loaded.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = _with_absolute_references(document)
        resource = DRAFT202012.create_resource(self._document)
        self._registry: Registry[Any] = Registry().with_resource(_DOCUMENT_URI, resource)

    @property
    def operations(self) -> dict[str, tuple[str, ...]]:
        """Every path of the document, with its methods other than OPTIONS, in upper case."""
        return {
            path: tuple(
                method.upper()
                for method in self._resolved(item)
                if method in _HTTP_METHODS and method != "options"
            )
            for path, item in self._document["paths"].items()
        }

    def check(self, answer: Response) -> None:
        """Compare a response with the description of its path, method and status.

        :raise UndescribedError: when they differ.
        """
        response = self._response(answer)
        problems = [
            *self._header_problems(answer, response),
            *self._body_problems(answer, response),
        ]
        if problems:
            raise UndescribedError(f"{answer}: " + "; ".join(problems))

    def _response(self, answer: Response) -> dict[str, Any]:
        common = self._document["components"]["responses"]
        item = self._resolved(self._document["paths"].get(answer.path, {}))
        operation = item.get(answer.method.lower()) if answer.method.isupper() else None
        if operation is None and answer.method == "HEAD":
            operation = item.get("get")
        if operation is not None:
            response = operation["responses"].get(str(answer.status))
        elif item:
            response = common["UnknownMethod"] if answer.status == 405 else None
        elif answer.method == "OPTIONS" and answer.status in (200, 204):
            response = common["Preflight"]
        else:
            response = common["UnknownPath"] if answer.status == 404 else None
        if response is None:
            raise UndescribedError(f"{answer}: the status is not described")
        return self._resolved(response)

    def _header_problems(self, answer: Response, response: Mapping[str, Any]) -> Iterator[str]:
        for name, header in response.get("headers", {}).items():
            header = self._resolved(header)
            value = answer.header(name)
            if value is not None:
                for problem in self._schema_problems(header["schema"], value):
                    yield f"{name}: {problem}"
            elif header.get("required"):
                yield f"the header {name} is missing"

    def _body_problems(self, answer: Response, response: Mapping[str, Any]) -> Iterator[str]:
        content = response.get("content", {})
        if answer.method == "HEAD" or not content:
            if answer.body and answer.method != "OPTIONS":
                yield "there is a body"
        elif answer.media_type not in content:
            yield f"the media type is {answer.media_type}"
        elif answer.media_type == "application/json":
            try:
                value = answer.json
            except ValueError as error:
                yield f"the body is no JSON: {error}"
            else:
                yield from self._schema_problems(content[answer.media_type]["schema"], value)
        else:
            text = answer.body.decode("utf-8")
            yield from self._schema_problems(content[answer.media_type]["schema"], text)

    def _schema_problems(self, schema: Mapping[str, Any], value: object) -> Iterator[str]:
        validator = Draft202012Validator(schema, registry=self._registry)
        for error in validator.iter_errors(value):
            yield f"{error.json_path}: {error.message}"

    def _resolved(self, value: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in value:
            value = self._registry.resolver().lookup(value["$ref"]).contents
        return value


def _with_absolute_references(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: f"{_DOCUMENT_URI}{inner}"
            if key == "$ref" and isinstance(inner, str) and inner.startswith("#")
            else _with_absolute_references(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_with_absolute_references(inner) for inner in value]
    return value


@cache
def service_description() -> Description:
    """The description of this service."""
    with OPENAPI_FILE.open(encoding="utf-8") as file:
        return Description(yaml.safe_load(file))
