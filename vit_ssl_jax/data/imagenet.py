"""ImageNet-1k's classes by their WordNet ids, in the order of the classifiers' heads."""

import functools
import importlib.util
import pathlib
import re

CLASSES = 1000
WNID = re.compile(r"n\d{8}")
FILE = "datasets/imagenet2012/labels.txt"  # of TensorFlow Datasets


@functools.cache
def wnids() -> tuple[str, ...]:
    """The 1,000 WordNet ids, sorted, which is how everyone numbers them.

    From the labels that TensorFlow Datasets brings for its own sets; () where a version of
    it has them elsewhere.
    """
    package = importlib.util.find_spec("tensorflow_datasets")
    for folder in package.submodule_search_locations if package else ():
        file = pathlib.Path(folder) / FILE
        if file.exists() and len(names := file.read_text().split()) == CLASSES:
            return tuple(names)
    return ()


def numbers_of(class_names: tuple[str, ...]) -> tuple[int, ...]:
    """ImageNet-1k's number of each class; () where some aren't its WordNet ids."""
    if not class_names or not all(map(WNID.fullmatch, class_names)):
        return ()
    numbers = {wnid: i for i, wnid in enumerate(wnids())}
    if not set(class_names) <= numbers.keys():
        return ()
    return tuple(numbers[name] for name in class_names)
