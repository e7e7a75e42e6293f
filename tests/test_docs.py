"""The docs against the code: every error message has its row, every command is known, parses, and is run by a test.

A message counts by its longest fixed piece; a command by its module and options.
"""

import ast
import contextlib
import csv
import importlib
import io
import json
import re
import subprocess
import sys
import urllib.request
from functools import cache
from pathlib import Path

import pytest

from launch import record
from trainer.train import main as train_main

ROOT = Path(__file__).parents[1]
ROOMS = ("data", "model", "trainer", "battle")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Not for a user's eyes, or carrying another message on.
INTERNAL = {"IndexError", "KeyError", "NotImplementedError", "SystemExit", "AssertionError", "StopIteration"}
LEAST = 8  # letters of a fixed piece that can be told from others
HOLE = "…"
# Who runs each command: `module` or `module subcommand` → the test file that does.
RUN_BY = {
    "data.prepare encode": "tests/data/test_tools.py",
    "data.prepare show": "tests/data/test_tools.py",
    "data.prepare verify": "tests/data/test_tools.py",
    "data.prepare stats": "tests/data/test_tools.py",
    "data.prepare index": "tests/data/test_tools.py",
    "data.prepare list": "tests/data/test_listing.py",
    "data.prepare cache": "tests/data/test_cache.py",
    "data.prepare vocabulary": "tests/data/test_tokenizer.py",
    "data.prepare download": "tests/data/test_hub.py",
    "data.prepare push": "tests/data/test_hub.py",
    "trainer.train": "tests/trainer/test_run.py",
    "trainer.evaluate": "tests/trainer/test_evaluate_command.py",
    "trainer.hub push": "tests/trainer/test_hub.py",
    "trainer.hub pull": "tests/trainer/test_hub.py",
    "trainer.hub pack": "tests/trainer/test_hub.py",
    "trainer.checkpoint": "tests/trainer/test_checkpoint.py",
    "launch.bench_engines": "tests/trainer/test_engines.py",
    "trainer.plan": "tests/trainer/test_plan.py",
    "trainer.report": "tests/trainer/test_report.py",
    "battle.view": "tests/battle/test_view.py",
    "battle.evaluate": "tests/battle/test_evaluate.py",
    "battle.selfplay": "tests/battle/test_selfplay.py",
    "battle.ladder": "tests/battle/test_browser.py",
    "launch.bench_train": "tests/launch/test_bench_train.py",
    "launch.bench_attention": "tests/launch/test_bench_attention.py",
    "launch.find_pack": "tests/launch/test_find_pack.py",
    "launch.bench_optim": "tests/launch/test_bench_optim.py",
    "launch.bench_likelihood": "tests/launch/test_bench_likelihood.py",
    "launch.bench_reference": "tests/launch/test_bench_likelihood.py",
    "battle.duel": "tests/battle/test_duel.py",
    "battle.soak": "tests/battle/test_soak.py",
    "battle.import_inputlogs": "tests/battle/test_import_inputlogs.py",
    "launch.record": "tests/test_docs.py",
    "tests.data.hub_server": "tests/test_docs.py",
}


def written(node):
    """A string expression's text, … for what is filled in; None for what is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else HOLE for part in node.values)
    if isinstance(node, ast.BinOp):
        return (written(node.left) or HOLE) + (written(node.right) or HOLE)
    if isinstance(node, ast.IfExp):
        return written(node.body)
    return None


def plain(text):
    """Text as it is compared: no Markdown, one blank for any white space."""
    return re.sub(r"\s+", " ", text.replace("\\|", "|").replace("`", "")).strip()


def piece_of(texts):
    """The longest fixed piece of a message, without the marks around it; "" where it has none of its own."""
    pieces = [plain(part).strip(" .:;,()'\"=") for text in texts if text for part in text.split(HOLE)]
    longest = max(pieces, key=len, default="")
    return longest if sum(letter.isalpha() for letter in longest) >= LEAST else ""


@cache
def nodes():
    """(place, node) of everything in the rooms' code."""
    files = [p for room in ROOMS for p in sorted((ROOT / room).rglob("*.py")) if "node_modules" not in p.parts]
    return [
        (f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node)
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    ]


def messages():
    """(place, fixed piece) of every error that the rooms raise, or word for it (`said_of`)."""
    for place, node in nodes():
        if isinstance(node, ast.FunctionDef) and node.name == "said_of":
            returned = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return)]
            yield from ((place, piece) for piece in (piece_of([written(value)]) for value in returned) if piece)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = getattr(node.exc.func, "id", getattr(node.exc.func, "attr", ""))
            piece = piece_of([written(argument) for argument in node.exc.args])
            if piece and name not in INTERNAL:
                yield place, piece


def logged():
    """The texts that the rooms log, with … for what is filled in."""
    for _, node in nodes():
        called = isinstance(node, ast.Call) and node.args and getattr(node.func, "attr", "")
        if called in ("warning", "warn", "error", "exception"):
            yield plain(re.sub(r"%(?!%)[.0-9]*[a-z]", HOLE, written(node.args[0]) or "").replace("%%", "%"))


def test_every_error_message_has_its_row():
    page = plain((ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"))
    found = list(messages())
    assert len(found) > 120
    missing = [f"{place}: {piece}" for place, piece in found if piece[:70] not in page]
    assert missing == [], "docs/troubleshooting.md lacks: " + "\n".join(missing)


def test_every_row_is_about_a_message_that_there_is():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    source = " ".join([*(piece for _, piece in messages()), *logged()])
    rows = [row.split(" | ")[0].strip("| ") for row in page.splitlines() if re.match(r"\| [^-]", row)]
    stale = []
    for row in rows:
        quoted = re.findall(r"`([^`]+)`", row.replace("\\|", "|"))
        told = [piece_of([part]) for text in quoted for part in text.split("; ")]
        if any(told) and not any(piece and piece[:70] in source for piece in told):
            stale.append(row)
    assert stale == []


def commands():
    """(page, line number, line, command) of every command of the docs, those in a sentence too."""
    for page in PAGES:
        fenced = False
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            if line.startswith("```"):
                fenced = not fenced
            texts = [line.strip()] if fenced else re.findall(r"`([^`]+)`", line)
            for text in texts:
                if re.match(r"(python -m|make|accelerate launch|torchrun|deepspeed) ?[\w-]", text):
                    yield page.name, number, line, text.split("  #")[0].split(" # ")[0].strip()


def known_command(command):
    """`module` or `module subcommand` of a `python -m` command, and its options."""
    words = command.split()
    module, rest = words[2], words[3:]
    if module in ("data.prepare", "trainer.hub", "trainer.checkpoint") and rest:
        module = f"{module} {rest[0]}"
    return module, {word.split("=")[0].strip("[]") for word in rest if word.strip("[").startswith("--")}


def test_the_docs_commands_are_found():
    assert len({command for *_, command in commands()}) > 35


@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_every_command_is_run_by_a_test_or_marked(page):
    """A command that no test runs says on its line that it needs a GPU, a network, or long: and why it is not run."""
    wrong = []
    for name, number, line, command in commands():
        if name != page or re.search(r"needs a (network|GPU)|takes (minutes|hours)", line):
            continue
        if command.startswith("make "):
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            known = re.search(rf"^{re.escape(command.split()[1])}:", makefile, re.MULTILINE)
        elif command.startswith("python -m "):
            module, _ = known_command(command)
            test = RUN_BY.get(module, RUN_BY.get(module.split()[0]))
            known = (test and (ROOT / test).exists() and runs(ROOT / test, module)) or recorded(module)
        else:
            # Launchers: run over the same modules by the engines' tests.
            program = command.split()[0]
            known = program in ("accelerate", "torchrun", "deepspeed") and "trainer.train" in command
        if not known:
            wrong.append(f"{name}:{number}: {command}")
    assert wrong == [], "run by no test, and not marked as needing a GPU or a network:\n" + "\n".join(wrong)


@cache
def recorded(module):
    """Whether a record says that a measurement's command was run: its figures are those of the docs."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "launch/records").glob("*.json")]
    return any(f"python -m {module}" in record.get("command", "") for record in records)


def runs(test, module):
    """Whether a test file calls a module's `main` (or the like), or starts it as a process."""
    source = test.read_text(encoding="utf-8")
    name = module.split()[0]
    started = name in source and "subprocess" in source
    imported = re.search(rf"from {re.escape(name)} import|from {re.escape(name.rsplit('.', 1)[0])} import .*"
                         rf"\b{name.rsplit('.', 1)[1]}\b", source)  # fmt: skip
    verb = module.split()[1] if " " in module else ""
    return bool(started or imported) and f'"{verb}' in source if verb else bool(started or imported)


@cache
def help_of(module):
    """What a command says for --help."""
    name, *verb = module.split()
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as end:
        importlib.import_module(name).main([*verb, "--help"])
    assert end.value.code == 0, module
    return said.getvalue()


def test_every_option_of_a_command_is_one_that_it_takes():
    wanted = {}
    for name, number, _, command in commands():
        if command.startswith("python -m ") and len(command.split()) > 3:
            module, options = known_command(command)
            wanted.setdefault(module, {}).update(dict.fromkeys(options, f"{name}:{number}"))
    assert len(wanted) > 12
    wrong = [
        f"{place}: {module} takes no {option}"
        for module, options in wanted.items()
        for option, place in options.items()
        if not re.search(rf"{re.escape(option)}\b", help_of(module))
    ]
    assert wrong == []


def test_a_measurement_becomes_a_record_that_names_no_folder_of_its_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    results = {"answer": 42, "run": f"{tmp_path}/run-0", "of": ["../shared/battles", "turns/s", "https://a.org/b/c"]}
    (tmp_path / "results.json").write_text(json.dumps(results))
    command = f"make try DATA={tmp_path}/cache && python -m x --to {tmp_path}/out/"
    assert record.main(["--name", "try", "--command", command, "--results", str(tmp_path / "results.json")]) == 0
    kept = json.loads((tmp_path / "try.json").read_text())
    assert kept["command"] == "make try DATA=cache && python -m x --to out/"
    assert kept["results"] == results | {"run": "run-0"}
    assert str(tmp_path / "try.json") in capsys.readouterr().out


def test_no_record_names_a_folder_of_the_machine_that_made_it():
    named = {
        path.name: record.FOLDERS.findall(path.read_text(encoding="utf-8")) for path in record.RECORDS.glob("*.json")
    }
    assert len(named) > 40
    assert {name: folders for name, folders in named.items() if folders} == {}


def test_the_hubs_stand_in_answers_as_a_command():
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.data.hub_server", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        address = re.search(r"HF_ENDPOINT=(\S+)", process.stdout.readline())[1]
        with urllib.request.urlopen(f"{address}/api/whoami-v2", timeout=20) as answer:
            assert json.load(answer)["name"] == "me"
    finally:
        process.terminate()
        process.wait(20)


def test_metrics_of_the_log_stand_in_the_table(trained_log):
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = {name.replace("@γ", "") for row in page.splitlines() if row.startswith("| `") for name in
            re.findall(r"`([\w/@γ]+)`", row.split(" | ")[0])}  # fmt: skip
    rows |= {f"optim/grad_norm{part}" for part in ("_encoder", "_trunk", "_actor", "_critics")}
    columns = {column.split("@")[0] for column in trained_log}
    assert columns - rows == set()
    elsewhere = {"speed/mfu", "_encoder", "_trunk", "_actor", "_critics", "cost/dollars"}
    assert rows - columns - elsewhere == set()


@pytest.fixture
def trained_log(battles, tmp_path, monkeypatch):
    """Columns of the log of a run of two steps, as a user's command leaves it."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path / "cache"))
    run = ["--config", "launch/runs/quickstart.yaml", "--data_path", str(battles), f"output={tmp_path / 'out'}"]
    assert train_main([*run, "max_steps=2", "eval.every=1", "batch.battles=4", "log.report=false"]) == 0
    with open(tmp_path / "out" / "training_log.csv", newline="") as handle:
        return next(csv.reader(handle))
