"""Does attention help on a folder of pictures? A whole study from Python.

``python examples/image_folder.py [--images FOLDER] [--out FOLDER] [--epochs N] [--seeds N]``
compares a small network plain, with ECA and with CBAM. Without ``--images`` it makes a folder to
try, of photographs that scikit-image ships: patches of brick, grass and gravel, to be told apart;
training and validation patches come from different halves of the photographs.
"""

import argparse
from pathlib import Path

from whatwhere.study.compare import compare
from whatwhere.study.data import DataSettings
from whatwhere.study.settings import StudySettings

SIDE = 40  # of a patch, in pixels
STRIDE = 26


def make_pictures(folder):
    """``folder/{train,val}/{brick,grass,gravel}/*.png``, and the folder."""
    from PIL import Image
    from skimage import data

    for name in ("brick", "grass", "gravel"):
        photograph = getattr(data, name)()
        height, width = photograph.shape
        halves = {"train": (0, width // 2), "val": (width // 2, width)}
        for split, (left, right) in halves.items():
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for top in range(0, height - SIDE + 1, STRIDE):
                for start in range(left, right - SIDE + 1, STRIDE):
                    patch = photograph[top : top + SIDE, start : start + SIDE]
                    Image.fromarray(patch).save(folder / split / name / f"{top}-{start}.png")
    return folder


def main():
    """Read the arguments, make pictures if there are none, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/image_folder"))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    images = given.images
    if images is None:
        images = make_pictures(given.out.with_name(given.out.name + "-pictures"))
    settings = StudySettings(
        data=DataSettings(source=str(images), size=None if given.images is not None else 32),
        variants=("none", "eca", "cbam:kernel_size=3"),
        epochs=given.epochs,
        seeds=given.seeds,
    )
    results = compare(settings, given.out)
    for trial in results["trials"]:
        right = trial["test"]["accuracy"] if trial["test"] is not None else float("nan")
        print(f"{trial['variant']:20} seed {trial['seed']}: {right:.3f} right")


if __name__ == "__main__":  # the study's worker processes import this file
    main()
