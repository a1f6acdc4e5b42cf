"""Models that others trained, in the formats of TensorFlow and Keras, against TensorFlow's own answers."""

import csv
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from server import arrays

MODELS = {
    "weather_1": "jena/savedmodel/weather/1",
    "weather_2": "jena/savedmodel/weather/2",
    "weather_h5_1": "jena/keras/wetterfrosch_v1.h5",
    "weather_h5_2": "jena/keras/jena_temp_pred.h5",
    "crayfish": "crayfish/savedmodel_ffnn/1",
    "crayfish_h5": "crayfish/model-ffnn.h5",
    "fraud": "fraud/autoencoder_fraud.pb",
    "fraud_h5": "fraud/autoencoder_fraud.h5",
    "mlp": "keras/simple_mlp.h5",
    "mobilenet": "retrain/mobilenet_v1_0.25_128_frozen_graph.pb",
    "retrained": "retrain/mobilenet025_128_retrained_graph.pb",
    "optimized": "retrain/mobilenet025_128_optimized_graph.pb",
}


@pytest.fixture(scope="module", params=["embedded", "onnxruntime", "openvino", "tensorflow"])
def server(testdata, tmp_path_factory, request):
    """A server on each engine; TensorFlow reads no Keras files, so these are on the embedded one there."""
    import server as servers

    config = tmp_path_factory.mktemp("config") / "salver.toml"
    settings = [f'engine = "{request.param}"']
    if request.param == "tensorflow":
        keras_files = [name for name, source in MODELS.items() if source.endswith(".h5")]
        settings += [f'[models.{name}]\nengine = "embedded"' for name in keras_files]
    config.write_text("\n".join(settings))
    flags = [f"--config={config}"]
    if request.param != "embedded":
        flags.append(f"--runtime_dir={request.getfixturevalue('runtimes')}")

    folder = tmp_path_factory.mktemp("imported")
    for name, source in MODELS.items():
        source = testdata / source
        target = folder / name / "1"
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            target.mkdir(parents=True)
            shutil.copy(source, target / source.name)
    started = servers.Server(folder, folder, *flags)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def windows(testdata):
    """Three windows of 120 hours of the Jena file, normalised by the file's own mean and deviation."""
    with open(testdata / "jena/jena_climate_2018.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    values = np.array([[float(value) for value in row[1:15]] for row in rows])
    values = ((values - values.mean(axis=0)) / values.std(axis=0)).astype(np.float32)[::6]
    return np.stack([values[at : at + 120] for at in (0, 1000, 2500)])


def ask(server, model, values, name=None):
    """The one output for the one input, over gRPC."""
    metadata = server.get(f"/v1/models/{model}/metadata").json()
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    (input_name,) = signature["inputs"] if name is None else (name,)
    (output,) = arrays(server.predict(model, {input_name: values})).values()
    return output


def by_signature(path, values):
    """TensorFlow's answer of a SavedModel."""
    model = tf.saved_model.load(str(path))
    signature = model.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    (output,) = signature(**{name: tf.constant(values)}).values()
    return output.numpy()


def by_graph(path, feed, values, fetch):
    """TensorFlow's answer of a frozen graph."""
    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(path.read_bytes())
    with tf.Graph().as_default():
        tf.import_graph_def(definition, name="")
        with tf.compat.v1.Session() as session:
            return session.run(fetch, {feed: values})


def close(got, want, tolerance=1e-4):
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(1.0, np.abs(want).max()))


@pytest.mark.parametrize("version", ["1", "2"])
def test_imported_weather_is_the_same_in_both_formats_and_in_tensorflow(server, testdata, windows, version):
    expected = by_signature(testdata / f"jena/savedmodel/weather/{version}", windows)
    assert np.ptp(expected) > 1e-4, "the answers differ by window"
    saved = ask(server, f"weather_{version}", windows)
    keras_file = ask(server, f"weather_h5_{version}", windows)
    close(saved, expected)
    close(keras_file, expected)
    close(saved, keras_file)


def test_imported_crayfish_is_the_same_in_both_formats_and_in_tensorflow(server, testdata):
    values = np.random.default_rng(1).random((5, 784), np.float32)
    expected = by_signature(testdata / "crayfish/savedmodel_ffnn/1", values)
    saved, keras_file = ask(server, "crayfish", values), ask(server, "crayfish_h5", values)
    close(saved, expected, 1e-5)
    close(keras_file, saved, 1e-5)


@pytest.mark.parametrize(("model", "shape"), [("fraud_h5", (4, 30)), ("mlp", (4, 100))])
def test_imported_keras_files(server, testdata, model, shape):
    values = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    network = keras.models.load_model(testdata / MODELS[model], compile=False)
    # Keras 3 takes the old file to have one dimension more.
    given = values[:, None, :] if network.input_shape[1:-1] else values
    expected = np.asarray(network.predict(given, verbose=0)).reshape(shape[0], -1)
    close(ask(server, model, values), expected)


@pytest.mark.parametrize(
    ("model", "feed", "fetch", "shape"),
    [
        ("fraud", "CreditCardInput:0", "Decoder2/Relu:0", (4, 30)),
        ("mobilenet", "input:0", "MobilenetV1/Predictions/Reshape_1:0", (1, 128, 128, 3)),
        ("retrained", "input:0", "final_result:0", (1, 128, 128, 3)),
        ("optimized", "input:0", "final_result:0", (1, 128, 128, 3)),
    ],
)
def test_imported_frozen_graphs(server, testdata, model, feed, fetch, shape):
    values = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    expected = by_graph(testdata / MODELS[model], feed, values, fetch)
    close(ask(server, model, values, feed.removesuffix(":0")), expected)


def test_imported_pictures_are_told_apart_as_tensorflow_does(server, testdata):
    """Photographs through the retrained network: the same class as TensorFlow's, and mostly the right one."""
    labels = (testdata / "retrain/retrained_labels.txt").read_text().split()
    for flower in ["daisy", "roses", "sunflowers"]:
        photo = sorted((testdata / "flowers" / flower).glob("*.jpg"))[0]
        picture = tf.image.resize(tf.io.decode_jpeg(photo.read_bytes(), channels=3), (128, 128)).numpy()
        values = ((picture[None] - 128) / 128).astype(np.float32)
        expected = by_graph(testdata / MODELS["optimized"], "input:0", values, "final_result:0")
        got = ask(server, "optimized", values, "input")
        close(got, expected)
        assert labels[int(got.argmax())] == labels[int(expected.argmax())]
