"""Recurrent layers with their options, wrappers, masks and states."""

import feeds
from catalogue import add
from families.one_layer import one_layer
from late import L, keras

CELLS = ("SimpleRNN", "GRU", "LSTM")
COMMON = [
    dict(),
    dict(return_sequences=True),
    dict(return_state=True),
    dict(return_sequences=True, return_state=True),
    dict(go_backwards=True),
    dict(go_backwards=True, return_sequences=True),
    dict(use_bias=False),
    dict(activation="relu"),
    dict(activation="linear"),
    dict(unroll=True),
    dict(dropout=0.3, recurrent_dropout=0.2),
]
ITS_OWN = {
    "SimpleRNN": [dict(activation="softsign")],
    "GRU": [
        dict(reset_after=False),
        dict(reset_after=False, return_sequences=True),
        dict(reset_after=False, use_bias=False),
        dict(reset_after=True, use_bias=False, return_sequences=True),
        dict(recurrent_activation="hard_sigmoid"),
        dict(recurrent_activation="relu", activation="sigmoid"),
        dict(reset_after=False, go_backwards=True),
    ],
    "LSTM": [
        dict(unit_forget_bias=False),
        dict(recurrent_activation="hard_sigmoid"),
        dict(recurrent_activation="tanh", activation="elu"),
    ],
}
for layer in CELLS:
    for options in COMMON + ITS_OWN[layer]:
        one_layer("recurrent", layer, (6, 3), dict(units=4) | options, shown=dict(units=None))
    one_layer("recurrent", layer, (None, 3), dict(units=4), shown=dict(units=None, steps="open"), feed=feeds.floats(5, 3))
    one_layer("recurrent", layer, (1, 3), dict(units=4), shown=dict(units=None, steps=1))
    one_layer("recurrent", layer, (6, 3), dict(units=4, stateful=True), shown=dict(units=None), batch=2)
    one_layer("recurrent", layer, (6, 3), dict(units=1, return_sequences=True))


def rnn(layer, **options):
    return getattr(L, layer)(4, **options)


def masked(layer, options, head):
    def build():
        x = keras.Input((7, 3), name="x")
        y = head(L.Masking()(x))
        return keras.Model(x, rnn(layer, **options)(y)), {"x": feeds.padded(7, 3)}

    return build


for layer in CELLS:
    for options in [
        dict(),
        dict(return_sequences=True),
        dict(go_backwards=True),
        dict(return_sequences=True, zero_output_for_mask=True),
    ]:
        add("recurrent", f"Masking and {layer}", options, masked(layer, options, lambda x: x))


def embedded(layer, options, mask_zero):
    def build():
        x = keras.Input((None,), dtype="int32", name="words")
        y = L.Embedding(12, 5, mask_zero=mask_zero)(x)
        return keras.Model(x, L.Dense(2)(rnn(layer, **options)(y))), {"words": feeds.padded_ints(6, 12)}

    return build


for layer in CELLS:
    for mask_zero in (False, True):
        add("recurrent", f"Embedding and {layer}", dict(mask_zero=mask_zero), embedded(layer, {}, mask_zero))


def bidirectional(layer, options, merge, mask=False, backward=None):
    def build():
        x = keras.Input((6, 3), name="x")
        inner = L.Masking()(x) if mask else x
        second = rnn(backward, go_backwards=True, **options) if backward else None
        y = L.Bidirectional(rnn(layer, **options), merge_mode=merge, backward_layer=second)(inner)
        return keras.Model(x, y), {"x": feeds.padded(6, 3)} if mask else {}

    return build


for layer in CELLS:
    for merge in ("concat", "sum", "mul", "ave", None):
        for sequences in (False, True):
            options = dict(return_sequences=sequences)
            shown = dict(merge_mode=str(merge), return_sequences=sequences)
            add("recurrent", f"Bidirectional {layer}", shown, bidirectional(layer, options, merge))
    add("recurrent", f"Bidirectional {layer}", dict(mask=True), bidirectional(layer, {}, "concat", True))
    add(
        "recurrent", f"Bidirectional {layer}", dict(mask=True, return_sequences=True),
        bidirectional(layer, dict(return_sequences=True), "concat", True),
    )
    add(
        "recurrent", f"Bidirectional {layer}", dict(return_state=True),
        bidirectional(layer, dict(return_state=True), "concat"),
    )
add(
    "recurrent", "Bidirectional GRU", dict(backward_layer="GRU reset_after=False"),
    lambda: two_kinds_of_gru(),
)


def two_kinds_of_gru():
    x = keras.Input((6, 3), name="x")
    y = L.Bidirectional(L.GRU(4), backward_layer=L.GRU(4, go_backwards=True, reset_after=False))(x)
    return keras.Model(x, y)


def distributed(inner, shape):
    def build():
        x = keras.Input(shape, name="x")
        return keras.Model(x, L.TimeDistributed(inner())(x))

    return build


DISTRIBUTED = [
    ("Dense", lambda: L.Dense(3, activation="relu"), (5, 4)),
    ("Conv2D", lambda: L.Conv2D(3, 3, padding="same"), (4, 6, 7, 2)),
    ("Flatten", lambda: L.Flatten(), (4, 3, 2)),
    ("BatchNormalization", lambda: L.BatchNormalization(), (4, 3, 2)),
    ("MaxPooling2D", lambda: L.MaxPooling2D(), (3, 6, 6, 2)),
    ("GRU", lambda: L.GRU(3), (4, 5, 2)),
    ("Dropout", lambda: L.Dropout(0.3), (4, 3)),
    ("Model", lambda: keras.Sequential([keras.Input((4,)), L.Dense(3, "tanh"), L.Dense(2)]), (5, 4)),
]
for inner, make, shape in DISTRIBUTED:
    add("recurrent", f"TimeDistributed {inner}", {}, distributed(make, shape))


def cells(make, **options):
    def build():
        x = keras.Input((6, 3), name="x")
        return keras.Model(x, L.RNN(make(), **options)(x))

    return build


for layer in CELLS:
    add("recurrent", f"RNN {layer}Cell", {}, cells(lambda layer=layer: getattr(L, f"{layer}Cell")(4)))
add("recurrent", "RNN StackedRNNCells", {}, cells(lambda: L.StackedRNNCells([L.GRUCell(4), L.LSTMCell(3)])))
add(
    "recurrent", "RNN list of cells", dict(return_sequences=True),
    cells(lambda: [L.LSTMCell(4), L.LSTMCell(3)], return_sequences=True),
)


def initial_state(layer, states):
    def build():
        x = keras.Input((6, 3), name="x")
        given = [keras.Input((4,), name=f"state_{i}") for i in range(states)]
        y = rnn(layer)(x, initial_state=given if states > 1 else given[0])
        return keras.Model([x, *given], y)

    return build


for layer, states in (("SimpleRNN", 1), ("GRU", 1), ("LSTM", 2)):
    add("recurrent", f"{layer}", dict(initial_state=True), initial_state(layer, states))


def encoder_decoder(layer):
    def build():
        source = keras.Input((5, 3), name="source")
        target = keras.Input((4, 2), name="target")
        _, *state = rnn(layer, return_state=True)(source)
        y = rnn(layer, return_sequences=True)(target, initial_state=state if len(state) > 1 else state[0])
        return keras.Model([source, target], L.Dense(2, activation="softmax")(y))

    return build


for layer in CELLS:
    add("recurrent", f"{layer} encoder and decoder", {}, encoder_decoder(layer))


def stacked(layer, n):
    def build():
        layers = [keras.Input((8, 3), name="x")]
        layers += [rnn(layer, return_sequences=True, name=f"level_{i}") for i in range(n - 1)]
        return keras.Sequential([*layers, rnn(layer), L.Dense(1)])

    return build


for layer in CELLS:
    add("recurrent", f"stacked {layer}", dict(levels=3), stacked(layer, 3))


def weather():
    return keras.Sequential(
        [keras.Input((None, 14), name="window"), L.GRU(32, dropout=0.2, recurrent_dropout=0.2), L.Dense(1)]
    ), {"window": feeds.floats(24, 14)}


add("recurrent", "weather GRU", {}, weather)

for n, shape in {1: (4, 6, 2), 2: (4, 5, 6, 2)}.items():
    one_layer("recurrent", f"ConvLSTM{n}D", shape, dict(filters=3, kernel_size=3, padding="same"))
    one_layer("recurrent", f"ConvLSTM{n}D", shape, dict(filters=3, kernel_size=3, return_sequences=True))
