"""Recognises a file of weights: its source, the state_dict under its names, its facts."""

import re

import numpy as np

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.interop import google, measure, preparing
from vit_ssl_jax.interop.sources import HF_GELU, IMAGENET, SOURCES, Found

# Where a state_dict may lie in what was saved, and what its names may begin with.
WRAPPERS = ("model", "state_dict", "model_state", "teacher")
PREFIXES = ("module.", "_orig_mod.", "backbone.", "vit.", "dinov2_with_registers.")
PREFIXES += ("dinov2.", "ijepa.", "dinov3_vit.", "model.")
PARTS = ("encoder", "predictor", "target_encoder")  # of I-JEPA's checkpoints
# Arrays that take part in no output here; they are left out, and it is said.
LEFT_OUT = re.compile(
    r"pooler\.|hogs\.|target_generator\.|head_dist\.|MAPHead_0/|(local_)?cls_norm\.|"
    r"\w+_head\.heads\.\d+\.v_lin\.|head\.(mlp|last_layer)|head\.\d+\.|"
    r"(embeddings\.)?mask_token$|decoder_pos_embed$"
)
# transformers 5 calls modules otherwise than the files that it reads and writes.
RENAMED = (
    (r"^layers\.", "encoder.layer."),
    (r"attention\.q_proj\.", "attention.attention.query."),
    (r"attention\.k_proj\.", "attention.attention.key."),
    (r"attention\.v_proj\.", "attention.attention.value."),
    (r"attention\.o_proj\.", "attention.output.dense."),
)
RENAMED_VIT = ((r"mlp\.fc1\.", "intermediate.dense."), (r"mlp\.fc2\.", "output.dense."))
DECODER = (r"decoder\.(decoder_encoder\.layer|layers)\.", "decoder.decoder_layers.")


def recognise(content, given=None) -> Found:
    """What a `files.Content` is. `given`: facts that go before what the file says.

    Raises UserError for a layout that isn't known, and for what it can't tell.
    """
    tree, given = content.tree, given or {}
    if not isinstance(tree, dict):
        raise UserError(f"it holds a {type(tree).__name__}, no arrays by name")
    if all(part in tree for part in PARTS):
        parts = {part: without_prefix(arrays(tree[part]), "module.") for part in PARTS}
        return describe(SOURCES[0], parts["target_encoder"], parts, content, given, "")
    state, wrapper = unwrap(tree)
    source, state = find_source(state)
    return describe(source, state, state, content, given, wrapper)


def arrays(tree) -> dict:
    """The arrays of a dict, all else left out."""
    return {str(k): v for k, v in tree.items() if isinstance(v, np.ndarray)}


def unwrap(tree):
    """The state_dict in what was saved, and what it was called there ("": itself)."""
    for name in WRAPPERS:
        if isinstance(tree.get(name), dict) and arrays(tree[name]):
            return arrays(tree[name]), name
    return arrays(tree), ""


def without_prefix(state, prefix) -> dict:
    """A state_dict whose names lose a prefix, where they have it."""
    return {name.removeprefix(prefix): x for name, x in state.items()}


def find_source(state):
    """The source whose marks a state_dict has, and the state_dict without a prefix."""
    names = list(state)
    if any(name.endswith("dist_token") for name in names):
        raise UserError(
            "it is DeiT's distilled ViT, whose second class token isn't read; take the "
            "file without distillation (deit_base_patch16_224)"
        )
    for prefix in ("", *PREFIXES):
        state = without_prefix(state, prefix)
        tidied = tidy(state)
        for source in SOURCES:
            if fits(source, tidied):
                return source, tidied
    raise UserError(unknown(names))


def fits(source, state) -> bool:
    """Whether every mark of a source fits a name."""
    return all(any(re.match(mark, name) for name in state) for mark in source.marks)


def tidy(state) -> dict:
    """A state_dict under the names of its source's files, whoever saved it."""
    if any("Transformer/" in name for name in state):
        return google.tidy(state)
    state = {re.sub(*DECODER, name): x for name, x in state.items()}
    new = any(".attention.q_proj." in name for name in state)
    if not new or "embeddings.patch_embeddings.weight" in state:
        return state
    state = with_one_gate(state)
    is_dino = any("layer_scale1" in name for name in state)
    renames = RENAMED if is_dino else RENAMED + RENAMED_VIT
    for old, name in renames:
        state = {re.sub(old, name, key): x for key, x in state.items()}
    return state


def with_one_gate(state) -> dict:
    """DINOv2's gated MLPs as its files have them, gate and value in one array."""
    tidied = {}
    for name, array in state.items():
        if ".mlp.gate_proj." in name:
            other = state[name.replace("gate_proj", "up_proj")]
            tidied[name.replace("gate_proj", "weights_in")] = np.concatenate(
                [array, other]
            )
        elif ".mlp.down_proj." in name:
            tidied[name.replace("down_proj", "weights_out")] = array
        elif ".mlp.up_proj." not in name:
            tidied[name] = array
    return tidied


def unknown(names) -> str:
    """The message for names that fit no source, with the one that they are nearest to."""
    if not names:
        return "it holds no arrays by name"
    hits = {
        source.name: sum(
            any(re.search(mark, n) for n in names) for mark in source.marks
        )
        for source in reversed(SOURCES)  # the plainest first, to win where two are near
    }
    best = max(hits, key=hits.get)
    like = f"; most like {best!r}, but not it" if hits[best] else ""
    known = ", ".join(source.name for source in SOURCES)
    return (
        f"its layout isn't known ({len(names)} arrays, such as {', '.join(names[:3])})"
        f"{like}. Known are: {known}"
    )


def describe(source, encoder, state, content, given, wrapper) -> Found:
    """The `Found` of a source: shape, facts, what was guessed, classes of the head."""
    facts = {"gelu": "exact", **source.values, **told(content.about), **given}
    says = []
    if source.name == "google":
        shape = measure_google(encoder, facts)
    else:
        table = source.names
        if source.name == "maskfeat-mmpretrain":
            table = table | {"patch": "backbone.patch_embed.projection"}
        shape = measure.measure(encoder, prefixed(source, table), facts)
    check_activation(facts, shape, source.name)
    fixed = source.name == "timm" and shape["posemb"] == "sincos"
    if facts["mean"] is None and (wrapper == "model" or fixed):
        why = "its sine-cosine table" if fixed else "it lies in a dict under 'model'"
        says.append(f"{why}: taken for MAE's or DeiT's, so images by ImageNet's mean")
        facts |= IMAGENET
    if source.name == "ijepa":
        says.append("the target encoder is taken, as in the paper; not the context's")
    classes = count_classes(source, encoder, shape)
    return Found(source, state, shape, facts, tuple(says), classes)


def check_activation(facts, shape, source):
    """Sets `gelu` by transformers' `hidden_act`; raises UserError for another one."""
    act = facts.pop("act", None)
    # DINOv2's gated MLPs take SiLU whatever their config says.
    gated = shape.get("mlp") == "swiglu"
    if act is None or (gated and source == "hf-dinov2"):
        return
    if gated and act != "silu":
        raise UserError(f"its gated MLP has {act!r}; SiLU alone is known here")
    if not gated and act not in HF_GELU:
        raise UserError(f"its activation is {act!r}; GELU alone is known here")
    facts["gelu"] = HF_GELU.get(act, "exact")


def prefixed(source, table) -> dict:
    """The table of a source whose encoder lies under a prefix that its marks need."""
    if source.name == "relvit":
        top = ("patch", "cls", "posemb", "block", "norm", "registers")
        return table | {part: f"backbone.{table[part]}" for part in top}
    if source.name == "maskfeat-mmpretrain":
        return table | dict(
            cls="backbone.cls_token",
            posemb="backbone.pos_embed",
            block="backbone.layers.{i}.",
            up="ffn.layers.0.0",
            down="ffn.layers.1",
        )
    return table


def told(about) -> dict:
    """Facts of a config.json: transformers' or timm's."""
    facts, of_timm = {}, about.get("pretrained_cfg", {})
    if heads := about.get("num_attention_heads"):
        facts["heads"] = heads
    if about.get("layer_norm_eps"):
        facts["norm_eps"] = about["layer_norm_eps"]
    if heads := about.get("decoder_num_attention_heads"):
        facts["decoder_heads"] = heads
    if "norm_pix_loss" in about:
        facts["norm_pixels"] = about["norm_pix_loss"]
    if act := about.get("hidden_act"):
        facts["act"] = act
    if size := about.get("image_size"):
        facts["size"] = tuple(size) if isinstance(size, list) else (size, size)
    rope = about.get("rope_parameters", {}).get("rope_theta", about.get("rope_theta"))
    if rope:
        facts["rope"] = float(rope)
    args = about.get("model_args") or {}
    if size := args.get("img_size") or of_timm.get("input_size", [0, 0, 0])[1:]:
        size = size if isinstance(size, list | tuple) else (size, size)
        facts |= {"size": tuple(size)} if all(size) else {}
    if args.get("num_heads"):
        facts["heads"] = args["num_heads"]
    images = preparing.from_hf(about.get("preprocessor", {}))
    return facts | images | preparing.from_timm(of_timm)


def measure_google(state, facts) -> dict:
    """Sizes of Google's ViT; its kernels tell the heads."""
    names = google.numbering(state)
    first = google.BLOCK.format(i=0)
    rows, _, _, width = measure.shape_of(state, "embedding/kernel")
    query = measure.shape_of(state, f"{first}{names['attn']}/query/kernel")
    hidden = measure.shape_of(state, f"{first}{names['mlp']}/Dense_0/kernel")[1]
    depth = measure.count_blocks(state, google.BLOCK)
    shape = dict(patch=rows, width=width, depth=depth, hidden=hidden, heads=query[1])
    cls = "cls" in state
    table = dict(posemb=google.posemb_name(state))
    return shape | {"cls": cls} | measure.measure_posemb(state, table, cls, rows, facts)


def count_classes(source, state, shape) -> int:
    """Number of classes of the head, 0 where there is none that fits."""
    if source.name == "google":
        attentive = any(name.startswith("MAPHead_0/") for name in state)
        head = state.get("head/kernel")
        return 0 if head is None or attentive else head.shape[1]
    if source.recipe != "supervised_vitb.py":
        return 0
    head = state.get(source.names["head"] + ".weight")
    fits_it = head is not None and head.ndim == 2 and head.shape[1] == shape["width"]
    return len(head) if fits_it else 0
