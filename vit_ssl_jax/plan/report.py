"""A plan as text."""

GIB = 2**30
SHOWN = 24  # collectives


def describe(found):
    """The whole text of what `plan.plan` returns."""
    sections = (head, memory, largest, communication, cycles, kernels, speed)
    return "\n\n".join(filter(None, ("\n".join(part(found)) for part in sections)))


def size(count):
    """Bytes in GiB, or MiB where they are fewer than one."""
    return f"{count / GIB:.2f} GiB" if count >= GIB else f"{count / 2**20:.3f} MiB"


def head(found):
    """What was compiled, for what."""
    mesh = " ".join(f"{axis}={size}" for axis, size in found["mesh"].items())
    yield (
        f"{found['recipe']} on {found['topology']}: {found['chips']} chip(s), "
        f"{found['device']}, mesh {mesh}"
    )
    yield (
        f"batch {found['batch_size']} ({found['batch_size'] / found['devices']:g} a "
        f"device), accum {found['accum']}, remat {found['remat']}; compiled in "
        f"{found['compile_seconds']:.1f} s"
    )


def memory(found):
    """Bytes of a chip, and the verdict."""
    yield "memory per device"
    for key, name in (
        ("argument_bytes", "arguments (state, batch)"),
        ("temp_bytes", "temporaries"),
        ("output_bytes", "outputs not aliased"),
        ("total_bytes", "sum"),
        ("hbm_bytes", "HBM"),
    ):
        if found[key] is not None:
            yield f"  {name:<26}{size(found[key]):>14}"
    if found["code_bytes"]:
        yield f"  {'(code, not in the sum)':<26}{size(found['code_bytes']):>14}"
    yield verdict(found)
    if found["refusal"]:
        yield f"the compiler says: {found['refusal']}"
    if found["violations"]:
        yield "CONTRACTS BROKEN (plan/contracts.py):"
        yield from (f"  {line}" for line in found["violations"])
    elif found["violations"] is not None:
        yield (
            "contracts kept: no activation gathered, no float32 matmul in bfloat16, no "
            "host transfer"
        )
    if found["not_donated"] is not None:
        kept = found["not_donated"]
        yield (
            f"donation: NOT overwritten in place: {', '.join(kept)}"
            if kept
            else "donation: the whole state is overwritten in place"
        )


def verdict(found):
    """One line: fits or not, and how much is free, or what would help."""
    if found["hbm_bytes"] is None:
        return "verdict: the device doesn't say how much memory it has"
    free = 1 - found["total_bytes"] / found["hbm_bytes"]
    if found["fits"]:
        return f"verdict: fits, {100 * free:.1f} % free"
    return (
        f"verdict: DOESN'T FIT, {found['total_bytes'] / found['hbm_bytes']:.2f} times "
        f"what there is. What helps: {'; '.join(remedies(found))}"
    )


def remedies(found):
    """What to change so that a plan needs less memory, the most useful first."""
    mesh, each = found["mesh"], found["batch_size"] / found["devices"]
    heavy_state = found["argument_bytes"] > found["hbm_bytes"] / 3
    shard = []
    if found["leanest_fsdp"] > mesh["fsdp"]:
        shard = [f"--config.mesh.fsdp={found['leanest_fsdp']} shards the parameters"]
    work = []
    if found["remat"] != "full":
        work.append("--config.vit.remat=full computes activations anew")
    if each / found["accum"] >= 2:
        work.append(f"--config.accum={2 * found['accum']} halves the micro-batch")
    return [*(shard + work if heavy_state else work + shard), "more chips"]


def largest(found):
    """The largest arrays by name."""
    for temp, title in (
        (False, "largest arguments"),
        (True, "largest temporaries (not all alive at once)"),
    ):
        rows = [row for row in found["largest"] if row["temp"] == temp]
        if rows:
            yield title
        for row in rows:
            yield f"  {size(row['bytes']):>12}  {row['array']:<28} {row['name']}"


def communication(found):
    """Collectives, and what they would cost."""
    rows = found["collectives"]
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
    if found["communication"]:
        total = found["communication"]
        yield (
            f"  a chip sends {total['wire_bytes'] / 1e6:.1f} MB a step; at one ring's "
            f"bandwidth {total['cycles']} cycles, {total['exposed_cycles']} of them not "
            f"behind computation: {100 * total['exposed_share']:.1f} % of the step"
        )


def cycles(found):
    """FLOPs and cycles an image, by part."""
    yield f"model FLOPs an image: {found['model_flops_per_image'] / 1e9:.3f} G"
    if found["valid_share"] is not None:
        yield f"valid / computed tokens: {found['valid_share']:.3f}"
    total = found["cycles_per_image"]
    if total is None:
        return
    yield f"estimated cycles of a chip an image: {total:.0f}"
    for part, value in found["parts"].items():
        yield f"  {part:<18}{value:12.0f}{100 * value / total:7.1f} %"
    yield (
        f"estimated share of peak: {found['peak_fraction']:.3f} (model FLOPs over "
        "cycles x peak a cycle)"
    )
    if found["uncosted"]:
        parts = [
            f"{name} ({row['times']}, {row['bytes'] / 1e6:.0f} MB)"
            for name, row in list(found["uncosted"].items())[:8]
        ]
        yield f"without an estimate, so not counted: {', '.join(parts)}"
    if found["unknown_loops"]:
        yield f"loops of unknown length, counted once: {', '.join(found['unknown_loops'])}"


def kernels(found):
    """Custom kernels, which the parts hold already."""
    if found["kernels"]:
        yield "custom kernels, in the parts above"
    for row in found["kernels"]:
        per_image = row["cycles"] * row["executions"] * found["devices"]
        yield (
            f"  {row['name']:<28}{row['part']:<18}{row['executions']:>5} x "
            f"{row['cycles']} cycles ({row['bundles']} bundles, {row['bytes']} bytes, "
            f"{row['grid_steps']} grid steps; {busy(row['units'])}; {row['spills']} "
            f"spills): {per_image / found['batch_size']:.0f} an image"
        )


def busy(units):
    """The three units of a core that a kernel keeps busiest, with their shares."""
    first = sorted(units.items(), key=lambda pair: -pair[1])[:3]
    return ", ".join(f"{unit} {100 * share:.0f} %" for unit, share in first)


def speed(found):
    """What the estimate would mean."""
    if found["images_per_second"] is not None:
        yield (
            f"estimate, no measurement: {found['seconds_per_step']:.3f} s a step, "
            f"{found['images_per_second']:.0f} images/s, {found['epoch_hours']:.3g} h an "
            f"epoch, {found['run_hours']:.3g} h the run"
        )
