"""Measurements by topic, one hour a record; the forecast needs the last 120 of them.

    python weather.py [--data FILE | --synthetic] [--bootstrap HOST:PORT]

The network of `examples/weather` reads 120 hours. Here the station sends one hour at a time, and `salver stream` keeps the last
120 of each station, in a changelog topic too, so that they are found again after a crash: half way, the stream is killed. What
it says is compared with what Keras itself says of whole windows.
"""

import json
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import scene

WEATHER = scene.HERE.parent / "weather"
sys.path.insert(0, str(WEATHER))

import jena

MODEL = WEATHER / "models" / "weather"


def train(source: str, epochs: int, units: int) -> None:
    """Version 1 of `examples/weather`, if there is none yet."""
    if (MODEL / "1").exists():
        return
    data = ["--synthetic"] if source == "synthetic" else ["--data", source]
    command = [sys.executable, "train.py", *data, "--epochs", str(epochs), "--units", str(units)]
    subprocess.run(command, cwd=WEATHER, check=True)


def settings(normalisation: jena.Normalisation, changelog: str) -> str:
    def numbers(values):
        return ", ".join(repr(float(value)) for value in values)

    return f"""# An hour of a station in, and the forecast out: by the hour and the {jena.PAST - 1} before it.

[window]
input = "measurements"
rows = {jena.PAST}
changelog = "{changelog}"

[[input.tensors]]
input = "measurements"
fields = {json.dumps([quoted(column) for column in jena.COLUMNS])}

[input.tensors.scale]
mean = [{numbers(normalisation.mean)}]
std = [{numbers(normalisation.deviation)}]

[output]
mode = "replace"
keep = ["hour", "{quoted(jena.COLUMNS[jena.TEMPERATURE])}"]

[[output.fields]]
output = "temperature"
name = "forecast"
"""


def quoted(column: str) -> str:
    """The path of a field whose name may have points in it."""
    return f"'{column}'" if "." in column else column


def main() -> None:
    parser = scene.arguments(__doc__)
    jena.add_options(parser)
    parser.add_argument("--hours", type=int, default=400, help="hours that are sent")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--units", type=int, default=16)
    options = parser.parse_args()
    source = jena.source(options)
    train(source, options.epochs, options.units)
    normalisation, _ = jena.read_normalisation()
    table = jena.hours(source)[-options.hours :]
    version = max((int(folder.name) for folder in MODEL.iterdir() if folder.name.isdigit()))
    model = keras.saving.load_model(next((MODEL / str(version)).glob("weather.*")), compile=False)
    wanted = model.predict(jena.windows(normalisation.apply(table)), verbose=0)[:, 0]

    topics = [options.prefix + name for name in ("Weather", "Forecasts", "Weather-windows")]
    (metrics_port,) = scene.free_ports(1)
    with scene.broker(options.bootstrap) as bootstrap:
        scene.topics(bootstrap, topics[:2], partitions=1)
        scene.topics(bootstrap, topics[2:], partitions=1, cleanup_policy="compact")
        source, sink, changelog = topics
        file = scene.write_settings("weather.toml", settings(normalisation, changelog))
        stream = [
            options.salver, "stream", "--from", f"kafka://{bootstrap}/{source}", "--to", f"kafka://{bootstrap}/{sink}",
            "--model", MODEL, "--config", file, "--delivery", "exactly_once", "--metrics_port", metrics_port,
        ]
        half = len(table) // 2
        with scene.running(stream, metrics_port, "weather-1.log") as process:
            scene.send(bootstrap, source, records(table, range(half)))
            scene.read(bootstrap, sink, half - jena.PAST + 1)
            process.kill()
            process.wait()
            print("killed it half way", flush=True)
        with scene.running(stream, metrics_port, "weather-2.log"):
            scene.send(bootstrap, source, records(table, range(half, len(table))))
            answers = scene.read(bootstrap, sink, len(wanted))

    hours = [answer.value["hour"] for answer in answers]
    scene.expect(hours == list(range(jena.PAST - 1, len(table))), f"each hour from the {jena.PAST}th on has one forecast, in order")
    found = np.array([np.ravel(answer.value["forecast"])[0] for answer in answers])
    difference = float(np.abs(found - wanted).max())
    scene.expect(difference < 1e-4, f"the forecasts are those of Keras (largest difference {difference:.1e})")
    last = answers[-1].value
    degrees = normalisation.celsius(found[-1])
    print(f"hour {last['hour']}: {last[jena.COLUMNS[jena.TEMPERATURE]]:.1f} degrees now, {degrees:.1f} in {jena.AHEAD} hours")


def records(table: np.ndarray, hours: range):
    for hour in hours:
        row = {column: float(value) for column, value in zip(jena.COLUMNS, table[hour])}
        yield "jena", json.dumps({"hour": hour, **row})


if __name__ == "__main__":
    main()
