"""Do two crops show one person? An exported LiteRT network, with NumPy, OpenCV and ai-edge-litert; no TensorFlow.

In:  a folder of `python -m apps.export BUNDLE --to litert`; two crops of crop_faces.py made by the same recipe.
Run: python examples/litert_verify.py runs/first/exports/litert crops/Ann/1.jpg crops/Ann/2.jpg
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

if len(sys.argv) != 4:
    sys.exit("error: name the export's folder and two crops: python examples/litert_verify.py EXPORT A.jpg B.jpg")
folder, *paths = map(Path, sys.argv[1:])
if not (folder / "export.json").is_file():
    sys.exit(
        f"error: {folder}: has no export.json. `python -m apps.export BUNDLE --to litert` writes such a folder."
    )
export = json.loads((folder / "export.json").read_text(encoding="utf-8"))


def read_crop(path: Path) -> np.ndarray:
    """A crop as the recipe makes it, (S, S, 3) uint8 RGB, at the side that the network takes."""
    crop = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) if path.is_file() else None
    if crop is None:
        sys.exit(f"error: {path}: cannot be read as a picture.")
    recipe, side = export["preprocessing"]["recipe"], export["preprocessing"]["network_side"]
    if recipe and crop.shape[:2] != (recipe["size"], recipe["size"]):
        sys.exit(
            f"error: {path}: is {crop.shape[1]} x {crop.shape[0]} pixels and no crop of {recipe['size']} x "
            f"{recipe['size']}. Crop it first: crop_faces.py, by the recipe in {folder / 'export.json'}."
        )
    return cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA if side < len(crop) else cv2.INTER_LINEAR)


def embed(crop: np.ndarray) -> np.ndarray:
    """A crop's embedding, (D,) float32 of length 1."""
    views = np.stack([crop, crop[:, ::-1]] if export["preprocessing"]["flip"] else [crop])
    total = network(image=views)["embedding"].sum(axis=0)
    return total / np.linalg.norm(total)


crops = [read_crop(path) for path in paths]
network = Interpreter(model_path=str(folder / export["file"])).get_signature_runner()
distance = float(np.linalg.norm(embed(crops[0]) - embed(crops[1])))
threshold = export["threshold"] and export["threshold"]["value"]
verdict = "no threshold" if threshold is None else "same person" if distance < threshold else "different people"
print(f"distance {distance:.4f}   threshold {threshold}   {verdict}")
