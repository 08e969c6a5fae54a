"""All families of published recipes, in the order of the document."""

from tests.published import (
    dense,
    finetuning,
    further,
    pretraining,
    probes,
    small_sets,
    transfer,
    views,
)

ALL = (
    *pretraining.ALL,
    *views.ALL,
    *small_sets.ALL,
    *finetuning.ALL,
    *further.ALL,
    *transfer.ALL,
    *probes.ALL,
    *dense.ALL,
)
