"""Conformance 3: the golden answers of TensorFlow Serving's own fixtures, given as SavedModels."""

import json
import shutil

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    regression_pb2,
)

from server import arrays, check_error, check_predictions, floats, refused, wait_for

HALVES = [
    "saved_model_half_plus_two_cpu",
    "saved_model_half_plus_two_2_versions",
    "saved_model_half_plus_two_tf2_cpu",
    "saved_model_half_plus_two_mlmd",
    "saved_model_half_plus_two_cpu_with_saved_model_config",
    "saved_model_half_plus_two_cpu_with_empty_saved_model_config",
    "saved_model_half_plus_two_gpu",
]
# The one for GPUs has predict signatures alone.
EXAMPLES = [name for name in HALVES if not name.endswith("_gpu")]


@pytest.fixture(scope="module")
def fixtures(testdata, tmp_path_factory):
    """Copies of the fixtures that are to load, and of those that are not, in one folder."""
    folder = tmp_path_factory.mktemp("fixtures")
    source = testdata / "tfserving"
    for name in [*HALVES, "saved_model_half_plus_three", "saved_model_counter", "matrix_half_plus_two",
                 "bad_half_plus_two", "tf_text_regression"]:
        shutil.copytree(source / name, folder / name)
    shutil.copytree(source / "session_bundle/testdata/half_plus_two", folder / "session_bundle")
    return folder


@pytest.fixture(scope="module", params=["embedded", "tensorflow"])
def server(fixtures, tmp_path_factory, request):
    """A server on the embedded engine, and one on TensorFlow itself: the answers are the same."""
    import server as servers

    flags = [f"--engine={request.param}"]
    if request.param == "tensorflow":
        flags.append(f"--runtime_dir={request.getfixturevalue('runtimes')}")

    names = sorted(path.name for path in fixtures.iterdir())
    configs = "".join(
        f'config {{ name: "{name}" base_path: "{fixtures / name}" model_platform: "tensorflow"'
        f" model_version_policy {{ all {{}} }} }}\n"
        for name in names
    )
    config = tmp_path_factory.mktemp("config") / "models.config"
    config.write_text(f"model_config_list {{ {configs} }}")
    started = servers.Server(config.parent, f"--model_config_file={config}", *flags, wait="live")
    for name in names:
        wait_for(lambda name=name: ends(started, name), f"{name} is settled")
    yield started
    started.stop()


def ends(server, name):
    try:
        states = server.states(name)
    except grpc.RpcError:
        return False
    return states and all(state in ("AVAILABLE", "END") for state, _, _ in states.values())


def example(**features):
    built = tf.train.Example()
    for name, value in features.items():
        built.features.feature[name].float_list.value.append(value)
    return built


@pytest.mark.parametrize("name", HALVES)
def test_13_03_half_plus_two(server, name):
    check_predictions(server.rest_predict(name, {"instances": [2.0, 3.0, 4.0]}), [3.0, 3.5, 4.0])
    answer = server.predict(name, {"x": floats(2.0)})
    np.testing.assert_allclose(arrays(answer)["y"].ravel(), [3.0])
    assert answer.model_spec.signature_name == "serving_default"


def test_13_03_columns(server):
    body = {"inputs": [[1.0, 2.0], [3.0, 4.0]]}
    answer = server.rest_predict("saved_model_half_plus_two_cpu", body)
    assert answer.json() == {"outputs": [[2.5, 3.0], [3.5, 4.0]]}


def test_13_03_half_plus_three(server):
    check_predictions(
        server.rest_predict("saved_model_half_plus_three", {"instances": [1.0, 2.0, 5.0]}), [3.5, 4.0, 5.5]
    )


def test_13_03_matrix(server):
    answer = server.predict("matrix_half_plus_two", {"x": floats(1.0, 2.0, 3.0, 4.0).reshape(1, 2, 2)})
    np.testing.assert_allclose(arrays(answer)["y"], [[[2.5, 3.0], [3.5, 4.0]]])


@pytest.mark.parametrize("name", EXAMPLES)
def test_13_03_regress(server, name):
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = "regress_x_to_y"
    request.input.example_list.examples.append(example(x=80.0))
    answer = server.predictions.Regress(request, timeout=30)
    assert [r.value for r in answer.result.regressions] == [42.0]
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": 80.0}, {"x": 20.0}]}
    answer = server.post(f"/v1/models/{name}:regress", body)
    assert answer.json() == {"results": [42.0, 12.0]}


def test_13_03_regress_of_a_signature_with_the_methods_name(server):
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "saved_model_half_plus_three"
    request.model_spec.signature_name = "tensorflow/serving/regress"
    request.input.example_list.examples.append(example(x=80.0))
    answer = server.predictions.Regress(request, timeout=30)
    assert [r.value for r in answer.result.regressions] == [43.0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_13_03_classify(server, name):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = "classify_x_to_y"
    request.input.example_list.examples.append(example(x=20.0))
    answer = server.predictions.Classify(request, timeout=30)
    classes = answer.result.classifications[0].classes
    assert [(c.label, c.score) for c in classes] == [("", 12.0)]
    body = {"signature_name": "classify_x_to_y", "examples": [{"x": 20.0}]}
    answer = server.post(f"/v1/models/{name}:classify", body)
    assert answer.json() == {"results": [[["", 12.0]]]}


def test_13_03_context_is_joined_and_the_example_wins(server):
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "saved_model_half_plus_two_cpu"
    request.model_spec.signature_name = "regress_x_to_y"
    with_context = request.input.example_list_with_context
    with_context.context.CopyFrom(example(x=80.0))
    with_context.examples.append(tf.train.Example())
    with_context.examples.append(example(x=20.0))
    answer = server.predictions.Regress(request, timeout=30)
    assert [r.value for r in answer.result.regressions] == [42.0, 12.0]


def test_13_03_multi_inference(server):
    request = inference_pb2.MultiInferenceRequest()
    for signature, method in [("regress_x_to_y", "regress"), ("classify_x_to_y", "classify")]:
        task = request.tasks.add()
        task.model_spec.name = "saved_model_half_plus_two_cpu"
        task.model_spec.signature_name = signature
        task.method_name = f"tensorflow/serving/{method}"
    request.input.example_list.examples.append(example(x=2.0))
    answer = server.predictions.MultiInference(request, timeout=30)
    regression, classification = answer.results
    assert regression.regression_result.regressions[0].value == 3.0
    assert classification.classification_result.classifications[0].classes[0].score == 3.0


def test_13_03_a_feature_of_another_type_is_named(server):
    # An integer is an int64 feature, which the model does not take.
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": 80}]}
    check_error(server.post("/v1/models/saved_model_half_plus_two_cpu:regress", body), 400, "Key: x", "int64")


def test_13_03_counter_keeps_its_state(server):
    def call(signature, inputs=None):
        answer = server.predict("saved_model_counter", inputs or {}, signature=signature)
        return float(arrays(answer)["output"])

    call("reset_counter")
    assert [call("incr_counter") for _ in range(3)] == [1.0, 2.0, 3.0]
    assert call("get_counter") == 3.0
    assert call("incr_counter_by", {"delta": np.float32(2.0)}) == 5.0
    assert call("reset_counter") == 0.0
    assert call("get_counter") == 0.0


@pytest.mark.parametrize(
    ("name", "golden"),
    [
        ("saved_model_half_plus_two_cpu", "half_plus_two_model_metadata.json"),
        ("saved_model_half_plus_two_2_versions", "saved_model_half_plus_two_2_versions_metadata.json"),
        ("saved_model_half_plus_two_tf2_cpu", "saved_model_half_plus_two_tf2_2_versions_metadata.json"),
    ],
)
def test_13_13_golden_metadata(server, testdata, name, golden):
    want = json.loads((testdata / "tfserving" / golden).read_text())
    version = want["model_spec"]["version"]
    got = server.get(f"/v1/models/{name}/metadata").json()
    if got["model_spec"]["version"] != version:
        got = server.get(f"/v1/models/{name}/versions/{version}/metadata").json()
    signatures = want["metadata"]["signature_def"]["signature_def"]
    # What runs when the model is loaded is not a signature for clients (docs/compatibility.md).
    signatures.pop("__saved_model_init_op", None)
    assert got["metadata"]["signature_def"]["signature_def"] == signatures


def test_13_03_broken_ones_fail_alone(server):
    for name in ["bad_half_plus_two", "tf_text_regression", "session_bundle"]:
        states = server.states(name)
        assert all(state == "END" and code != 0 for state, code, _ in states.values()), states
        with refused("NOT_FOUND"):
            server.predict(name, {"x": floats(2.0)})
