"""Measure speed on this machine.

In:  the name of what to measure, and its settings.
Out: a Markdown table on stdout, a row at a time as the measurements end; notes on stderr.
Run: python -m apps.bench model --image_size 112 --backbones small resnet18
     python -m apps.bench losses
     python -m apps.bench index
     python -m apps.bench input
     python -m apps.bench crop
     python -m apps.bench aligner --images photos --weights aligner.keras
     python -m apps.bench verify a.jpg b.jpg --model pretrained
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveInt

from apps.bench_aligner import AlignerBench, bench_aligner
from apps.bench_crop import CropBench, bench_crop
from apps.bench_index import IndexBench, bench_index
from apps.bench_input import InputBench, bench_input
from apps.bench_losses import LossBench, bench_losses
from apps.bench_verify import VerifyBench, bench_verify
from apps.timing import device, median_seconds, row
from combinations import SMALLEST_IMAGE
from config import Config
from facekit import runtime
from facekit.settings import Settings, parse

# TensorFlow, and model.py with it, is imported on use: `runtime.start_quietly` has to come before it.

MODEL_COLUMNS = (
    "backbone",
    "precision",
    "parameters (M)",
    "GFLOPs",
    "training images/s",
    "times the first row",
    "inference images/s",
    "inference ms, batch 1",
)


class ModelBench(Settings):
    """Speed of the networks: whole training steps and inference, on random pictures already in memory."""

    backbones: tuple[str, ...] = Field(tuple(SMALLEST_IMAGE), min_length=1)
    """Networks to measure, by their names in config.py; the first one is what the others are compared with."""

    image_size: PositiveInt = 112
    """Side of the square input, in pixels."""

    batch_size: PositiveInt = 32
    """Pictures a step, in training and in inference."""

    precisions: tuple[Literal["float32", "mixed_bfloat16", "mixed_float16"], ...] = Field(
        ("float32",), min_length=1
    )
    """Precisions to measure each network in."""

    warmup: NonNegativeInt = 3
    """Steps before the clock starts: they trace the graph and fill caches."""

    steps: PositiveInt = 10
    """Timed steps; the median counts."""


class Speed(NamedTuple):
    """What was measured of one network."""

    training: float
    """Images a second of forward pass, backward pass and optimizer step."""

    inference: float
    """Images a second in batches."""

    latency: float
    """Milliseconds for one picture alone."""


def bench_models(settings: ModelBench) -> Iterator[str]:
    """Measure each network in each precision, in one process one after the other.

    Yields:
        The lines of a Markdown table, each as soon as it is known.

    Raises:
        ValueError: an unknown backbone, or a picture too small for one.
    """
    # All of them before the first measurement: a wrong name shows at once, not after minutes.
    configs = [
        Config(backbone=name, image_size=settings.image_size, precision=precision)
        for name in settings.backbones
        for precision in settings.precisions
    ]
    yield (
        f"{settings.image_size} x {settings.image_size} pixels, batch {settings.batch_size}, "
        f"median of {settings.steps} steps after {settings.warmup}; {device()}.\n"
    )
    yield row(MODEL_COLUMNS)
    yield row(["---"] * 2 + ["---:"] * (len(MODEL_COLUMNS) - 2))
    first = None
    for config in configs:
        summary, speed = measure_model(config, settings)
        first = first or speed.training
        yield row(
            [
                config.backbone,
                config.precision,
                f"{summary['parameters'] / 1e6:.2f}",
                f"{summary['flops'] / 1e9:.3f}",
                f"{speed.training:.0f}",
                f"{speed.training / first:.2f}",
                f"{speed.inference:.0f}",
                f"{speed.latency:.1f}",
            ]
        )


def measure_model(config: Config, settings: ModelBench) -> tuple[dict[str, int], Speed]:
    """Build one network and time it.

    Returns:
        `model.model_summary` of it, and its speed.
    """
    import keras
    import tensorflow as tf

    from model import build_embedding_model, model_summary

    keras.utils.clear_session()
    network = build_embedding_model(config)
    shape = (settings.batch_size, config.image_size, config.image_size, 3)
    images = tf.random.stateless_uniform(shape, seed=(0, 0), maxval=255.0)
    infer = tf.function(lambda batch: network(batch, training=False))

    def seconds(call: Callable[[], Any]) -> float:
        return median_seconds(call, settings.warmup, settings.steps)

    # Inference first: the training steps move the weights.
    latency = seconds(lambda: infer(images[:1]).numpy())
    inference = seconds(lambda: infer(images).numpy())
    step = training_step(network, images)
    training = seconds(lambda: step().numpy())
    speed = Speed(settings.batch_size / training, settings.batch_size / inference, 1000 * latency)
    return model_summary(network), speed


def training_step(network: Any, images: Any) -> Callable[[], Any]:
    """A compiled step of AdamW on a loss that costs nothing: the embeddings' product with random directions."""
    import keras
    import tensorflow as tf

    variables = network.trainable_variables
    optimizer = keras.optimizers.AdamW()
    optimizer.build(variables)
    directions = tf.random.stateless_normal((images.shape[0], network.output_shape[-1]), seed=(0, 1))

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.reduce_sum(network(images, training=True) * directions, axis=-1))
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    return step


class Command(NamedTuple):
    """A thing to measure."""

    settings: type[Settings]
    """Its settings, which become its options."""

    run: Callable[[Any], Iterator[str]]
    """Makes the lines of its report from those settings."""


COMMANDS: dict[str, Command] = {
    "model": Command(ModelBench, bench_models),
    "losses": Command(LossBench, bench_losses),
    "index": Command(IndexBench, bench_index),
    "input": Command(InputBench, bench_input),
    "crop": Command(CropBench, bench_crop),
    "aligner": Command(AlignerBench, bench_aligner),
    "verify": Command(VerifyBench, bench_verify),
}
"""What can be measured, by its name on the command line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 2 wrong input, 130 interrupted."""
    name, *options = (sys.argv[1:] if argv is None else list(argv)) or [""]
    if name not in COMMANDS:
        sys.stderr.write(f"usage: python -m apps.bench {{{','.join(COMMANDS)}}} [options], or --help after it\n")
        return 0 if name in ("-h", "--help") else 2
    command = COMMANDS[name]
    settings = parse(command.settings, options, program=f"python -m apps.bench {name}")
    runtime.start_quietly()
    try:
        for line in command.run(settings):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return runtime.INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
