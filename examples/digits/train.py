"""Trains the digits models of this folder and writes them as ONNX.

    python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && .venv/bin/python train.py

Two versions of one model come out, so that the folder shows a model with versions:

    ../models/digits/1/model.onnx   64-32-10, 60 epochs
    ../models/digits/2/model.onnx   64-64-32-10, 200 epochs

Beside this script: `sample.json`, three held-out digits as a TensorFlow Serving request body, and
`expected.json`, what scikit-learn itself answers to them. The seeds are fixed: the same library versions
on the same kind of machine write the same files.
"""

import json
import pathlib
import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

HERE = pathlib.Path(__file__).resolve().parent
MODELS = HERE.parent / "models" / "digits"

# version -> (hidden layers, epochs)
VERSIONS = {1: ((32,), 60), 2: ((64, 32), 200)}

# The pixels of the data set are 0 to 16. The network divides by this itself, so that a client posts pixels.
FULL_SCALE = 16.0

SAMPLES = 3


def to_onnx(network: MLPClassifier) -> onnx.ModelProto:
    """The network as a graph `pixels` -> `probabilities`, `digit`, with the scaling of the pixels in front."""
    constants = [numpy_helper.from_array(np.float32(1.0 / FULL_SCALE).reshape(()), "scale")]
    nodes = [helper.make_node("Mul", ["pixels", "scale"], ["hidden_0"])]
    last = len(network.coefs_) - 1
    for i, (weights, bias) in enumerate(zip(network.coefs_, network.intercepts_)):
        constants.append(numpy_helper.from_array(weights.astype(np.float32), f"weights_{i}"))
        constants.append(numpy_helper.from_array(bias.astype(np.float32), f"bias_{i}"))
        out = "logits" if i == last else f"sum_{i}"
        nodes.append(helper.make_node("Gemm", [f"hidden_{i}", f"weights_{i}", f"bias_{i}"], [out]))
        if i != last:
            nodes.append(helper.make_node("Relu", [out], [f"hidden_{i + 1}"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    nodes.append(helper.make_node("ArgMax", ["probabilities"], ["digit"], axis=1, keepdims=0))

    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 64])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
            helper.make_tensor_value_info("digit", TensorProto.INT64, ["batch"]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def write_json(path: pathlib.Path, value: dict) -> None:
    path.write_text(json.dumps(value) + "\n")


def main() -> None:
    pixels, digits = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        pixels, digits, test_size=0.2, random_state=0, stratify=digits
    )
    sample = test_x[:SAMPLES]
    write_json(HERE / "sample.json", {"instances": sample.astype(int).tolist()})

    expected = {}
    for version, (layers, epochs) in VERSIONS.items():
        network = MLPClassifier(layers, max_iter=epochs, random_state=0, n_iter_no_change=epochs)
        with warnings.catch_warnings():
            # The number of epochs is chosen, not a sign that training failed.
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(train_x / FULL_SCALE, train_y)
        folder = MODELS / str(version)
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(to_onnx(network), folder / "model.onnx")
        scaled = sample / FULL_SCALE
        rows = zip(network.predict_proba(scaled), network.predict(scaled))
        expected[str(version)] = [
            {"probabilities": [round(float(p), 7) for p in probabilities], "digit": int(digit)}
            for probabilities, digit in rows
        ]
        accuracy = network.score(test_x / FULL_SCALE, test_y)
        print(f"version {version}: {layers}, {epochs} epochs, {accuracy:.1%} of {len(test_y)} held-out digits right")
    write_json(HERE / "expected.json", {"truth": test_y[:SAMPLES].tolist(), "predictions": expected})


if __name__ == "__main__":
    main()
