"""`hsl audit`: a data set and its split, checked without training, and without torch."""

import inspect
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from hsl.config.validation import validate
from hsl.data.arguments import Loading, PictureForm
from hsl.data.audit.audit_views import print_table, write_contact_sheets
from hsl.data.prepared import DataSource
from hsl.files.output_folder import OutputFolder
from hsl.reports.tables.comparison_tables import parts_table, told
from hsl.reports.tables.score_tables import write_table
from hsl.run_folder.layout import AUDIT
from hsl.run_folder.provenance import write_audit, write_parts
from hsl.terminal import say
from hsl.verbs.train.part_counts import part_tests


def audit(cfg: DictConfig) -> None:
    """Check a data set and its split without training; stops with exit code 2 on a finding that would stop a run."""
    validate(cfg)
    source: DataSource = instantiate(cfg.data)
    with OutputFolder(cfg.output, "audit", inputs=[cfg.data.root]) as output:
        data = source.read()
        findings = data.audit
        write_audit(output.work, findings.to_json())
        write_contact_sheets(findings, data.catalogue, output.work)
        parts = part_tests(data)
        write_parts(output.work, parts)
        write_table(parts_table([parts]), output.work)
    print_table(findings)
    for sentence in told(parts):
        say(sentence)
    say(f"{output.path / AUDIT}")
    findings.raise_if_stopped()


def data_source(**settings: Any) -> DataSource:
    """What ``data`` is here: the settings of a data option that choose pictures, split and labels."""
    return DataSource(**{name: settings[name] for name in _SOURCE if name in settings})


def unbuilt(**settings: Any) -> None:
    """What ``augmentation`` and ``encoder`` are here: named as for a run, but not needed."""


_SOURCE = inspect.signature(DataSource).parameters
_SETTINGS = [
    each for part in (DataSource, PictureForm, Loading) for each in inspect.signature(part).parameters.values()
]
# a wrong key or type in a config is then found before anything is read, as in a run
data_source.__signature__ = inspect.Signature(_SETTINGS)  # type: ignore[attr-defined]
data_source.__annotations__ = {each.name: each.annotation for each in _SETTINGS}
