"""The errors that a user can fix, and the sentence a user is told of any error."""

from __future__ import annotations

import errno
import re
import sys
import textwrap
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from hsl.config import mistyped

if TYPE_CHECKING:  # an exported model runs without them
    from hydra.errors import InstantiationException
    from omegaconf.errors import OmegaConfBaseException

TRACEBACK_VARIABLE = "HYDRA_FULL_ERROR"
MEMORY_SIGNS = (  # of allocators whose error has no type of its own, each at the beginning of a sentence of theirs
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "MPS backend out of memory",
    "CUDA out of memory",
    "std::bad_alloc",
    "bad allocation",
    "could not create a memory object",  # oneDNN
    "could not create a primitive\0",  # and nothing behind it: what it does not support has a name there
    "Cannot allocate memory",
    "Unable to allocate",
)
_KILLED = ("is killed by signal: Killed", "is killed by signal: Bus error", "exited unexpectedly")
_PACKAGES = {"PIL": "pillow", "skimage": "scikit-image", "cv2": "opencv-python-headless"}
"""Of modules that are called otherwise."""
_LESS = (
    "Lower `data.batch_size` or `data.image_size`, let batches be cut with `callbacks=[default,oom_backoff]`, or take "
    "fewer `data.num_workers` and `data.cache=disk`."
)
_SPACE = "Free some space, then run it again, a training with `resume=last`; nothing half-written is left."
_RIGHTS = "Choose a folder that you may write to."
_LIMIT = "Write to a file system that takes files of this size, or lift the limit of the shell, `ulimit -f`."
_OTHER = "A file stands where a folder should be, or the other way round. Choose another path."
_WAY_OUT = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _LIMIT,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _RIGHTS,
    errno.ENOTDIR: _OTHER,
    errno.EISDIR: _OTHER,
    errno.EEXIST: _OTHER,
    errno.ENOENT: "Check the path.",
    errno.ENAMETOOLONG: "Choose a shorter path.",
}


class UserError(ValueError):
    """A mistake that the user can fix: shown as one sentence, exit code 2, no traceback."""


class NonFiniteLogitsError(UserError, ArithmeticError):
    """A head gave NaN or an infinite value. The message names it, the images and the place."""

    ADVICE = (
        "Look at these images; if they are sound, train again with a lower `optimizer.lr`, or with "
        "`trainer.precision=32`."
    )


class ConfigError(UserError):
    """A value in the configuration breaks a rule."""


class DataError(UserError):
    """Something on disk is missing, broken or contradicts itself. The message names the file."""


def user_sentence(error: BaseException) -> str | None:
    """What to tell the user; ``None`` when the error is ours and deserves its traceback.

    Hydra wraps what a part raises while it is built, so the cause is looked for first.
    """
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    for one in chain:
        if isinstance(one, UserError):
            return str(one)
    for one in chain:
        if says_no_memory(one) or lost_a_process(one):
            return f"Memory ran out: {textwrap.shorten(str(one) or type(one).__name__, 200)}. {_LESS}"
    for one in chain:
        if isinstance(one, OSError) and one.errno in _WAY_OUT:
            return f"`{one.filename or 'the run folder'}`: {one.strerror}. {_WAY_OUT[one.errno]}"
    return _of_a_config(error, chain) if "hydra" in sys.modules else None


def needs(who: str, modules: Sequence[str], extra: str | None = None) -> None:
    """Say what to install where a module is missing.

    Args:
        who: what needs them, ``"`hsl export`"``.
        modules: names that are imported.
        extra: of hsl, that installs them; ``None``: each is installed by itself.

    Raises:
        ConfigError: one is missing.

    Example:
        >>> needs("`hsl export`", ["json", "onyx"], "onnx")
        Traceback (most recent call last):
        ...
        hsl.errors.ConfigError: `hsl export` needs json and onyx. Found no `onyx`. Install them: `make extras` in a \
clone, else `pip install 'hsl[onnx]'`.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if not missing:
        return
    *others, last = (_PACKAGES.get(module, module) for module in modules)
    named = f"{', '.join(others)} and {last}" if others else last
    how = f"pip install {' '.join(_PACKAGES.get(module, module) for module in missing)}"
    if extra is not None:
        how = f"make extras` in a clone, else `pip install 'hsl[{extra}]'"
    them = "them" if len(modules) > 1 else "it"
    raise ConfigError(f"{who} needs {named}. Found no `{missing[0]}`. Install {them}: `{how}`.")


def _of_a_config(error: BaseException, chain: Sequence[BaseException]) -> str | None:
    """What Hydra or OmegaConf has to say."""
    from hydra.errors import HydraException, InstantiationException, OverrideParseException
    from omegaconf.errors import (
        InterpolationResolutionError,
        MissingMandatoryValue,
        OmegaConfBaseException,
        UnsupportedInterpolationType,
    )

    if isinstance(error, InstantiationException):
        return _of_a_part(error)
    for one in chain:
        if isinstance(one, OverrideParseException):
            reason = textwrap.shorten(str(one.__cause__ or one.__context__ or one), 200)
            return mistyped.of_value(one.override, reason)
    for one in chain:
        if isinstance(one, MissingMandatoryValue | InterpolationResolutionError | UnsupportedInterpolationType):
            return unresolved(one)
    return str(error) if isinstance(error, HydraException | OmegaConfBaseException) else None


def unresolved(error: OmegaConfBaseException) -> str:
    """The sentence of a value that is missing, or that refers to what is not there."""
    from omegaconf.errors import MissingMandatoryValue

    key, text = error.full_key or error.key, str(error).partition("\n")[0]
    if isinstance(error, MissingMandatoryValue):
        return f"`{key}` should be chosen. Found no value. Give it on the command line: `{key}=...`."
    if found := re.search(r"Missing mandatory value: (\S+)", text):
        return f"`{found[1]}` should be chosen. Found no value. Give it on the command line: `{found[1]}=...`."
    if found := re.search(r"Environment variable '(.*)' not found", text):
        return (
            f"`{key}` should have a value. Found that the environment variable {found[1]} is not set. Set it, or give "
            f"a value for when it is not: `${{oc.env:{found[1]},VALUE}}`."
        )
    if found := re.search(r"Interpolation key '(.*)' not found", text):
        wanted = f"`{key}` should refer to a key of the config. Found `${{{found[1]}}}`, which does not exist."
        return f"{wanted} `--cfg job` shows all."
    return f"`{key}` should be a value that can be resolved. Found: {text.rstrip('.')}. Give it another value."


def says_no_memory(error: BaseException) -> bool:
    """Whether an allocator raised it: Python's, NumPy's, torch's, oneDNN's, or the system's.

    Example:
        >>> says_no_memory(RuntimeError("could not create a memory object"))
        True
        >>> says_no_memory(RuntimeError("out of memory"))  # who says so is not known
        False
    """
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = f"{error}\0"
    return isinstance(error, RuntimeError) and any(sign in text for sign in MEMORY_SIGNS)


def lost_a_process(error: BaseException) -> bool:
    """Whether a process that loads pictures was killed, which the system does where memory runs out."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _KILLED)


def _of_a_part(error: InstantiationException) -> str | None:
    """Which part of the config could not be built and why, where what it calls refused a value."""
    if not isinstance(error.__cause__, ValueError | TypeError):
        return None
    key = str(error).rpartition("full_key: ")[2]
    why = textwrap.shorten(str(error.__cause__), 400)
    return f"`{key}` should be something that can be built. Found: {why} ({TRACEBACK_VARIABLE}=1 shows where.)"
