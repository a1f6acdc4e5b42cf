"""Asks a running server for tomorrow's temperature, over REST and over gRPC, and compares the two.

    python forecast.py                       tomorrow's temperature after the last hour of the data
    python forecast.py --dump request.json   writes that question as a body for curl, and asks nothing
    python forecast.py --watch 60            asks again and again for a minute: says which version answers
    python forecast.py --plot forecast.png   draws forecast and truth over the test weeks
"""

import argparse
import collections
import json
import os
import pathlib
import time
import urllib.request

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

import jena

INPUT, OUTPUT = "measurements", "temperature"

# Windows in one request of --plot.
BATCH = 64


class Rest:
    """TensorFlow Serving's REST interface."""

    def __init__(self, server: str, model: str):
        self.base = f"{server}/v1/models/{model}"

    def predict(self, windows: np.ndarray, version: int | None = None) -> np.ndarray:
        path = f"/versions/{version}" if version else ""
        request = urllib.request.Request(f"{self.base}{path}:predict", json.dumps(body(windows)).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            return np.array(json.load(answer)["predictions"], np.float32)[:, 0]


class Grpc:
    """TensorFlow Serving's gRPC interface; its answers say which version gave them."""

    def __init__(self, server: str, model: str):
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server))
        self.model = model

    def predict(self, windows: np.ndarray) -> tuple[np.ndarray, int]:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.model
        request.inputs[INPUT].CopyFrom(tf.make_tensor_proto(windows, tf.float32))
        answer = self.stub.Predict(request, timeout=10)
        return tf.make_ndarray(answer.outputs[OUTPUT])[:, 0], answer.model_spec.version.value


def body(windows: np.ndarray) -> dict:
    return {"instances": windows.tolist()}


def ask(rest: Rest, over_grpc: Grpc, normalisation: jena.Normalisation, window: np.ndarray) -> None:
    """One question, asked both ways."""
    by_grpc, version = over_grpc.predict(window)
    by_rest = rest.predict(window, version)
    difference = float(np.abs(by_grpc - by_rest).max())
    print(f"in {jena.AHEAD} hours: {normalisation.celsius(by_grpc[0]):.1f} degrees (version {version})")
    print(f"REST {by_rest[0]:.7f}, gRPC {by_grpc[0]:.7f}, difference {difference:.1g}")
    if difference > 1e-6:
        raise SystemExit("the two interfaces differ")


def watch(rest: Rest, over_grpc: Grpc, normalisation: jena.Normalisation, window: np.ndarray, seconds: float) -> None:
    """Question after question; a line whenever another version answers than before."""
    answered, failed = collections.Counter(), 0
    before, begin = None, time.monotonic()
    while (now := time.monotonic() - begin) < seconds:
        try:
            answer, version = over_grpc.predict(window)
            rest.predict(window)
        except (grpc.RpcError, OSError) as error:
            failed += 1
            print(f"{now:5.1f} s: {error}")
            continue
        answered[version] += 1
        if version != before:
            print(f"{now:5.1f} s: version {version} answers, {normalisation.celsius(answer[0]):.1f} degrees", flush=True)
        before = version
    counts = ", ".join(f"version {version}: {n}" for version, n in sorted(answered.items()))
    print(f"{counts}; failed: {failed}")


def plot(over_grpc: Grpc, normalisation: jena.Normalisation, table: np.ndarray, file: str) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    windows, _ = jena.pairs(normalisation.apply(table))
    ends = jena.ends(len(table))
    wanted = np.flatnonzero(jena.weeks(len(table)).test[ends])
    weeks = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)[-3:]
    figure, axes = plt.subplots(len(weeks), 1, figsize=(7, 1.9 * len(weeks)), sharey=True, layout="constrained", squeeze=False)
    versions = set()
    for axis, week in zip(axes[:, 0], weeks):
        batches = [over_grpc.predict(windows[week[at : at + BATCH]]) for at in range(0, len(week), BATCH)]
        versions.update(version for _, version in batches)
        forecast = normalisation.celsius(np.concatenate([answer for answer, _ in batches]))
        truth = table[ends[week], jena.TEMPERATURE]
        day = ends[week] / 24
        axis.plot(day, truth, color="0.35", linewidth=1.2, label="measured")
        axis.plot(day, forecast, color="tab:orange", linewidth=1.2, label="forecast, made 24 hours before")
        error = np.abs(forecast - truth).mean()
        axis.set_title(f"days {day[0]:.0f} to {day[-1]:.0f}: mean error {error:.1f} degrees", fontsize=8, loc="left")
        axis.tick_params(labelsize=8)
        axis.grid(color="0.9")
        axis.set_xlim(day[0], day[-1])
    axes[0, 0].legend(fontsize=8, frameon=False, loc="upper left", ncols=2)
    axes[-1, 0].set_xlabel("day of the data", fontsize=8)
    figure.supylabel("degrees Celsius", fontsize=8)
    figure.savefig(file, dpi=100)
    print(f"wrote {file}, forecast by version {', '.join(map(str, sorted(versions)))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jena.add_options(parser)
    parser.add_argument("--rest", default="http://localhost:8501", help="the server's REST address")
    parser.add_argument("--grpc", default="localhost:8500", help="the server's gRPC address")
    parser.add_argument("--model", default="weather")
    parser.add_argument("--dump", metavar="FILE")
    parser.add_argument("--watch", metavar="SECONDS", type=float)
    parser.add_argument("--plot", metavar="FILE")
    options = parser.parse_args()

    normalisation, source = jena.read_normalisation()
    table = jena.hours(jena.source(options) if options.data or options.synthetic else source)
    window = normalisation.apply(table)[np.newaxis, -jena.PAST :]
    if options.dump:
        pathlib.Path(options.dump).write_text(json.dumps(body(window)) + "\n")
        print(f"wrote {options.dump}")
        return
    rest, over_grpc = Rest(options.rest, options.model), Grpc(options.grpc, options.model)
    try:
        if options.watch:
            watch(rest, over_grpc, normalisation, window, options.watch)
        elif options.plot:
            plot(over_grpc, normalisation, table, options.plot)
        else:
            ask(rest, over_grpc, normalisation, window)
    except (grpc.RpcError, OSError) as error:
        raise SystemExit(f"no answer: {error.details() if isinstance(error, grpc.RpcError) else error}")


if __name__ == "__main__":
    main()
