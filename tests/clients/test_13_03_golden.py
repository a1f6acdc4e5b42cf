"""Conformance 3: the golden answers that an ONNX model can give, over gRPC and REST."""

import numpy as np
import pytest

from server import arrays, check_predictions, floats


@pytest.mark.parametrize(
    ("model", "instances", "predictions"),
    [
        ("half_plus_three", [1.0, 2.0, 5.0], [3.5, 4.0, 5.5]),
        ("half_plus_two", [2.0, 3.0, 4.0], [3.0, 3.5, 4.0]),
        ("half_plus_two", [1.0, 2.0, 5.0], [2.5, 3.0, 4.5]),
        ("half_plus_two_any", [[1.0, 2.0], [3.0, 4.0]], [[2.5, 3.0], [3.5, 4.0]]),
        ("half_plus_two", [{"x": 2.0}, {"x": 3}], [3.0, 3.5]),
    ],
)
def test_13_03_rest_rows(shared, model, instances, predictions):
    check_predictions(shared.rest_predict(model, {"instances": instances}), predictions)
    body = {"signature_name": "serving_default", "instances": instances}
    for path in (f"/v1/models/{model}/versions/123:predict", f"/v1/models/{model}/versions/00123:predict"):
        check_predictions(shared.post(path, body), predictions)


@pytest.mark.parametrize(
    ("model", "inputs", "outputs"),
    [
        ("half_plus_two_any", [[1, 2], [3, 4]], [[2.5, 3.0], [3.5, 4.0]]),
        ("half_plus_two", {"x": [1.0, 2.0]}, [2.5, 3.0]),
        ("half_plus_two_any", 2.0, 3.0),
        ("scalar", 2.0, 2.0),
        ("add", {"a": [1.0, 2.0], "b": [3.0, 5.0]}, {"sum": [4.0, 7.0], "product": [3.0, 10.0]}),
    ],
)
def test_13_03_rest_columns(shared, model, inputs, outputs):
    assert shared.rest_predict(model, {"inputs": inputs}).json() == {"outputs": outputs}


def test_13_03_rest_rows_of_two_outputs(shared):
    rows = [{"a": 1.0, "b": 3.0}, {"b": 5.0, "a": 2.0}]
    check_predictions(
        shared.rest_predict("add", {"instances": rows}), [{"sum": 4.0, "product": 3.0}, {"sum": 7.0, "product": 10.0}]
    )


def test_13_03_grpc_predict_names_the_effective_version_and_signature(shared):
    answer = shared.predict("half_plus_two", {"x": floats(2.0)})
    np.testing.assert_allclose(arrays(answer)["y"], [3.0])
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("half_plus_two", 123, "serving_default")
    assert spec.version_label == ""


def test_13_03_grpc_output_filter(shared):
    inputs = {"a": floats(1.0, 2.0), "b": floats(3.0, 5.0)}
    assert set(arrays(shared.predict("add", inputs))) == {"sum", "product"}
    answer = arrays(shared.predict("add", inputs, outputs=["product"]))
    assert set(answer) == {"product"}
    np.testing.assert_allclose(answer["product"], [3.0, 10.0])


def test_13_03_packed_answers(serve, models):
    server = serve(models, "--enable_serialization_as_tensor_content")
    answer = server.predict("half_plus_two", {"x": floats(2.0)})
    assert answer.outputs["y"].tensor_content and not answer.outputs["y"].float_val
    np.testing.assert_allclose(arrays(answer)["y"], [3.0])
    check_predictions(server.rest_predict("half_plus_two", {"instances": [2.0]}), [3.0])
