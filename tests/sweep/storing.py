"""Saves a model in every format it can have, with inputs and TensorFlow's own answers; README.md has the layout."""

import json
import pathlib
import shutil
import zlib

import feeds as default_feeds
from late import keras, keras2, np, tf, v1

BATCHES = (1, 3)
FORMATS = ("h5", "keras", "savedmodel", "frozen")


class Folder:
    """The folder of one case while it is written."""

    def __init__(self, path, case):
        self.path = pathlib.Path(path)
        self.case = case
        self.models, self.missing, self.notes, self.n_tensors = [], [], [], 0
        (self.path / "data").mkdir(parents=True)

    def tensor(self, array, name, *also):
        """Writes one tensor and returns its entry; `also` are further names that a server may give it."""
        array = np.asarray(array)
        file = f"data/{self.n_tensors}.bin"
        self.n_tensors += 1
        if array.dtype == object or array.dtype.kind in "SU":
            dtype, data = "string", b"".join(
                len(text).to_bytes(4, "little") + text for text in map(encoded, array.reshape(-1))
            )
        else:
            dtype, data = array.dtype.name, np.ascontiguousarray(array).tobytes()
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                self.notes.append(f"{name} is not finite")
        (self.path / file).write_bytes(data)
        also = [text for text in dict.fromkeys(also) if text and text != name]
        return {"name": name, "also": also, "dtype": dtype, "shape": list(array.shape), "file": file}

    def model(self, format, path, runs, unread=None):
        self.models.append({"format": format, "path": path, "runs": runs, "unread": unread})

    def attempt(self, format, action):
        """Runs `action`, which saves one format; what TensorFlow or Keras cannot save is written down."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 the reason goes into the report
            self.missing.append({"format": format, "reason": shortened(error)})
            shutil.rmtree(self.path / format, ignore_errors=True)

    def place(self, format, name):
        (self.path / format).mkdir(exist_ok=True)
        return f"{format}/{name}" if name else format

    def finish(self):
        case = self.case
        content = {
            "name": case.name,
            "family": case.family,
            "layer": case.layer,
            "options": ", ".join(f"{key}={value}" for key, value in case.options.items()),
            "refuse": case.refuse,
            "generator": case.generator,
            "models": self.models,
            "missing": self.missing,
            "notes": self.notes,
        }
        (self.path / "cases.json").write_text(json.dumps(content, indent=1))


def shortened(error):
    return f"{type(error).__name__}: {error}".split("\n")[0][:300]


def encoded(text):
    return text if isinstance(text, bytes) else str(text).encode()


# Keras 3


def randomise(model, rng):
    """Gives every weight that starts as a constant a value that matters, and keeps drawn kernels."""
    for variable in model.weights:
        shape, kind = tuple(variable.shape), str(variable.name).split("/")[-1].split(":")[0]
        if "float" not in str(getattr(variable.dtype, "name", variable.dtype)):
            continue
        if kind in ("bias", "beta", "recurrent_bias", "moving_mean", "bias_q", "bias_v"):
            value = np.array(variable) + rng.normal(0, 0.2, shape)
        elif kind in ("gamma", "scale", "concat_score_weight", "moving_variance", "attention_v"):
            value = rng.uniform(0.6, 1.4, shape)
        elif kind == "alpha":
            value = rng.uniform(0.05, 0.5, shape)
        elif kind == "embeddings":
            value = rng.uniform(-1, 1, shape)
        else:
            continue
        variable.assign(value.astype("float32"))


def calibrate(model, rng, sample):
    """Takes the statistics of deep networks from a batch, so that neither signals nor errors fade or explode."""
    for variable in model.weights:
        if variable.name.split("/")[-1].startswith("kernel") and len(variable.shape) == 4:
            variable.assign(np.array(variable) * 2**0.5)
    norms = [layer for layer in flat_layers(model) if type(layer).__name__ == "BatchNormalization"]
    for layer in norms:
        layer.momentum, layer.kept = 0.0, layer.momentum
    if norms:
        tf.function(lambda x: model(x, training=True))(sample)
    for layer in norms:
        layer.momentum = layer.kept
        variance = np.array(layer.moving_variance)
        n = variance.shape
        layer.moving_variance.assign(variance * rng.uniform(0.8, 1.25, n) + 0.1 * variance.mean() + 1e-4)
        shift = rng.normal(0, 0.1, n) * np.sqrt(variance.mean())
        layer.moving_mean.assign(np.array(layer.moving_mean) + shift)


def flat_layers(model):
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from flat_layers(layer)
        else:
            yield layer


def unique(names):
    seen, out = {}, []
    for name in names:
        n = seen.get(name, 0)
        seen[name] = n + 1
        out.append(name if n == 0 else f"{name}_{n}")
    return out


def output_names(outputs):
    """As Keras 2 names signatures: the layer's name, numbered when a layer gives several tensors."""
    return unique([tensor._keras_history[0].name for tensor in outputs])


def built(case):
    """The model and its feeds."""
    result = case.build()
    return result if isinstance(result, tuple) else (result, {})


def keras3(case, folder):
    keras.utils.clear_session()
    keras.utils.set_random_seed(case.seed())
    rng = np.random.default_rng(case.seed())
    model, feeds = built(case)
    functional = model if hasattr(model, "_inputs_struct") else model._functional
    tensors = keras.tree.flatten(functional._inputs_struct)
    if model.inputs:
        tensors = model.inputs
    names = [tensor.name for tensor in tensors]
    feed = [
        feeds.get(t.name) or default_feeds.by_type(str(t.dtype), t.shape[1:]) for t in tensors
    ]
    randomise(model, rng)
    if case.family == "applications":
        calibrate(model, rng, feed[0](rng, 12))

    def call(*arguments):
        return model(pack(arguments), training=False)

    def pack(arguments):
        return keras.tree.pack_sequence_as(functional._inputs_struct, arguments)

    answers = Answers(case, call, tensors, names, feed, rng)
    for layer in flat_layers(model):
        if getattr(layer, "stateful", False):
            # The answers have changed its state.
            layer.reset_states()
    keys = dict_keys(functional._outputs_struct)
    out_names = output_names(model.outputs)
    input_keys = dict_keys(functional._inputs_struct) or [None] * len(names)

    def runs(in_names, o_names):
        return answers.runs(folder, in_names, o_names)

    first = [[name, key] for name, key in zip(names, input_keys)]
    outs = [
        [name, f"output_{i}", keys[i] if keys else None] for i, name in enumerate(out_names)
    ]

    def save(format, file):
        path = folder.place(format, file)
        model.save(folder.path / path)
        unread = None
        if case.family != "applications" and not case.refuse:
            unread = answers.check(lambda: keras.saving.load_model(folder.path / path, compile=False), pack)
        folder.model(format, path, runs(first, outs), unread)

    folder.attempt("h5", lambda: save("h5", "model.h5"))
    folder.attempt("keras", lambda: save("keras", "model.keras"))

    def export():
        path = folder.place("savedmodel", None)
        model.export(folder.path / path, verbose=False)
        folder.model("savedmodel", path, answers.signature_runs(folder, folder.path / path, first, outs))

    folder.attempt("savedmodel", export)
    folder.attempt("frozen", lambda: freeze(case, folder, answers))


def dict_keys(struct):
    return sorted(struct) if isinstance(struct, dict) else None


class Answers:
    """Inputs and TensorFlow's answers to them, by position."""

    def __init__(self, case, call, tensors, names, feed, rng):
        specs = [
            tf.TensorSpec(tuple(t.shape), dtype_name(t.dtype), name=name) for t, name in zip(tensors, names)
        ]
        self.function = tf.function(call).get_concrete_function(*specs)
        fixed = tensors[0].shape[0]
        self.batches = []
        for n in BATCHES if fixed is None else [fixed]:
            given = [make(rng, n) for make in feed]
            self.batches.append((given, self.compute(given)))

    def compute(self, given):
        arguments = [tf.constant(array) for array in given]
        return [tensor.numpy() for tensor in tf.nest.flatten(self.function(*arguments))]

    def runs(self, folder, in_names, out_names, signature=None):
        return [
            {
                "signature": signature,
                "inputs": [folder.tensor(a, *n) for a, n in zip(given, in_names)],
                "outputs": [folder.tensor(a, *n) for a, n in zip(expected, out_names)],
            }
            for given, expected in self.batches
        ]

    def check(self, read, pack):
        """Why Keras itself cannot read the file, if it cannot. Fails when what it reads answers otherwise: then the
        file does not hold the model."""
        try:
            again = read()
        except Exception as error:  # noqa: BLE001 the reason goes into the report
            return shortened(error)
        for given, expected in self.batches:
            found = tf.nest.flatten(again(pack([tf.constant(array) for array in given]), training=False))
            compare(found, expected)
        return None

    def signature_runs(self, folder, path, first, outs, signature="serving_default"):
        """Runs under the names that the SavedModel itself gives. Fails when TensorFlow computes otherwise from it."""
        found = signature_of(path, signature)
        inputs = [[pick(found.inputs, names, len(first))] for names in first]
        outputs = [[pick(found.outputs, names, len(outs))] for names in outs]
        if folder.case.family != "applications":
            function = tf.saved_model.load(path).signatures[signature]
            for given, expected in self.batches:
                again = function(**{name: tf.constant(array) for (name,), array in zip(inputs, given)})
                compare([again[name] for (name,) in outputs], expected)
        return self.runs(folder, inputs, outputs, signature)


def compare(found, expected):
    for one, other in zip(found, expected, strict=True):
        one = one.numpy() if hasattr(one, "numpy") else np.asarray(one)
        exact = one.dtype == object or one.dtype.kind in "iub"
        if not (np.array_equal(one, other) if exact else np.allclose(one, other, 1e-4, 1e-4, True)):
            raise ValueError("its own reader does not answer the same from the file")


def pick(keys, candidates, count):
    keys = sorted(keys)
    if count == 1 and len(keys) == 1:
        return keys[0]
    for name in candidates:
        if name in keys:
            return name
    raise ValueError(f"none of {candidates} in {keys}")


def signature_of(path, signature):
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((path / "saved_model.pb").read_bytes())
    return saved.meta_graphs[0].signature_def[signature]


def dtype_name(dtype):
    return getattr(dtype, "name", dtype)


def freeze(case, folder, answers):
    frozen, path = frozen_function(case, folder, answers.function)
    in_names, out_names = ([[t.name, t.op.name] for t in tensors] for tensors in (frozen.inputs, frozen.outputs))
    folder.model("frozen", path, answers.runs(folder, in_names, out_names))


def frozen_function(case, folder, function):
    """Saves a function as a frozen graph. Half of the graphs keep functional loops, the others get loops of TensorFlow 1,
    which is what the conversion makes unless told otherwise."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    lower = zlib.crc32(case.name.encode()) % 2 == 0
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=lower)
    if any(tensor.dtype == tf.resource for tensor in frozen.inputs):
        raise ValueError("a frozen graph keeps no lookup tables")
    path = folder.place("frozen", "model.pb")
    (folder.path / path).write_bytes(frozen.graph.as_graph_def().SerializeToString())
    return frozen, path


# Keras 2


def keras_2(case, folder):
    keras2.backend.clear_session()
    keras2.utils.set_random_seed(case.seed())
    rng = np.random.default_rng(case.seed())
    model, feeds = built(case)
    names = list(model.input_names)
    feed = [
        feeds.get(name) or default_feeds.by_type(dtype_name(t.dtype), t.shape[1:])
        for name, t in zip(names, model.inputs)
    ]
    randomise(model, rng)
    if case.family == "applications":
        calibrate(model, rng, feed[0](rng, 12))
    many = len(names) > 1

    def pack(arguments):
        return list(arguments) if many else arguments[0]

    def call(*arguments):
        return model(pack(arguments), training=False)

    answers = Answers(case, call, model.inputs, names, feed, rng)
    first = [[name] for name in names]
    outs = [[name, f"output_{i}"] for i, name in enumerate(unique(model.output_names))]

    def save(format, file):
        path = folder.place(format, file)
        model.save(folder.path / path)
        unread = None
        if not case.refuse:
            unread = answers.check(lambda: keras2.models.load_model(folder.path / path, compile=False), pack)
        folder.model(format, path, answers.runs(folder, first, outs), unread)

    folder.attempt("h5", lambda: save("h5", "model.h5"))
    folder.attempt("keras", lambda: save("keras", "model.keras"))

    def export():
        path = folder.place("savedmodel", None)
        model.save(folder.path / path, save_format="tf")
        folder.model("savedmodel", path, answers.signature_runs(folder, folder.path / path, first, outs))

    folder.attempt("savedmodel", export)
    folder.attempt("frozen", lambda: freeze(case, folder, answers))


# tf.Module


def module(case, folder):
    """`build` gives (module, {signature: tf.function with an input signature}, [(signature, inputs by name)])."""
    tf.random.set_seed(case.seed())
    rng = np.random.default_rng(case.seed())
    what, functions, steps = case.build()
    steps = steps(rng) if callable(steps) else steps
    concrete = {name: function.get_concrete_function() for name, function in functions.items()}
    path = folder.place("savedmodel", None)
    tf.saved_model.save(what, folder.path / path, signatures=concrete)
    answered = [(name, given, answer(concrete[name], given)) for name, given in steps]
    folder.model("savedmodel", path, [named_run(folder, *step) for step in answered])
    if len(concrete) == 1:
        folder.attempt("frozen", lambda: freeze_module(case, folder, next(iter(concrete.values())), answered))


def answer(function, given):
    arguments = {name: tf.constant(value) for name, value in given.items()}
    found = function(**arguments)
    return {name: tensor.numpy() for name, tensor in found.items()}


def named_run(folder, name, given, expected, rename=lambda name: [name]):
    return {
        "signature": name,
        "inputs": [folder.tensor(value, *rename(key)) for key, value in given.items()],
        "outputs": [folder.tensor(value, *rename(key)) for key, value in expected.items()],
    }


def freeze_module(case, folder, function, answered):
    frozen, path = frozen_function(case, folder, function)
    names = {tensor.op.name: tensor.name for tensor in frozen.inputs}
    for key, tensor in zip(sorted(function.structured_outputs), frozen.outputs):
        names[key] = tensor.name
    rename = lambda key: [names.get(key, key + ":0"), names.get(key, key).split(":")[0]]  # noqa: E731
    folder.model("frozen", path, [named_run(folder, None, g, e, rename) for _, g, e in answered])


# TensorFlow 1 graphs


def graph(case, folder):
    """`build` is called in a fresh graph and gives {signature: (method, inputs, outputs)} of tensors, and the runs."""
    rng = np.random.default_rng(case.seed())
    with tf.Graph().as_default() as found:
        v1.set_random_seed(case.seed())
        control_flow_v2 = case.options.get("control_flow") == "v2"
        (v1.enable_control_flow_v2 if control_flow_v2 else v1.disable_control_flow_v2)()
        try:
            signatures, steps = case.build()
            steps = steps(rng) if callable(steps) else steps
            with v1.Session(graph=found) as session:
                write_graph(case, folder, session, signatures, steps)
        finally:
            v1.enable_control_flow_v2()


def write_graph(case, folder, session, signatures, steps):
    session.run([v1.global_variables_initializer(), v1.local_variables_initializer(), v1.tables_initializer()])
    path = folder.place("savedmodel", None)
    shutil.rmtree(folder.path / path)
    builder = v1.saved_model.builder.SavedModelBuilder(str(folder.path / path))
    defs = {
        name: v1.saved_model.build_signature_def(
            {key: v1.saved_model.build_tensor_info(tensor) for key, tensor in inputs.items()},
            {key: v1.saved_model.build_tensor_info(tensor) for key, tensor in outputs.items()},
            method,
        )
        for name, (method, inputs, outputs) in signatures.items()
    }
    builder.add_meta_graph_and_variables(
        session, ["serve"], defs, assets_collection=v1.get_collection("asset_filepaths"),
        main_op=v1.tables_initializer(),
    )
    text = case.options.get("text")
    builder.save(as_text=bool(text))
    answered = []
    for name, given in steps:
        _, inputs, outputs = signatures[name]
        expected = session.run(outputs, {inputs[key]: value for key, value in given.items()})
        answered.append((name, given, expected))
    folder.model("savedmodel", path, [named_run(folder, *step) for step in answered])
    if len(signatures) == 1:
        folder.attempt("frozen", lambda: freeze_graph(folder, session, signatures, answered, text))


def freeze_graph(folder, session, signatures, answered, text):
    (_, inputs, outputs), = signatures.values()
    ends = sorted({tensor.op.name for tensor in outputs.values()})
    kinds = {operation.type for operation in session.graph.get_operations()}
    if any("HashTable" in kind for kind in kinds):
        raise ValueError("a frozen graph keeps no lookup tables")
    frozen = v1.graph_util.convert_variables_to_constants(session, session.graph_def, ends)
    path = folder.place("frozen", "model.pbtxt" if text else "model.pb")
    data = str(frozen).encode() if text else frozen.SerializeToString()
    (folder.path / path).write_bytes(data)
    tensors = {**inputs, **outputs}
    rename = lambda key: [tensors[key].name, tensors[key].op.name]  # noqa: E731
    folder.model("frozen", path, [named_run(folder, None, g, e, rename) for _, g, e in answered])


WRITERS = {"keras3": keras3, "keras2": keras_2, "module": module, "graph": graph}


def write(case, place):
    """Writes the whole case beside its place and moves it there; returns what is missing and what was noticed."""
    place = pathlib.Path(place)
    beside = place.with_name(f".{place.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    folder = Folder(beside, case)
    WRITERS[case.write](case, folder)
    if not folder.models:
        reasons = "; ".join(f"{m['format']}: {m['reason']}" for m in folder.missing)
        raise ValueError(f"no format could be saved: {reasons}")
    folder.finish()
    shutil.rmtree(place, ignore_errors=True)
    beside.rename(place)
    return folder.missing, folder.notes
