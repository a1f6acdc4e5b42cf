"""The first command: what a person sees, and what it takes."""

import json
import re
import subprocess
import time

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

import graphs
from server import BINARY, ROOT, arrays, check_error, check_predictions, curl, floats, wait_for

EXAMPLES = ROOT / "examples"
MEGABYTE = 1 << 20


def test_examples_answer_as_trained(serve):
    server = serve(EXAMPLES / "models")
    sample = (EXAMPLES / "digits" / "sample.json").read_text()
    expected = json.loads((EXAMPLES / "digits" / "expected.json").read_text())
    answer = server.rest_predict("digits", sample).json()["predictions"]
    assert [row["digit"] for row in answer] == expected["truth"]
    for row, wanted in zip(answer, expected["predictions"]["2"], strict=True):
        assert row["digit"] == wanted["digit"]
        np.testing.assert_allclose(row["probabilities"], wanted["probabilities"], atol=1e-5)


def test_the_curl_that_the_server_prints_works(serve):
    server = serve(EXAMPLES / "models")
    line = wait_for(lambda: re.search(r"curl .*", server.log()), "a line with a command")
    done = subprocess.run(["bash", "-c", line[0]], capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "predictions" in json.loads(done.stdout) or "outputs" in json.loads(done.stdout), (line[0], done.stdout)
    assert str(server.port) in server.log() and str(server.rest_port) in server.log()
    assert "digits" in server.log()


@pytest.mark.parametrize(
    ("path", "flags", "name"),
    [
        ("m/1/model.onnx", ["--model_name=given"], "given"),
        ("plain.onnx", [], "plain"),
        ("m/1", ["--model_name=given"], "given"),
        ("m", [], "m"),
        ("", [], "m"),
    ],
)
def test_a_path_is_a_file_a_version_a_model_or_a_folder_of_models(serve, tmp_path, path, flags, name):
    folder = tmp_path / "models"
    graphs.save(graphs.affine(), folder / "m")
    if path == "plain.onnx":
        (folder / path).write_bytes((folder / "m/1/model.onnx").read_bytes())
    server = serve(folder / path, *flags)
    check_predictions(server.rest_predict(name, {"instances": [2.0]}), [3.0])


def test_several_paths(serve, tmp_path):
    graphs.save(graphs.affine(), tmp_path / "one")
    graphs.save(graphs.affine(offset=5.0), tmp_path / "two")
    server = serve(tmp_path / "one", tmp_path / "two")
    check_predictions(server.rest_predict("one", {"instances": [2.0]}), [3.0])
    check_predictions(server.rest_predict("two", {"instances": [2.0]}), [6.0])


def test_strict_compatibility_starts_from_a_path(serve, models):
    server = serve(models / "half_plus_two", "--strict_compatibility")
    check_predictions(server.post("/v1/models/half_plus_two:predict", {"instances": [2.0]}), [3.0])
    assert server.get("/v1/models").status_code == 400


def test_a_server_without_model_control_refuses_to_change_models(serve, models):
    server = serve(models / "half_plus_two", "--model_control=false")
    assert server.request("POST", "/v2/repository/models/half_plus_two/unload").status_code == 403
    check_predictions(server.post("/v1/models/half_plus_two:predict", {"instances": [2.0]}), [3.0])


def test_a_constant_beyond_the_engines_range_is_refused_by_name(serve, tmp_path):
    graphs.save(graphs.beyond_32_bits(), tmp_path / "huge")
    graphs.save(graphs.affine(), tmp_path / "good")
    server = serve(tmp_path / "huge", tmp_path / "good", wait="live")
    server.wait_state("huge", 1, "END")
    assert "five_billion" in server.states("huge")[1][2]


@pytest.mark.parametrize("dtype", ["DOUBLE", "INT16", "UINT16", "UINT32", "UINT64", "BFLOAT16", "STRING", "COMPLEX64"])
def test_a_type_that_the_engine_does_not_compute_in_is_refused_by_name(serve, tmp_path, dtype):
    graphs.save(graphs.identity(getattr(TensorProto, dtype)), tmp_path / "m")
    server = serve(tmp_path / "m", wait="live")
    server.wait_state("m", 1, "END")
    assert "'x'" in server.states("m")[1][2]


def test_an_integer_beyond_the_engines_range_is_refused_by_name(shared):
    inside = [2**31 - 1, -(2**31)]
    check_predictions(shared.rest_predict("identity_int64", {"instances": inside}), inside)
    for value in (2**31, -(2**31) - 1, 2**40):
        check_error(shared.rest_predict("identity_int64", {"instances": [1, value]}), 400, "x")


def test_a_plain_curl_predicts(shared):
    url = f"{shared.base}/v1/models/half_plus_two:predict"
    assert json.loads(curl("-d", '{"instances": [1.0, 2.0, 5.0]}', url)) == {"predictions": [2.5, 3.0, 4.5]}


def test_crayfish_over_all_four_interfaces(serve, testdata):
    import tritonclient.grpc
    import tritonclient.http

    path = testdata / "crayfish" / "model-ffnn.onnx"
    server = serve(path, "--model_name=crayfish")
    x = np.random.default_rng(1).random((3, 1, 784), np.float32)
    (wanted,) = onnxruntime.InferenceSession(path).run(None, {"input": x})

    def close(found):
        np.testing.assert_allclose(np.asarray(found).reshape(wanted.shape), wanted, atol=1e-5)

    close(arrays(server.predict("crayfish", {"input": x}))["output"])
    close(server.rest_predict("crayfish", {"instances": x.tolist()}).json()["predictions"])
    close(server.rest_predict("crayfish", {"inputs": x.tolist()}).json()["outputs"])
    for client, port in ((tritonclient.http, server.rest_port), (tritonclient.grpc, server.port)):
        tensor = client.InferInput("input", x.shape, "FP32")
        tensor.set_data_from_numpy(x)
        with client.InferenceServerClient(f"127.0.0.1:{port}") as triton:
            close(triton.infer("crayfish", [tensor]).as_numpy("output"))


def test_the_binary_and_the_idle_process_are_small(serve, tmp_path):
    graphs.save(graphs.affine(), tmp_path / "m")
    assert BINARY.stat().st_size < 48 * MEGABYTE
    server = serve(tmp_path / "m")
    check_predictions(server.rest_predict("m", {"instances": [2.0]}), [3.0])
    assert server.memory() < 30 * MEGABYTE


def test_empty_batches_pass(shared):
    assert shared.rest_predict("half_plus_two", {"inputs": []}).json() == {"outputs": []}
    assert arrays(shared.predict("half_plus_two", {"x": floats()}))["y"].shape == (0,)
