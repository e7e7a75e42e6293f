"""The Markdown table of `launch.bench_train`'s record, and the ratios of its modes."""

MODES = ("default", "prior")  # in the order they are measured: the one without which there is no figure first
PARTS = ("data wait", "turn encoder", "trunk", "heads and loss", "forward", "backward", "optimizer")


def ratios(results: dict[str, dict]) -> dict[str, float]:
    """default / prior, of rates by wall clock and of turns per CPU second (which other processes don't disturb)."""
    found = {}
    for label in ("loader_included", "loader_excluded"):
        prior, default = results["prior"][label], results["default"][label]
        for key in ("battles_per_s", "turns_per_s"):
            found[f"{label}/{key}"] = default[key] / prior[key]
        found[f"{label}/turns_per_cpu_s"] = default["turns"] / default["cpu_s"] / (prior["turns"] / prior["cpu_s"])
    return found


def table(entry: dict) -> str:
    """One entry as Markdown."""
    modes = [mode for mode in reversed(MODES) if mode in entry]
    hardware, versions = entry["hardware"], entry["versions"]
    waits = ", means of waits for data" if entry.get("waits") == "mean" else ""  # older entries: medians of all
    lines = [
        f"## {entry['name']}", "",
        f"`{entry['command']}`, commit {entry['commit']}, {entry['date']}; {hardware['cores']} cores, "
        f"OMP_NUM_THREADS={hardware['threads']}, load {hardware['load_average'][0]} at the end; Python "
        f"{versions['python']}, torch {versions['torch']}. Medians over steps{waits}.", "",
        f"| | {' | '.join(modes)} |", f"| --- |{' --- |' * len(modes)}",
    ]  # fmt: skip

    def row(name: str, text) -> None:
        lines.append(f"| {name} | {' | '.join(text(entry[mode]) for mode in modes)} |")

    row("layout; turn encoder", lambda m: f"{m['layout']}; " + encoder_of(m))
    row("compiled; precision; engine", lambda m: f"{m['compiled']}; {m['precision']}; {m['engine']}")
    row("parameters; FLOPs a turn (training)",
        lambda m: f"{m['parameters'] / 1e6:.2f}M; {m['flops_per_turn']['train'] / 1e6:.1f}M")  # fmt: skip
    for label, words in (("loader_included", "with loader"), ("loader_excluded", "without loader")):
        row(f"battles/s, {words}", lambda m, k=label: f"{m[k]['battles_per_s']:.2f}")
        row(f"turns/s, {words}", lambda m, k=label: f"{m[k]['turns_per_s']:.0f}")
        row(f"s a step (slowest), {words}",
            lambda m, k=label: f"{m[k]['seconds']:.4f} ({m[k]['slowest_s']:.4f})")  # fmt: skip
    row("battles, turns a step", lambda m: "{battles:.1f}, {turns:.0f}".format(**m["loader_included"]))
    row("padding", lambda m: f"{100 * m['loader_included']['padding_share']:.2f}%")
    row("GFLOP/s of real turns; MFU, without loader", lambda m: efficiency(m["loader_excluded"]))
    row("GPU busy", lambda m: f"{100 * m['gpu_busy_share']:.1f}%" if m["gpu_busy_share"] is not None else "not seen")
    row("peak memory, GB", lambda m: f"{m['peak_memory_gb']:.2f}")
    row("warm-up (with compilation), s", lambda m: f"{m['warmup_s']:.1f}")
    row("time by part, with loader", lambda m: shares(m["loader_included"]["parts_s"]))
    row("time by part, eager, without loader", lambda m: shares(m["parts_eager_s"] or {}))
    for name, ratio in entry.get("default_over_prior", {}).items():
        lines.append(f"| **default ÷ prior, {name}** |{' |' * (len(modes) - 1)} **{ratio:.1f}×** |")
    return "\n".join(lines) + "\n"


def efficiency(figures: dict) -> str:
    """Arithmetic a second, and its share of the device's peak where that is known."""
    mfu = f"{100 * figures['mfu']:.1f}%" if figures["mfu"] else "no known peak"
    return f"{figures['gflops_per_s']:.0f}; {mfu}"


def encoder_of(mode: dict) -> str:
    """The turn encoder set, or the default's name."""
    chosen = [text.split("=")[1] for text in mode["settings"] if text.startswith("model.turn_encoder=")]
    return chosen[-1] if chosen else "blocks"


def shares(parts: dict[str, float]) -> str:
    """Parts' seconds as percentages of their sum."""
    whole = sum(parts.values())
    return ", ".join(f"{name} {100 * parts[name] / whole:.1f}%" for name in PARTS if name in parts) or "not told apart"
