"""Trains a network that forecasts tomorrow's temperature, and puts it where a server finds it.

    python train.py                 fetches the station's measurements of 2009 to 2016
    python train.py --data FILE     reads a CSV file of the station
    python train.py --synthetic     makes measurements up

Writes `models/weather/VERSION/weather.h5`, and beside this script `normalisation.json`, which the clients need.
The file appears in the served folder at once and whole: it is written elsewhere and moved in.
"""

import argparse
import os
import logging
import pathlib
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import jena

MODELS = jena.HERE / "models"


def network(units: int) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((jena.PAST, len(jena.COLUMNS)), name="measurements"),
            keras.layers.GRU(units, dropout=0.1, name="gru"),
            keras.layers.Dense(1, name="temperature"),
        ],
        name="weather",
    )


class Progress(keras.callbacks.Callback):
    """One line per epoch; errors in degrees."""

    def __init__(self, degrees: float):
        super().__init__()
        self.degrees = degrees

    def on_epoch_end(self, epoch, logs=None):
        training, validation = logs["mae"] * self.degrees, logs["val_mae"] * self.degrees
        print(f"epoch {epoch + 1:2}: mean error {training:.2f} degrees in training, {validation:.2f} in validation", flush=True)


def save(model: keras.Model, version: int) -> pathlib.Path:
    """Puts the model into its version folder in one step, since a server may watch."""
    folder = MODELS / "weather" / str(version)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=MODELS, prefix=".incoming-") as incoming:
        ready = pathlib.Path(incoming) / "ready"
        ready.mkdir()
        model.save(ready / "weather.h5", include_optimizer=False)
        ready.rename(folder)
    return folder / "weather.h5"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jena.add_options(parser)
    parser.add_argument("--version", type=int, default=1)
    parser.add_argument("--units", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    if (MODELS / "weather" / str(options.version)).exists():
        sys.exit(f"version {options.version} exists: choose another --version, or remove its folder")

    keras.utils.set_random_seed(options.version)
    # Keras advises against .h5 at each save.
    logging.getLogger("absl").setLevel(logging.ERROR)
    source = jena.source(options)
    table = jena.hours(source)
    weeks = jena.weeks(len(table))
    normalisation = jena.Normalisation.of(table[weeks.training])
    windows, temperatures = jena.pairs(normalisation.apply(table))
    ends = jena.ends(len(table))
    training, validation, test = (np.flatnonzero(part[ends]) for part in weeks)
    degrees = float(normalisation.deviation[jena.TEMPERATURE])
    print(f"{len(table)} hours; {training.size} to learn from, {validation.size} to watch, {test.size} to test")

    model = network(options.units)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse", metrics=["mae"])
    model.fit(
        windows[training], temperatures[training], validation_data=(windows[validation], temperatures[validation]),
        batch_size=32, epochs=options.epochs, verbose=0, callbacks=[Progress(degrees)],
    )

    rows, truth = windows[test], temperatures[test]
    error = np.abs(model.predict(rows, verbose=0)[:, 0] - truth).mean() * degrees
    same_as_now = np.abs(rows[:, -1, jena.TEMPERATURE] - truth).mean() * degrees
    print(f"test: mean error {error:.2f} degrees; {same_as_now:.2f} for whoever says 'as warm as now'")
    normalisation.write(source)
    print(f"wrote {save(model, options.version).relative_to(jena.HERE)} and {jena.NORMALISATION.name}")


if __name__ == "__main__":
    main()
