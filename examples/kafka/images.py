"""Pictures by topic, recognised by a model server: the first program of the article.

    python images.py [--bootstrap HOST:PORT]

A network learns circles, squares and triangles, `salver serve` serves it, and `salver stream --remote` asks that server for
each picture of the topic ImageInputTopic. The answers on ImageOutputTopic are compared with what Keras itself says.
"""

import io
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from PIL import Image, ImageDraw

import scene

SHAPES = ["circle", "square", "triangle"]
SIZE = 32


def picture(random: np.random.Generator, shape: str) -> Image.Image:
    """A shape of some size, place and colour on another colour."""
    dark, light = random.integers(0, 90, 3), random.integers(150, 256, 3)
    front, back = (dark, light) if random.random() < 0.5 else (light, dark)
    image = Image.new("RGB", (SIZE, SIZE), tuple(map(int, back)))
    draw, radius = ImageDraw.Draw(image), int(random.integers(7, 14))
    x, y = (int(random.integers(radius + 1, SIZE - radius - 1)) for _ in range(2))
    box, colour = (x - radius, y - radius, x + radius, y + radius), tuple(map(int, front))
    if shape == "circle":
        draw.ellipse(box, fill=colour)
    elif shape == "square":
        draw.rectangle(box, fill=colour)
    else:
        draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=colour)
    return image


def album(seed: int, n: int) -> list[tuple[str, Image.Image]]:
    random = np.random.default_rng(seed)
    return [(shape, picture(random, shape)) for shape in (SHAPES[i % 3] for i in range(n))]


def pixels(album) -> np.ndarray:
    return np.stack([np.asarray(image, np.float32) for _, image in album])


def network() -> keras.Model:
    return keras.Sequential([
        keras.Input((SIZE, SIZE, 3), name="pixels"),
        keras.layers.Rescaling(1 / 127.5, offset=-1),
        keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
        keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(3, activation="softmax", name="class"),
    ])


def trained(epochs: int) -> keras.Model:
    keras.utils.set_random_seed(1)
    lesson, model = album(1, 2400), network()
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    labels = np.array([SHAPES.index(shape) for shape, _ in lesson])
    learned = model.fit(pixels(lesson), labels, epochs=epochs, batch_size=64, verbose=0)
    print(f"learned {len(lesson)} pictures, {learned.history['accuracy'][-1]:.1%} of them right", flush=True)
    return model


def main() -> None:
    parser = scene.arguments(__doc__)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    model = trained(options.epochs)
    scene.save(model, "shapes")
    unseen = album(2, options.pictures)
    wanted = model.predict(pixels(unseen), verbose=0)

    source, sink = (options.prefix + name for name in ("ImageInputTopic", "ImageOutputTopic"))
    port, rest_port, metrics_port = scene.free_ports(3)
    serve = [options.salver, "serve", scene.MODELS / "shapes", f"--port={port}", f"--rest_api_port={rest_port}"]
    with scene.broker(options.bootstrap) as bootstrap, scene.running(serve, rest_port, "serve.log"):
        scene.topics(bootstrap, [source, sink], partitions=3)
        stream = [
            options.salver, "stream", "--from", f"kafka://{bootstrap}/{source}", "--to", f"kafka://{bootstrap}/{sink}",
            "--remote", f"127.0.0.1:{port}", "--model", "shapes", "--config", scene.HERE / "images.toml",
            "--metrics_port", metrics_port,
        ]
        with scene.running(stream, metrics_port, "images.log"):
            scene.send(bootstrap, source, ((f"picture-{i}", png(image)) for i, (_, image) in enumerate(unseen)))
            answers = scene.read(bootstrap, sink, len(unseen))

    by_number = {int(answer.key.removeprefix("picture-")): answer for answer in answers}
    for i in range(3):
        answer = by_number[i]
        print(f"{answer.key}: {answer.value['shape']} (it is a {unseen[i][0]}), by {answer.headers['salver-model']} version {answer.headers['salver-model-version']}")
    scene.expect(sorted(by_number) == list(range(len(unseen))), f"each of {len(unseen)} pictures has one answer")
    found = np.array([by_number[i].value["probabilities"] for i in range(len(unseen))])
    difference = float(np.abs(found - wanted).max())
    scene.expect(difference < 1e-4, f"the answers are those of Keras (largest difference {difference:.1e})")
    right = sum(by_number[i].value["shape"] == shape for i, (shape, _) in enumerate(unseen)) / len(unseen)
    scene.expect(right > 0.9, f"{right:.1%} of the pictures are recognised")


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
