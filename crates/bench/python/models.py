"""The models of `cargo xtask bench engines`, and what TensorFlow answers.

Takes one JSON object on standard input:

    {"folder": FOLDER, "batches": [N, ..], "models": [{"name": .., "path": PATH or null, "row": [..]}, ..]}

Makes the models that have no path as SavedModels in FOLDER, unless they are there, writes an input and TensorFlow's answer for
each model and batch size that has none, and prints one line of JSON about each model:

    {"name": .., "path": .., "dtype": .., "input": "NODE:0", "outputs": ["NODE:0", ..], "tensorflow": VERSION}

The files of a batch are FOLDER/NAME.BATCH.in and .out: the elements of the one input and of the outputs in order of their names.
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.core.protobuf import saved_model_pb2  # noqa: E402

LAYERS, HIDDEN, HEADS, INNER, LENGTH, WORDS = 4, 256, 4, 1024, 128, 30522


def application(kind):
    """A network of pictures with random weights, and the statistics that its layers have on random pictures."""
    network = kind(weights=None)
    random = np.random.default_rng(7)
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        if layer.gamma is not None:
            layer.gamma.assign(1 + 0.1 * random.standard_normal(layer.gamma.shape))
        layer.beta.assign(0.1 * random.standard_normal(layer.beta.shape))
        layer.momentum = 0.0
    pictures = random.random((8, *network.input_shape[1:]), np.float32)
    network(pictures, training=True)
    # Logits as spread as those of a trained network, so that the answer is not the same for all pictures.
    last = network.layers[-1]
    features = keras.Model(network.input, last.input)(pictures, training=False)
    logits = keras.ops.matmul(features, last.kernel)
    last.kernel.assign(last.kernel * 2 / keras.ops.std(logits))
    return network


def bert_mini():
    """A transformer encoder of BERT-mini's size, of standard layers."""
    ids = keras.Input((LENGTH,), dtype="int32", name="ids")
    x = keras.layers.Embedding(WORDS, HIDDEN)(ids)
    places = keras.layers.Embedding(LENGTH, HIDDEN)(keras.ops.arange(LENGTH))
    x = keras.layers.LayerNormalization(epsilon=1e-12)(x + places)
    for _ in range(LAYERS):
        heard = keras.layers.MultiHeadAttention(HEADS, HIDDEN // HEADS)(x, x)
        x = keras.layers.LayerNormalization(epsilon=1e-12)(x + heard)
        inner = keras.layers.Dense(INNER, activation="gelu")(x)
        x = keras.layers.LayerNormalization(epsilon=1e-12)(x + keras.layers.Dense(HIDDEN)(inner))
    pooled = keras.layers.Dense(HIDDEN, activation="tanh")(x[:, 0])
    return keras.Model(ids, pooled)


MAKE = {
    "inception_v3": lambda: application(keras.applications.InceptionV3),
    "mobilenet_v2": lambda: application(keras.applications.MobileNetV2),
    "resnet_50": lambda: application(keras.applications.ResNet50),
    "bert_mini": bert_mini,
}


def made(folder, model):
    if model["path"]:
        return pathlib.Path(model["path"])
    path = folder / model["name"]
    if not (path / "saved_model.pb").exists():
        print(f"making {model['name']} ...", file=sys.stderr, flush=True)
        keras.utils.set_random_seed(7)
        MAKE[model["name"]]().export(str(path), verbose=False)
    return path


def signature_of(path):
    model = tf.saved_model.load(str(path))
    return model, model.signatures["serving_default"]


def nodes(path):
    """What the tensors of the signature are called in the graph: the one input, and the outputs in order of their names."""
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    signature = saved.meta_graphs[0].signature_def["serving_default"]
    (given,) = (value.name for value in signature.inputs.values())
    return given, [signature.outputs[key].name for key in sorted(signature.outputs)]


def values(spec, batch, row):
    """Pictures, measurements or words: the same in every run."""
    shape = [batch, *row]
    n = int(np.prod(shape))
    at = np.arange(n, dtype=np.int64)
    if spec.dtype.is_integer:
        return ((at * 7919 + at // LENGTH * 104729) % WORDS).astype(spec.dtype.as_numpy_dtype).reshape(shape)
    return np.random.default_rng(3).random(n, np.float32).reshape(shape)


def main():
    request = json.load(sys.stdin)
    folder = pathlib.Path(request["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    for model in request["models"]:
        path = made(folder, model)
        kept, signature = signature_of(path)
        ((name, spec),) = signature.structured_input_signature[1].items()
        outputs = sorted(signature.structured_outputs)
        for batch in request["batches"]:
            ins, outs = (folder / f"{model['name']}.{batch}.{end}" for end in ("in", "out"))
            if not outs.exists():
                array = values(spec, batch, model["row"])
                array.tofile(ins)
                answer = signature(**{name: tf.constant(array)})
                outs.write_bytes(b"".join(answer[key].numpy().tobytes() for key in outputs))
        given, taken = nodes(path)
        about = {"name": model["name"], "path": str(path), "dtype": spec.dtype.name, "input": given, "outputs": taken,
                 "tensorflow": tf.__version__}
        print(json.dumps(about), flush=True)


main()
