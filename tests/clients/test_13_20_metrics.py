"""Conformance 20: the names and labels of the metrics after one call of each interface."""

import contextlib
import re

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

import graphs
from server import check_predictions, floats, free_port

SERVING = ":tensorflow:serving:"
PAGE = "/monitoring/prometheus/metrics"


def parse(text):
    """(name, labels) -> value, and the families with a HELP and a TYPE line."""
    values, helped, typed = {}, set(), {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped.add(line.split()[2])
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            typed[name] = kind
        elif line:
            name, labels, value = re.fullmatch(r"([^{ ]+)(?:\{(.*)\})? (\S+)", line).groups()
            pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or "")
            values[name, frozenset(pairs)] = float(value)
    return values, helped, typed


def find(values, name, **labels):
    """The sum over all series of this name that have these labels."""
    wanted = set(labels.items())
    found = [value for (series, pairs), value in values.items() if series == name and wanted <= pairs]
    assert found, f"no series {name} with {labels}"
    return sum(found)


@pytest.fixture
def called(serve, tmp_path):
    """A server after one call of each interface."""
    graphs.save(graphs.affine(), tmp_path / "m")
    server = serve(tmp_path / "m")
    server.predict("m", {"x": floats(2.0)})
    check_predictions(server.rest_predict("m", {"instances": [2.0]}), [3.0])
    server.get("/v1/models/m")
    server.get("/v1/models/m/metadata")
    server.states("m")
    for client, port in ((tritonclient.http, server.rest_port), (tritonclient.grpc, server.port)):
        tensor = client.InferInput("x", [1], "FP32")
        tensor.set_data_from_numpy(np.ones(1, np.float32))
        with client.InferenceServerClient(f"127.0.0.1:{port}") as triton:
            triton.infer("m", [tensor])
    for name in ("nope", "also_nope"):
        with contextlib.suppress(grpc.RpcError):
            server.predict(name, {"x": floats(2.0)})
    server.rest_predict("m", {"instances": ["a"]})
    return server


def test_13_20_names_and_labels(called):
    page = called.get(PAGE)
    assert page.status_code == 200 and page.headers["Content-Type"].startswith("text/plain")
    values, helped, typed = parse(page.text)
    assert find(values, f"{SERVING}request_count", model_name="m", status="OK") >= 2
    assert find(values, f"{SERVING}request_count", model_name="m", status="INVALID_ARGUMENT") == 1
    for entrypoint, api in (("GRPC", "Predict"), ("REST", "predict")):
        labels = {"model_name": "m", "API": api, "entrypoint": entrypoint}
        assert find(values, f"{SERVING}request_latency_count", **labels) == 1
        assert find(values, f"{SERVING}request_latency_sum", **labels) > 0
        assert find(values, f"{SERVING}request_latency_bucket", le="+Inf", **labels) == 1
    assert find(values, f"{SERVING}runtime_latency_count", model_name="m") >= 2
    assert typed[f"{SERVING}request_count"] == "counter"
    assert typed[f"{SERVING}request_latency"] == "histogram"
    assert set(typed) <= helped, "every family has a HELP line"


def test_13_20_latency_buckets_are_those_of_tensorflow_serving(called):
    values, *_ = parse(called.get(PAGE).text)
    bounds = sorted(
        float(dict(pairs)["le"])
        for (name, pairs) in values
        if name == f"{SERVING}request_latency_bucket" and ("entrypoint", "GRPC") in pairs and ("API", "Predict") in pairs
    )
    np.testing.assert_allclose(bounds[:3], [10, 18, 32.4], rtol=1e-6)
    assert bounds[-1] == float("inf")


def test_13_20_labels_are_bounded(called):
    page = called.get(PAGE).text
    assert "nope" not in page, "a name that a client made up is no label"
    values, *_ = parse(page)
    assert find(values, f"{SERVING}request_count", status="NOT_FOUND") >= 2


def test_13_20_per_model_version_and_phase(called):
    page = called.get(PAGE).text
    values, *_ = parse(page)
    own = {(name, pairs): value for (name, pairs), value in values.items() if not name.startswith(":")}
    for phase in ("decode", "queue", "run", "encode"):
        series = [
            name for name, pairs in own if dict(pairs).get("phase") == phase and dict(pairs).get("version") == "1"
        ]
        assert series, f"no series of phase {phase}"
    names = {name for name, _ in own}
    for word in ("queue", "in_flight", "bytes", "state", "memory"):
        assert any(word in name for name in names), f"no metric of {word}: {sorted(names)}"


def test_13_20_a_port_of_their_own(serve, tmp_path):
    import requests

    graphs.save(graphs.affine(), tmp_path / "m")
    port = free_port()
    server = serve(tmp_path / "m", f"--metrics_port={port}")
    check_predictions(server.rest_predict("m", {"instances": [2.0]}), [3.0])
    pages = [f"http://127.0.0.1:{port}{path}" for path in (PAGE, "/metrics")]
    assert f"{SERVING}request_count" in "".join(requests.get(url, timeout=10).text for url in pages)


def test_13_20_the_path_of_the_config_file(serve, tmp_path):
    graphs.save(graphs.affine(), tmp_path / "m")
    config = tmp_path / "monitoring.config"
    config.write_text('prometheus_config { enable: true, path: "/other/metrics" }')
    server = serve(tmp_path / "m", f"--monitoring_config_file={config}")
    check_predictions(server.rest_predict("m", {"instances": [2.0]}), [3.0])
    assert f"{SERVING}request_count" in server.get("/other/metrics").text
