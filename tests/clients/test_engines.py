"""Engines that are found at run time: which one a model gets, and what happens when one is missing, broken or crashes."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

import numpy as np
import pytest
import tensorflow as tf

import graphs
from server import BINARY, ROOT, arrays, check_predictions, floats, refused, wait_for

NATIVE = ["onnxruntime", "openvino", "tensorflow"]


@pytest.fixture(scope="module")
def halves(tmp_path_factory) -> pathlib.Path:
    """x / 2 + 2 as a SavedModel with two versions."""
    folder = tmp_path_factory.mktemp("halves") / "half"

    class Half(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def __call__(self, x):
            return {"y": x * 0.5 + 2.0}

    for version in (1, 2):
        module = Half()
        tf.saved_model.save(module, str(folder / str(version)), signatures={"serving_default": module.__call__})
    return folder


@pytest.fixture(scope="module")
def spectrum(tmp_path_factory) -> pathlib.Path:
    """A SavedModel with an operator that only TensorFlow has."""
    folder = tmp_path_factory.mktemp("spectrum") / "spectrum"

    class Spectrum(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, name="x")])
        def __call__(self, x):
            return {"y": tf.abs(tf.signal.rfft(x))}

    module = Spectrum()
    tf.saved_model.save(module, str(folder / "1"), signatures={"serving_default": module.__call__})
    return folder


def copy(folder, to) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(folder, to / folder.name))


def engine(server, model, version="1"):
    """Engine and precision of a version, as the metrics say it."""
    metrics = server.get("/metrics").text
    labels = rf'salver_model_info{{engine="([^"]+)",model_name="{model}",precision="([^"]+)",version="{version}"}} 1'
    found = re.search(labels, metrics)
    return found.groups() if found else None


@pytest.mark.parametrize("name", NATIVE)
def test_a_saved_model_on_each_engine(serve, runtimes, halves, name):
    server = serve(halves, f"--runtime_dir={runtimes}", f"--engine={name}")
    check_predictions(server.rest_predict("half", {"instances": [2.0, 3.0]}), [3.0, 3.5])
    assert arrays(server.predict("half", {"x": floats(4.0)}))["y"].tolist() == [4.0]
    assert engine(server, "half", "2") == (name, "f32")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_onnx_file_on_each_engine(serve, runtimes, tmp_path, name):
    graphs.save(graphs.affine(), tmp_path / "m")
    server = serve(tmp_path / "m", f"--runtime_dir={runtimes}", f"--engine={name}")
    check_predictions(server.rest_predict("m", {"instances": [2.0]}), [3.0])
    assert engine(server, "m") == (name, "f32")


def test_auto_takes_what_is_there_and_what_the_model_needs(serve, runtimes, halves, spectrum):
    server = serve(halves, spectrum, f"--runtime_dir={runtimes}")
    assert engine(server, "half", "2") == ("onnxruntime", "f32")
    assert engine(server, "spectrum") == ("tensorflow", "f32")
    x = np.arange(8, dtype=np.float32)
    answer = arrays(server.predict("spectrum", {"x": x[None]}))["y"]
    np.testing.assert_allclose(answer, np.abs(np.fft.rfft(x))[None], rtol=1e-5)


def test_without_libraries_the_embedded_engine_runs(serve, halves):
    server = serve(halves)
    check_predictions(server.rest_predict("half", {"instances": [2.0]}), [3.0])
    assert engine(server, "half", "2") == ("embedded", "f32")


@pytest.mark.parametrize("name", NATIVE)
def test_a_library_that_is_missing(serve, halves, tmp_path, name):
    """One clear line with the command; other models are served."""
    other = copy(halves, tmp_path).rename(tmp_path / "other")
    config = tmp_path / "salver.toml"
    config.write_text(f'[models.half]\nengine = "{name}"\n')
    server = serve(halves, other, f"--config={config}", "--max_num_load_retries=0", wait="live")
    server.wait_state("half", 2, "END")
    server.wait_state("other", 2, "AVAILABLE")
    message = server.states("half")[2][2]
    assert f"salver runtime install {name}" in message and "\n" not in message, message
    lines = [line for line in server.log().splitlines() if f"salver runtime install {name}" in line]
    assert lines
    check_predictions(server.rest_predict("other", {"instances": [2.0]}), [3.0])


@pytest.mark.parametrize("content", [b"no library\n" * 100, b"", b"\x7fELF" + bytes(4096)], ids=["text", "empty", "cut"])
@pytest.mark.parametrize("name", NATIVE)
def test_a_library_that_is_broken(serve, runtimes, halves, tmp_path, name, content):
    """The same with files that are no library, and with one that is cut."""
    folder = tmp_path / "broken"
    for real in filter(pathlib.Path.is_dir, (runtimes / name).iterdir()):
        (folder / name / real.name).mkdir(parents=True)
        for file in real.iterdir():
            if ".so" in file.name:
                (folder / name / real.name / file.name).write_bytes(content)
    other = copy(halves, tmp_path).rename(tmp_path / "other")
    config = tmp_path / "salver.toml"
    config.write_text(f'[models.half]\nengine = "{name}"\n[models.other]\nengine = "embedded"\n')
    flags = [f"--runtime_dir={folder}", f"--config={config}", "--max_num_load_retries=0"]
    server = serve(halves, other, *flags, wait="live")
    server.wait_state("half", 2, "END")
    server.wait_state("other", 2, "AVAILABLE")
    message = server.states("half")[2][2]
    assert str(folder / name) in message and "\n" not in message, message
    check_predictions(server.rest_predict("other", {"instances": [2.0]}), [3.0])


def test_settings_beside_versions(serve, runtimes, halves, tmp_path):
    """Two versions of a model on two engines, each as its folder says; a flag is above both."""
    folder = copy(halves, tmp_path)
    (folder / "1" / "salver.toml").write_text('engine = "openvino"\nthreads = 2\n')
    (folder / "2" / "salver.toml").write_text('engine = "embedded"\n')
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "half" base_path: "{folder}" model_platform: "tensorflow"'
        " model_version_policy { all {} } } }"
    )
    server = serve(f"--model_config_file={config}", f"--runtime_dir={runtimes}", wait="live")
    for version in (1, 2):
        server.wait_state("half", version, "AVAILABLE")
    assert engine(server, "half", "1") == ("openvino", "f32")
    assert engine(server, "half", "2") == ("embedded", "f32")
    check_predictions(server.rest_predict("half/versions/1", {"instances": [2.0]}), [3.0])
    server = serve(f"--model_config_file={config}", f"--runtime_dir={runtimes}", "--engine=tensorflow", wait="live")
    server.wait_state("half", 1, "AVAILABLE")
    assert engine(server, "half", "1") == ("tensorflow", "f32")


def test_settings_with_a_mistake_are_named(serve, halves, tmp_path):
    folder = copy(halves, tmp_path)
    (folder / "2" / "salver.toml").write_text('engin = "openvino"\n')
    server = serve(folder, "--max_num_load_retries=0", wait="live")
    server.wait_state("half", 2, "END")
    message = server.states("half")[2][2]
    assert "salver.toml" in message and "unknown field `engin`" in message, message


def workers(server):
    """The processes that the server has started."""
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(server.process.pid)], capture_output=True, text=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "engine-worker" in line]


@pytest.mark.parametrize("name", ["embedded", *NATIVE])
def test_an_engine_in_a_process_of_its_own(serve, runtimes, halves, name):
    """It is killed, its requests fail cleanly, and it comes back; the server and its other process never stop."""
    other = halves.parent / "half"
    server = serve(halves, f"--runtime_dir={runtimes}", f"--engine={name}", "--isolate")
    check_predictions(server.rest_predict("half", {"instances": [2.0, 3.0]}), [3.0, 3.5])
    (pid,) = workers(server)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: "signal 9" in server.log() or "SIGKILL" in server.log(), "the log tells of the death")

    def answers():
        answer = server.rest_predict("half", {"instances": [2.0]})
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 200

    wait_for(answers, "the engine is back")
    (again,) = workers(server)
    assert again != pid
    assert server.get("/readyz").status_code == 200
    server.terminate()
    assert server.process.wait(timeout=30) == 0
    wait_for(lambda: not pathlib.Path(f"/proc/{again}").exists(), "the worker has ended")
    assert other.exists()


def test_a_worker_goes_with_its_server(serve, halves):
    server = serve(halves, "--isolate")
    (pid,) = workers(server)
    server.process.kill()
    server.process.wait()
    wait_for(lambda: not pathlib.Path(f"/proc/{pid}").exists(), "the worker has ended")


def test_a_signature_with_strings_on_tensorflow(serve, runtimes, tmp_path):
    folder = tmp_path / "texts"

    class Texts(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def __call__(self, text):
            return {"upper": tf.strings.upper(text), "length": tf.strings.length(text)}

    module = Texts()
    tf.saved_model.save(module, str(folder / "1"), signatures={"serving_default": module.__call__})
    server = serve(folder, f"--runtime_dir={runtimes}", "--engine=tensorflow")
    answer = arrays(server.predict("texts", {"text": np.array([b"tray", b"\xff"], object)}))
    assert answer["upper"].tolist() == [b"TRAY", b"\xff"]
    assert answer["length"].tolist() == [4, 1]
    with refused("INVALID_ARGUMENT"):
        server.predict("texts", {"text": floats(1.0)})


def salver(*arguments, **options):
    return subprocess.run([str(BINARY), *map(str, arguments)], capture_output=True, text=True, timeout=300, **options)


def test_tune_writes_what_serve_uses(serve, runtimes, tmp_path):
    folder = pathlib.Path(shutil.copytree(ROOT / "examples" / "models" / "digits", tmp_path / "digits"))
    version = max(int(child.name) for child in folder.iterdir() if child.name.isdigit())
    plot = tmp_path / "plot.svg"
    done = salver("tune", folder / str(version), f"--runtime_dir={runtimes}", "--budget=5", f"--plot={plot}")
    assert done.returncode == 0, done.stderr
    for name in ("embedded", "onnxruntime", "openvino"):
        assert name in done.stdout, done.stdout
    assert plot.read_text().startswith("<svg") or "<svg" in plot.read_text()
    settings = (folder / str(version) / "salver.toml").read_text()
    chosen = re.search(r'^engine = "(\w+)"', settings, re.M)[1]
    server = serve(folder, f"--runtime_dir={runtimes}")
    # What was written a moment ago counts when it has stayed the same for a scan.
    server.wait_state("digits", version, "AVAILABLE")
    assert engine(server, "digits", str(version)) == (chosen, "f32")
    sample = json.loads((ROOT / "examples" / "digits" / "sample.json").read_text())
    assert server.rest_predict("digits", sample).status_code == 200


def test_doctor_says_what_is_there(runtimes, halves, spectrum):
    done = salver("doctor", halves, spectrum, f"--runtime_dir={runtimes}")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in NATIVE:
        assert name in done.stdout
    done = salver("doctor", spectrum, env={**os.environ, "SALVER_RUNTIMES": "/nowhere"})
    assert "salver runtime install tensorflow" in done.stdout, done.stdout
