"""What a run shows of itself: TensorBoard's files, embeddings of held-out people, the map that is drawn of them.

In:  a `Session` and its held-out people.
Out: callbacks for `fit`; embedding_map.gif in the run's folder.
Run: python train.py; tensorboard --logdir runs
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

from config import Config
from runs import PLACES, RunFolder

# Everything heavy is imported where it is used.
if TYPE_CHECKING:
    import keras

    from facekit.validation import HeldOut
    from session import Session

# Epochs of a run of which TensorBoard gets pictures: about 0.9 MB each, and it shows ten.
MOST_DRAWN = 10


def tensorboard(session: Session, held_out: HeldOut) -> keras.callbacks.Callback:
    """The callback that writes TensorBoard's event files, which go on where the session's history ends."""
    from facekit.setting_table import flat, settings_markdown
    from facekit.tensorboard import About, Sources, TensorBoard, forget_after
    from facekit.validation import CHIEF_FIGURES, HELD_OUT_FIGURES

    folder, rows = session.folder.tensorboard, session.history.rows
    forget_after(folder, int(rows[-1]["epoch"]) if rows else 0)
    settings = flat(session.config.model_dump(mode="json"))
    text = settings_markdown(settings, flat(Config().model_dump(mode="json")))
    told = {name: value for name, value in settings.items() if name not in PLACES}
    sources = Sources(
        held_out=HELD_OUT_FIGURES,
        chief=CHIEF_FIGURES,
        is_best=lambda epoch: session.best.state["epoch"] == epoch,
        distances=held_out.class_distances,
        pictures=held_out.pictures,
    )
    about = About(session.config.name, told, {"config": text})
    return TensorBoard(folder, sources, about, pictures_every=max(1, ceil(session.epochs / MOST_DRAWN)))


def keep_embeddings(session: Session, held_out: HeldOut) -> keras.callbacks.Callback:
    """The callback that keeps embeddings of held-out people: each epoch's for the map, the best's to turn about."""
    from facekit import embedding_map, projector
    from facekit.callbacks import AfterEpoch
    from facekit.validation import pictures_of_most

    board, folder = session.folder.tensorboard, session.folder.root / embedding_map.FOLDER
    points = pictures_of_most(held_out.people, projector.MOST_POINTS)[: projector.MOST_POINTS]
    mapped = pictures_of_most(held_out.people, embedding_map.MOST_PEOPLE, embedding_map.MOST_EACH)
    projector.write_faces(board, *held_out.pictures_at(points))
    embedding_map.begin(folder, *held_out.pictures_at(mapped))

    def keep(epoch: int) -> None:
        embedding_map.keep(folder, epoch + 1, held_out.embeddings[mapped])
        if session.best.state["epoch"] == epoch:
            projector.write_points(board, held_out.embeddings[points], held_out.images.shape[1])

    return AfterEpoch(keep)


def draw_map(folder: RunFolder, rows: Sequence[dict[str, float]]) -> None:
    """Draw embedding_map.gif of the embeddings kept; a picture less must not cost a run its product."""
    from facekit import embedding_map

    try:
        course = embedding_map.read_course(folder.root / embedding_map.FOLDER)
        figures = {int(row["epoch"]): row["auc"] for row in rows}
        embedding_map.draw(course, figures, folder.root / embedding_map.GIF)
        print(f"How held-out people gathered, epoch by epoch: {folder.root / embedding_map.GIF}")
    except (ValueError, OSError) as error:
        print(f"No {embedding_map.GIF}: {error}", file=sys.stderr)
