"""The set-up, with stand-ins for pip and uv that install nothing: what it notices, repairs, refuses and says."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAMP = ".venv/.installed"

# Found before the real modules, because the current folder is the first place where `python -m` looks.
PIP = """
import os, sys, sysconfig, time
from pathlib import Path

Path("calls.log").open("a").write(" ".join(["pip", *sys.argv[1:]]) + "\\n")
Path("environment.log").write_text("\\n".join(f"{key}={value}" for key, value in os.environ.items()))
if "--requirement" in sys.argv and "SLEEP" in os.environ:
    time.sleep(60)
if "--requirement" in sys.argv and "BROKEN" in os.environ:
    sys.exit("ERROR: [Errno 28] No space left on device")
if "--editable" in sys.argv:
    site = Path(sysconfig.get_path("purelib"))
    (site / "_editable_impl_hsl.pth").write_text(str(Path("src").resolve()))
    body = "import hsl\\nprint(hsl.__file__)\\n"
    (Path(".venv/bin/hsl")).write_text(f"#!{sys.executable}\\n{body}")
    spaced = f"#!/bin/sh\\n'''exec' \\"{sys.executable}\\" \\"$0\\" \\"$@\\"\\n' '''\\n"
    (Path(".venv/bin/spaced")).write_text(spaced + body)
    for name in ("hsl", "spaced"):
        Path(".venv/bin", name).chmod(0o755)
"""
UV = """#!/bin/sh
if [ "$1" = cache ]; then echo "$FAKE_CACHE"; exit; fi
echo "uv $* UV_CACHE_DIR=$UV_CACHE_DIR" >>calls.log
shift
exec .venv/bin/python -m pip "$@" --requirement # the stand-in above
"""
UV = UV.replace('"$@" --requirement #', '$([ "$1" = sync ] && echo --requirement) "$@" #')


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with the real Makefile and script, in a path with odd characters, and stand-ins for what they call."""
    folder = tmp_path / "it's a (new) küche & $HOME"
    (folder / "src" / "hsl").mkdir(parents=True)
    (folder / "src" / "hsl" / "__init__.py").touch()
    for name in ("Makefile", "install.sh", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "pip.py").write_text(PIP)
    (folder / "ensurepip.py").touch()
    (folder / "compileall.py").touch()
    programs = tmp_path / "bin"
    programs.mkdir()
    program(programs / "python3", f'#!/bin/sh\nexec "{base_python()}" "$@"\n')
    return folder


def base_python() -> Path:
    return Path(os.path.realpath(sys.executable))


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def environment(folder: Path, **variables: str) -> dict[str, str]:
    path = f"{folder.parent / 'bin'}:/usr/bin:/bin"
    return {"PATH": path, "HOME": str(folder.parent), "UV": "", "LC_ALL": "C.UTF-8", **variables}


def make(folder: Path, goal: str = "install", **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", goal], cwd=folder, env=environment(folder, **variables), capture_output=True, text=True, check=False
    )


def calls(folder: Path) -> list[str]:
    log = folder / "calls.log"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def hsl_says(folder: Path, command: str = "hsl") -> Path:
    done = subprocess.run(
        [folder / ".venv/bin" / command], cwd="/", env=environment(folder), capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip())


def test_pip_alone_installs_by_hash_and_a_second_time_nothing_is_done(clone: Path) -> None:
    done = make(clone)
    assert done.returncode == 0, done.stderr
    assert [step in done.stdout for step in ("1/4", "2/4", "3/4", "4/4")] == [True] * 4
    first, second = calls(clone)
    assert "--require-hashes" in first
    assert "requirements.lock" in first
    assert "--editable ." in second
    for command in ("hsl", "spaced"):
        assert hsl_says(clone, command) == clone / "src/hsl/__init__.py"
    again = make(clone)
    assert (again.returncode, again.stdout + again.stderr, calls(clone)) == (0, "", [])


def test_uv_is_taken_where_it_is_there(clone: Path) -> None:
    program(clone.parent / "bin" / "uv", UV)
    done = make(clone, UV="uv", FAKE_CACHE=str(clone.parent / "cache"))
    assert done.returncode == 0, done.stderr
    logged = [line for line in calls(clone) if line.startswith("uv")]
    assert logged[0].startswith("uv pip sync --require-hashes --python .venv/bin/python requirements.lock")
    assert logged[1].startswith("uv pip install --no-deps")
    assert all(line.endswith("UV_CACHE_DIR=") for line in logged)
    assert hsl_says(clone) == clone / "src/hsl/__init__.py"


def test_uv_without_a_home_that_can_be_written_gets_a_cache_for_the_time_being(clone: Path) -> None:
    program(clone.parent / "bin" / "uv", UV)
    done = make(clone, UV="uv", FAKE_CACHE="/dev/null/cache")
    assert done.returncode == 0, done.stderr
    assert calls(clone)[0].endswith(f"UV_CACHE_DIR={clone}/.venv/.cache")


def test_what_is_only_a_speed_up_never_fails_the_installation(clone: Path) -> None:
    (clone / "compileall.py").write_text("raise SystemExit(1)")
    done = make(clone)
    assert done.returncode == 0
    assert "Some files could not be compiled ahead" in done.stdout
    assert make(clone).stdout == ""


def test_a_failure_shows_its_cause_and_the_next_try_repairs(clone: Path) -> None:
    done = make(clone, BROKEN="1")
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert re.search(r"hsl: The installation stopped.* \d+\.\d GB are free here", done.stderr)
    assert not (clone / STAMP).exists()
    repaired = make(clone)
    assert repaired.returncode == 0
    assert "is not whole" in repaired.stdout
    assert make(clone).stdout == ""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_installation_is_repaired(clone: Path, sent: signal.Signals) -> None:
    process = subprocess.Popen(
        ["make", "install"],
        cwd=clone,
        env=environment(clone, SLEEP="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(200):
        if (clone / "calls.log").exists():
            break
        time.sleep(0.05)
    os.killpg(process.pid, sent)
    _, errors = process.communicate(timeout=20)
    assert process.returncode != 0
    assert sent == signal.SIGKILL or "hsl: Interrupted" in errors
    assert not (clone / STAMP).exists()
    assert make(clone).returncode == 0
    assert hsl_says(clone) == clone / "src/hsl/__init__.py"


def test_a_moved_folder_goes_on_working_and_is_noticed(clone: Path) -> None:
    make(clone)
    moved = clone.rename(clone.parent / 'now "here"')
    calls(moved)
    for command in ("hsl", "spaced"):
        assert hsl_says(moved, command) == moved / "src/hsl/__init__.py"
    done = make(moved)
    assert (done.returncode, calls(moved)) == (0, [])
    assert "The folder was moved" in done.stdout
    assert str(clone) not in (moved / ".venv/bin/activate").read_text()
    assert make(moved).stdout == ""


def test_a_copy_does_not_use_the_sources_of_the_original(clone: Path) -> None:
    make(clone)
    copy = clone.parent / "copy"
    shutil.copytree(clone, copy, symlinks=True)
    assert hsl_says(copy) == copy / "src/hsl/__init__.py"


def test_an_environment_on_another_disk_stays_there(clone: Path) -> None:
    elsewhere = clone.parent / "big disk"
    elsewhere.mkdir()
    (clone / ".venv").symlink_to(elsewhere)
    for _ in range(2):
        assert make(clone).returncode == 0
        assert (clone / ".venv").is_symlink()
        assert hsl_says(clone) == clone / "src/hsl/__init__.py"
        (elsewhere / ".installed").unlink()


def test_a_newer_lock_brings_the_environment_up_to_date(clone: Path) -> None:
    make(clone)
    calls(clone)
    (clone / ".venv" / "kept").touch()
    with (clone / "requirements.lock").open("a") as file:
        file.write("# newer\n")
    assert make(clone).returncode == 0
    assert len(calls(clone)) == 2
    assert (clone / ".venv" / "kept").exists()
    assert make(clone).stdout == ""


def spoil_nothing(venv: Path) -> None:
    venv.mkdir()


def spoil_interpreter(venv: Path) -> None:
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to("/nowhere/python3")
    (venv / ".installed").write_text("3.11\n")


def spoil_version(venv: Path) -> None:
    subprocess.run([base_python(), "-m", "venv", "--without-pip", venv], check=True)
    (venv / ".installed").write_text("3.10\n")


def spoil_stamp(venv: Path) -> None:
    subprocess.run([base_python(), "-m", "venv", "--without-pip", venv], check=True)
    (venv / ".installed").touch()


@pytest.mark.parametrize("spoil", [spoil_nothing, spoil_interpreter, spoil_version, spoil_stamp])
def test_half_an_environment_or_that_of_another_python_is_made_anew(clone: Path, spoil: object) -> None:
    assert callable(spoil)
    spoil(clone / ".venv")
    (clone / ".venv" / "leftover").touch()
    done = make(clone)
    assert done.returncode == 0, done.stderr
    assert "is not whole" in done.stdout
    assert not (clone / ".venv" / "leftover").exists()
    assert hsl_says(clone) == clone / "src/hsl/__init__.py"


def test_a_chosen_python_is_remembered_and_another_one_makes_the_environment_anew(clone: Path) -> None:
    assert make(clone, PYTHON=str(base_python())).returncode == 0
    program(clone.parent / "bin" / "python3", "#!/bin/sh\necho 3.10.1 /usr/bin/python3\n")
    assert make(clone).stdout == ""
    stamp = (clone / STAMP).read_text()
    lines = stamp.splitlines()
    other = "3.12" if lines[0] != "3.12" else "3.13"
    program(clone.parent / "bin" / "other", f'#!/bin/sh\n[ "$1" = -m ] && exit 1\necho "{other}.0 $0"\n')
    done = make(clone, PYTHON=str(clone.parent / "bin" / "other"))
    assert done.returncode == 2
    assert f"`.venv` is of Python {lines[0]}: made anew." in done.stdout


@pytest.mark.parametrize("version", ["2.7.18", "3.10.13", "3.14.0"])
def test_another_python_is_refused_with_a_way_out_that_works(clone: Path, version: str) -> None:
    programs = clone.parent / "bin"
    (programs / "python3").rename(programs / "python3.13")
    program(programs / "python3", f"#!/bin/sh\necho {version} /usr/bin/python3\n")
    done = make(clone, PATH=f"{programs}:{tools(clone)}")
    assert done.returncode == 2
    assert (
        "`PYTHON` should be Python 3.11, 3.12 or 3.13. Found `python3` = Python "
        f"{version}. Choose another: make demo PYTHON=python3.13" in done.stderr
    )
    assert not (clone / ".venv").exists()
    assert make(clone, PATH=f"{programs}:{tools(clone)}", PYTHON="python3.13").returncode == 0


def test_without_any_python_the_message_says_what_to_install(clone: Path) -> None:
    done = make(clone, PATH=tools(clone))
    assert done.returncode == 2
    assert "Found `python3`, which is not there or does not start. None of these is on the PATH." in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr


def tools(folder: Path) -> str:
    """What the script needs besides Python, alone in a folder."""
    only = folder.parent / "tools"
    if not only.exists():
        only.mkdir()
        words = "sh make dirname sed awk df cksum date grep mkdir rm id realpath tail sort wc"
        for name in words.split(" "):
            (only / name).symlink_to(str(shutil.which(name)))
    return str(only)


def test_without_ensurepip_the_package_of_debian_is_named(clone: Path) -> None:
    (clone / "ensurepip.py").write_text("raise ImportError")
    done = make(clone)
    assert done.returncode == 2
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"apt-get install python{version}-venv" in done.stderr
    (clone / "ensurepip.py").write_text("")
    assert make(clone).returncode == 0


def test_settings_for_other_projects_do_not_reach_pip(clone: Path) -> None:
    done = make(
        clone, PYTHONPATH="/elsewhere", PIP_USER="1", PIP_TARGET="/elsewhere", PIP_CONSTRAINT="/elsewhere/c.txt",
        PIP_REQUIRE_HASHES="1", PIP_INDEX_URL="https://mirror.example/simple",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = dict(line.split("=", 1) for line in (clone / "environment.log").read_text().splitlines() if "=" in line)
    assert not {"PYTHONPATH", "PIP_TARGET", "PIP_REQUIRE_HASHES"} & set(seen)
    assert (seen["PIP_USER"], seen["PIP_CONSTRAINT"]) == ("0", "/dev/null")
    assert seen["PIP_INDEX_URL"] == "https://mirror.example/simple"


def test_two_installations_at_once_wait_for_each_other(clone: Path) -> None:
    (clone / "ensurepip.py").write_text("import time\ntime.sleep(0.5)\n")
    at_once = [
        subprocess.Popen(["make", "install"], cwd=clone, env=environment(clone), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=30)[0] for process in at_once]
    assert [process.returncode for process in at_once] == [0, 0]
    assert len(calls(clone)) == 2  # of one of them
    assert sum("waiting for it" in output for output in outputs) == 1


def test_the_versions_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    assert "3.11.* | 3.12.* | 3.13.*" in (ROOT / "install.sh").read_text(encoding="utf8")


def test_every_target_that_needs_the_environment_has_it_made() -> None:
    rules = re.findall(r"^(\w+):(.*)\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf8"), re.MULTILINE)
    assert {"demo", "test", "check", "bench"} <= {name for name, *_ in rules}
    for name, needs, recipe in rules:
        assert "$(BIN)" not in recipe or needs.split("##")[0].split() == ["install"], name
