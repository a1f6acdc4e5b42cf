"""Preprocessing layers: numbers, images, categories and text."""

import feeds
from catalogue import add
from families.one_layer import one_layer
from late import L, keras, np

IMAGE = (10, 12, 3)
NUMBERS = [
    ("Rescaling", IMAGE, dict(scale=1 / 255), {}),
    ("Rescaling", IMAGE, dict(scale=1 / 127.5, offset=-1.0), {}),
    ("Rescaling", IMAGE, dict(scale=[0.1, 0.2, 0.3], offset=[1.0, 2.0, 3.0]), {}),
    ("Normalization", (3,), dict(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]), {}),
    ("Normalization", IMAGE, dict(mean=0.4, variance=2.0, axis=None), {}),
    ("Normalization", (3,), dict(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0], invert=True), {}),
    ("Normalization", (4, 3), dict(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 4.0], axis=1), {}),
    ("Discretization", (4,), dict(bin_boundaries=[-0.5, 0.0, 0.4]), {}),
    ("Discretization", (4,), dict(bin_boundaries=[-0.5, 0.0, 0.4], output_mode="one_hot"), {}),
    ("Discretization", (4,), dict(bin_boundaries=[-0.5, 0.0, 0.4], output_mode="multi_hot"), {}),
    ("Discretization", (4,), dict(bin_boundaries=[-0.5, 0.0, 0.4], output_mode="count"), {}),
]
for layer, shape, options, extra in NUMBERS:
    short = {k: v if not isinstance(v, list) else "per channel" for k, v in options.items()}
    name = {k: round(v, 4) if isinstance(v, float) else v for k, v in short.items()}
    rank = dict(input="1 axis") if layer == "Normalization" and shape == (4, 3) else {}
    one_layer("preprocessing", layer, shape, options, shown={**name, **rank, **extra})


def adapted_normalisation(shape, axis):
    def build():
        layer = L.Normalization(axis=axis)
        layer.adapt(np.random.default_rng(1).normal(3, 2, (50, *shape)).astype("float32"))
        x = keras.Input(shape, name="x")
        return keras.Model(x, layer(x))

    return build


add("preprocessing", "Normalization", dict(adapt=True), adapted_normalisation((4,), -1))
add("preprocessing", "Normalization", dict(adapt=True, axis=None), adapted_normalisation((5, 4), None))


def adapted_discretisation():
    layer = L.Discretization(num_bins=4)
    layer.adapt(np.random.default_rng(1).normal(0, 1, (200, 1)).astype("float32"))
    x = keras.Input((3,), name="x")
    return keras.Model(x, layer(x))


add("preprocessing", "Discretization", dict(adapt=True), adapted_discretisation)

METHODS = ("bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5")
for method in METHODS:
    for height, width in ((5, 6), (17, 15)):
        options = dict(height=height, width=width, interpolation=method)
        one_layer("preprocessing", "Resizing", IMAGE, options, feed=feeds.pixels(*IMAGE))
for flag in ("crop_to_aspect_ratio", "pad_to_aspect_ratio"):
    one_layer("preprocessing", "Resizing", IMAGE, {"height": 8, "width": 8, flag: True}, feed=feeds.pixels(*IMAGE))
one_layer("preprocessing", "Resizing", IMAGE, dict(height=8, width=9), dtype="uint8", shown=dict(input="uint8"), feed=feeds.ints(*IMAGE, high=256, dtype="uint8"))
one_layer("preprocessing", "Resizing", (None, None, 3), dict(height=8, width=9), shown=dict(input="open"), feed=feeds.pixels(11, 7, 3))
one_layer("preprocessing", "Rescaling", IMAGE, dict(scale=1 / 255), dtype="uint8", shown=dict(scale="1/255", input="uint8"), feed=feeds.ints(*IMAGE, high=256, dtype="uint8"))
one_layer("preprocessing", "CenterCrop", IMAGE, dict(height=6, width=7))
one_layer("preprocessing", "CenterCrop", IMAGE, dict(height=7, width=7))
one_layer("preprocessing", "CenterCrop", IMAGE, dict(height=14, width=13), shown=dict(larger=True), feed=feeds.pixels(*IMAGE))

AUGMENTING = [
    ("RandomFlip", dict(mode="horizontal")),
    ("RandomRotation", dict(factor=0.2)),
    ("RandomZoom", dict(height_factor=0.2)),
    ("RandomTranslation", dict(height_factor=0.2, width_factor=0.1)),
    ("RandomContrast", dict(factor=0.2)),
    ("RandomBrightness", dict(factor=0.2)),
    ("RandomCrop", dict(height=6, width=7)),
]
for layer, options in AUGMENTING:
    one_layer("preprocessing", layer, IMAGE, options, feed=feeds.pixels(*IMAGE), after=lambda x: L.Conv2D(2, 3)(x))
one_layer("preprocessing", "STFTSpectrogram", (64, 1), dict(mode="log", frame_length=16, frame_step=8, window=None))
one_layer("preprocessing", "MelSpectrogram", (128,), dict(num_mel_bins=4, fft_length=32, sequence_stride=16, sampling_rate=200, max_freq=100))

for mode in ("one_hot", "multi_hot", "count"):
    shape = (1,) if mode == "one_hot" else (4,)
    one_layer("preprocessing", "CategoryEncoding", shape, dict(num_tokens=6, output_mode=mode), dtype="int32", feed=feeds.ints(*shape, high=6, dtype="int32"))
one_layer("preprocessing", "CategoryEncoding", (), dict(num_tokens=6, output_mode="one_hot"), dtype="int32", shown=dict(input="1d"), feed=feeds.ints(high=6, dtype="int32"))


def weighted_encoding():
    x = keras.Input((4,), dtype="int32", name="x")
    w = keras.Input((4,), name="weights")
    return keras.Model([x, w], L.CategoryEncoding(6, output_mode="count")(x, count_weights=w)), {
        "x": feeds.ints(4, high=6, dtype="int32")
    }


add("preprocessing", "CategoryEncoding", dict(count_weights=True), weighted_encoding)

COLOURS = ["red", "green", "blue", "the cat sat"]
STRING_LOOKUPS = [
    dict(),
    dict(num_oov_indices=0, words=COLOURS),
    dict(num_oov_indices=3),
    dict(mask_token=""),
    dict(mask_token="[MASK]", oov_token="[OTHER]"),
    dict(invert=True),
    dict(output_mode="one_hot"),
    dict(output_mode="multi_hot"),
    dict(output_mode="count"),
    dict(output_mode="tf_idf", idf_weights=[0.5, 1.0, 1.5, 2.0]),
    dict(output_mode="multi_hot", num_oov_indices=2),
    dict(output_mode="multi_hot", pad_to_max_tokens=True, max_tokens=9),
]


def string_lookup(options):
    def build():
        given = {key: value for key, value in options.items() if key != "words"}
        layer = L.StringLookup(vocabulary=COLOURS, **given)
        if given.get("invert"):
            x = keras.Input((4,), dtype="int64", name="x")
            return keras.Model(x, layer(x)), {"x": feeds.ints(4, high=5)}
        width = 1 if given.get("output_mode") == "one_hot" else 4
        x = keras.Input((width,), dtype="string", name="x")
        return keras.Model(x, layer(x)), {"x": feeds.strings(width, words=options.get("words"))}

    return build


def shown(options):
    return {k: v for k, v in options.items() if k not in ("words", "idf_weights")}


for options in STRING_LOOKUPS:
    add("preprocessing", "StringLookup", shown(options), string_lookup(options))


def adapted_lookup():
    layer = L.StringLookup(max_tokens=5)
    layer.adapt(np.array([["red"], ["red"], ["green"], ["blue"], ["blue"], ["blue"], ["pink"], ["green"]]))
    x = keras.Input((3,), dtype="string", name="x")
    return keras.Model(x, layer(x))


add("preprocessing", "StringLookup", dict(adapt=True), adapted_lookup)

INTEGER_LOOKUPS = [
    dict(),
    dict(num_oov_indices=0, high=30),
    dict(num_oov_indices=3),
    dict(mask_token=0),
    dict(invert=True),
    dict(output_mode="one_hot"),
    dict(output_mode="multi_hot"),
    dict(output_mode="count"),
]


def integer_lookup(options):
    def build():
        given = {key: value for key, value in options.items() if key != "high"}
        vocabulary = [7, 12, 3, 30] if "high" not in options else list(range(30))
        layer = L.IntegerLookup(vocabulary=vocabulary, **given)
        width = 1 if given.get("output_mode") == "one_hot" else 5
        x = keras.Input((width,), dtype="int64", name="x")
        high = 5 if given.get("invert") else 30
        return keras.Model(x, layer(x)), {"x": feeds.ints(width, high=high)}

    return build


for options in INTEGER_LOOKUPS:
    add("preprocessing", "IntegerLookup", {k: v for k, v in options.items() if k != "high"}, integer_lookup(options))

TEXTS = ["The cat sat on the mat.", "a Dog; sat -- on: the LOG!", "", "cat", "the   cat\tsat\non it", "größer als der Hund", "a,b,c"]
VOCABULARY = ["the", "cat", "sat", "on", "mat", "dog", "the cat", "cat sat", "a", "b c"]
TEXT_VECTORS = [
    dict(output_sequence_length=5),
    dict(output_sequence_length=9),
    dict(),
    dict(standardize="lower", output_sequence_length=5),
    dict(standardize="strip_punctuation", output_sequence_length=5),
    dict(standardize=None, output_sequence_length=5),
    dict(split="character", output_sequence_length=8),
    dict(split=None, output_sequence_length=1),
    dict(ngrams=2, output_sequence_length=8),
    dict(ngrams=(2, 3), output_sequence_length=8),
    dict(output_mode="multi_hot"),
    dict(output_mode="count"),
    dict(output_mode="tf_idf", idf_weights=[0.1 * i for i in range(1, 11)]),
    dict(output_mode="multi_hot", ngrams=2),
    dict(output_mode="multi_hot", pad_to_max_tokens=True, max_tokens=20),
]


def text_vectors(options):
    def build():
        x = keras.Input((1,), dtype="string", name="text")
        layer = L.TextVectorization(vocabulary=VOCABULARY, **options)
        return keras.Model(x, layer(x)), {"text": feeds.strings(1, words=TEXTS)}

    return build


for options in TEXT_VECTORS:
    text = {k: str(v) for k, v in options.items() if k != "idf_weights"}
    add("preprocessing", "TextVectorization", text, text_vectors(options))


def text_of_scalars():
    x = keras.Input((), dtype="string", name="text")
    return keras.Model(x, L.TextVectorization(vocabulary=VOCABULARY, output_sequence_length=4)(x)), {
        "text": feeds.strings(words=TEXTS)
    }


def adapted_text():
    layer = L.TextVectorization(max_tokens=8, output_sequence_length=6)
    layer.adapt(np.array(TEXTS))
    x = keras.Input((1,), dtype="string", name="text")
    y = L.Embedding(8, 4, mask_zero=True)(layer(x))
    return keras.Model(x, L.Dense(1, activation="sigmoid")(L.GRU(5)(y))), {"text": feeds.strings(1, words=TEXTS)}


add("preprocessing", "TextVectorization", dict(input="1d"), text_of_scalars)
add("preprocessing", "TextVectorization", dict(adapt=True, then="GRU"), adapted_text)

HASHINGS = [
    ("string", dict(num_bins=7)),
    ("string", dict(num_bins=7, mask_value="")),
    ("string", dict(num_bins=7, salt=[133, 137])),
    ("string", dict(num_bins=7, output_mode="one_hot")),
    ("int64", dict(num_bins=7)),
]


def hashing(dtype, options):
    def build():
        width = 1 if options.get("output_mode") else 3
        x = keras.Input((width,), dtype=dtype, name="x")
        return keras.Model(x, L.Hashing(**options)(x))

    return build


for dtype, options in HASHINGS:
    add("preprocessing", "Hashing", dict(input=dtype, **options), hashing(dtype, options))


def crossed():
    a = keras.Input((1,), dtype="string", name="a")
    b = keras.Input((1,), dtype="int64", name="b")
    return keras.Model([a, b], L.HashedCrossing(num_bins=9, output_mode="one_hot")((a, b)))


add("preprocessing", "HashedCrossing", dict(output_mode="one_hot"), crossed)


def feature_space():
    """A table row: numbers, words and categories of several kinds into one network."""
    inputs = {
        "age": keras.Input((1,), name="age"),
        "colour": keras.Input((1,), dtype="string", name="colour"),
        "code": keras.Input((1,), dtype="int64", name="code"),
    }
    parts = [
        L.Normalization(mean=[40.0], variance=[100.0])(inputs["age"]),
        L.StringLookup(vocabulary=COLOURS, output_mode="one_hot")(inputs["colour"]),
        L.Flatten()(L.Embedding(6, 3)(L.IntegerLookup(vocabulary=[3, 5, 7, 9])(inputs["code"]))),
    ]
    y = L.Dense(8, activation="relu")(L.Concatenate()(parts))
    return keras.Model(inputs, L.Dense(1, activation="sigmoid", name="chance")(y)), {
        "age": feeds.floats(1, low=18, high=90),
        "code": feeds.ints(1, high=11),
    }


add("preprocessing", "table row", {}, feature_space)
