"""Small data sets as TensorFlow Datasets prepares them, for tests of what reads them."""

import pytest

from vit_ssl_jax.data.sources import open_source


@pytest.fixture(scope="session")
def tfds():
    """TensorFlow Datasets, which is slow to import."""
    import tensorflow_datasets

    return tensorflow_datasets


@pytest.fixture(scope="session")
def write_set(tmp_path_factory, tfds):
    """Writes version 1.0.0 of a set as ArrayRecord; returns the directory it is in."""

    def write(name, features, splits):
        """features: by name, of `tfds.features`; splits: name -> list of examples."""
        with tfds.core.registered.skip_registration():

            class Small(tfds.core.GeneratorBasedBuilder):
                """A set for tests."""

                VERSION = tfds.core.Version("1.0.0")

                def _info(self):
                    return tfds.core.DatasetInfo(
                        builder=self, features=tfds.features.FeaturesDict(features)
                    )

                def _split_generators(self, _):
                    return {key: enumerate(some) for key, some in splits.items()}

                def _generate_examples(self):
                    raise NotImplementedError

        Small.name = name
        top = tmp_path_factory.mktemp(name)
        Small(data_dir=top, file_format="array_record").download_and_prepare()
        return top

    return write


@pytest.fixture(scope="session")
def read_labels():
    """Opens a set with an integer feature `id`: the source, and its labels by id."""

    def read(top, name, **settings):
        source = open_source(name, str(top), "train", **settings)
        ids = open_source(name, str(top), "train", label="id")
        pairs = {ids.read(i)[1]: source.read(i)[1] for i in range(len(source))}
        return source, [pairs[i] for i in sorted(pairs)]

    return read
