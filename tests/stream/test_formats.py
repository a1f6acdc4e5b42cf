"""Each format of records, from a topic to a topic, through a real broker and with a model in the process."""

import io
import json
import pathlib

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import predict_pb2

import models
from broker import header
from streaming import LATENCY, MODEL, VERSION, values

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


def scored(pipe, records, n=None):
    """The answers to records, in the order of one partition."""
    records = list(records)
    pipe.send(records)
    pipe.start()
    return pipe.read(len(records) if n is None else n)


def test_json_of_the_digits_example(pipe, digits):
    pixels = json.loads((EXAMPLES / "digits" / "sample.json").read_text())["instances"]
    expected = json.loads((EXAMPLES / "digits" / "expected.json").read_text())["predictions"]["2"]
    records = [json.dumps({"id": i, "pixels": row}) for i, row in enumerate(pixels)]
    answers = values(scored(pipe("--model", digits, partitions=1), records))
    for i, (answer, wanted) in enumerate(zip(answers, expected, strict=True)):
        assert answer["id"] == i and answer["pixels"] == pixels[i]
        assert answer["digit"] == wanted["digit"]
        assert answer["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-5)


def test_crayfish_repeats_its_input(pipe, testdata):
    file = testdata / "crayfish" / "model-ffnn.onnx"
    session = onnxruntime.InferenceSession(file)
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    points = np.random.default_rng(5).random((50, 784), np.float32)
    records = [json.dumps({"creationTimestamp": i, "dataPoint": [row.tolist()]}) for i, row in enumerate(points)]
    config = f"""
        [[input.tensors]]
        input = "{name}"
        field = "dataPoint"
        [[output.fields]]
        output = "{output}"
        name = "prediction"
    """
    answers = values(scored(pipe("--model", file, partitions=1, config=config), records))
    for i, answer in enumerate(answers):
        assert answer["creationTimestamp"] == i
        assert np.array_equal(np.float32(answer["dataPoint"][0]), points[i])
        wanted = session.run([output], {name: points[i].reshape(1, 1, 784)})[0]
        assert np.ravel(answer["prediction"]) == pytest.approx(np.ravel(wanted), abs=1e-5)


def test_csv(pipe, model):
    config = """
        [input]
        format = "csv"
        [input.csv]
        columns = ["id", "a", "b"]
        [[output.fields]]
        output = "sum"
        [[output.fields]]
        output = "product"
    """
    records = [f"{i},{i}.5,2" for i in range(20)]
    answers = scored(pipe("--model", model(models.pair()), partitions=1, config=config), records)
    for i, answer in enumerate(answers):
        columns = answer.value.decode().strip().split(",")
        assert columns[:3] == [str(i), f"{i}.5", "2"]
        assert [float(value) for value in columns[3:]] == [i + 2.5, 2 * i + 1.0]


def test_raw_floats(pipe, model):
    config = """
        [input]
        format = "raw"
        [[output.fields]]
        output = "scaled"
    """
    rows = np.random.default_rng(1).normal(size=(20, 4)).astype("<f4")
    answers = scored(pipe("--model", model(models.vector(4)), partitions=1, config=config), [row.tobytes() for row in rows])
    assert [answer.value for answer in answers] == [(row * np.float32(2)).tobytes() for row in rows]


def test_predict_requests(pipe, model):
    requests = []
    for i in range(20):
        request = predict_pb2.PredictRequest()
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32([[i, 1, 2, 3]])))
        requests.append(request.SerializeToString())
    answers = scored(pipe("--model", model(models.vector(4)), "--format", "predict_request", partitions=1), requests)
    for i, answer in enumerate(answers):
        response = predict_pb2.PredictResponse.FromString(answer.value)
        outputs = {name: tf.make_ndarray(value) for name, value in response.outputs.items()}
        assert response.model_spec.name == "model" and response.model_spec.version.value == 1
        assert outputs["scaled"].tolist() == [[2 * i, 2, 4, 6]]
        assert outputs["mean"].tolist() == [np.float32((i + 6) / 4)]


def test_examples_keep_their_features(pipe, model):
    def example(i):
        features = tf.train.Features(feature={
            "x": tf.train.Feature(float_list=tf.train.FloatList(value=[i, 1, 2, 3])),
            "id": tf.train.Feature(int64_list=tf.train.Int64List(value=[i])),
        })
        return tf.train.Example(features=features).SerializeToString()

    records = [example(i) for i in range(20)]
    answers = scored(pipe("--model", model(models.vector(4)), "--format", "example", partitions=1), records)
    for i, answer in enumerate(answers):
        feature = tf.train.Example.FromString(answer.value).features.feature
        assert feature["id"].int64_list.value == [i]
        assert feature["scaled"].float_list.value == [2 * i, 2, 4, 6]
        assert feature["mean"].float_list.value == [(i + 6) / 4]


def picture(form, size, colour):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, form)
    return file.getvalue()


def test_pictures(pipe, model):
    colours = [(250, 10, 0), (0, 128, 255), (7, 7, 7)]
    pictures = [picture("PNG", (8, 8), colour) for colour in colours]
    # Others are brought to the model's size; JPEG changes colours a little.
    pictures += [picture("JPEG", (40, 20), colour) for colour in colours]
    answers = scored(pipe("--model", model(models.colours(8)), "--format", "image", partitions=1), pictures)
    for answer, colour, tolerance in zip(answers, colours * 2, [1e-3] * 3 + [4] * 3, strict=True):
        assert json.loads(answer.value)["mean"] == pytest.approx(colour, abs=tolerance)


def test_what_is_not_the_value_passes_through(pipe, affine):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    record = {
        "value": '{"x": 3, "note": "kept"}', "key": b"\x00key", "timestamp": 1_700_000_000_123,
        "headers": [("traceparent", trace), ("twice", b"1"), ("twice", b"2"), ("empty", None)],
    }
    (answer,) = scored(pipe("--model", affine, partitions=1), [record])
    assert json.loads(answer.value) == {"x": 3, "note": "kept", "y": 3.5}
    assert (answer.key, answer.timestamp) == (b"\x00key", 1_700_000_000_123)
    assert [pair for pair in answer.headers if pair[0] in ("twice", "empty")] == [("twice", b"1"), ("twice", b"2"), ("empty", None)]
    assert header(answer, "traceparent").split("-")[1] == trace.split("-")[1]
    assert (header(answer, MODEL), header(answer, VERSION)) == ("affine", "1")
    assert float(header(answer, LATENCY)) >= 0


def test_fields_are_chosen_scaled_and_named(pipe, model):
    config = """
        [[filter]]
        field = "kind"
        equals = "wanted"
        [[input.tensors]]
        input = "x"
        fields = ["v1..v3", "colour"]
        scale = { factor = 10.0 }
        [input.tensors.one_hot]
        colour = ["red"]
        [output]
        mode = "replace"
        keep = ["id"]
        [[output.fields]]
        output = "mean"
        name = "average"
    """
    rows = [
        {"id": 1, "kind": "wanted", "v1": 1, "v2": 2, "v3": 3, "colour": "red"},
        {"id": 2, "kind": "other", "v1": 1, "v2": 2, "v3": 3, "colour": "red"},
        {"id": 3, "kind": "wanted", "v1": 4, "v2": 0, "v3": 0, "colour": "red"},
    ]
    answers = scored(pipe("--model", model(models.vector(4)), partitions=1, config=config), map(json.dumps, rows), n=2)
    found = values(answers)
    assert [answer["id"] for answer in found] == [1, 3] and all(set(answer) == {"id", "average"} for answer in found)
    assert found[0]["average"] > found[1]["average"]


def test_all_formats_are_refused_by_name(stream, kafka, affine):
    places = ["--from", kafka.address(kafka.topic()), "--to", kafka.address(kafka.topic())]
    running = stream(*places, "--model", affine, "--format", "parquet", wait=False)
    assert running.wait() != 0 and "parquet" in running.log() and "predict_request" in running.log()
