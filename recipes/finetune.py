"""Train one plain child on new classes: the whole network, or the classifier on stored features.

TensorFlow on one device, without XLA: its gradient of depthwise convolutions is 25 to 40 times
slower on CPUs (see `recipes.engines.tensorflow`).

With statistics "original", batch norms keep the parent's throughout, and a classifier is fitted first to features
computed once, so that the first steps do not undo what the features know. That is for nets that were trained alone,
such as EfficientNet-Lite: their features do not survive the statistics of other images (docs/finetune.md).

With "batch", batch norms of the whole network train with batch statistics. Before each measurement they are
calibrated exactly (`models.calibration`), because Keras's running averages lag: an epoch of a small
folder is a few steps, after which they are still mostly those of the images trained on before. The
weights that are kept are kept with the statistics they were measured with.

References: Kornblith et al. 2019 (arXiv 1805.08974) for both modes; Kolesnikov et al. 2020 (arXiv
1912.11370) for the classifier that begins at zero.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.errors import TrainingStoppedError, UsageError
from bignas_zoo.files.say import Say, silent
from bignas_zoo.models.backend import keras
from bignas_zoo.models.calibration import calibrate
from bignas_zoo.models.child import build_child, get_weights, set_weights
from bignas_zoo.models.linear_probe import fit_classifier
from bignas_zoo.models.moments import MIN_IMAGES
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.tensorflow import tf
from bignas_zoo.recipes.data import LabelledImages, batches
from bignas_zoo.recipes.data.evenly import evenly
from bignas_zoo.recipes.finetune_settings import LABEL_SMOOTHING, WEIGHT_DECAY, FinetuneSettings
from bignas_zoo.recipes.methods.losses import cross_entropy, smooth_labels
from bignas_zoo.recipes.progress import Progress
from bignas_zoo.recipes.randomness import philox

Tensor = Any
#: Training images that batch norms are calibrated on, at most.
CALIBRATION_IMAGES = 1_000
CHUNK = 250
#: The smallest part of a photograph that is trained on, and what gradients are clipped to, where statistics stay.
LEAST_AREA, CLIP = 0.35, 5.0
#: What is not trained where statistics stay: a fifth of the time, and nothing lost that could be seen (docs/photos.md).
FROZEN = ("stem", "stage1.", "stage2.")


@dataclass(frozen=True)
class Outcome:
    """What fine-tuning came to.

    Attributes:
        before: held-out accuracy in percent with the new, untrained classifier.
        after: the same with the weights that were kept.
        epochs: epochs trained.
        best_epoch: the one whose weights were kept, from 1; 0 if none was better than the classifier fitted before.
        curve: held-out accuracy after each epoch.
    """

    before: float
    after: float
    epochs: int
    best_epoch: int
    curve: tuple[float, ...]


class Part(Protocol):
    """What is being trained: the whole network or its classifier."""

    variables: list[Any]

    def batch(self, index: np.ndarray, key: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return augmented inputs and labels of some training images."""

    def logits(self, inputs: Tensor) -> Tensor:
        """Return logits in training mode."""

    def held_out(self) -> np.ndarray:
        """Return the logits of the held-out images, batch norms calibrated."""


def with_new_classifier(child: keras.Model, spec: ChildSpec, new: ChildSpec) -> keras.Model:
    """Copy a child, its statistics included, and put a classifier of zeros on it.

    Args:
        child: calibrated, of `spec`.
        spec: its spec.
        new: the same choices in a space that differs in its classes alone; its resolution may be another.
    """
    weights = get_weights(child, spec)
    for name in ("kernel", "bias"):
        old = weights[f"classifier.{name}"]
        weights[f"classifier.{name}"] = np.zeros((*old.shape[:-1], new.space.classes), np.float32)
    tuned = build_child(new)
    set_weights(tuned, new, weights)
    return tuned


def check_enough(settings: FinetuneSettings, train: LabelledImages) -> None:
    """Refuse a whole-network run on fewer images than calibration needs.

    Raises:
        UsageError: too few images.
    """
    if not settings.freeze and settings.statistics != "original" and len(train) < MIN_IMAGES:
        raise UsageError(
            f"--data: {len(train)} training images are too few for batch-norm calibration, which needs {MIN_IMAGES}. "
            "Add images, or train the classifier alone with --freeze."
        )


def finetune_child(
    child: keras.Model,
    preprocess: Preprocess,
    train: LabelledImages,
    holdout: LabelledImages,
    settings: FinetuneSettings,
    *,
    say: Say = silent,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Train a child and leave it with the weights of its best epoch, calibrated.

    Best is the highest held-out accuracy; of equal ones the lowest held-out loss.

    Args:
        child: made by `with_new_classifier`; changed in place.
        preprocess: the input contract.
        train: images to train on and to calibrate batch norms on.
        holdout: images that choose the epoch.
        settings: how.
        say: told the held-out accuracy after each epoch.
        report: told after each step.

    Returns:
        What came of it.

    Raises:
        UsageError: too few training images to calibrate batch norms on.
        TrainingStoppedError: the loss is not a number.
    """
    check_enough(settings, train)
    if settings.freeze or settings.statistics != "original":
        kind = _Classifier if settings.freeze else _Network
        return _train(child, kind(child, preprocess, train, holdout), train, holdout, settings, say, report)
    say("fitting the classifier to features computed once")
    first = _Classifier(child, preprocess, train, holdout)
    before, _ = _score(first.held_out(), holdout)
    after = first.fit(holdout)
    say(f"fitted: held-out top-1 {after:.2f} %; training all but stem and first stages")
    kept = child.get_weights()
    trained = _train(child, _Original(child, preprocess, train, holdout), train, holdout, settings, say, report)
    if trained.after < after:
        say("no epoch was better than the fitted classifier, which is kept")
        child.set_weights(kept)
        trained = dataclasses.replace(trained, after=after, best_epoch=0)
    return dataclasses.replace(trained, before=before)


def _train(
    child: keras.Model,
    part: Part,
    train: LabelledImages,
    holdout: LabelledImages,
    settings: FinetuneSettings,
    say: Say,
    report: Callable[[Progress], None],
) -> Outcome:
    """Train a part of a child, and leave the child with the weights of the best epoch."""
    run = _compile(part, settings, train, report)
    before, _ = _score(part.held_out(), holdout)
    best = (-1.0, 0.0)
    kept, best_epoch, risen, curve = child.get_weights(), 0, 0, []
    for epoch in range(settings.epochs):
        mean_loss = run(epoch)
        score = _score(part.held_out(), holdout)
        curve.append(score[0])
        say(f"epoch {epoch + 1}/{settings.epochs}: loss {mean_loss:.3f}, held-out top-1 {score[0]:.2f} %")
        if score[0] > best[0]:
            risen = epoch
        if score > best:
            best, kept, best_epoch = score, child.get_weights(), epoch + 1
        if epoch - risen >= settings.patience and epoch + 1 < settings.epochs:
            say(f"stopped: no higher accuracy in {settings.patience} epochs; epoch {best_epoch} is kept")
            break
    child.set_weights(kept)
    return Outcome(before, best[0], len(curve), best_epoch, tuple(curve))


def _score(logits: np.ndarray, images: LabelledImages) -> tuple[float, float]:
    """Return accuracy in percent and the negative loss, so that more is better in both."""
    if not np.isfinite(logits).all():
        raise TrainingStoppedError(f"the network's outputs are not numbers any more. {LOWER}")
    right = 100.0 * float(np.mean(logits.argmax(-1) == images.labels))
    targets = keras.ops.one_hot(images.labels, logits.shape[-1], dtype="float32")
    return right, -float(cross_entropy(logits, targets))


LOWER = "Nothing was written. Lower --learning-rate, or check the images and labels."


def _compile(
    part: Part, settings: FinetuneSettings, train: LabelledImages, report: Callable[[Progress], None]
) -> Callable[[int], float]:
    """Return a function that trains one epoch and gives its mean loss."""
    classes = len(train.class_names)
    each = math.ceil(len(train) / settings.batch_size)
    size = len(train) // each  # batches of one size: a last, small one would have noisy statistics
    steps = settings.epochs * each
    clip = CLIP if settings.statistics == "original" and not settings.freeze else None
    optimizer = keras.optimizers.AdamW(settings.peak, weight_decay=WEIGHT_DECAY, global_clipnorm=clip)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    optimizer.build(part.variables)

    @tf.function(jit_compile=False, autograph=False)  # type: ignore[untyped-decorator]
    def step(inputs: Tensor, labels: Tensor) -> Tensor:
        with tf.GradientTape() as tape:
            loss = cross_entropy(part.logits(inputs), smooth_labels(labels, classes, LABEL_SMOOTHING))
        optimizer.apply(tape.gradient(loss, [v.value for v in part.variables]), part.variables)
        return loss

    def epoch(number: int) -> float:
        order = philox(settings.seed, "order", number).permutation(len(train))
        total, last = 0.0, time.monotonic()
        for i in range(each):
            done = number * each + i
            inputs, labels = part.batch(order[i * size : (i + 1) * size], (settings.seed, done))
            optimizer.learning_rate.assign(settings.rate(done, steps))
            loss = float(step(tf.constant(inputs), tf.constant(labels)))
            if not math.isfinite(loss):
                raise TrainingStoppedError(f"epoch {number + 1}, step {i + 1}: the loss is {loss}. {LOWER}")
            total += loss
            now = time.monotonic()
            speed, last = size / max(now - last, 1e-9), now
            report(Progress(done + 1, steps, loss, speed, f"epoch {number + 1}/{settings.epochs}"))
        return total / each

    return epoch


class _Network:
    """All weights are trained, on augmented images."""

    def __init__(
        self, child: keras.Model, preprocess: Preprocess, train: LabelledImages, holdout: LabelledImages
    ) -> None:
        self.child, self.preprocess, self.labels = child, preprocess, train.labels
        self.variables = list(child.trainable_variables)
        self.resolution, self.pixels = child.input_shape[1], train.pixels
        self.side = train.pixels.shape[1]
        self.pad = self.side // 8
        border = (self.pad, self.pad)
        self.padded = np.pad(train.pixels, ((0, 0), border, border, (0, 0)), mode="reflect")
        self.calibration = self._inputs(train.pixels[evenly(len(train), CALIBRATION_IMAGES)])
        self.holdout = self._inputs(holdout.pixels)
        self.infer = tf.function(
            lambda x: child(x, training=False), jit_compile=False, autograph=False, reduce_retracing=True
        )

    def _inputs(self, pixels: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(self.preprocess.inputs(b, self.resolution)) for b in batches(pixels, CHUNK)]

    def batch(self, index: np.ndarray, key: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Cut a square at random out of each bordered image and mirror half of them."""
        draws = philox(key[0], "augment", *key[1:])
        top, left = draws.integers(0, 2 * self.pad + 1, (2, len(index)))
        rows, columns = (start[:, None] + np.arange(self.side) for start in (top, left))
        columns = np.where(draws.random((len(index), 1)) < 0.5, columns[:, ::-1], columns)
        pixels = self.padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]
        return pixels, self.labels[index]

    def logits(self, inputs: Tensor) -> Tensor:
        return self.child(self.preprocess.inputs(inputs, self.resolution), training=True)

    def held_out(self) -> np.ndarray:
        calibrate(self.child, self.calibration)
        return np.concatenate([np.asarray(self.infer(b)) for b in self.holdout])


class _Original(_Network):
    """Batch norms keep their statistics, and the stem and the first stages their weights.

    Images are random parts of photographs.
    """

    def __init__(
        self, child: keras.Model, preprocess: Preprocess, train: LabelledImages, holdout: LabelledImages
    ) -> None:
        super().__init__(child, preprocess, train, holdout)
        self.variables = [v for v in self.variables if not v.path.startswith(FROZEN)]

    def batch(self, index: np.ndarray, key: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Cut a square of random size and place out of each image, and mirror half of them."""
        draws = philox(key[0], "augment", *key[1:])
        side = np.sqrt(draws.uniform(LEAST_AREA, 1, len(index)))
        top, left = draws.uniform(0, 1, (2, len(index))) * (1 - side)
        boxes = np.stack([top, left, top + side, left + side], axis=1)
        mirrored = draws.random(len(index)) < 0.5
        boxes[mirrored] = boxes[mirrored][:, [0, 3, 2, 1]]
        pixels = tf.image.crop_and_resize(
            self.pixels[index].astype(np.float32), boxes, np.arange(len(index)), (self.resolution,) * 2
        )
        return np.asarray(pixels), self.labels[index]

    def logits(self, inputs: Tensor) -> Tensor:
        return self.child(self.preprocess.inputs(inputs, self.resolution), training=False)

    def held_out(self) -> np.ndarray:
        return np.concatenate([np.asarray(self.infer(b)) for b in self.holdout])


class _Classifier:
    """The classifier is trained, on features of each image and its mirror image computed once."""

    def __init__(
        self, child: keras.Model, preprocess: Preprocess, train: LabelledImages, holdout: LabelledImages
    ) -> None:
        self.layer, self.labels = child.get_layer("classifier"), train.labels
        self.variables = [self.layer.kernel, self.layer.bias]
        network = keras.Model(child.input, self.layer.input)
        infer = tf.function(
            lambda x: network(preprocess.inputs(x, child.input_shape[1]), training=False),
            jit_compile=False,
            autograph=False,
            reduce_retracing=True,
        )

        def features(pixels: np.ndarray) -> np.ndarray:
            return np.concatenate([np.asarray(infer(tf.constant(b))) for b in batches(pixels, CHUNK)])

        self.features = np.stack([features(train.pixels), features(train.pixels[:, :, ::-1])])
        self.holdout = features(holdout.pixels)

    def fit(self, holdout: LabelledImages) -> float:
        """Fit the classifier at once; return its held-out accuracy in percent."""
        both = self.features.reshape(-1, self.features.shape[-1])
        labels, classes = np.tile(self.labels, 2), len(holdout.class_names)
        fitted = fit_classifier(both, labels, classes, self.holdout, holdout.labels)
        self.layer.kernel.assign(fitted.kernel)
        self.layer.bias.assign(fitted.bias)
        return fitted.top1

    def batch(self, index: np.ndarray, key: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Take the features of each image or of its mirror image."""
        mirrored = philox(key[0], "augment", *key[1:]).integers(0, 2, len(index))
        return self.features[mirrored, index], self.labels[index]

    def logits(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs)

    def held_out(self) -> np.ndarray:
        return np.asarray(self.layer(self.holdout))
