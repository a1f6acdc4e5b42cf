"""Conformance 5: each way in which Predict fails, with its code and message."""

import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from server import floats, predict_request, refused

X = {"x": floats(1.0)}
BROKEN = tensor_pb2.TensorProto(dtype=1, tensor_content=b"123")
BROKEN.tensor_shape.dim.add(size=1)

FAILURES = {
    "missing_spec": (predict_request(None, X), "INVALID_ARGUMENT", ["Missing ModelSpec"]),
    "empty_name": (predict_request("", X), "INVALID_ARGUMENT", ["ModelSpec has no name specified."]),
    "unknown_model": (predict_request("nope", X), "NOT_FOUND", ["Servable not found for request: Latest(nope)"]),
    "unknown_version": (
        predict_request("half_plus_two", X, version=999),
        "NOT_FOUND",
        ["Servable not found for request: Specific(half_plus_two, 999)"],
    ),
    "unknown_label": (
        predict_request("half_plus_two", X, label="canary"),
        "INVALID_ARGUMENT",
        ["Unrecognized servable version label: canary"],
    ),
    "unknown_signature": (
        predict_request("half_plus_two", X, signature="nope"),
        "FAILED_PRECONDITION",
        ['Serving signature key "nope" not found.'],
    ),
    "no_input": (
        predict_request("half_plus_two", {}),
        "INVALID_ARGUMENT",
        ["input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}."],
    ),
    "one_input_too_many": (
        predict_request("half_plus_two", {**X, "z": floats(1.0)}),
        "INVALID_ARGUMENT",
        [
            "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. "
            "Missing but required: {}."
        ],
    ),
    "unknown_input": (
        predict_request("half_plus_two", {"z": floats(1.0)}),
        "INVALID_ARGUMENT",
        ["Inputs contains invalid name."],
    ),
    "tensor_does_not_decode": (
        predict_request("half_plus_two", {"x": BROKEN}),
        "INVALID_ARGUMENT",
        ["tensor parsing error: x"],
    ),
    "unknown_output": (
        predict_request("add", {"a": floats(1.0), "b": floats(1.0)}, outputs=["z"]),
        "INVALID_ARGUMENT",
        ["output tensor alias not found in signature: z Outputs expected to be in the set {", "product", "sum"],
    ),
    "output_twice": (
        predict_request("half_plus_two", X, outputs=["y", "y"]),
        "INVALID_ARGUMENT",
        ["duplicate output tensor alias: y"],
    ),
    "wrong_type_string": (
        predict_request("half_plus_two", {"x": tf.make_tensor_proto(["a"])}),
        "INVALID_ARGUMENT",
        ["to be float but string is provided"],
    ),
    "wrong_type_int32": (
        predict_request("half_plus_two", {"x": tf.make_tensor_proto([1])}),
        "INVALID_ARGUMENT",
        ["Expects arg[0] to be float but int32 is provided"],
    ),
    "wrong_shape": (predict_request("fixed", {"x": floats(1.0)}), "INVALID_ARGUMENT", ["x"]),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_13_05_predict_failure_table(shared, failure):
    request, code, texts = FAILURES[failure]
    with refused(code, *texts):
        shared.predictions.Predict(request, timeout=30)


# Two faults in one request: the message is that of the check which comes first.
ORDER = {
    "model_before_signature": (predict_request("nope", X, signature="nope"), "NOT_FOUND", "Servable not found"),
    "signature_before_inputs": (
        predict_request("half_plus_two", {}, signature="nope"),
        "FAILED_PRECONDITION",
        "Serving signature key",
    ),
    "count_before_names": (
        predict_request("half_plus_two", {"p": BROKEN, "q": BROKEN}),
        "INVALID_ARGUMENT",
        "input size does not match signature",
    ),
    "inputs_before_outputs": (
        predict_request("half_plus_two", {"x": BROKEN}, outputs=["z"]),
        "INVALID_ARGUMENT",
        "tensor parsing error: x",
    ),
    "outputs_before_types": (
        predict_request("half_plus_two", {"x": tf.make_tensor_proto([1])}, outputs=["z"]),
        "INVALID_ARGUMENT",
        "output tensor alias not found",
    ),
}


@pytest.mark.parametrize("pair", ORDER)
def test_13_05_order_of_checks(shared, pair):
    request, code, text = ORDER[pair]
    with refused(code, text):
        shared.predictions.Predict(request, timeout=30)


def test_13_05_a_message_is_cut_at_1024_characters(shared):
    with pytest.raises(Exception) as raised:
        shared.predict("half_plus_two", X, signature="s" * 5000)
    details = raised.value.details()
    assert details.endswith("...TRUNCATED") and len(details) == 1024 + len("...TRUNCATED")


@pytest.mark.parametrize(
    "call, code, text",
    [
        ("Classify", "INVALID_ARGUMENT", "No classification inputs found in SignatureDef"),
        ("Regress", "INVALID_ARGUMENT", "No regression inputs found in SignatureDef"),
        ("MultiInference", "UNIMPLEMENTED", "Unsupported signature method_name: "),
    ],
)
def test_13_05_calls_with_examples_need_signatures_for_them(shared, call, code, text):
    from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

    requests = {
        "Classify": classification_pb2.ClassificationRequest,
        "Regress": regression_pb2.RegressionRequest,
        "MultiInference": inference_pb2.MultiInferenceRequest,
    }
    request = requests[call]()
    spec = request.tasks.add().model_spec if call == "MultiInference" else request.model_spec
    spec.name = "half_plus_two"
    with refused(code, text):
        getattr(shared.predictions, call)(request, timeout=30)


def test_13_05_a_failed_request_leaves_the_next_one_alone(shared):
    for request, *_ in FAILURES.values():
        with pytest.raises(Exception):
            shared.predictions.Predict(request, timeout=30)
        assert shared.predict("half_plus_two", X).outputs["y"].float_val == [2.5]
