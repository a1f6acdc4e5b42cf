"""The programs of examples/kafka, each by its one command; each ends with an error where an answer differs from Keras."""

import os
import pathlib
import subprocess
import sys

import pytest

from server import BINARY

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


def run(kafka, tmp_path, program, *arguments):
    """Runs it in a copy of the examples, since it writes beside itself."""
    for name in ("kafka", "weather"):
        copied = tmp_path / name
        copied.mkdir()
        for file in (EXAMPLES / name).iterdir():
            if file.is_file():
                (copied / file.name).write_bytes(file.read_bytes())
    prefix = f"{tmp_path.name}-"
    command = [sys.executable, program, "--bootstrap", kafka.bootstrap, "--prefix", prefix, "--salver", BINARY, *arguments]
    done = subprocess.run(
        list(map(str, command)), cwd=tmp_path / "kafka", capture_output=True, text=True, timeout=170,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    logs = "".join(file.read_text(errors="replace")[-4000:] for file in sorted((tmp_path / "kafka").glob("run/*.log")))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}\n{logs}"
    print(done.stdout)
    return done.stdout


def test_images(kafka, tmp_path):
    out = run(kafka, tmp_path, "images.py", "--pictures", 100)
    assert out.count("as expected") == 3


def test_fraud(kafka, tmp_path):
    out = run(kafka, tmp_path, "fraud.py")
    assert out.count("as expected") == 5


def test_fraud_with_the_articles_own_network(kafka, tmp_path, testdata):
    data = testdata / "fraud"
    arguments = ["--model", data / "autoencoder_fraud.h5", "--data", data / "creditcard_small.csv"]
    out = run(kafka, tmp_path, "fraud.py", *arguments)
    assert out.count("as expected") == 4


@pytest.mark.parametrize("real", [False, True], ids=["synthetic", "jena"])
def test_weather(kafka, tmp_path, request, real):
    data = ["--data", request.getfixturevalue("testdata") / "jena" / "jena_climate_2018.csv"] if real else ["--synthetic"]
    out = run(kafka, tmp_path, "weather.py", *data, "--hours", 250)
    assert out.count("as expected") == 2
