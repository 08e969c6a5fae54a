"""Names that published code gives to a ViT's arrays, one table a source.

A table maps what an array is to its name there; names within a block are prefixed by
`block`. `qkv` and `gated` may lie in parts. What a table lacks, its ViTs don't have.
"""

# timm, DeiT, DINO, MAE, I-JEPA, RelViT's backbone, SlowFast.
TIMM = dict(
    patch="patch_embed.proj",
    cls="cls_token",
    registers="reg_token",
    posemb="pos_embed",
    block="blocks.{i}.",
    norm1="norm1",
    qkv=("attn.qkv",),
    out="attn.proj",
    ls1="ls1.gamma",
    norm2="norm2",
    up="mlp.fc1",
    down="mlp.fc2",
    gated=("mlp.fc1",),
    gated_down="mlp.fc2",
    ls2="ls2.gamma",
    norm="norm",
    head="head",
)
# facebookresearch/dinov2 and dinov3.
DINOV2 = TIMM | dict(
    registers="register_tokens",
    gated=("mlp.w12",),
    gated_down="mlp.w3",
    unused={"mask_token": (1,)},
)
DINOV3 = TIMM | dict(
    registers="storage_tokens",
    gated=("mlp.w1", "mlp.w2"),
    gated_down="mlp.w3",
    unused={"mask_token": (1,)},
    periods="rope_embed.periods",
    bias_mask="attn.qkv.bias_mask",
)
# transformers: ViT, ViTMAE, IJepa; the files of their time, see docs/weights.md.
HF_VIT = dict(
    patch="embeddings.patch_embeddings.projection",
    cls="embeddings.cls_token",
    posemb="embeddings.position_embeddings",
    block="encoder.layer.{i}.",
    norm1="layernorm_before",
    qkv=tuple(f"attention.attention.{x}" for x in ("query", "key", "value")),
    out="attention.output.dense",
    norm2="layernorm_after",
    up="intermediate.dense",
    down="output.dense",
    norm="layernorm",
    head="classifier",
)
HF_DINOV2 = HF_VIT | dict(
    registers="embeddings.register_tokens",
    norm1="norm1",
    ls1="layer_scale1.lambda1",
    norm2="norm2",
    up="mlp.fc1",
    down="mlp.fc2",
    gated=("mlp.weights_in",),
    gated_down="mlp.weights_out",
    ls2="layer_scale2.lambda1",
    unused={"embeddings.mask_token": ()},
)
HF_DINOV3 = HF_DINOV2 | dict(
    patch="embeddings.patch_embeddings",
    block="layer.{i}.",
    qkv=tuple(f"attention.{x}_proj" for x in "qkv"),
    out="attention.o_proj",
    up="mlp.up_proj",
    down="mlp.down_proj",
    gated=("mlp.gate_proj", "mlp.up_proj"),
    gated_down="mlp.down_proj",
    norm="norm",
    unused={"embeddings.mask_token": (1,)},
)
