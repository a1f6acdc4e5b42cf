"""Measurements of the weather station in Jena (Max Planck Institute for Biogeochemistry), hour by hour.

A forecast takes the last PAST hours of 14 measurements and gives the temperature AHEAD hours later. The station
notes a row every ten minutes; every sixth is used.
"""

import argparse
import csv
import json
import pathlib
import sys
import urllib.request
import zipfile
from typing import NamedTuple

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
NORMALISATION = HERE / "normalisation.json"
URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/jena_climate_2009_2016.csv.zip"

COLUMNS = [
    "p (mbar)", "T (degC)", "Tpot (K)", "Tdew (degC)", "rh (%)", "VPmax (mbar)", "VPact (mbar)", "VPdef (mbar)",
    "sh (g/kg)", "H2OC (mmol/mol)", "rho (g/m**3)", "wv (m/s)", "max. wv (m/s)", "wd (deg)",
]
TEMPERATURE = COLUMNS.index("T (degC)")

PAST = 120
AHEAD = 24


def add_options(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", metavar="FILE", help="a CSV file of the station; fetched when not given")
    source.add_argument("--synthetic", action="store_true", help="make measurements up: needs no network")


def source(options: argparse.Namespace) -> str:
    """Where the measurements come from: a path, or `synthetic`."""
    if options.synthetic:
        return "synthetic"
    return str(pathlib.Path(options.data).resolve()) if options.data else str(fetched())


def fetched() -> pathlib.Path:
    """The station's file of 2009 to 2016, fetched at the first call."""
    folder = HERE / "data"
    file = folder / "jena_climate_2009_2016.csv"
    if not file.exists():
        folder.mkdir(exist_ok=True)
        print(f"fetching {URL}")
        try:
            archive, _ = urllib.request.urlretrieve(URL)
        except OSError as error:
            sys.exit(f"cannot fetch the measurements ({error}): give a file with --data, or --synthetic")
        with zipfile.ZipFile(archive) as opened:
            opened.extract(file.name, folder)
    return file


def hours(source: str) -> np.ndarray:
    """The measurements, hour by hour: [hours, 14]."""
    return synthetic() if source == "synthetic" else read(pathlib.Path(source))


def read(file: pathlib.Path) -> np.ndarray:
    # The degree signs of some years are not UTF-8; the numbers are.
    with open(file, newline="", encoding="latin-1") as opened:
        rows = csv.reader(opened)
        header = next(rows)
        every_sixth = [row[1 : 1 + len(COLUMNS)] for n, row in enumerate(rows) if n % 6 == 0]
    if len(header) <= len(COLUMNS) or not header[1].startswith("p ("):
        sys.exit(f"{file}: not a file of the station (its first columns are {header[:3]})")
    table = np.array(every_sixth, np.float32)
    # -9999 stands for a value that was not measured: the one before it takes its place.
    for column in table.T:
        for n in np.flatnonzero(column < -9000):
            column[n] = column[n - 1]
    return table


def synthetic(years: int = 2, seed: int = 0) -> np.ndarray:
    """Weather that never was: a year, a day, and fronts that pass in some days; the rest follows from these."""
    random = np.random.default_rng(seed)
    hour = np.arange(years * 365 * 24)

    def fronts(days: float) -> np.ndarray:
        """A wandering value of deviation 1 that forgets itself in so many days."""
        keep = np.exp(-1 / (24 * days))
        steps = random.normal(size=hour.size) * np.sqrt(1 - keep**2)
        value, values = 0.0, np.empty(hour.size)
        for n, step in enumerate(steps):
            value = keep * value + step
            values[n] = value
        return values

    pressure = 989 + 8 * fronts(3)
    clear = fronts(2)
    season, day = -np.cos(2 * np.pi * hour / 8760), -np.cos(2 * np.pi * (hour - 3) / 24)
    kelvin = 282.5 + 9 * season + (3 + 1.5 * season + clear) * day + 4 * fronts(4) + 0.1 * (pressure - 989)
    celsius = kelvin - 273.15
    humidity = np.clip(76 - 8 * season - (10 + 3 * season) * day - 6 * clear, 15, 100)
    vapour_max = 6.11 * np.exp(17.6 * celsius / (243 + celsius))
    vapour = vapour_max * humidity / 100
    logarithm = np.log(vapour / 6.11)
    wind = np.abs(2.1 + 1.2 * fronts(1) + 0.4 * day)
    columns = [
        pressure, celsius, kelvin * (1000 / pressure) ** 0.286, 243 * logarithm / (17.6 - logarithm), humidity,
        vapour_max, vapour, vapour_max - vapour, 622 * vapour / (pressure - 0.378 * vapour), 1000 * vapour / pressure,
        1e5 * pressure / (287.05 * kelvin), wind, 1.6 * wind + 0.3 * np.abs(random.normal(size=hour.size)),
        (180 + 70 * fronts(2)) % 360,
    ]
    return np.stack(columns, axis=1).astype(np.float32)


class Weeks(NamedTuple):
    """For every hour whether it belongs to the part."""

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def weeks(n_hours: int) -> Weeks:
    """Of every five weeks three are for training, one for validation, one for test: each part sees each season."""
    week = np.arange(n_hours) // (7 * 24) % 5
    return Weeks(week < 3, week == 3, week == 4)


def windows(table: np.ndarray) -> np.ndarray:
    """Every PAST hours in a row: [windows, PAST, 14]."""
    return np.lib.stride_tricks.sliding_window_view(table, PAST, axis=0).transpose(0, 2, 1)


def pairs(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Windows whose future is known, with the temperature AHEAD hours after their last hour."""
    return windows(table[:-AHEAD]), table[ends(len(table)), TEMPERATURE]


def ends(n_hours: int) -> np.ndarray:
    """The hours that the pairs forecast."""
    return np.arange(PAST - 1 + AHEAD, n_hours)


class Normalisation:
    """Mean and deviation of each column over the training hours."""

    def __init__(self, mean, deviation):
        self.mean, self.deviation = np.float32(mean), np.float32(deviation)

    @classmethod
    def of(cls, table: np.ndarray) -> "Normalisation":
        return cls(table.mean(axis=0), table.std(axis=0))

    def apply(self, table: np.ndarray) -> np.ndarray:
        return (table - self.mean) / self.deviation

    def celsius(self, value):
        """The temperature that an answer of the network stands for."""
        return value * self.deviation[TEMPERATURE] + self.mean[TEMPERATURE]

    def write(self, source: str) -> None:
        value = {"source": source, "columns": COLUMNS, "mean": self.mean.tolist(), "deviation": self.deviation.tolist()}
        NORMALISATION.write_text(json.dumps(value, indent=1) + "\n")


def read_normalisation() -> tuple[Normalisation, str]:
    """What `train.py` wrote: mean and deviation, and where its measurements came from."""
    try:
        value = json.loads(NORMALISATION.read_text())
    except FileNotFoundError:
        sys.exit(f"{NORMALISATION} does not exist: run train.py first")
    return Normalisation(value["mean"], value["deviation"]), value["source"]
