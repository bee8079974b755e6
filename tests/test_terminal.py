"""How commands end that somebody ends, and what a terminal is told."""

import errno
import io
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from rich.table import Table

from hsl.console import PlainConsole
from hsl.errors import lost_a_process, says_no_memory, user_sentence
from hsl.terminal import quieten_handlers, say, visible

ROOT = Path(__file__).parents[1]
WAITING = """
import sys, time
from hsl.signals import ended_by_signals
with ended_by_signals():
    print("there", flush=True)
    {body}
"""


@contextmanager
def started(body: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING.format(body=body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, **options,  # type: ignore[call-overload]
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == "there\n"
        yield process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_a_command_with_the_code_of_the_shell(number: int, code: int) -> None:
    with started("time.sleep(60)") as process:
        process.send_signal(number)
        assert process.wait(20) == code
        assert process.stderr.read() == ""


def test_an_exit_that_lightning_makes_of_ctrl_c_counts_as_one() -> None:
    with started("\n    try:\n        time.sleep(60)\n    except KeyboardInterrupt:\n        sys.exit(1)") as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_nohup_is_respected() -> None:
    with started("time.sleep(1)", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
        process.send_signal(signal.SIGHUP)
        assert process.wait(20) == 0


def test_a_reader_that_goes_ends_the_command_without_a_traceback() -> None:
    with started("\n    time.sleep(0.3)\n    for i in range(100000): print(i)") as process:
        process.stdout.close()
        assert process.wait(20) == 141
        assert process.stderr.read() == ""
    with started("\n    time.sleep(0.3)\n    print('the last line')") as late:
        late.stdout.close()
        assert late.wait(20) == 141
        assert late.stderr.read() == ""


def test_an_error_of_the_user_keeps_its_code_behind_a_closed_pipe() -> None:
    with started("\n    time.sleep(0.3)\n    sys.exit(2)") as process:
        process.stdout.close()
        assert process.wait(20) == 2


def test_a_second_ctrl_c_ends_what_does_not_end_by_itself() -> None:
    patient = """
    from hsl.signals import listener
    own = listener()
    own.patient = True
    print("patient", flush=True)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.1)
    """
    with started(patient) as process:
        assert process.stdout.readline() == "patient\n"
        for _ in range(2):  # a terminal and a wrapper send it both: that is one wish
            process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        time.sleep(1.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)  # a scheduler only repeats itself
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == ""


def test_a_signal_that_lightning_turned_into_an_exit_without_a_code() -> None:
    body = "\n    from hsl.signals import listener\n    listener().patient = True\n    print(1, flush=True)"
    body += "\n    time.sleep(1.5)\n    sys.exit()"
    with started(body) as process:
        assert process.stdout.readline() == "1\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143


def test_an_error_stream_without_a_reader_is_quiet_too() -> None:
    with started("\n    time.sleep(0.3)\n    print('x' * 100000, file=sys.stderr)") as process:
        process.stderr.close()
        assert process.wait(20) == 141


def command(*words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from hsl.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment, check=False, cwd=ROOT
    )


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["trian"], "hsl train"),
        (["predct"], "hsl predict"),
        (["train", "encodr=mit_b0"], "encoder"),
        (["train", "trainer.max_epoch=3"], "trainer.max_epochs"),
        (["train", "data.imagesize=3"], "data.image_size"),
        (["train", "encoder=mit_b33"], "mit_b3"),
        (["train", "experiment=dmo"], "demo"),
        (["predict", "inptu=x"], "input"),
        (["options", "jsn=true"], "json"),
        (["runs", "--jsno"], "json"),
    ],
)
def test_a_slip_of_the_finger_is_told_with_what_was_meant(words: list[str], meant: str) -> None:
    start = time.process_time()
    done = command(*words)
    assert done.returncode == 2
    assert f"Did you mean `{meant}`?" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert time.process_time() - start < 30


# A terminal is told nothing by the names of data: they are only shown. An error is one sentence.


DRIVING = ["\x1b[2J", "\x1b]0;title\x07", "a\rb", "a\bb", "\x00", "\x7f", "\x9b31m", "a\u202eb", "\u2066", "\u200e",
           "\ufeff", "\u2028", "\x0b", "\udcff"]  # fmt: skip
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


def test_a_file_that_cannot_be_written_is_told_with_the_way_out() -> None:
    for number, words in ((errno.ENOSPC, "Free some space"), (errno.EFBIG, "`ulimit -f`"), (errno.EROFS, "may write")):
        sentence = user_sentence(OSError(number, "No", "rows/features.npz"))
        assert sentence is not None
        assert sentence.startswith("`rows/features.npz`: No. ")
        assert words in sentence
    assert user_sentence(OSError(errno.EIO, "Input/output error", "rows/features.npz")) is None


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
