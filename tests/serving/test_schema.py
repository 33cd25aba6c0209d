"""schemathesis over the server's own OpenAPI document: calls made of what it says it takes, and of what it does not."""

from __future__ import annotations

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from lessonlib import LLM

from .conftest import NAME, SECONDS, running

FEW = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
ROUTES = {
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("POST", "/api/generate"),
    ("POST", "/api/chat"),
    ("GET", "/api/tags"),
    ("POST", "/api/show"),
    ("GET", "/api/version"),
}


@pytest.fixture(scope="module")
def described():
    with running(LLM(NAME, max_num_seqs=8, num_kv_blocks=300)) as server:
        yield server
        server.empty()


@pytest.fixture(scope="module")
def document(described):
    return httpx.get(f"{described.url}/openapi.json").json()


def test_the_document_has_every_route(document):
    assert {(method.upper(), path) for path, each in document["paths"].items() for method in each} == ROUTES


def short(body: dict, path: str) -> dict:
    """The same request, for two tokens, unless it asks for a number of them that has no meaning."""
    if path.startswith("/api/"):
        options = body.get("options") or {}
        fine = isinstance(options, dict) and path != "/api/show"
        return {**body, "options": {**options, "num_predict": 2}} if fine else body
    wanted = body.get("max_tokens", 2)
    fine = (wanted is None or isinstance(wanted, int)) and not path.endswith("count_tokens")
    body = {name: value for name, value in body.items() if name != "max_completion_tokens"}
    return {**body, "max_tokens": 2} if fine else body


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize(("method", "path"), sorted(route for route in ROUTES if route[0] == "POST"))
def test_no_call_breaks_it(described, document, method, path, mode):
    schema = schemathesis.openapi.from_dict(document)
    seen = set()

    @FEW
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def calls(case):
        if isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = NAME  # a guess would never find it, and get no further
            case.body = short(case.body, path)
        try:
            answer = case.call(base_url=described.url, timeout=SECONDS)
        except UnicodeError:
            return  # a header no client can send
        seen.add(answer.status_code)
        assert answer.status_code in (200, 400, 404, 413), (
            answer.text
        )  # a guess may be larger than a body may be

    calls()
    assert 400 in seen or mode is GenerationMode.POSITIVE, seen
