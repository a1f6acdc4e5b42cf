"""`salver convert` and `salver inspect`: what they write is what other programs read."""

import json
import subprocess
import xml.etree.ElementTree

import numpy as np
import onnx
import onnxruntime
import pytest

import server as servers
from test_imported import MODELS, by_graph, by_signature

PICTURE = (1, 128, 128, 3)


def salver(*arguments):
    command = [servers.BINARY, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def converted(testdata, folder, model, *flags):
    """The path of the ONNX file that the binary writes for a model."""
    path = folder / f"{model}.onnx"
    done = salver("convert", testdata / MODELS[model], "--output", path, *flags)
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ("weather_2", (2, 120, 14)),
        ("weather_h5_2", (2, 120, 14)),
        ("crayfish", (3, 784)),
        ("fraud", (3, 30)),
        ("fraud_h5", (3, 30)),
        ("mlp", (3, 100)),
        ("mobilenet", PICTURE),
        ("optimized", PICTURE),
    ],
)
@pytest.mark.parametrize("flags", [(), ("--no-optimise",), ("--external-data",)])
def test_convert_writes_what_the_checker_accepts_and_onnx_runtime_runs(testdata, tmp_path, model, shape, flags):
    path = converted(testdata, tmp_path, model, *flags)
    onnx.checker.check_model(str(path), full_check=True)
    assert (tmp_path / f"{path.name}.data").exists() == (flags == ("--external-data",))
    values = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path))
    (given,) = session.get_inputs()
    (got,) = session.run(None, {given.name: values})
    source = testdata / MODELS[model]
    if source.is_dir():
        expected = by_signature(source, values)
    elif source.suffix == ".pb":
        ends = {
            "fraud": ("CreditCardInput:0", "Decoder2/Relu:0"),
            "mobilenet": ("input:0", "MobilenetV1/Predictions/Reshape_1:0"),
            "optimized": ("input:0", "final_result:0"),
        }
        expected = by_graph(source, ends[model][0], values, ends[model][1])
    else:
        # Keras does not read all of these; the served model is compared with TensorFlow elsewhere.
        plain = converted(testdata, tmp_path, model, "--no-optimise")
        expected = onnxruntime.InferenceSession(str(plain)).run(None, {given.name: values})[0]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * max(1.0, np.abs(expected).max()))


def test_convert_makes_the_old_loop_one_node(testdata, tmp_path):
    for model in ["weather_1", "weather_2"]:
        graph = onnx.load(converted(testdata, tmp_path, model)).graph
        operators = [node.op_type for node in graph.node]
        assert operators.count("GRU") == 1 and "Loop" not in operators, operators


def test_convert_refuses_what_onnx_cannot_say(testdata, tmp_path):
    counter = testdata / "tfserving/saved_model_counter/00000123"
    done = salver("convert", counter, "--output", tmp_path / "x.onnx", "--signature", "incr_counter")
    assert done.returncode == 1 and "keeps state" in done.stderr
    done = salver("convert", counter, "--output", tmp_path / "x.onnx")
    assert done.returncode == 1 and "--signature" in done.stderr and "incr_counter_by" in done.stderr
    half = testdata / "tfserving/saved_model_half_plus_two_cpu/00000123"
    done = salver("convert", half, "--output", tmp_path / "x.onnx", "--signature", "regress_x_to_y")
    assert done.returncode == 1 and "ParseExample" in done.stderr
    assert not (tmp_path / "x.onnx").exists()


def test_inspect_says_what_a_model_holds(testdata):
    done = salver("inspect", testdata / "crayfish/savedmodel_ffnn", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (signature,) = report["signatures"]
    assert signature["name"] == "serving_default"
    # 784-32-32-32-32-10, a multiplication with an addition counted as two.
    weights = 784 * 32 + 3 * 32 * 32 + 32 * 10
    assert signature["parameters"] == weights + 4 * 32 + 10
    assert signature["flops"] >= 2 * weights
    assert signature["operators"]["MatMul"] + signature["operators"].get("Gemm", 0) == 5
    assert signature["host"] == []
    text = salver("inspect", testdata / "crayfish/savedmodel_ffnn").stdout
    assert "serving_default" in text and "28.6 thousand" in text


def test_inspect_draws_the_network(testdata, tmp_path):
    picture = tmp_path / "net.svg"
    done = salver("inspect", testdata / MODELS["optimized"], "--plot", picture)
    assert done.returncode == 0, done.stderr
    root = xml.etree.ElementTree.parse(picture).getroot()
    texts = " ".join(text.strip() for text in root.itertext())
    assert root.tag.endswith("svg") and texts.count("Conv ") == 28 and "[?,6]" in texts.replace("batch", "?")


@pytest.mark.parametrize("name", ["saved_model.pb", "model.h5", "model.keras", "model.pb"])
def test_inspect_names_the_file_that_is_broken(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\x0a\xff\xff\xff\xff\x0f broken")
    done = salver("inspect", path)
    assert done.returncode == 1 and name in done.stderr and "panicked" not in done.stderr
