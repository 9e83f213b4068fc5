"""Every setting, in one place.

In:  the defaults below (edit them), a saved JSON file, the command line; each overrides the one before.
Out: a frozen `Config` (training) or `CropConfig` (cropping); a wrong name, type, range or combination is one
     sentence and exit code 2.
Run: python train.py --help
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from augmenting import AugmentConfig
from combinations import OPTIONS, problems, stage_problem
from facekit.settings import Settings

LossName = Literal[
    "tuplet_margin", "tuplet_margin_ipv", "triplet", "contrastive", "n_pair", "multi_similarity", "circle",
    "supcon", "intra_pair_variance", "softmax", "arcface", "cosface", "adaface",
]  # fmt: skip


class ExtraLoss(Settings):
    """A loss that is added to the main one."""

    loss: LossName
    """Its name, as in `loss`."""

    weight: PositiveFloat = 1.0
    """What its value is multiplied by."""

    options: dict[str, bool | int | float | str] = {}
    """Its arguments, by name: {"margin": 0.3}."""


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

    exclude_pictures: Path | None = None
    """Text file of pictures (person/picture.jpg, one a line; a person's name alone takes the whole folder) never to
    train or validate on. `python dataset.py check` writes one: exclude.txt."""

    min_images: PositiveInt = 1
    """Training people with fewer pictures are left out; 1: nobody, and people with one picture serve as negatives.
    Who is held out does not depend on it, so that runs with other numbers are judged on the same people."""

    max_images: PositiveInt | None = None
    """Most pictures of a training person, drawn by `seed`: a few famous people must not fill every epoch. None: all
    of them."""

    picture_weights: Path | None = None
    """CSV with the columns path and weight, a number in (0, 1]: how often a picture is drawn among those of its
    person. `python dataset.py check` writes one from sharpness, size, pose and light: quality.csv. Pictures that it
    does not name weigh 1."""

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

    balance: Literal["people", "sqrt", "pictures"] = "people"
    """How often a person is drawn: people, everyone equally often; pictures, in proportion to their pictures; sqrt,
    between the two. Unequal folders (CASIA-WebFace: 2 to 804 pictures) teach a few faces most with "pictures"."""

    steps_per_epoch: PositiveInt | None = None
    """Training steps an epoch. None: as many as show about as many pictures as train_dir holds."""

    augment: AugmentConfig = AugmentConfig()
    """Random changes to training pictures. `python dataset.py preview` draws them."""

    cache: Literal["none", "memory", "file"] = "none"
    """Where decoded training pictures are kept after they were first read: memory; file, which the next run finds
    again. Worth it where a disk or network is slow; decoding alone rarely holds a network up."""

    cache_gb: PositiveFloat = 4.0
    """Most that the cache may take, in 10^9 bytes. A picture takes 3 x image_size^2 bytes; 500,000 at 112 px take
    19 GB."""

    cache_dir: Path = Path("data/cache")
    """cache "file": the folder of the files."""

    input_service: str = ""
    """Address (host:port) of a service that reads and decodes on other machines, which see train_dir, a folder of
    crops, under the same path: `python -m apps.input_service`. Empty: this machine reads."""

    read_threads: int = Field(0, ge=0, le=256)
    """Threads that read, decode and augment pictures. 0: one a core."""

    # ---- Loss ----------------------------------------------------------------------------------------------

    loss: LossName = "tuplet_margin"
    """What is minimised. On pairs: tuplet_margin (Yu & Tao 2019; the default) and tuplet_margin_ipv (with half
    their variance loss), triplet (FaceNet), contrastive, n_pair, multi_similarity, circle, supcon (and, only beside
    another, intra_pair_variance, which is content with a collapsed model). Or a head that
    classifies the training people: softmax, arcface, cosface, adaface. FaceNet's best-known reimplementation found
    softmax better than triplets, and triplets alone on CASIA-WebFace end at 88-89 % on LFW (davidsandberg/facenet,
    README and issue 403): with thousands of people of many pictures, begin with a head (see `stages`)."""

    extra_losses: Annotated[tuple[ExtraLoss, ...], tyro.conf.Suppress] = ()
    """Losses added to `loss`, each times its weight: ({"loss": "arcface", "weight": 0.1},). Here or in JSON."""

    stages: Annotated[tuple[dict[str, Any], ...], tyro.conf.Suppress] = ()
    """Parts of a run, one after the other on one network, each with its `epochs` and what else it changes:
    ({"epochs": 5, "loss": "softmax"}, {"epochs": 15, "loss": "tuplet_margin", "learning_rate": 3e-4}). A stage with
    another `loss` starts from that loss's own options and mining; everything else stays as in the run. Optimizer,
    learning-rate curve and step count begin anew in each. () is one stage of `epochs`. Here or in JSON."""

    negatives: Literal["batch", "tuplet"] = "batch"
    """batch: each anchor sees every other person's pictures in the batch. tuplet: only its own negatives."""

    margin: PositiveFloat | None = None
    """None: the loss's own. An angle in radians, a slack that forgives hard positives (tuplet_margin: 0.1, below
    pi / 2) or a demand (arcface 0.5, adaface 0.4); a distance, 0 to 2, squared 0 to 4 (triplet 0.2, contrastive
    1.0); a cosine (circle 0.25, cosface 0.35)."""

    scale: PositiveFloat | None = None
    """What cosines are multiplied by. Larger looks at the hardest alone. None: the loss's own (tuplet_margin,
    arcface, cosface, adaface 64, circle 256, n_pair 1)."""

    hardest: PositiveInt | None = None
    """tuplet_margin, triplet: only the k hardest negatives of each anchor count. None: all (triplet: `mining`)."""

    mining: (
        Literal["all", "random", "semi_hard", "hard", "easy_positive", "distance_weighted", "schedule"] | None
    ) = None
    """Which pairs of a batch count, for every loss on pairs. None: all (triplet: semi_hard). With loss triplet,
    all, semi_hard and hard are its own, positive by positive, and leave extra losses every pair. random and
    distance_weighted (Wu 2017) draw `mining_count` negatives an anchor; easy_positive keeps the nearest positive;
    hard keeps the farthest positive and the nearest negative, and often collapses from the first step on; schedule
    goes from random to semi_hard to hard as training stops pushing (`mining_switch`)."""

    mining_count: PositiveInt = 8
    """mining "random", "distance_weighted", "schedule": negatives drawn for each anchor."""

    mining_switch: float = Field(0.3, gt=0, lt=1)
    """mining "schedule": harder pairs when the share of terms that still push falls below it."""

    squared: bool = False
    """triplet: squared distances, as FaceNet and TensorFlow Addons had them (their margin was 1.0)."""

    soft: bool = False
    """triplet with mining "hard": softplus instead of a margin (Hermans 2017)."""

    average: Literal["positive", "all"] | None = None
    """triplet with mining "all": mean over the terms above 0 (None, "positive") or over all triplets."""

    epsilon: PositiveFloat | None = None
    """intra_pair_variance, tuplet_margin_ipv: how far from the mean a cosine may be, as a share. None: 0.01."""

    alpha: PositiveFloat | None = None
    """multi_similarity: sharpness for positives. None: 2."""

    beta: PositiveFloat | None = None
    """multi_similarity: sharpness for negatives. None: 50."""

    base: float | None = Field(None, gt=-1, lt=1)
    """multi_similarity: the cosine between "too far" and "too near". None: 0.5."""

    temperature: PositiveFloat | None = None
    """supcon: what cosines are divided by. Smaller looks at the hardest alone. None: 0.1."""

    h: PositiveFloat | None = None
    """adaface: how many deviations of the norm make a picture wholly good or bad. None: 0.333."""

    subcentres: PositiveInt | None = None
    """Heads: centres a person, of which the nearest counts; 3 takes up some wrong labels (Deng 2020). None: 1."""

    sampled: PositiveInt | None = None
    """Heads: classes in each step, those of the batch among them (Partial FC, An 2022), for tens of thousands of
    people: the logits take batch x sampled numbers instead of batch x people. None: all."""

    # ---- Memory --------------------------------------------------------------------------------------------

    memory_size: int = Field(0, ge=0)
    """Rows of earlier batches that anchors also see (cross-batch memory, Wang 2020); 8192 is usual. 0: none."""

    memory_start: int = Field(500, ge=0)
    """Steps of the stage before the memory begins to fill: early embeddings move too fast to be kept."""

    hard_identity_steps: int = Field(0, ge=0)
    """Every so many steps, people who look alike are found anew and drawn into one batch. A few hundred, at
    least 50; 0: never. The first ones are used after twice as many steps."""

    # ---- Model ---------------------------------------------------------------------------------------------

    backbone: Literal[
        "small", "resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "inception_v3", "inception_resnet_v1",
        "dlib_resnet29",
    ] = "small"  # fmt: skip
    """The network. small trains on a CPU in minutes; resnet50 or inception_v3 want a GPU and CASIA's size.
    dlib_resnet29 has published weights (`weights` dlib) that know faces already."""

    weights: str | None = None
    """Where training starts. None: random. "imagenet": Keras' own file, fetched from the internet (resnet50,
    inception_v3, mobilenet_v2, efficientnet_b0), or that file's path (.h5). "dlib": dlib's published face network
    (dlib_resnet29; 150 px, embeddings of 128 as it has them), fetched once from the package index. A .pt or
    .safetensors file of facenet-pytorch (inception_resnet_v1). Else a bundle's folder, or the path of a .keras or
    .weights.h5 file of a model of this project. Weights that know how faces are cut have train_dir cut so."""

    embedding_size: int = Field(128, ge=2, le=4096)
    """Numbers in an embedding. 128 is FaceNet's; 512 is usual for hundreds of thousands of pictures."""

    keep_crops: bool = False
    """With `weights` that know how faces are cut: take the folders as they are, cut otherwise or not at all."""

    recut_dir: Path = Path("data/recut")
    """Where crops go that are made because `weights` wants faces cut otherwise than the folders hold them."""

    embedding_norm: Literal["batch", "none"] | None = None
    """Whether batch norm follows the embedding layer. None: batch, as FaceNet and ArcFace have it; dlib_resnet29
    has none."""

    pooling: Literal["average", "flatten"] = "average"
    """How the last feature map becomes a vector. flatten keeps places and has many more weights."""

    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of features dropped before the embedding layer while training."""

    freeze: tuple[str, ...] = ()
    """Layers that do not learn, by name or its beginning, with * for anything: the backbone's name stands for all
    of it; names inside it work too (conv1 stage1 "layer*.conv"). Their batch norm keeps its statistics."""

    freeze_batch_norm: bool | Literal["statistics"] | None = None
    """Whether the backbone's batch norm keeps and uses the statistics, scales and shifts that it has. None: where
    training starts from `weights`, whose statistics are those of many more pictures. statistics: all batch norm
    uses and keeps the statistics that it has, while scales and shifts learn; needs dropout 0."""

    distill: float = Field(0.0, ge=0)
    """With `weights`: weight of a penalty on leaving the start, the mean of 1 - cosine between a picture's
    embedding and the starting network's, so that people never trained on stay apart. The mean is logged as
    from_start. 0: none. Costs one more forward pass a step."""

    # ---- Optimizer -----------------------------------------------------------------------------------------

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """adamw needs the least tuning; sgd (Nesterov) is usual for long runs with margin heads."""

    learning_rate: PositiveFloat = 1e-3
    """The highest rate, reached after the warm-up. 1e-3 for adam and adamw, about 0.1 for sgd."""

    layer_decay: float = Field(1.0, gt=0, le=1)
    """Layer-wise decay of the rate, for fine-tuning: the backbone's last stage learns at `learning_rate` times
    this, the stage before at its square, and so on; the head at full rate. A stage is all layers on maps of one
    size. 0.65 to 0.9 is usual (ELECTRA, BEiT). 1: one rate for all."""

    learning_rates: Annotated[dict[str, PositiveFloat], tyro.conf.Suppress] = {}
    """What the rate is multiplied by for layers whose name begins so, instead of `layer_decay`'s factor:
    {"layer4": 0.5, "conv1": 0.01}. A network's name stands for all of it. Here or in JSON."""

    weight_decay: NonNegativeFloat = 1e-4
    """Decoupled weight decay a step, times the layer's learning rate. Biases and batch norm are left out. adamw,
    sgd."""

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

    epochs: int = Field(10, ge=0)
    """Epochs to train, in all (a resumed run goes on to this number). With `stages`, theirs count. 0, with
    `weights`: none; the network as it is gets your threshold and, where asked for, your `cohort`."""

    checkpoint_steps: PositiveInt | None = None
    """Steps between checkpoints inside an epoch. None: only at each epoch's end, and when interrupted."""

    monitor: Literal["auc", "accuracy", "eer", "tpr"] = "auc"
    """The validation figure that picks the best model and drives plateau and early stopping. tpr: the true-match
    rate at the false-match rate `monitor_fmr` over all pairs of the held-out people's first 5 pictures each, logged
    as tpr_at_fmr: for networks that know faces, whose AUC leaves no room. With `weights`, the start is judged first
    and kept until an epoch beats it."""

    monitor_fmr: float = Field(1e-3, gt=0, lt=1)
    """monitor "tpr": the false-match rate; it needs at least 3 / monitor_fmr impostor pairs."""

    interpolate: bool = False
    """With `weights`: after the last stage, judge the weights on the straight line from the start to the best
    epoch's (the last one's, where none beat the start), a tenth of the way at a time, by `monitor`, and keep the
    best of them (WiSE-FT, Wortsman et al. 2022). Their figures go to interpolation.csv."""

    cohort: int = Field(0, ge=0)
    """After training, embeddings are normalised by a cohort, one picture of each training person (4,096 at most):
    the mean cosine with its so many nearest is taken from each embedding, which grows by 384 numbers. Kept where
    `monitor` is better with it. Most false matches at a low FMR are of a few who look like many others; about 1 %
    of the people serves (docs/finetuning.md). The bundle then holds embeddings of training people, which are
    personal data. 0: none."""

    early_stopping_patience: int = Field(0, ge=0)
    """Epochs without improvement of `monitor` before training stops. 0: never."""

    target_fmr: float | None = Field(None, gt=0, lt=1)
    """The threshold in the bundle: None, the one of best accuracy on the validation pairs; a number, the
    largest with at most this false-match rate there (it needs at least 3 / target_fmr impostor pairs)."""

    flip: bool = False
    """Whether a face's embedding is the mean of the picture's and its mirror image's, each of unit length, where
    the model is judged and used: a little better, at twice the time. The bundle remembers it; training is the
    same."""

    data_name: str = ""
    """The training data's name, for the bundle and its model card. Empty: train_dir's path."""

    licence: str = ""
    """Under which terms the trained model may be used, for the bundle, its model card and exports: the training
    data's terms decide. Empty: unstated, and an export asks for it."""

    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """mixed_*: faster on GPUs of the last years (bfloat16 also on some CPUs). Embedding and loss stay float32."""

    stop_on_collapse: bool = True
    """Whether a run whose embeddings have all become one point is stopped; a warning comes first."""

    xla: bool = False
    """Compile the training step with XLA. Faster on GPUs, slower on CPUs."""

    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of initial weights, split, sampling and augmentation."""

    def model_post_init(self, _context: Any) -> None:
        """Refuse settings that do not fit together."""
        for problem in problems(self):
            raise ValueError(problem)
        for number in range(len(self.stages)):
            self.stage(number)

    def stage(self, number: int) -> Config:
        """The settings of one stage, from 0: the run's own with the stage's changes.

        Raises:
            ValueError: the stage is wrong; the sentence begins with its number.
        """
        changes = self.stages[number]
        try:
            if problem := stage_problem(changes, type(self).model_fields):
                raise ValueError(problem)
            # Options belong to a loss: with another loss, the run's are not meant.
            fresh = dict.fromkeys((*OPTIONS, "mining")) if changes.get("loss", self.loss) != self.loss else {}
            for name in ("squared", "soft"):
                fresh |= {name: False} if name in fresh else {}
            return type(self)(**{**self.model_dump(), **fresh, **changes, "stages": ()})
        except ValueError as error:
            raise ValueError(f"`stages`, stage {number + 1}: {error}") from None

    @property
    def parts(self) -> tuple[Config, ...]:
        """The settings of all stages; of a run without, its own."""
        return tuple(self.stage(number) for number in range(len(self.stages))) or (self,)

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

    template: Literal["arcface", "dlib", "dlib_close"] = "arcface"
    """method "align": where the landmarks go. arcface: the usual template. dlib: the frame of dlib's published
    network, for which `size` is 150. dlib_close: the same 4 % nearer, eyes counting most, as the pretrained network
    knows faces best."""

    margin: float = Field(0.0, ge=0, le=2)
    """Room added on every side, as a share of the template (align) or of the box (box)."""

    choose: Literal["largest_centred", "largest", "most_confident", "only"] = "largest_centred"
    """Which face, where there are several. largest_centred: area less the squared distance from the centre.
    only: pictures with several faces are skipped (`many_faces`)."""

    aligner: Literal["mtcnn", "fast", "dlib"] = "mtcnn"
    """Who finds the landmarks. mtcnn searches whole pictures. fast: our own small network, for pictures with one
    face in the middle (LFW, CASIA-WebFace, crops with some margin), many times faster; it needs `aligner_path`.
    dlib: dlib finds faces of 80 pixels or more in whole pictures (package dlib-bin), our network their points."""

    aligner_path: Path | None = None
    """aligner "fast" or "dlib": the weights of our network, made by `python -m apps.train_aligner`. They are copied
    beside the crops."""

    min_face: int = Field(20, ge=12)
    """aligner "mtcnn": side in pixels of the smallest face to look for, in the picture as `max_side` leaves it.
    Larger is faster: the search takes most of its time for the smallest faces."""

    exact: bool = False
    """aligner "mtcnn": take its landmarks as computed, not rounded to whole pixels as the mtcnn package gives them.
    The pretrained network wants its faces cut so."""

    min_confidence: float = Field(0.9, ge=0, le=1)
    """Faces that the detector scores lower are skipped (`low_confidence`)."""

    min_side: PositiveInt = 40
    """Pictures with a shorter side, in pixels, are skipped (`too_small`)."""

    max_side: PositiveInt = 1024
    """Pictures with a longer side are scaled down to it before detection. Bounds time and memory; a face should
    keep 20 pixels."""

    quality: int = Field(95, ge=1, le=100)
    """JPEG quality of the crops."""

    processes: int = Field(0, ge=0, le=256)
    """Processes that detect. 0: one a core. Each takes 0.1 GB, with 12-megapixel photos 0.3 GB; with `aligner` fast
    about 1 GB, for TensorFlow."""

    cluster: str = ""
    """Address of a Dask scheduler (tcp://host:8786) whose workers detect instead: see docs/clusters.md. Empty: this
    machine does."""

    retry_failed: bool = False
    """Try pictures again that an earlier run skipped for a reason."""

    def model_post_init(self, _context: Any) -> None:
        """Check settings that depend on each other."""
        if (self.aligner != "mtcnn") != (self.aligner_path is not None):
            raise ValueError(
                "`aligner` fast or dlib and `aligner_path` belong together: set both or neither. "
                "`python -m apps.train_aligner --output aligner.keras --teacher CROPS` makes the weights."
            )
        if self.exact and self.aligner != "mtcnn":
            raise ValueError("`exact` goes with `aligner` mtcnn: our own network never rounds. Leave it out.")
