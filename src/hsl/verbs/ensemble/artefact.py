"""A finished ensemble opened again: its members, and the combination of each head, fitted anew from its rows."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsl.config.calls import check_calls
from hsl.config.targets import check_targets
from hsl.ensembles.rows import Rows
from hsl.errors import ConfigError
from hsl.files.io import sha256_of
from hsl.heads import Head
from hsl.run_folder.ensemble import StoredEnsemble, read_ensemble, read_ensemble_rows
from hsl.run_folder.layout import ENSEMBLE, best_checkpoint
from hsl.verbs.ensemble.stages.variants import Chosen, stage_fits


@dataclass(frozen=True, eq=False)
class OpenedEnsemble:
    """An ensemble ready to combine: ``variants`` has the recommended one of each head."""

    folder: Path
    page: StoredEnsemble
    heads: Mapping[str, Head]
    variants: Mapping[str, Chosen]

    @property
    def members(self) -> list[str]:
        """Whose predictions are needed."""
        return sorted({name for variant in self.variants.values() for name in variant.members})

    def runs(self, member: str) -> list[Path]:
        """The run folders of a member, by fold.

        Raises:
            ConfigError: one is gone, or its checkpoint is another.
        """
        found = []
        for _, run in sorted(self.page.members[member].runs.items()):
            path = self.folder / run.folder
            checkpoint = best_checkpoint(path)
            if not checkpoint.is_file():
                raise ConfigError(
                    f"`{self.folder / ENSEMBLE}` should find its members beside it. Found no `{checkpoint}`. Move the "
                    "ensemble and the runs of its members together, so that the way from one to the other stays."
                )
            if sha256_of(checkpoint) != run.sha256:
                raise ConfigError(
                    f"`{checkpoint}` should be the one that the ensemble was fitted on. Found another. Run "
                    "`hsl ensemble` again."
                )
            found.append(path)
        return found


def open_ensemble(folder: Path, allowed: Collection[str]) -> OpenedEnsemble:
    """Open an ensemble; nothing of it is code, and its settings call only what is allowed.

    Args:
        folder: that `hsl ensemble` made.
        allowed: the callables that its settings may name.

    Raises:
        ConfigError: it is no ensemble, or calls something else.
        DataError: it is damaged.
    """
    page = read_ensemble(folder)
    check_targets(page.settings, allowed, folder / ENSEMBLE)
    check_calls(page.settings)
    heads, variants = {}, {}
    for name, one in page.heads.items():
        kind: Any = one.kind
        heads[name] = Head(name, kind, tuple(one.classes), one.several)
        rows, stage = Rows(**read_ensemble_rows(folder / name)), one.recommended.partition("/")[0]
        fit = stage_fits(page.settings, stage, rows)[one.recommended]
        variants[name] = Chosen(one.recommended, rows, fit, one.stages[one.recommended].notes)
    return OpenedEnsemble(folder, page, heads, variants)
