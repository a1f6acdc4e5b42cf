"""Every family of keras.applications at its smallest size, with logits rather than probabilities as output, because
those show errors."""

import feeds
from catalogue import add
from late import keras

NETWORKS = [
    ("VGG16", 32, dict(include_top=False, pooling="avg")),
    ("VGG19", 32, dict(include_top=False, pooling="max")),
    ("ResNet50", 32, {}),
    ("ResNet50V2", 32, {}),
    ("InceptionV3", 75, {}),
    ("InceptionResNetV2", 75, {}),
    ("Xception", 71, {}),
    ("MobileNet", 32, dict(alpha=0.25)),
    ("MobileNetV2", 32, dict(alpha=0.35)),
    ("MobileNetV2", 96, dict(alpha=1.0)),
    ("MobileNetV3Small", 32, {}),
    ("MobileNetV3Small", 64, dict(minimalistic=True)),
    ("MobileNetV3Large", 64, dict(alpha=0.75)),
    ("DenseNet121", 32, {}),
    ("NASNetMobile", 32, {}),
    ("EfficientNetB0", 32, {}),
    ("EfficientNetV2B0", 32, {}),
    ("ConvNeXtTiny", 32, {}),
]
#: These take pixels and scale them themselves.
OF_PIXELS = ("MobileNetV3", "EfficientNet", "ConvNeXt")


def application(name, size, options):
    def build():
        head = {} if "include_top" in options else dict(classes=7, classifier_activation=None)
        shape = (size, size, 3)
        model = getattr(keras.applications, name)(input_shape=shape, weights=None, **head, **options)
        feed = feeds.pictures(*shape, **(dict(low=0.0, high=255.0) if name.startswith(OF_PIXELS) else {}))
        return model, {model.inputs[0].name: feed}

    return build


for name, size, options in NETWORKS:
    add("applications", name, {"size": size, **options}, application(name, size, options))
