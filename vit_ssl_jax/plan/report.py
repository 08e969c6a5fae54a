"""A plan as text."""

GIB = 2**30
SHOWN = 24  # collectives


def describe(figures):
    """The whole text of what `plan.plan` returns."""
    sections = (head, memory, largest, communication, cycles, bounds, kernels, speed)
    return "\n\n".join(filter(None, ("\n".join(part(figures)) for part in sections)))


def size(count):
    """Bytes in GiB, or MiB where they are fewer than one."""
    return f"{count / GIB:.2f} GiB" if count >= GIB else f"{count / 2**20:.3f} MiB"


def head(figures):
    """What was compiled, for what."""
    mesh = " ".join(f"{axis}={size}" for axis, size in figures["mesh"].items())
    yield (
        f"{figures['recipe']} on {figures['topology']}: {figures['chips']} chip(s), "
        f"{figures['device']}, mesh {mesh}"
    )
    yield (
        f"batch {figures['batch_size']} ({figures['batch_size'] / figures['devices']:g} a "
        f"device), accum {figures['accum']}, remat {figures['remat']}; compiled in "
        f"{figures['compile_seconds']:.1f} s"
    )


def memory(figures):
    """Bytes of a chip, and the verdict."""
    yield "memory per device"
    for key, name in (
        ("argument_bytes", "arguments (state, batch)"),
        ("temp_bytes", "temporaries"),
        ("output_bytes", "outputs not aliased"),
        ("total_bytes", "sum"),
        ("hbm_bytes", "RAM" if figures["device"] == "cpu" else "HBM"),
    ):
        if figures[key] is not None:
            yield f"  {name:<26}{size(figures[key]):>14}"
    if figures["code_bytes"]:
        yield f"  {'(code, not in the sum)':<26}{size(figures['code_bytes']):>14}"
    yield verdict(figures)
    if figures["refusal"]:
        yield f"the compiler says: {figures['refusal']}"
    if figures["violations"]:
        yield "CONTRACTS BROKEN (plan/contracts.py):"
        yield from (f"  {line}" for line in figures["violations"])
    elif figures["violations"] is not None:
        yield (
            "contracts kept: no activation gathered, no float32 matmul in bfloat16, no "
            "host transfer"
        )
    if figures["not_donated"] is not None:
        kept = figures["not_donated"]
        yield (
            f"donation: NOT overwritten in place: {', '.join(kept)}"
            if kept
            else "donation: the whole state is overwritten in place"
        )


def verdict(figures):
    """One line: fits or not, and how much is free, or what would help."""
    if figures["hbm_bytes"] is None:
        return "verdict: the device doesn't say how much memory it has"
    free = 1 - figures["total_bytes"] / figures["hbm_bytes"]
    if figures["fits"]:
        return f"verdict: fits, {100 * free:.1f} % free"
    return (
        f"verdict: DOESN'T FIT, {figures['total_bytes'] / figures['hbm_bytes']:.2f} times "
        f"what there is. What helps: {'; '.join(remedies(figures))}"
    )


def remedies(figures):
    """What to change so that a plan needs less memory, the most useful first."""
    mesh, advice = figures["mesh"], figures["advice"]
    more = []
    if figures["leanest_fsdp"] > mesh["fsdp"]:
        more = [f"--config.mesh.fsdp={figures['leanest_fsdp']} shards the parameters"]
    if figures["remat"] != "full" and not figures.get("frozen"):
        more.append("--config.vit.remat=full computes activations anew")
    if advice:
        would = f"{advice['flags']} would take {size(advice['bytes'])}, {advice['how']}"
        more = [would, *(x for x in more if x.split("=")[0] not in advice["flags"])]
    return [*more, "more memory" if figures["device"] == "cpu" else "more chips"]


def largest(figures):
    """The largest arrays by name."""
    for temp, title in (
        (False, "largest arguments"),
        (True, "largest temporaries (not all alive at once)"),
    ):
        rows = [row for row in figures["largest"] if row["temp"] == temp]
        if rows:
            yield title
        for row in rows:
            yield f"  {size(row['bytes']):>12}  {row['array']:<28} {row['name']}"


def communication(figures):
    """Collectives, and what they would cost."""
    rows = figures["collectives"]
    if rows is None:
        return
    yield "collectives a step" if rows else "collectives: none"
    if rows:
        yield f"  {'kind':<20}{'axis':<12}{'MB':>10}{'count':>7}  waits  source"
    for row in rows[:SHOWN]:
        waits = "no" if row["asynchronous"] else "yes"
        yield (
            f"  {row['kind']:<20}{row['axis']:<12}{row['bytes'] / 1e6:10.3f}"
            f"{row['count']:>7}  {waits:<5}  {row['source']}"
        )
    if len(rows) > SHOWN:
        rest = sum(row["bytes"] * row["count"] for row in rows[SHOWN:])
        yield f"  and {len(rows) - SHOWN} more, {rest / 1e6:.3f} MB together"
    total = figures["communication"]
    if figures["roofline"] and rows:
        yield (
            f"  a card sends {total['wire_bytes'] / 1e6:.1f} MB a step: "
            f"{1e3 * total['seconds']:.3f} ms at its links' rate, of which "
            f"{1e3 * total['exposed_seconds']:.3f} ms not behind computation: "
            f"{100 * total['exposed_share']:.1f} % of the step"
        )
    elif total and not figures["roofline"]:
        yield (
            f"  a chip sends {total['wire_bytes'] / 1e6:.1f} MB a step; at one ring's "
            f"bandwidth {total['cycles']} cycles, {total['exposed_cycles']} of them not "
            f"behind computation: {100 * total['exposed_share']:.1f} % of the step"
        )


def cycles(figures):
    """FLOPs and cycles an image, by part."""
    yield f"model FLOPs an image: {figures['model_flops_per_image'] / 1e9:.3f} G"
    total = figures["cycles_per_image"]
    if total is None:
        return
    yield f"estimated cycles of a chip an image: {total:.0f}"
    for part, value in figures["parts"].items():
        yield f"  {part:<18}{value:12.0f}{100 * value / total:7.1f} %"
    yield (
        f"estimated share of peak: {figures['peak_fraction']:.3f} (model FLOPs over "
        "cycles x peak a cycle)"
    )
    if figures["uncosted"]:
        parts = [
            f"{name} ({row['times']}, {row['bytes'] / 1e6:.0f} MB)"
            for name, row in list(figures["uncosted"].items())[:8]
        ]
        yield f"without an estimate, so not counted: {', '.join(parts)}"
    if figures["unknown_loops"]:
        yield f"loops of unknown length, counted once: {', '.join(figures['unknown_loops'])}"


def bounds(figures):
    """What the closed form says of a GPU."""
    total = figures["roofline"]
    if not total:
        return
    seconds = total["compute_seconds"]
    images = figures["batch_size"] / figures["devices"]
    yield (
        f"matmul FLOPs an image, compiled: {total['matmul_flops'] / images / 1e9:.3f} G"
    )
    yield (
        f"closed form, no measurement: {1e3 * seconds:.2f} ms of computing a step "
        f"(matmuls at peak {1e3 * total['flop_seconds']:.2f} ms, bytes at the memory's "
        f"rate {1e3 * total['byte_seconds']:.2f} ms, of each instruction the longer), "
        f"share of peak at most {figures['peak_fraction']:.3f}"
    )
    for part, value in total["parts"].items():
        yield f"  {part:<18}{1e3 * value:9.2f} ms{100 * value / seconds:7.1f} %"
    yield f"calls: {total['cudnn']} of cuDNN's attention, {total['cublas']} of cuBLAS"


def kernels(figures):
    """Custom kernels, which the parts hold already."""
    if figures["kernels"]:
        yield "custom kernels, in the parts above"
    for row in figures["kernels"]:
        per_image = row["cycles"] * row["executions"] * figures["devices"]
        yield (
            f"  {row['name']:<28}{row['part']:<18}{row['executions']:>5} x "
            f"{row['cycles']} cycles ({row['bundles']} bundles, {row['bytes']} bytes, "
            f"{row['grid_steps']} grid steps; {busy(row['units'])}; {row['spills']} "
            f"spills): {per_image / figures['batch_size']:.0f} an image"
        )


def busy(units):
    """The three units of a core that a kernel keeps busiest, with their shares."""
    first = sorted(units.items(), key=lambda pair: -pair[1])[:3]
    return ", ".join(f"{unit} {100 * share:.0f} %" for unit, share in first)


def speed(figures):
    """What the estimate would mean."""
    if figures["images_per_second"] is not None:
        yield (
            f"estimate, no measurement: {figures['seconds_per_step']:.3f} s a step, "
            f"{figures['images_per_second']:.0f} images/s, {figures['epoch_hours']:.3g} h an "
            f"epoch, {figures['run_hours']:.3g} h the run"
        )
        yield (
            f"the input of each of {figures['hosts']} host(s) must deliver "
            f"{figures['images_per_second'] / figures['hosts']:,.0f} images/s for that; "
            "what this one does: python -m vit_ssl_jax.bench input"
        )
