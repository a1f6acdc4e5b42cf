"""Conformance 9 and 15: requests that are no requests, and CORS."""

import http.client
import json

import pytest

from server import check_error, check_predictions

GOOD = {"instances": [2.0]}
PREDICT = "/v1/models/half_plus_two:predict"


def raw(server, method, path, body=None, headers=()):
    """The path goes out as it stands, with nothing normalised."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    connection.request(method, path, body, dict(headers))
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content.decode(errors="replace")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", PREDICT),
        ("DELETE", PREDICT),
        ("PATCH", PREDICT),
        ("GET", PREDICT),
        ("POST", "/v1/models/half_plus_two"),
        ("POST", "/v1/models/half_plus_two:Predict"),
        ("POST", "/v1/models/half_plus_two:nothing"),
        ("POST", "/v1/models/half_plus_two/versions/:predict"),
        ("POST", "/v1/models/half_plus_two/versions/abc:predict"),
        ("POST", "/v1/models/half_plus_two/versions/-1:predict"),
        ("POST", "/v1/models/half_plus_two/labels/:predict"),
        ("POST", "/v1/models/half_plus_two/versions/1/labels/x:predict"),
        ("POST", "/v1/models/:predict"),
        ("GET", "/v1/models/half_plus_two/nothing"),
        ("GET", "/v1/nothing"),
        ("GET", "/v1/"),
    ],
)
def test_13_09_malformed_request(shared, method, path):
    status, body = raw(shared, method, path, json.dumps(GOOD) if method == "POST" else None)
    assert status == 400, body
    assert f"Malformed request: {method} {path}" in json.loads(body)["error"]


@pytest.mark.parametrize("number", [2**63, 2**64, 10**40])
def test_13_09_a_huge_version(shared, number):
    path = f"/v1/models/half_plus_two/versions/{number}"
    text = f"Failed to convert version: {number} to numeric."
    check_error(shared.post(f"{path}:predict", GOOD), 400, text)
    check_error(shared.get(path), 400, text)


def test_13_09_outside_of_v1_is_404(shared):
    for path in ("/", "/v3/models", "/nothing", "/v1models"):
        assert raw(shared, "GET", path)[0] == 404, path


def test_13_09_a_query_string_is_passed_over(shared):
    check_predictions(shared.post(f"{PREDICT}?a=1", GOOD), [3.0])
    assert shared.get("/v1/models/half_plus_two?x").json()["model_version_status"][0]["version"] == "123"


def test_13_09_the_list_of_models(shared):
    answer = shared.get("/v1/models")
    assert answer.status_code == 200
    for name in ("half_plus_two", "add", "grid"):
        assert name in answer.text


def test_13_09_head_answers_as_get_without_the_body(shared):
    for path, status in (("/v1/models/half_plus_two", 200), ("/v1/models/nope", 404), ("/livez", 200)):
        answer = shared.request("HEAD", path)
        assert (answer.status_code, answer.content) == (status, b"")


def test_13_09_the_path_is_matched_without_case_and_the_name_percent_decoded(shared):
    check_predictions(shared.post("/V1/Models/half_plus_two:predict", GOOD), [3.0])
    check_predictions(shared.post("/v1/models/half%5Fplus%5Ftwo:predict", GOOD), [3.0])
    check_error(shared.post("/v1/models/Half_plus_two:predict", GOOD), 404, "Latest(Half_plus_two)")


def test_13_09_broken_json_comes_before_the_unknown_model(shared):
    check_error(shared.rest_predict("nope", "{"), 400, "JSON Parse error")
    check_error(shared.rest_predict("nope", GOOD), 404, "Servable not found for request: Latest(nope)")


def test_13_09_the_content_type_of_a_request_is_passed_over(shared):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8", "nonsense"):
        check_predictions(shared.rest_predict("half_plus_two", GOOD, headers={"Content-Type": kind}), [3.0])


@pytest.fixture(scope="module")
def cors(models, tmp_path_factory):
    from server import Server

    server = Server(tmp_path_factory.mktemp("cors"), models, "--rest_api_enable_cors_support")
    yield server
    server.stop()


HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


@pytest.mark.parametrize(
    ("origin", "status"), [("http://a.example", 200), ("https://a.example", 200), (None, 400), ("ftp://a.example", 400)]
)
def test_13_15_preflight(cors, origin, status):
    answer = cors.request("OPTIONS", PREDICT, headers={"Origin": origin} if origin else {})
    assert (answer.status_code, answer.content) == (status, b"")
    if status == 200:
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS


def test_13_15_every_answer_has_the_headers(cors):
    for answer in (
        cors.post(PREDICT, GOOD),
        cors.get("/v1/models/half_plus_two"),
        cors.get("/v1/models/nope"),
        cors.request("PUT", PREDICT),
    ):
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS


def test_13_15_no_flag_no_headers(shared):
    for answer in (shared.post(PREDICT, GOOD), shared.get("/v1/models/half_plus_two")):
        assert not any(name in answer.headers for name in HEADERS)
