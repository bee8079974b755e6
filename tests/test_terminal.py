"""A terminal is told nothing by the names of data: they are only shown. An error is one sentence."""

import io
import logging
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from rich.table import Table

from hsl.console import PlainConsole
from hsl.errors import lost_a_process, says_no_memory, user_sentence
from hsl.terminal import quieten_handlers, say, visible

DRIVING = ["\x1b[2J", "\x1b]0;title\x07", "a\rb", "a\bb", "\x00", "\x7f", "\x9b31m", "a\u202eb", "\u2066", "\u200e",
           "\ufeff", "\u2028", "\x0b", "\udcff"]  # fmt: skip
ROOT = Path(__file__).parents[1]
LIMITED = """
import resource, sys
import lightning, segmentation_models_pytorch, torchmetrics, hsl.verbs.train.train
from hsl.cli import run_verb
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2600 * 2**20, resource.RLIM_INFINITY))
run_verb("train")
"""


@pytest.mark.parametrize("text", DRIVING, ids=repr)
def test_what_drives_a_terminal_is_shown(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert shown.encode("utf8")
    assert shown.encode("ascii").decode("unicode_escape") == text or not text.isascii()


@pytest.mark.parametrize("text", ["plain", "Größe", "日本", "a\nb\tc", "👩\u200d🔬", "[red]x[/red]", ":smile:", "é"])
def test_other_text_stays(text: str) -> None:
    assert visible(text) == text


def test_a_cell_has_one_line() -> None:
    assert visible("a\n\tb", lines=False) == "a\\n\\tb"


def test_lines_of_output(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[31mb")
    say("c\rd", error=True)
    assert capsys.readouterr() == ("a\\x1b[31mb\n", "c\\rd\n")


def test_tables_show_brackets_and_no_escapes() -> None:
    console = PlainConsole(file=io.StringIO(), force_terminal=True, color_system=None, width=80)
    table = Table("[bold]class[/bold]", "n", title="t\x1b[2J")
    table.add_row("[red]x[/red]", "a\x1b[31m :smile:")
    console.print(table)
    console.print("[link=x]y[/link] \x07")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for shown in ("[bold]class[/bold]", "[red]x[/red]", "a\\x1b[31m :smile:", "\\x07", "t\\x1b[2J"):
        assert shown in text
    assert "\x1b[31m" not in text
    assert "\x07" not in text


def test_messages_of_the_log() -> None:
    text = io.StringIO()
    handler, log = logging.StreamHandler(text), logging.Logger("x")
    quieten_handlers([handler])
    log.addHandler(handler)
    log.warning("`%s` is odd", "a\x1b[2J")
    assert text.getvalue() == "`a\\x1b[2J` is odd\n"


def test_memory_that_ran_out_is_a_sentence_with_a_way_out() -> None:
    for error in (MemoryError(), RuntimeError("could not create a primitive"), OSError(12, "Cannot allocate memory")):
        sentence = user_sentence(error)
        assert sentence is not None
        assert sentence.startswith("Memory ran out")
        assert "data.batch_size" in sentence
    assert user_sentence(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


def test_a_process_that_the_system_killed_is_told_as_memory_but_not_tried_again() -> None:
    for words in ("is killed by signal: Killed. ", "is killed by signal: Bus error. ", "exited unexpectedly"):
        error = RuntimeError(f"DataLoader worker (pid(s) 12) {words}")
        assert lost_a_process(error)
        assert not says_no_memory(error)
        assert "data.num_workers" in str(user_sentence(error))
    assert not lost_a_process(RuntimeError("DataLoader worker (pid 3) is killed by signal: Segmentation fault."))


@pytest.mark.parametrize("value", ["/data/my pictures", "a=b,c", "x (1)", "50%", "#1", "a & b", "Größe 日本"])
def test_a_value_that_hydra_cannot_read_is_told_how_to_quote(value: str) -> None:
    parser = OverridesParser.create()
    with pytest.raises(OverrideParseException) as error:
        parser.parse_overrides([f"data.root={value}!"])
    sentence = user_sentence(error.value)
    assert sentence is not None
    assert "\n" not in sentence
    (advised,) = shlex.split(sentence.partition(" Write ")[2].removesuffix("."))
    assert parser.parse_overrides([advised])[0].value() == f"{value}!"


def test_a_tilde_and_brackets_in_a_value() -> None:
    for word, way in (
        ("root=~/x", "Write the path in full"),
        ("root=[a", "Quote text in it"),
    ):
        with pytest.raises(OverrideParseException) as error:
            OverridesParser.create().parse_overrides([word])
        assert way in str(user_sentence(error.value))
    with pytest.raises(OverrideParseException) as error:
        OverridesParser.create().parse_overrides(["rules={all: a > 1}"])
    said = "Found `rules={all: a > 1}`: token recognition error at: '>'. Quote text in it"
    assert said in str(user_sentence(error.value))
    assert OverridesParser.create().parse_overrides(['key={name: "a > b"}'])[0].value() == {"name": "a > b"}


@pytest.mark.slow
@pytest.mark.parametrize("backoff", [False, True])
def test_a_real_limit_of_memory(backoff: bool, tmp_path: Path) -> None:
    words = [
        "encoder=mobilenetv3_small", "encoder.weights=null", "data.image_size=512", "data.batch_size=32",
        "data.reader.num_pictures=60", "data.num_workers=0", "data.cache=null", "trainer.max_epochs=1",
        "callbacks.tta_evaluation=null", f"output_root={tmp_path}", "+trainer.limit_train_batches=1",
    ]  # fmt: skip
    words += ["callbacks=[default,oom_backoff]", "callbacks.tta_evaluation=null"] if backoff else []
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *words], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    if backoff:
        assert done.returncode == 0, done.stderr[-2000:]
        assert list(tmp_path.rglob("oom.json"))
    else:
        assert done.returncode == 2, done.stderr[-2000:]
        assert "Memory ran out" in done.stderr
        assert "Traceback" not in done.stderr
