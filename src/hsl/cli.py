"""The command line: `hsl VERB key=value ...`. Every verb is a Hydra config that names its function."""

import contextlib
import difflib
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hsl import options
from hsl.config import experiment_file, mistyped
from hsl.config.calls import check_calls, check_values
from hsl.config.ranges import KEYS
from hsl.config.signatures import check_values_of_ours
from hsl.config.targets import named_targets
from hsl.config.validation import validate
from hsl.errors import TRACEBACK_VARIABLE, ConfigError, UserError, user_sentence
from hsl.files.names import check_names
from hsl.metrics.catalogue import read_mode
from hsl.signals import ended_by_signals
from hsl.terminal import QUIET_VARIABLE, quieten_handlers, quieten_warnings, say
from hsl.verbs.opening.places import check_places

EXIT_USER_ERROR = 2
TOLD = (UserError, HydraException, OmegaConfBaseException, OSError, MemoryError, RuntimeError)
"""Errors that may become a sentence for the user; any other is raised with its traceback."""


def conf_dir() -> Path:
    """The folder of the configs: inside an installed package, else in the source tree."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "conf"


# the verbs that open run folders are handed what conf/ names, and need not know where it lies
OmegaConf.register_new_resolver("conf_targets", lambda: named_targets(conf_dir()), replace=True)
OmegaConf.register_new_resolver("readers", lambda: OmegaConf.create(options.readers(conf_dir())), replace=True)


def main() -> None:
    """Entry point of the console script ``hsl``."""
    verbs = {_spoken(path.stem): path for path in sorted(conf_dir().glob("[!_]*.yaml"))}
    num_words = 2 if len(sys.argv) > 2 and sys.argv[2].isalpha() else 1  # anything else is a setting or a flag
    if num_words == 2 and sys.argv[1] in verbs and _bare_key(verbs[sys.argv[1]]):
        num_words = 1  # the second word is a value
    verb = " ".join(sys.argv[1 : 1 + num_words]) or "--help"
    if verb not in verbs:
        _print_overview(verbs, verb)
        sys.exit(0 if verb in ("-h", "--help") else EXIT_USER_ERROR)
    del sys.argv[1 : 1 + num_words]
    run_verb(verbs[verb].stem)


def run_verb(verb: str) -> None:
    """Compose the verb's config from ``sys.argv`` and hand it to the function it names.

    A mistake of the user is one sentence on stderr and exit code 2; ``HYDRA_FULL_ERROR=1`` shows the traceback.
    """
    path = conf_dir() / f"{verb}.yaml"
    plain = _bare_key(path) is not None
    if {"-h", "--help"} & set(sys.argv[1:]):
        say(_header(path))
        if not plain:
            say(f"\nEvery key can be set as key=value; `hsl {_spoken(verb)} --cfg job` shows them all.")
        return
    if os.environ.get(TRACEBACK_VARIABLE) != "1":
        os.environ[TRACEBACK_VARIABLE] = "1"  # Hydra then hands errors on instead of printing and exiting itself
        os.environ[QUIET_VARIABLE] = "1"
    quieten_warnings()
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # on a shared machine, waiting threads that spin cost minutes
    with ended_by_signals():
        _run(path, plain)


def _run(path: Path, plain: bool) -> None:
    _verb_in_use[:] = [path.stem]
    try:
        if plain:
            _call_plainly(path, sys.argv[1:])
            return
        sys.argv[1:] = map(_quoted, sys.argv[1:])
        _refuse_null_groups(sys.argv[1:])
        experiment_file.register_all(sys.argv[1:], conf_dir())
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=path.stem)(_call_entry)()
    except BrokenPipeError:
        raise
    except TOLD as error:
        _exit_with_sentence(error)
        raise


def _spoken(verb: str) -> str:
    """A config of two words is a verb of two words: ``label_review`` is ``hsl label review``."""
    return verb.replace("_", " ")


_verb_in_use: list[str] = []  # for the message of an error
_NO_OPTION = re.compile(r"|[+-]?[\d.]+|null|true|false", re.IGNORECASE)
_WORDS = {"true": True, "false": False, "null": None}


def _exit_with_sentence(error: BaseException) -> None:
    """End the process with one sentence and exit code 2, unless the traceback is wanted or the error is ours."""
    sentence = user_sentence(error)
    if sentence is not None and os.environ.get(QUIET_VARIABLE) == "1":
        say(f"error: {_of_what_is_missing(error) or sentence}", error=True)
        sys.exit(EXIT_USER_ERROR)


def _of_what_is_missing(error: BaseException) -> str | None:
    """Our own sentence where Hydra says that there is no such key or option."""
    groups = options.read_options(conf_dir())
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return mistyped.of_option(group, name, [one.name for one in groups[group]]) if group in groups else None
    if found := re.search(r"Could not (?:override|delete from config\.) '([^']+)'", str(error)):
        word = next((word for word in sys.argv[1:] if word.lstrip("~").partition("=")[0] == found[1]), found[1])
        content: Any = OmegaConf.to_container(_plain_config())
        return mistyped.of_key(found[1], word, content, groups)
    if found := re.search(r"Multiple values for (\S+)\. To override", str(error)):
        return f"`{found[1]}` has an option already. Write `{found[1]}=OPTION`, without `+`."
    return None


def _plain_config() -> DictConfig:
    """The config of this verb with the groups that the command line chooses, where those exist, and no other words."""
    words = [word for word in sys.argv[1:] if (conf_dir() / word.partition("=")[0].lstrip("+~")).is_dir()]
    for chosen in ([word for word in words if "," not in word], []):
        with contextlib.suppress(HydraException, OmegaConfBaseException):
            GlobalHydra.instance().clear()
            with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
                return hydra.compose(_verb_in_use[0], chosen, return_hydra_config=False)
    return OmegaConf.create()


def _call_entry(cfg: DictConfig) -> Any:
    quieten_handlers(logging.getLogger().handlers)
    try:
        validate(cfg)
        if "monitor" in cfg:
            read_mode(cfg.monitor, cfg.monitor_mode)
        _refuse_unread_keys()
        content: Any = OmegaConf.to_container(cfg, resolve=True)
        check_names(content)
        check_places(content)
        check_values(content, KEYS)
        check_values_of_ours(content)
        check_calls(content)
        entry: Callable[[DictConfig], Any] = hydra.utils.get_method(cfg.entry)
        return entry(cfg)
    except BrokenPipeError:
        raise
    except TOLD as error:
        if HydraConfig.get().mode == RunMode.RUN:
            _exit_with_sentence(error)
        else:  # a sweep first does its other runs and ends with the first error
            say(f"error: {user_sentence(error) or error}", error=True)
        raise


def _quoted(word: str) -> str:
    """A word whose value is a path or pattern that Hydra's grammar does not take, in the quotes that it wants.

    Example:
        >>> _quoted("data.reader.images=images/**/{id}.jpg")
        'data.reader.images="images/**/{id}.jpg"'
        >>> _quoted("data.only={material: paper}"), _quoted("fold=0,1")
        ('data.only={material: paper}', 'fold=0,1')
    """
    key, equals, value = word.partition("=")
    odd = not value.isascii() or re.search(r"(?<!\$)\{\w+\}|[#&;!]", value)
    structured = value[:1] in ("[", "'", '"', "$") or (value[:1] == "{" and not re.match(r"\{\w+\}", value))
    if not equals or not odd or structured or '"' in value:
        return word
    return f'{key}="{value}"'


def _refuse_null_groups(words: Sequence[str]) -> None:
    """Hydra has no way to switch a group off; each that can be off has an option that says so.

    Raises:
        ConfigError: A group is set to nothing or to a number, or a word has no key.
    """
    for word in words:
        group, equals, option = word.partition("=")
        if equals and not group:
            raise ConfigError(f"Each word should be `key=value`. Found `{word}`.")
        if equals and _NO_OPTION.fullmatch(option) and (conf_dir() / group).is_dir():
            names = sorted(path.stem for path in (conf_dir() / group).glob("[!_]*.yaml"))
            raise ConfigError(
                f"`{group}` should be one of {', '.join(names)}. Found `{word}`. Choose one, or leave it away."
            )


def _refuse_unread_keys() -> None:
    """A key that `+` adds beside the others of a verb is one that nothing reads; below a call, `check_calls` looks.

    Raises:
        ConfigError: There is such a key.
    """
    for override in OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task)):
        key = override.key_or_group
        added = override.is_add() or override.is_force_add()
        if added and "." not in key and not (conf_dir() / key).is_dir():
            near = mistyped.near_group(key, options.read_options(conf_dir()))
            raise ConfigError(
                f"`{key}` should be a key of this verb. Found `{override.input_line}`. Leave it out.{near}"
            )


def _bare_key(path: Path) -> str | None:
    """The key that a bare word of the verb sets. Only a verb that is read without Hydra has one."""
    key: str | None = OmegaConf.select(OmegaConf.load(path), "word")
    return key


def _call_plainly(path: Path, words: list[str]) -> None:
    """Set ``KEY=VALUE``, ``--KEY`` (true) and one bare word in a verb's own file and call its function.

    Values are text but for true, false and null, so commas and equal signs in them need no quotes of Hydra's.

    Raises:
        ConfigError: a key is unknown, is given twice, or is no true or false where it has to be.
    """
    cfg: Any = OmegaConf.load(path)
    keys = [str(key) for key in cfg if key not in ("entry", "word", "readers")]
    given: dict[str, str | bool | None] = {}
    for word in words:
        key, equals, text = word.removeprefix("--").partition("=")
        if not equals:
            key, text = (key, "true") if word.startswith("-") else (cfg.word, word)
        if key not in keys or key in given:
            near = difflib.get_close_matches(key, [one for one in keys if one not in given], 1)
            meant = f" Did you mean `{near[0]}`?" if near else ""
            raise ConfigError(
                f"`hsl {path.stem}` takes each of {', '.join(keys)} once, as key=value. Found `{word}`.{meant}"
            )
        given[key] = _WORDS.get(text, text)
        if isinstance(cfg[key], bool) and not isinstance(given[key], bool):
            raise ConfigError(f"`{key}` should be true or false. Found `{key} = {text}`.")
    hydra.utils.get_method(cfg.entry)(OmegaConf.merge(cfg, given))


def list_options(cfg: DictConfig) -> None:
    """The verb ``options``. It stands here because no other file knows where conf/ lies."""
    groups = options.options_below(options.read_options(conf_dir()), cfg.group)
    say(options.options_json(groups) if cfg.json else options.options_text(groups))


def _header(path: Path) -> str:
    """The comment at the top of a config: what the verb does, and examples."""
    lines = []
    for line in path.read_text(encoding="utf8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines)


def _print_overview(verbs: dict[str, Path], verb: str) -> None:
    if verb not in ("-h", "--help"):
        near = difflib.get_close_matches(verb, verbs, 1)
        meant = f" Did you mean `hsl {near[0]}`?" if near else ""
        say(f"error: `hsl {verb}`: no such verb.{meant} Choose one of {', '.join(verbs)}.", error=True)
        return
    say("hsl VERB key=value ...\n")
    for name, path in verbs.items():
        say(f"  {name:<12} {_header(path).splitlines()[0]}")
    say("\n`hsl VERB --help` shows an example.")
