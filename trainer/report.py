"""A run, or several side by side, as one page with its pictures inside: `python -m trainer.report RUN_DIR [RUN_DIR …]`.

Writes report.html, which needs nothing beside it, and report/*.png into the run's folder, those of several into --out.
Made at the end of every run.
"""

import argparse
import base64
import csv
import logging
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from data.terminal import steady_output
from trainer.figures import COLOURS, PICTURES, RunLog
from trainer.training_log import read_json, whole_lines
from trainer.wording import ABOUT, duration, flat, in_words, with_interval

log = logging.getLogger(__name__)

STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --ink: #1c2330; --soft: #5f6875; --line: #e3e6eb; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #0e1116; --card: #171c24; --ink: #e6e9ee; --soft: #98a1ad; --line: #2a313c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 1.6rem 1rem 3rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.05rem; margin: 0; }
p { margin: .2rem 0 .8rem; color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem 1.1rem;
  margin-top: 1rem; }
img { width: 100%; min-width: 640px; height: auto; display: block; } /* on a phone it is pushed aside, not shrunk */
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
tr:last-child td, tr:last-child th { border-bottom: 0; } th { font-weight: 600; color: var(--soft); }
i { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .45em; }
"""


def write_report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of runs into `out` (default, of one run: its folder) and return the page's path.

    Raises ValueError where a folder holds no training_log.csv, and where several runs have no `out`.
    """
    if out is None and len(folders) > 1:
        raise ValueError(f"of {len(folders)} runs: give --out FOLDER; in {folders[0]} lies that run's own report")
    out = out or folders[0]
    runs = [read_log(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    pictures = out / "report"
    pictures.mkdir(parents=True, exist_ok=True)
    sections = [_summary(folders, runs)]
    for name, heading, hint, draw in PICTURES:
        picture = draw(runs)
        if picture is None:
            continue
        (pictures / f"{name}.png").write_bytes(picture)
        inside = base64.b64encode(picture).decode()
        sections.append(
            f"<section><h2>{escape(heading)}</h2><p>{escape(hint)}</p>"
            f"<div class='scroll'><img alt='{escape(heading, quote=True)}' src='data:image/png;base64,{inside}'></div>"
            "</section>"
        )
    title = " against ".join(run.name for run in runs) if len(runs) > 1 else folders[0].resolve().name
    page = (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>Turnwise: {escape(title)}</title><style>{STYLE}</style></head>\n<body><main>"
        f"<h1>{escape(title)}</h1>{''.join(sections)}</main></body></html>\n"
    )
    path = out / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def report_of_run(output: Path) -> None:
    """The report at a run's end. The agent is already safe, so a picture that cannot be drawn is logged, not raised."""
    try:
        log.info("the report is %s", write_report([output]))
    except Exception:
        log.exception("%s: no report was made; try `python -m trainer.report %s`", output, output)


def read_log(folder: Path, name: str) -> RunLog:
    """What the run in `folder` logged, called `name`. Raises ValueError where it has logged nothing."""
    path = folder / "training_log.csv"
    if not path.exists():
        raise ValueError(f"{path}: is not there: give the output folder of a run that has logged a step")
    rows = list(csv.DictReader(whole_lines(path)))
    if not rows:
        raise ValueError(f"{path}: holds no row: give the output folder of a run that has logged a step")
    evaluation, config = read_json(folder / "evaluation.json"), read_json(folder / "run_config.json") or {}
    acts = (evaluation or {}).get("gamma") or config.get("model", {}).get("act_gamma")
    return RunLog(name, rows, evaluation, acts or RunLog.gamma)


def _names(folders: Sequence[Path]) -> list[str]:
    """Short names that tell the runs apart; one run alone needs none."""
    if len(folders) == 1:
        return [""]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{folder.resolve().parent.name}/{folder.resolve().name}" for folder in folders]
    return [name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)]


def _summary(folders: Sequence[Path], runs: Sequence[RunLog]) -> str:
    """The first table: what each run is and how it came out, and in which settings they differ."""
    abouts = [read_json(folder / ABOUT) or {} for folder in folders]
    columns = [_facts(run, about) for run, about in zip(runs, abouts, strict=True)]
    settings = [flat(about.get("config", {})) for about in abouts]
    if len(runs) > 1:
        for key in sorted(set().union(*settings)):
            values = [one.get(key, "–") for one in settings]
            if any(value != values[0] for value in values) and key != "output":
                for column, value in zip(columns, values, strict=True):
                    column[key] = "null" if value is None else str(value)  # as a run file has it
    keys = list(dict.fromkeys(key for column in columns for key in column))
    head = "".join(
        f"<th><i style='background:{COLOURS[i % len(COLOURS)]}'></i>{escape(run.name)}</th>"
        for i, run in enumerate(runs)
        if run.name
    )
    body = "".join(
        f"<tr><th>{escape(key)}</th>" + "".join(f"<td>{escape(c.get(key, '–'))}</td>" for c in columns) + "</tr>"
        for key in keys
    )
    return f"<section class='scroll'><table>{f'<tr><th></th>{head}</tr>' if head else ''}{body}</table></section>"


def _facts(run: RunLog, about: dict[str, Any]) -> dict[str, str]:
    def last(column: str) -> float | None:
        values = run.series(column)[1]
        return float(values[-1]) if len(values) else None

    facts = {"steps": f"{last('step'):,.0f}"}
    if about:
        model, data = about["config"]["model"], about["data"]
        facts["model"] = f"{model['init_from'] or model['preset']}, filter {about['config']['objective']['filter']}"
        facts["battles"] = f"{data['battles']:,} ({', '.join(data['formats'])})"
        facts["machine"] = in_words(about["system"])
        commit = about["commit"] or "unknown"
        facts["commit"] = commit[:12] + ("+" if commit.endswith("+") else "")
        for change in about.get("changes", []):  # absent in older runs
            told = "; ".join(f"{key}: {text}" for key, text in change["settings"].items())
            facts[f"changed at step {change['step']:,}"] = told
    if (hours := last("time/hours")) is not None:
        facts["time"] = duration(3600 * hours)
    if (dollars := last("cost/dollars")) is not None:
        facts["cost"] = f"${dollars:,.2f}"
    heldout = run.series("heldout/nll")[1]
    if len(heldout):
        facts["held-out NLL"] = f"{heldout[-1]:.4f} at the end, {heldout.min():.4f} at best"
    if run.evaluation:
        facts["held-out top-1, %"] = with_interval(run.evaluation["policy"][0], "top1", 100, ".1f")
        if "step" in run.evaluation:  # absent in older runs
            facts["the agent is of step"] = f"{run.evaluation['step']:,}"
    if len(speeds := run.series("speed/battles_per_s")[1]):
        facts["battles/s"] = f"{np.median(speeds):,.1f}, the median of what was logged"
    return facts


def main(argv: Sequence[str] | None = None) -> int:
    """Make a page of one run, or of several side by side."""
    steady_output()
    parser = argparse.ArgumentParser(prog="python -m trainer.report", description=main.__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="output folders of runs")
    parser.add_argument("--out", type=Path, help="folder for report.html and report/ (default, of one run: its own)")
    arguments = parser.parse_args(argv)
    try:
        print(write_report(arguments.runs, arguments.out))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        place = error.filename or arguments.out or arguments.runs[0]  # a full disk names no file
        print(f"error: {place}: {error.strerror or error}: free some space or choose another --out", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
