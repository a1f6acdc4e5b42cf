"""TensorFlow's side of `cargo xtask bench import`: makes models, loads them, runs them, and says how long that took.

Takes one JSON object per line on standard input and answers each with one on standard output:

    {"make": FOLDER}                    models in FOLDER, those that are missing
    {"run": PATH, "inputs": FILE, "shape": [..], "runs": N}
                                        median time of a run in microseconds, and the answer

`peer.py --first PATH FILE SHAPE` loads one SavedModel in a fresh process and gives the time to its first answer.
"""

import json
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)

INCEPTION_SHAPE = (1, 299, 299, 3)


def make(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    import keras

    keras.utils.set_random_seed(7)
    weather = folder / "weather"
    if not (folder / "weather.h5").exists():
        network = keras.Sequential([keras.Input((120, 14)), keras.layers.GRU(32), keras.layers.Dense(1)])
        network.export(str(weather), verbose=False)
        network.save(folder / "weather.h5")
    inception = folder / "inception_v3"
    if not (folder / "inception_v3.onnx").exists():
        network = keras.applications.InceptionV3(weights=None)
        jitter(network)
        network.export(str(inception), verbose=False)
        convert(inception, folder / "inception_v3.onnx")


def jitter(network):
    """Statistics and scales that matter, as those of a trained network do."""
    random = np.random.default_rng(7)
    for layer in network.layers:
        if layer.__class__.__name__ == "BatchNormalization":
            weights = layer.get_weights()
            names = [weight.name.split("/")[-1] for weight in layer.weights]
            for at, name in enumerate(names):
                near = 0.0 if "mean" in name or name == "beta" else 1.0
                weights[at] = (near + 0.1 * random.standard_normal(weights[at].shape)).astype(np.float32)
            layer.set_weights(weights)


def convert(saved_model, onnx):
    import subprocess

    command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", saved_model, "--output", onnx, "--opset", "18"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)


def load(path):
    model = tf.saved_model.load(str(path))
    signature = model.signatures["serving_default"]
    # The signature is kept alive by its model.
    return model, signature


def call(signature, values):
    (name,) = signature.structured_input_signature[1]
    outputs = signature(**{name: tf.constant(values)})
    (output,) = outputs.values()
    return output.numpy()


def read(file, shape):
    return np.fromfile(file, np.float32).reshape(shape)


def main():
    loaded = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "make" in request:
            make(request["make"])
            answer = {"tensorflow": tf.__version__}
        else:
            path = request["run"]
            if path not in loaded:
                loaded[path] = load(path)
            signature = loaded[path][1]
            values = read(request["inputs"], request["shape"])
            output = call(signature, values)
            times = []
            for _ in range(request["runs"]):
                start = time.perf_counter()
                call(signature, values)
                times.append(time.perf_counter() - start)
            answer = {"microseconds": float(np.median(times) * 1e6), "output": output.ravel().tolist()}
        print(json.dumps(answer), flush=True)


def first(path, file, shape):
    values = read(file, json.loads(shape))
    start = time.perf_counter()
    kept = load(path)
    at_load = time.perf_counter()
    call(kept[1], values)
    end = time.perf_counter()
    print(json.dumps({"load_ms": (at_load - start) * 1e3, "first_ms": (end - at_load) * 1e3}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--first"]:
        first(*sys.argv[2:])
    else:
        main()
