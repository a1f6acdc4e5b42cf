"""Conformance 21 and 22: input that wants to do harm, limits, and memory over many reloads."""

import concurrent.futures
import contextlib
import socket
import time

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import model_management_pb2

import graphs
from server import arrays, check_error, check_predictions, floats, predict_request, refused, wait_for

PATH = "/v1/models/half_plus_two:predict"
GOOD = {"instances": [2.0]}
MEGABYTE = 1 << 20


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 50_000, id="lists"),
        pytest.param(b'{"instances": ' + b"[" * 50_000, id="instances"),
        pytest.param(b'{"inputs": ' + b"[" * 50_000 + b"1" + b"]" * 50_000 + b"}", id="closed"),
        pytest.param(b'{"a": ' * 50_000, id="objects"),
        pytest.param(b'{"other": ' + b"[" * 50_000 + b"]" * 50_000 + b', "instances": [2.0]}', id="unknown_key"),
    ],
)
def test_13_21_deep_nesting(shared, body):
    before = shared.memory("VmHWM")
    check_error(shared.post(PATH, body), 400)
    assert shared.memory("VmHWM") < before + 30 * MEGABYTE
    check_predictions(shared.post(PATH, GOOD), [3.0])
    answer = shared.post("/v2/models/half_plus_two/infer", body)
    assert answer.status_code == 400
    check_predictions(shared.post(PATH, GOOD), [3.0])


@pytest.mark.parametrize("cut", [1, 5, 17, 30])
@pytest.mark.parametrize("method", ["Predict", "GetModelMetadata"])
def test_13_21_truncated_protobuf(shared, cut, method):
    content = predict_request("half_plus_two", {"x": floats(1.0, 2.0, 3.0)}).SerializeToString()
    call = shared.channel.unary_unary(
        f"/tensorflow.serving.PredictionService/{method}", request_serializer=bytes, response_deserializer=bytes
    )
    with pytest.raises(grpc.RpcError) as raised:
        call(content[:-cut], timeout=30)
    assert raised.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT)
    assert shared.predict("half_plus_two", {"x": floats(2.0)}).outputs["y"].float_val == [3.0]


def test_13_21_bytes_that_are_no_http(shared):
    for content in (b"\0" * 1000, b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01" + b"A" * 500, b"PRI * HTTP/2.0\r\n\r\nXX"):
        for port in (shared.port, shared.rest_port):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                with contextlib.suppress(ConnectionError):
                    connection.sendall(content)
    check_predictions(shared.post(PATH, GOOD), [3.0])


def test_13_21_a_long_header_is_refused(shared):
    assert shared.post(PATH, GOOD, headers={"X-Long": "a" * 80_000}).status_code in (400, 431)
    check_predictions(shared.post(PATH, GOOD), [3.0])


@pytest.mark.parametrize("start", [b"", b"POST / HTTP/1.1\r\nHost: a\r\n", b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"])
def test_13_21_a_client_that_says_nothing_more_is_cut_off(serve, models, start):
    server = serve(models, "--client_timeout_in_ms=300")
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=10) as connection:
        connection.sendall(start)
        # Whatever comes before it, the end of the stream is the server's doing.
        while connection.recv(4096):
            pass
    check_predictions(server.post(PATH, GOOD), [3.0])


@pytest.fixture
def paced(serve, models):
    """A server with one lane for the slow model and room for one more, and how many rounds take a second."""

    def start(*flags):
        server = serve(models, *flags)
        begin = time.monotonic()
        run(server, 100)
        return server, int(100 / max(time.monotonic() - begin, 1e-3))

    return start


def run(server, times, timeout=60):
    return arrays(server.predict("slow", {"times": np.array([times], np.int64)}, timeout=timeout))["y"]


def test_13_21_a_full_queue_refuses_at_once(paced):
    server, per_second = paced("--lanes=1", "--max_queue=1")
    begin = time.monotonic()

    def ask(_):
        answer = server.post("/v1/models/slow:predict", {"inputs": [per_second * 2]})
        return answer.status_code, answer.headers.get("Retry-After"), time.monotonic() - begin

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    refused_ones = [a for a in answers if a[0] != 200]
    assert 1 <= len(refused_ones) <= 7, answers
    for status, retry_after, took in refused_ones:
        assert status in (429, 503) and retry_after is not None
    assert min(took for *_, took in refused_ones) < 1.0
    check_predictions(server.post(PATH, GOOD), [3.0])


def test_13_21_a_slow_model_leaves_the_others_alone(paced):
    server, per_second = paced("--lanes=1")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(run, server, per_second * 2)
        while not slow.done():
            begin = time.monotonic()
            check_predictions(server.post(PATH, GOOD), [3.0])
            assert time.monotonic() - begin < 1.0
        slow.result()


def test_13_21_a_deadline_ends_the_call(paced):
    server, per_second = paced("--rest_api_timeout_in_ms=200")
    with refused("DEADLINE_EXCEEDED"):
        run(server, per_second * 2, timeout=0.2)
    check_error(server.post("/v1/models/slow:predict", {"inputs": [per_second * 2]}), 504)


# 22


def test_13_22_memory_is_flat_over_a_hundred_reloads(serve, tmp_path):
    folder = tmp_path / "m"
    weights = np.random.default_rng(5).random((512, 1024), np.float32)
    for version in (1, 2):
        graphs.save(matrix(weights + version), folder, version)
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{folder}" model_platform: "tensorflow" '
        "model_version_policy { specific { versions: 1 } } } }"
    )
    server = serve(f"--model_config_file={config}")
    x = {"x": np.ones((4, 512), np.float32)}

    def roll(version):
        request = model_management_pb2.ReloadConfigRequest()
        entry = request.config.model_config_list.config.add(
            name="m", base_path=str(folder), model_platform="tensorflow"
        )
        entry.model_version_policy.specific.versions.append(version)
        server.models.HandleReloadConfigRequest(request, timeout=60)
        server.wait_state("m", version, "AVAILABLE")
        server.wait_state("m", 3 - version, "END")
        assert server.predict("m", x).model_spec.version.value == version

    for i in range(20):
        roll(2 - i % 2)
    settled = server.memory()
    for i in range(80):
        roll(2 - i % 2)
    wait_for(lambda: server.memory() < settled + 10 * MEGABYTE, "memory comes back after 80 loads of 2 MB", 5)


def matrix(weights):
    from onnx import TensorProto, helper

    rows, columns = weights.shape
    return graphs.model(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        [("x", TensorProto.FLOAT, ["batch", rows])],
        [("y", TensorProto.FLOAT, ["batch", columns])],
        [("weights", weights)],
    )
