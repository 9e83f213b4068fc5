"""Every setting, in one place.

In:  the defaults below (edit them), a saved JSON file, the command line; each overrides the one before.
Out: a frozen `Config` (training) or `CropConfig` (cropping); a wrong name, type, range or combination is one
     sentence and exit code 2.
Run: python train.py --help
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from math import pi
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError

# The smallest pictures that each network accepts, in pixels a side: below it, no cell is left at the end.
SMALLEST_IMAGE = {
    "small": 32,
    "resnet18": 32,
    "resnet50": 32,
    "mobilenet_v2": 32,
    "efficientnet_b0": 32,
    "inception_v3": 75,
    "inception_resnet_v1": 80,
}
BACKBONES_WITH_IMAGENET = ("resnet50", "inception_v3", "mobilenet_v2", "efficientnet_b0")


class Settings(BaseModel):
    """A frozen group of settings whose errors are sentences that name the setting."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(_sentences(error, type(self))) from None

    def to_json(self) -> str:
        """The settings as indented JSON text, which `read_settings` reads back."""
        return self.model_dump_json(indent=2) + "\n"


class AugmentConfig(Settings):
    """What may happen to a training picture. Each step has a probability and a strength, per picture."""

    flip_probability: float = Field(0.5, ge=0, le=1)
    """Chance of a left-right mirror, 0 to 1. Faces are nearly symmetric: a free doubling of the data."""

    rotation_probability: float = Field(0.5, ge=0, le=1)
    """Chance of a rotation, 0 to 1."""

    rotation_degrees: float = Field(10.0, ge=0, le=180)
    """Largest rotation either way, in degrees. Aligned faces need little: it covers the landmarks' error."""

    brightness_probability: float = Field(0.5, ge=0, le=1)
    """Chance of a brightness change, 0 to 1."""

    brightness_delta: float = Field(0.2, ge=0, le=1)
    """Largest shift, as a share of the full range 0..255 either way."""

    contrast_probability: float = Field(0.5, ge=0, le=1)
    """Chance of a contrast change, 0 to 1."""

    contrast_delta: float = Field(0.2, ge=0, lt=1)
    """Contrast is multiplied by 1 - delta to 1 + delta, around the picture's mean."""

    cutout_probability: float = Field(0.25, ge=0, le=1)
    """Chance that a grey square hides a part of the face, 0 to 1 (DeVries & Taylor 2017)."""

    cutout_size: float = Field(0.3, gt=0, le=1)
    """Side of that square, as a share of the picture's side."""


class Config(Settings):
    """Train a face-verification model on a folder of people: one folder a person, pictures inside."""

    # ---- Data ----------------------------------------------------------------------------------------------

    train_dir: Path = Path("data/synthetic/crops")
    """Folder of training people. Best made by crop_faces.py: its crop recipe goes into the model."""

    validation_dir: Path | None = None
    """Folder of other people to validate on. None: `validation_share` of train_dir's people are held out."""

    validation_share: float = Field(0.1, gt=0, lt=1)
    """Share of train_dir's people held out for validation, whole people, never single pictures."""

    validation_pairs: int = Field(2000, ge=20)
    """Pairs to validate on after each epoch, half genuine, half impostor (fewer where the people give fewer)."""

    exclude_people: Path | None = None
    """Text file of people (folder names, one a line) never to train or validate on, e.g. those of a test set."""

    test_triplets: Path | None = None
    """Text file of triplets (anchor, positive, negative paths a line): the share ordered right is logged each
    epoch, for information only. Paths are relative to the file."""

    image_size: int = Field(64, ge=16, le=1024)
    """Side of the network's square input, in pixels. 64 suits the small network; 112 is usual for ResNet and
    MobileNet, 160 for Inception-ResNet. Pictures of another size are resized."""

    # ---- Batches -------------------------------------------------------------------------------------------

    sampler: Literal["tuplet", "people"] = "tuplet"
    """tuplet: anchor, positive and `negatives_per_tuplet` pictures of other people. people: P people times K
    pictures each (`pictures_per_person`), the usual batch of triplet training."""

    batch_size: int = Field(32, ge=1)
    """Tuplets a step (sampler "tuplet": batch_size x (2 + negatives_per_tuplet) pictures) or pictures a step
    (sampler "people": a multiple of pictures_per_person)."""

    negatives_per_tuplet: int = Field(8, ge=1, le=1000)
    """Negatives drawn for each tuplet, each of another person than the anchor."""

    pictures_per_person: int = Field(4, ge=2)
    """K of the "people" sampler: pictures of each person in a batch."""

    steps_per_epoch: PositiveInt | None = None
    """Training steps an epoch. None: as many as show about as many pictures as train_dir holds."""

    augment: AugmentConfig = AugmentConfig()
    """Random changes to training pictures."""

    # ---- Loss ----------------------------------------------------------------------------------------------

    loss: Literal["tuplet_margin", "triplet"] = "tuplet_margin"
    """tuplet_margin (Yu & Tao 2019) weighs all negatives of an anchor at once; triplet (FaceNet 2015) one."""

    negatives: Literal["batch", "tuplet"] = "batch"
    """batch: each anchor sees every other person's pictures in the batch. tuplet: only its own negatives."""

    margin: PositiveFloat | None = None
    """None: the loss's own (tuplet_margin 0.1, triplet 0.2). tuplet_margin: an angle in radians, below pi / 2,
    a slack that forgives hard positives. triplet: a distance, 0 to 2 (squared: 0 to 4)."""

    scale: PositiveFloat = 64.0
    """tuplet_margin only: the cosine is multiplied by it. Larger looks at the hardest negatives alone."""

    hardest: PositiveInt | None = None
    """Only the k hardest negatives of each anchor count. None: all (tuplet_margin), `mining` (triplet)."""

    mining: Literal["all", "semi_hard", "hard"] | None = None
    """triplet only, instead of `hardest`: which triplets count. None: semi_hard. "hard" from the first step
    often collapses."""

    squared: bool = False
    """triplet only: squared distances, as FaceNet and TensorFlow Addons had them (their margin was 1.0)."""

    soft: bool = False
    """triplet with mining "hard" only: softplus instead of a margin (Hermans 2017)."""

    # ---- Model ---------------------------------------------------------------------------------------------

    backbone: Literal[
        "small", "resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "inception_v3", "inception_resnet_v1"
    ] = "small"
    """The network. small trains on a CPU in minutes; resnet50 or inception_v3 want a GPU and CASIA's size."""

    weights: str | None = None
    """Where training starts. None: random. "imagenet": Keras' own file, fetched from the internet (resnet50,
    inception_v3, mobilenet_v2, efficientnet_b0), or that file's path (.h5). Else the path of a .keras or
    .weights.h5 file of a model of this project."""

    embedding_size: int = Field(128, ge=2, le=4096)
    """Numbers in an embedding. 128 is FaceNet's; 512 is usual for hundreds of thousands of pictures."""

    pooling: Literal["average", "flatten"] = "average"
    """How the last feature map becomes a vector. flatten keeps places and has many more weights."""

    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of features dropped before the embedding layer while training."""

    # ---- Optimizer -----------------------------------------------------------------------------------------

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """adamw needs the least tuning; sgd (Nesterov) is usual for long runs with margin heads."""

    learning_rate: PositiveFloat = 1e-3
    """The highest rate, reached after the warm-up. 1e-3 for adam and adamw, about 0.1 for sgd."""

    weight_decay: NonNegativeFloat = 1e-4
    """Decoupled weight decay a step, times the learning rate. Biases and batch norm are left out. adamw, sgd."""

    momentum: float = Field(0.9, ge=0, lt=1)
    """sgd only."""

    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    """cosine: down to 1 % over the run. plateau: times `plateau_factor` when `monitor` stops improving."""

    warmup_epochs: float = Field(0.5, ge=0, le=10_000)
    """Epochs in which the rate rises from 0. Keeps the first large gradients from collapsing the embedding."""

    plateau_patience: PositiveInt = 3
    """schedule "plateau": epochs without improvement before the rate falls."""

    plateau_factor: float = Field(0.3, gt=0, lt=1)
    """schedule "plateau": what the rate is multiplied by."""

    clip_norm: PositiveFloat | None = 5.0
    """Gradients are scaled down to this global norm. None: never."""

    # ---- Run -----------------------------------------------------------------------------------------------

    name: str = Field("", pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]*)?$", max_length=100)
    """Name of the run, a folder below runs_dir: letters, digits, dots, dashes. Empty: the date and time."""

    runs_dir: Path = Path("runs")
    """Where run folders go."""

    checkpoint_dir: Path | None = None
    """Where checkpoints go, in a folder named after the run. None: runs_dir/name/checkpoints."""

    tensorboard_dir: Path | None = None
    """Where TensorBoard's files go, in a folder named after the run. None: runs_dir/name/tensorboard."""

    epochs: PositiveInt = 10
    """Epochs to train, in all (a resumed run goes on to this number)."""

    checkpoint_steps: PositiveInt | None = None
    """Steps between checkpoints inside an epoch. None: only at each epoch's end, and when interrupted."""

    monitor: Literal["auc", "accuracy", "eer"] = "auc"
    """The validation figure that picks the best model and drives plateau and early stopping."""

    early_stopping_patience: int = Field(0, ge=0)
    """Epochs without improvement of `monitor` before training stops. 0: never."""

    target_fmr: float | None = Field(None, gt=0, lt=1)
    """The threshold in the bundle: None, the one of best accuracy on the validation pairs; a number, the
    largest with at most this false-match rate there (it needs at least 3 / target_fmr impostor pairs)."""

    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """mixed_*: faster on GPUs of the last years (bfloat16 also on some CPUs). Embedding and loss stay float32."""

    xla: bool = False
    """Compile the training step with XLA. Faster on GPUs, slower on CPUs."""

    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of initial weights, split, sampling and augmentation."""

    def model_post_init(self, _context: Any) -> None:
        """Refuse settings that do not fit together."""
        for problem in _combination_problems(self):
            raise ValueError(problem)

    @property
    def pictures_per_step(self) -> int:
        """Pictures in one training batch."""
        return self.batch_size * (2 + self.negatives_per_tuplet) if self.sampler == "tuplet" else self.batch_size


class CropConfig(Settings):
    """Find the face in each picture of a folder tree, align it, and write it to a tree of the same shape."""

    input_dir: Path
    """Folder of pictures, usually one folder a person. Read only."""

    output_dir: Path
    """Where crops and manifest.csv go. Started again, the command skips what is done."""

    size: int = Field(112, ge=16, le=1024)
    """Side of the square crop in pixels. 112 is the usual template's; 160 is FaceNet's."""

    method: Literal["align", "box"] = "align"
    """align: five landmarks onto the standard template. box: the face's box, squared, without rotation."""

    margin: float = Field(0.0, ge=0, le=2)
    """Room added on every side, as a share of the template (align) or of the box (box)."""

    choose: Literal["largest_centred", "largest", "most_confident", "only"] = "largest_centred"
    """Which face, where there are several. largest_centred: area less the squared distance from the centre.
    only: pictures with several faces are skipped (`many_faces`)."""

    min_confidence: float = Field(0.9, ge=0, le=1)
    """Faces that MTCNN scores lower are skipped (`low_confidence`)."""

    min_side: PositiveInt = 40
    """Pictures with a shorter side, in pixels, are skipped (`too_small`)."""

    max_side: PositiveInt = 1024
    """Pictures with a longer side are scaled down to it before detection. Bounds time and memory; a face should
    keep 20 pixels."""

    quality: int = Field(95, ge=1, le=100)
    """JPEG quality of the crops."""

    processes: int = Field(0, ge=0, le=256)
    """Processes that detect. 0: one a core. Each takes about 1.4 GB."""

    batch_size: PositiveInt = 32
    """Pictures of one size that a process detects at once."""

    retry_failed: bool = False
    """Try pictures again that an earlier run skipped for a reason."""


def _combination_problems(config: Config) -> list[str]:
    """One sentence for every pair of settings that contradict each other, in the order of the fields."""
    c = config
    smallest = SMALLEST_IMAGE[c.backbone]
    largest_margin = pi / 2 if c.loss == "tuplet_margin" else (4.0 if c.squared else 2.0)
    limit = "pi / 2 radians" if c.loss == "tuplet_margin" else f"{largest_margin:g}"
    checks = [
        (c.image_size < smallest,
         f"`image_size` must be at least {smallest} for backbone={c.backbone!r}. Received: {c.image_size}."),
        (c.sampler == "people" and c.batch_size % c.pictures_per_person != 0,
         f"`batch_size` must be a multiple of `pictures_per_person` ({c.pictures_per_person}) with "
         f'sampler="people". Received: {c.batch_size}.'),
        (c.sampler == "people" and c.batch_size < 2 * c.pictures_per_person,
         f"`batch_size` must hold at least two people ({2 * c.pictures_per_person} pictures) with "
         f'sampler="people". Received: {c.batch_size}.'),
        (c.sampler == "people" and c.negatives == "tuplet",
         '`negatives="tuplet"` needs sampler="tuplet": the "people" sampler draws no tuplets.'),
        (c.margin is not None and c.margin >= largest_margin,
         f"`margin` must be in (0, {limit}) for loss={c.loss!r}. Received: {c.margin:g}." if c.margin else ""),
        (c.loss != "triplet" and (c.mining is not None or c.squared or c.soft),
         f'`mining`, `squared` and `soft` belong to loss="triplet"; loss is {c.loss!r}.'),
        (c.mining is not None and c.hardest is not None,
         "`mining` and `hardest` exclude each other: set one to None."),
        (c.soft and c.mining != "hard", '`soft=True` needs mining="hard".'),
        (c.weights == "imagenet" and c.backbone not in BACKBONES_WITH_IMAGENET,
         f'`weights="imagenet"` exists for {", ".join(BACKBONES_WITH_IMAGENET)}; backbone is {c.backbone!r}.'),
        (c.target_fmr is not None and c.target_fmr < 3 / (c.validation_pairs / 2),
         f"`target_fmr` {c.target_fmr} needs at least {3 / (c.target_fmr or 1):.0f} impostor pairs; set "
         f"`validation_pairs` to at least {6 / (c.target_fmr or 1):.0f}."),
    ]  # fmt: skip
    return [sentence for wrong, sentence in checks if wrong]


def _sentences(error: ValidationError, model: type[BaseModel]) -> str:
    """Pydantic's findings as sentences that name the setting, what was expected and what came."""
    sentences = []
    for finding in error.errors():
        name = ".".join(str(part) for part in finding["loc"])
        if finding["type"] == "extra_forbidden":
            sentences.append(_unknown_name(name, list(model.model_fields)))
        elif finding["type"] == "missing":
            sentences.append(f"`{name}` is required.")
        else:
            expected = finding["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
            # A nested group has written its whole sentence already.
            whole = not name or expected.startswith(("`", "There is"))
            sentences.append(expected if whole else f"`{name}` {expected}. Received: {finding['input']!r}.")
    return " ".join(sentences)


def _unknown_name(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"There is no setting `{name}`: did you mean `{nearest[0]}`?"


SettingsType = TypeVar("SettingsType", bound=Settings)


def read_settings(path: Path, kind: type[SettingsType]) -> SettingsType:
    """Read settings that `Settings.to_json` wrote; a missing name keeps its default.

    Raises:
        ValueError: the file is missing, is not a JSON object, or holds a wrong name or value; in one sentence.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON ({error}).") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a JSON object of settings, found {type(values).__name__}.")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse(
    kind: type[SettingsType], argv: Sequence[str] | None, default: SettingsType | None = None
) -> SettingsType:
    """Settings from the command line: every field is an option, `default` the values not given.

    Raises:
        SystemExit: code 2 after a wrong option or value, with a sentence on stderr; 0 after --help.
    """
    import tyro

    return tyro.cli(  # type: ignore[return-value]
        kind,
        args=list(sys.argv[1:] if argv is None else argv),
        default=default,
        use_underscores=True,
    )
