"""What `salver stream` is measured beside over files: a script that reads CSV, scores batches with onnxruntime, writes CSV.

stream.py make COLUMNS MODEL             writes a small network
stream.py score WAY MODEL INPUT OUTPUT   scores a file; WAY is csv, pandas or pyarrow
"""

import sys

BATCH = 65_536


def make(columns, path):
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(6)
    nodes, weights, last = [], [], "x"
    sizes = [columns, 32, 16, 1]
    for i, (n_in, n_out) in enumerate(zip(sizes, sizes[1:])):
        for name, values in [(f"w{i}", rng.normal(0, n_in**-0.5, (n_in, n_out))), (f"b{i}", rng.normal(0, 0.1, n_out))]:
            weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [f"sum{i}"]))
        is_last = i == len(sizes) - 2
        last = "y" if is_last else f"h{i}"
        nodes.append(helper.make_node("Sigmoid" if is_last else "Relu", [f"sum{i}"], [last]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", columns])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])]
    graph = helper.make_graph(nodes, "mlp", inputs, outputs, weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def session(path):
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def by_csv(model, source, target):
    """Rows by the csv module, numbers by numpy."""
    import csv
    import itertools

    import numpy as np

    with open(source, newline="") as rows, open(target, "w", newline="") as out:
        reader, writer = csv.reader(rows), csv.writer(out)
        writer.writerow(next(reader) + ["y"])
        while batch := list(itertools.islice(reader, BATCH)):
            x = np.array([row[1:] for row in batch], np.float32)
            (y,) = model.run(["y"], {"x": x})
            writer.writerows(row + [value] for row, value in zip(batch, y[:, 0].tolist()))


def by_pandas(model, source, target):
    """Chunks by pandas, whose parser is in C."""
    import pandas as pd

    with open(target, "w", newline="") as out:
        for i, chunk in enumerate(pd.read_csv(source, chunksize=BATCH)):
            (y,) = model.run(["y"], {"x": chunk.iloc[:, 1:].to_numpy("float32")})
            chunk["y"] = y[:, 0]
            chunk.to_csv(out, index=False, header=i == 0)


def by_pyarrow(model, source, target):
    """Blocks by pyarrow, which reads ahead on threads of its own and writes in C++."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import csv

    options = csv.ReadOptions(block_size=8 << 20)
    with csv.open_csv(source, read_options=options) as reader:
        schema = reader.schema.append(pa.field("y", pa.float32()))
        with csv.CSVWriter(target, schema) as writer:
            for block in reader:
                x = np.stack([column.to_numpy() for column in block.columns[1:]], axis=1).astype(np.float32)
                (y,) = model.run(["y"], {"x": x})
                columns = [*block.columns, pa.array(y[:, 0])]
                writer.write_batch(pa.record_batch(columns, schema=schema))


WAYS = {"csv": by_csv, "pandas": by_pandas, "pyarrow": by_pyarrow}


def main(arguments):
    match arguments:
        case ["make", columns, path]:
            make(int(columns), path)
        case ["score", way, model, source, target] if way in WAYS:
            WAYS[way](session(model), source, target)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
