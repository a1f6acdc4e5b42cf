"""Card payments by topic, watched by an autoencoder in the stream processor itself: the second program of the article.

    python fraud.py [--bootstrap HOST:PORT]
    python fraud.py --model autoencoder.h5 --data creditcard.csv

The network has learned to repeat ordinary payments; one that it repeats badly is unusual. `salver stream --model` adds the error
of the repetition to each payment, and whether it is above a limit. Without --model and --data, payments are made up and the
network learns them. What the stream says is compared with what Keras itself says.
"""

import csv
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import scene

COLUMNS = ["Time", *(f"V{i}" for i in range(1, 29)), "Amount"]


def payments(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Payments that never were, and which of them are frauds: 28 numbers of which few are independent, except in a fraud."""
    random = np.random.default_rng(seed)
    habits = np.random.default_rng(0).normal(size=(4, 28))
    values = np.tanh(random.normal(size=(n, 4)) @ habits) + 0.1 * random.normal(size=(n, 28))
    frauds = random.random(n) < 0.01
    values[frauds] = 3 * random.normal(size=(int(frauds.sum()), 28))
    time = np.sort(random.uniform(0, 172_800, n))
    amount = random.lognormal(3, 1.2, n)
    return np.column_stack([time, values, amount]), frauds


def read(file: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """A file with a header that has these columns and Class."""
    with open(file, newline="") as opened:
        rows = list(csv.DictReader(opened))
    table = np.array([[float(row[column]) for column in COLUMNS] for row in rows])
    return table, np.array([float(row["Class"]) > 0 for row in rows])


def network() -> keras.Model:
    return keras.Sequential([
        keras.Input((len(COLUMNS),), name="payment"),
        keras.layers.Dense(14, activation="tanh", name="encoder1"),
        keras.layers.Dense(7, activation="relu", name="encoder2"),
        keras.layers.Dense(7, activation="tanh", name="decoder1"),
        keras.layers.Dense(len(COLUMNS), name="repeated"),
    ])


def trained(table: np.ndarray, epochs: int) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = network()
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    history = model.fit(table, table, epochs=epochs, batch_size=64, verbose=0)
    print(f"learned {len(table)} payments, mean error {history.history['loss'][-1]:.3f}", flush=True)
    return model


def settings(name: str, mean: np.ndarray, deviation: np.ndarray, limit: float) -> str:
    """The payment's fields make the model's input; two numbers go back into it."""
    numbers = ", ".join
    return f"""# Each payment gets the fields `error` and `suspicious`.

[[input.tensors]]
input = "{name}"
fields = ["Time", "V1..V28", "Amount"]

[input.tensors.scale]
mean = [{numbers(repr(float(value)) for value in mean)}]
std = [{numbers(repr(float(value)) for value in deviation)}]

[[output.fields]]
name = "error"
reduce = "mse"

[[output.fields]]
name = "suspicious"
reduce = "mse"
above = {limit!r}
"""


def main() -> None:
    parser = scene.arguments(__doc__)
    parser.add_argument("--model", type=pathlib.Path, help="an autoencoder of 30 numbers that Keras reads; one is trained when not given")
    parser.add_argument("--data", type=pathlib.Path, help="a CSV file with the columns Time, V1 to V28, Amount, Class; made up when not given")
    parser.add_argument("--payments", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--limit", type=float, help="the error above which a payment is suspicious; chosen from the data when not given")
    options = parser.parse_args()
    table, frauds = read(options.data) if options.data else payments(options.payments, seed=2)
    past, past_frauds = (table, frauds) if options.data else payments(6000, seed=1)
    mean, deviation = past.mean(axis=0), past.std(axis=0)
    scaled = ((table - mean) / deviation).astype(np.float32)
    if options.model:
        model, path = keras.saving.load_model(options.model, compile=False), options.model
    else:
        model = trained(((past - mean) / deviation)[~past_frauds], options.epochs)
        path = scene.save(model, "payments")
    errors = np.square(model.predict(scaled, verbose=0) - scaled).mean(axis=1)
    limit = options.limit or float(np.quantile(errors[~frauds], 0.99) * 1.2)

    file = scene.write_settings("fraud.toml", settings(model.inputs[0].name, mean, deviation, limit))
    source, sink = (options.prefix + name for name in ("Payments", "PaymentsChecked"))
    (metrics_port,) = scene.free_ports(1)
    with scene.broker(options.bootstrap) as bootstrap:
        scene.topics(bootstrap, [source, sink], partitions=3)
        stream = [
            options.salver, "stream", "--from", f"kafka://{bootstrap}/{source}", "--to", f"kafka://{bootstrap}/{sink}",
            "--model", path, "--config", file, "--delivery", "exactly_once", "--metrics_port", metrics_port,
        ]
        with scene.running(stream, metrics_port, "fraud.log"):
            scene.send(bootstrap, source, ((f"card-{i % 50}", record(i, row)) for i, row in enumerate(table)))
            answers = scene.read(bootstrap, sink, len(table))

    by_id = {answer.value["id"]: answer.value for answer in answers}
    scene.expect(sorted(by_id) == list(range(len(table))), f"each of {len(table)} payments has one answer")
    found = np.array([by_id[i]["error"] for i in range(len(table))])
    difference = float(np.max(np.abs(found - errors) / np.maximum(errors, 1)))
    scene.expect(difference < 1e-4, f"the errors are those of Keras (largest difference {difference:.1e})")
    clear = np.abs(errors - limit) > 1e-4 * np.maximum(errors, 1)
    flags = np.array([by_id[i]["suspicious"] for i in range(len(table))])
    scene.expect(bool(np.array_equal(flags[clear], (errors > limit)[clear])), f"suspicious are the {flags.sum()} payments above {limit:.3f}")
    if not options.data:
        scene.expect(flags[frauds].mean() > 0.9, f"{flags[frauds].sum()} of {frauds.sum()} frauds are among them")
    ordered = {}
    for answer in answers:
        ordered.setdefault(answer.key, []).append(answer.value["id"])
    scene.expect(all(ids == sorted(ids) for ids in ordered.values()), "the payments of each card are in order")


def record(i: int, row: np.ndarray) -> str:
    return json.dumps({"id": i, **{column: float(value) for column, value in zip(COLUMNS, row)}})


if __name__ == "__main__":
    main()
