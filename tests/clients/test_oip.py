"""Open Inference Protocol v2 with unmodified tritonclient, over HTTP and gRPC, binary and JSON."""

import json

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

import graphs
from server import curl

CLIENTS = {"http": tritonclient.http, "grpc": tritonclient.grpc}
NUMPY = {
    "float": np.float32,
    "half": np.float16,
    "int8": np.int8,
    "uint8": np.uint8,
    "int32": np.int32,
    "int64": np.int64,
    "bool": np.bool_,
}


def connect(server, kind):
    port = server.rest_port if kind == "http" else server.port
    return CLIENTS[kind].InferenceServerClient(f"127.0.0.1:{port}")


@pytest.fixture(params=CLIENTS)
def triton(request, shared):
    with connect(shared, request.param) as client:
        client.kind = request.param
        yield client


def tensor(kind, name, array, **how):
    made = CLIENTS[kind].InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array, **how)
    return made


def test_oip_health_and_server_metadata(triton):
    assert triton.is_server_live() and triton.is_server_ready()
    assert triton.is_model_ready("half_plus_two") and triton.is_model_ready("half_plus_two", "123")
    assert not triton.is_model_ready("nope")
    metadata = triton.get_server_metadata()
    name = metadata["name"] if triton.kind == "http" else metadata.name
    assert name == "salver"


def test_oip_model_metadata(triton):
    options = {} if triton.kind == "http" else {"as_json": True}
    metadata = triton.get_model_metadata("grid", **options)
    assert (metadata["name"], metadata["versions"]) == ("grid", ["1"])
    for side, name in (("inputs", "x"), ("outputs", "y")):
        (found,) = metadata[side]
        assert (found["name"], found["datatype"], [int(n) for n in found["shape"]]) == (name, "FP32", [-1, 3])


def test_oip_config_statistics_and_repository(triton):
    options = {} if triton.kind == "http" else {"as_json": True}
    config = triton.get_model_config("half_plus_two", **options)
    config = config.get("config", config)
    assert config["name"] == "half_plus_two"
    triton.infer("half_plus_two", [tensor(triton.kind, "x", np.ones(1, np.float32))])
    statistics = triton.get_inference_statistics("half_plus_two", **options)
    (row,) = statistics["model_stats"]
    assert (row["name"], row["version"]) == ("half_plus_two", "123")
    assert int(row["inference_stats"]["success"]["count"]) >= 1
    index = triton.get_model_repository_index(**options)
    rows = index if triton.kind == "http" else index["models"]
    assert {"half_plus_two", "grid", "slow"} <= {row["name"] for row in rows}
    assert {row["state"] for row in rows} == {"READY"}


@pytest.mark.parametrize("dtype", graphs.DTYPES)
def test_oip_raw_tensors_of_every_type(triton, dtype):
    x = np.array([1, 0, 1, 1], NUMPY[dtype])
    answer = triton.infer(f"identity_{dtype}", [tensor(triton.kind, "x", x)])
    found = answer.as_numpy("y")
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, x)


@pytest.mark.parametrize("dtype", [dtype for dtype in graphs.DTYPES if dtype != "half"])
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_oip_http_binary_and_json(shared, dtype, binary_in, binary_out):
    x = np.array([1, 0, 1, 1], NUMPY[dtype])
    with connect(shared, "http") as client:
        output = tritonclient.http.InferRequestedOutput("y", binary_data=binary_out)
        answer = client.infer(
            f"identity_{dtype}", [tensor("http", "x", x, binary_data=binary_in)], outputs=[output], request_id="one"
        )
    np.testing.assert_array_equal(answer.as_numpy("y"), x)
    response = answer.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == (f"identity_{dtype}", "1", "one")
    assert ("data" in response["outputs"][0]) != binary_out


def test_oip_two_inputs_and_a_chosen_output(triton):
    a, b = np.array([1, 2], np.float32), np.array([3, 5], np.float32)
    inputs = [tensor(triton.kind, "b", b), tensor(triton.kind, "a", a)]
    both = triton.infer("add", inputs)
    np.testing.assert_allclose(both.as_numpy("sum"), a + b)
    np.testing.assert_allclose(both.as_numpy("product"), a * b)
    one = triton.infer("add", inputs, outputs=[CLIENTS[triton.kind].InferRequestedOutput("product")])
    np.testing.assert_allclose(one.as_numpy("product"), a * b)
    assert one.as_numpy("sum") is None


def test_oip_a_large_tensor(triton):
    x = np.random.default_rng(2).random((50_000, 3), np.float32)
    np.testing.assert_array_equal(triton.infer("grid", [tensor(triton.kind, "x", x)]).as_numpy("y"), x)


def test_oip_asynchronous_calls(shared):
    with connect(shared, "http") as client:
        pending = [client.async_infer("half_plus_two", [tensor("http", "x", np.full(1, n, np.float32))]) for n in range(20)]
        found = [call.get_result().as_numpy("y")[0] for call in pending]
    np.testing.assert_allclose(found, [n * 0.5 + 2 for n in range(20)])


def test_oip_typed_contents_over_grpc(shared):
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    stub = service_pb2_grpc.GRPCInferenceServiceStub(shared.channel)
    fields = {"float": "fp32_contents", "int8": "int_contents", "uint8": "uint_contents",
              "int32": "int_contents", "int64": "int64_contents", "bool": "bool_contents"}  # fmt: skip
    for dtype, field in fields.items():
        request = service_pb2.ModelInferRequest(model_name=f"identity_{dtype}", id="seven")
        made = request.inputs.add(name="x", datatype=np_to_triton_dtype(np.dtype(NUMPY[dtype])), shape=[2])
        getattr(made.contents, field).extend([1, 0])
        answer = stub.ModelInfer(request, timeout=30)
        assert answer.id == "seven" and answer.model_version == "1"
        # An answer may take the form of the request or be raw, as Triton's always is.
        raw, typed = answer.raw_output_contents, getattr(answer.outputs[0].contents, field)
        found = np.frombuffer(raw[0], NUMPY[dtype]) if raw else np.array(list(typed), NUMPY[dtype])
        np.testing.assert_array_equal(found, np.array([1, 0], NUMPY[dtype]))


def inputs_of(kind):
    x = np.ones(1, np.float32)
    return {
        "unknown_model": ("nope", "", [tensor(kind, "x", x)], None, "nope"),
        "unknown_version": ("half_plus_two", "999", [tensor(kind, "x", x)], None, "999"),
        "version_no_number": ("half_plus_two", "one", [tensor(kind, "x", x)], None, "one"),
        "unknown_input": ("half_plus_two", "", [tensor(kind, "z", x)], None, "z"),
        "missing_input": ("add", "", [tensor(kind, "a", x)], None, "b"),
        "wrong_type": ("half_plus_two", "", [tensor(kind, "x", x.astype(np.int32))], None, "x"),
        "wrong_shape": ("grid", "", [tensor(kind, "x", x)], None, "x"),
        "unknown_output": ("half_plus_two", "", [tensor(kind, "x", x)], "z", "z"),
    }


@pytest.mark.parametrize("case", inputs_of("http"))
def test_oip_failures(triton, case):
    model, version, inputs, output, text = inputs_of(triton.kind)[case]
    outputs = output and [CLIENTS[triton.kind].InferRequestedOutput(output)]
    with pytest.raises(InferenceServerException) as raised:
        triton.infer(model, inputs, model_version=version, outputs=outputs)
    assert text in raised.value.message()
    wanted = {"unknown_model": ("404", "NOT_FOUND"), "unknown_version": ("404", "NOT_FOUND")}
    http, grpc_code = wanted.get(case, ("400", "INVALID_ARGUMENT"))
    assert raised.value.status() == (http if triton.kind == "http" else f"StatusCode.{grpc_code}")


BAD_JSON = {
    "no_json": "{",
    "no_inputs": "{}",
    "no_shape": '{"inputs": [{"name": "x", "datatype": "FP32", "data": [1]}]}',
    "too_few": '{"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1]}]}',
    "too_many": '{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1, 2]}]}',
    "negative_shape": '{"inputs": [{"name": "x", "shape": [-1], "datatype": "FP32", "data": [1]}]}',
    "overflow": '{"inputs": [{"name": "x", "shape": [4611686018427387904, 4], "datatype": "FP32", "data": []}]}',
    "unknown_type": '{"inputs": [{"name": "x", "shape": [1], "datatype": "FP31", "data": [1]}]}',
    "string_as_float": '{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": ["1"]}]}',
    "twice": '{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}, '
    '{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}',
    "no_data": '{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}',
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_oip_malformed_json(shared, case):
    answer = shared.post("/v2/models/half_plus_two/infer", BAD_JSON[case])
    assert answer.status_code == 400, answer.text
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("length", ["0", "-1", "99999999999999999999", "abc", "200", "10"])
def test_oip_malformed_binary(shared, length):
    header = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}]}'
    body = header + b"\0\0\0\0"
    path = "/v2/models/half_plus_two/infer"
    good = shared.post(path, body, headers={"Inference-Header-Content-Length": str(len(header))})
    assert good.status_code == 200, good.text
    answer = shared.post(path, body, headers={"Inference-Header-Content-Length": length})
    assert answer.status_code == 400, answer.text
    for size in (3, 5, 2**63, -4):
        wrong = header.replace(b": 4}", b": %d}" % size)
        answer = shared.post(path, wrong + b"\0\0\0\0", headers={"Inference-Header-Content-Length": str(len(wrong))})
        assert answer.status_code == 400, (size, answer.text)


def test_oip_plain_curl(shared):
    body = '{"id": "7", "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [3, 4]]}]}'
    answer = json.loads(curl("-d", body, f"{shared.base}/v2/models/half_plus_two_any/versions/123/infer"))
    (output,) = answer["outputs"]
    assert answer["id"] == "7"
    assert (output["name"], output["datatype"], output["shape"]) == ("y", "FP32", [2, 2])
    np.testing.assert_allclose(np.ravel(output["data"]), [2.5, 3.0, 3.5, 4.0])


@pytest.mark.parametrize("kind", CLIENTS)
def test_oip_unload_and_load(serve, tmp_path, kind):
    graphs.save(graphs.affine(), tmp_path / "m" / "one")
    graphs.save(graphs.affine(), tmp_path / "m" / "two")
    server = serve(tmp_path / "m")
    with connect(server, kind) as client:
        client.unload_model("one")
        server.wait_state("one", 1, "END")
        assert not client.is_model_ready("one") and client.is_model_ready("two")
        client.load_model("one")
        assert client.is_model_ready("one")
        with pytest.raises(InferenceServerException):
            client.load_model("nope")
