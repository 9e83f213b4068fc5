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

folder, *paths = map(Path, sys.argv[1:])
export = json.loads((folder / "export.json").read_text(encoding="utf-8"))
network = Interpreter(model_path=str(folder / export["file"])).get_signature_runner()


def embed(path: Path) -> np.ndarray:
    """A crop's embedding, (D,) float32 of length 1."""
    crop = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if crop is None:
        sys.exit(f"error: {path}: cannot be read as a picture.")
    side = export["preprocessing"]["network_side"]
    crop = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA if side < len(crop) else cv2.INTER_LINEAR)
    views = np.stack([crop, crop[:, ::-1]] if export["preprocessing"]["flip"] else [crop])
    total = network(image=views)["embedding"].sum(axis=0)
    return total / np.linalg.norm(total)


distance = float(np.linalg.norm(embed(paths[0]) - embed(paths[1])))
threshold = export["threshold"] and export["threshold"]["value"]
verdict = "no threshold" if threshold is None else "same person" if distance < threshold else "different people"
print(f"distance {distance:.4f}   threshold {threshold}   {verdict}")
