"""How commands end that somebody ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

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
