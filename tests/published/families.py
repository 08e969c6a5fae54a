"""All families of published recipes, in the order of the document."""

from tests.published import dense, finetuning, pretraining, probes, small_sets, transfer

ALL = (
    *pretraining.ALL,
    *small_sets.ALL,
    *finetuning.ALL,
    *transfer.ALL,
    *probes.ALL,
    *dense.ALL,
)
