"""What a user is told of an error."""

import errno
import textwrap

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import (
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from hsl.config import UserError, unresolved

TRACEBACK_VARIABLE = "HYDRA_FULL_ERROR"
_SPACE = "Free some space, then run it again, a training with `resume=last`; nothing half-written is left."
_RIGHTS = "Choose a folder that you may write to."
_OTHER = "A file stands where a folder should be, or the other way round. Choose another path."
_WAY_OUT = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _RIGHTS,
    errno.ENOTDIR: _OTHER,
    errno.EISDIR: _OTHER,
    errno.EEXIST: _OTHER,
    errno.ENOENT: "Check the path.",
    errno.ENAMETOOLONG: "Choose a shorter path.",
}


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
        if isinstance(one, OSError) and one.errno in _WAY_OUT:
            return f"`{one.filename or 'the run folder'}`: {one.strerror}. {_WAY_OUT[one.errno]}"
    if isinstance(error, InstantiationException):
        return _of_a_part(error)
    for one in chain:
        if isinstance(one, MissingMandatoryValue | InterpolationResolutionError | UnsupportedInterpolationType):
            return unresolved(one)
    return str(error) if isinstance(error, HydraException | OmegaConfBaseException) else None


def _of_a_part(error: InstantiationException) -> str | None:
    """Which part of the config could not be built and why, where what it calls refused a value."""
    if not isinstance(error.__cause__, ValueError | TypeError):
        return None
    key = str(error).rpartition("full_key: ")[2]
    why = textwrap.shorten(str(error.__cause__), 400)
    return f"`{key}` should be something that can be built. Found: {why} ({TRACEBACK_VARIABLE}=1 shows where.)"
