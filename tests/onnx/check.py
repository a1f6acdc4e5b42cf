#!/usr/bin/env python3
"""Checks what `salver convert` writes: the official checker accepts it, and ONNX Runtime computes what TensorFlow did.

    python check.py --salver PATH/TO/salver --models FOLDER [--only TEXT,...] [--formats keras,savedmodel,...]

FOLDER is one that tests/sweep/generate.py wrote. Needs onnx, onnxruntime and numpy. Ends with 1 when the checker or
ONNX Runtime refuses a file, or answers differ by more than 1e-3 of what is usual in an output; models that `convert`
refuses are listed with the reason, and are no failure here.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime

TOLERANCE = 1e-3


def tensor(folder, described):
    """A tensor as tests/sweep/README.md says it is stored."""
    data = (folder / described["file"]).read_bytes()
    if described["dtype"] != "string":
        return np.frombuffer(data, dtype=described["dtype"]).reshape(described["shape"])
    texts, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        texts.append(data[at + 4 : at + 4 + size].decode("utf8", "surrogateescape"))
        at += 4 + size
    return np.array(texts, dtype=object).reshape(described["shape"])


def named(described, names):
    """The name that the file has for a tensor."""
    found = [name for name in [described["name"], *described.get("also", [])] if name in names]
    if not found and len(names) == 1:
        found = list(names)
    if not found:
        raise ValueError(f"no '{described['name']}' among {sorted(names)}")
    return found[0]


def distance(got, want):
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype}{list(got.shape)}, expected {want.dtype}{list(want.shape)}"
    if want.dtype == object or want.size == 0:
        return None if (got == want).all() else "other texts"
    got, want = got.astype(np.float64), want.astype(np.float64)
    if not np.array_equal(np.isnan(got), np.isnan(want)):
        return "NaN in other places"
    usual = max(float(np.nanmax(np.abs(want), initial=0)), 1e-3)
    worst = float(np.nanmax(np.abs(got - want) / np.maximum(np.abs(want), usual / 10), initial=0))
    return None if worst < TOLERANCE else f"differs by {worst:.2g}"


def check(salver, folder, model, scratch):
    run = model["runs"][0]
    file = scratch / "model.onnx"
    command = [salver, "convert", str(folder / model["path"]), "-o", str(file)]
    if run["signature"]:
        command += ["--signature", run["signature"]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return "not written", done.stderr.strip().splitlines()[-1:]
    try:
        onnx.checker.check_model(str(file), full_check=True)
    except Exception as error:  # the checker raises several kinds
        return "refused by the checker", [str(error)]
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    try:
        session = onnxruntime.InferenceSession(str(file), options)
        names = {port.name for port in session.get_inputs()}
        feed = {named(t, names): tensor(folder, t) for t in run["inputs"]}
        outputs = dict(zip((port.name for port in session.get_outputs()), session.run(None, feed)))
    except Exception as error:  # onnxruntime raises several kinds
        return "refused by ONNX Runtime", [str(error)]
    wrong = []
    for described in run["outputs"]:
        found = distance(outputs[named(described, set(outputs))], tensor(folder, described))
        wrong += [f"{described['name']}: {found}"] if found else []
    return ("different", wrong) if wrong else ("the same", [])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--salver", required=True)
    parser.add_argument("--models", required=True, type=pathlib.Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--formats", default="keras,savedmodel,h5,frozen")
    args = parser.parse_args()
    tally = collections.Counter()
    for listing in sorted(args.models.glob("*/cases.json")):
        if not any(text in listing.parent.name for text in args.only.split(",")):
            continue
        for model in json.loads(listing.read_text())["models"]:
            if model["format"] not in args.formats.split(",") or not model["runs"]:
                continue
            with tempfile.TemporaryDirectory() as scratch:
                result, why = check(args.salver, listing.parent, model, pathlib.Path(scratch))
            tally[result] += 1
            for line in why:
                print(f"{listing.parent.name} ({model['format']}) {result}: {line[:300]}")
    print(", ".join(f"{n} {result}" for result, n in tally.most_common()))
    return 1 if set(tally) - {"the same", "not written"} else 0


if __name__ == "__main__":
    sys.exit(main())
