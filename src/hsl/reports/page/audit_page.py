"""The page of `hsl audit`: the rules, the parts, copies with their masks, and pictures that are worth a look."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX
from hsl.data.audit.audit import RULES, Audit
from hsl.data.audit.near_duplicates import ORIENTATIONS, turned
from hsl.data.audit.states import NOT_CHECKED, OFF, PARTLY_CHECKED, PASSED, STOPPED, WARNED
from hsl.data.audit.twins import Twin, Twins
from hsl.data.audit.unusual import DEVIATIONS, FACTOR, GREY_LEVELS, Unusual, listed
from hsl.data.files.decoding import Decoding
from hsl.data.files.records import Catalogue, Record
from hsl.errors import DataError
from hsl.reports.page.galleries import View
from hsl.reports.page.pictures import colours_of
from hsl.reports.page.sections_page import PageSection, write_sections_page
from hsl.reports.page.thumbnails import class_map, photo, resized
from hsl.reports.tables.comparison_tables import parts_table, told
from hsl.reports.tables.score_tables import Column, Table
from hsl.run_folder.layout import AUDIT
from hsl.run_folder.provenance import PartTests

PAIRS, PICTURES = 20, 8
"""So many pairs, and pictures of a kind, are shown."""
SIGNS = {PASSED: "✓", WARNED: "!", STOPPED: "✕", OFF: "–", NOT_CHECKED: "?", PARTLY_CHECKED: "◐"}
Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Audited:
    """What the page shows.

    Attributes:
        audit: What the rules found.
        catalogue: The pictures.
        parts: Their classes by part.
        twins: Copies and near-duplicates: those to show, and how many there are.
        unusual: Pictures worth a look, by kind.
    """

    audit: Audit
    catalogue: Catalogue
    parts: PartTests
    twins: Twins
    unusual: Sequence[Unusual]

    @cached_property
    def records(self) -> dict[str, Record]:
        """By id."""
        return {record.id: record for record in self.catalogue.records}

    def image(self, name: str) -> Image | None:
        """RGB ``uint8 (H, W, 3)``; none where it cannot be read."""
        try:
            image = Decoding.of(self.catalogue).image(self.records[name].image)
        except DataError:
            return None
        return image if self.catalogue.bands is None else self.catalogue.bands.rgb(image)

    def mask(self, name: str) -> Image | None:
        """Class indices ``uint8 (H, W)``; none where there is no mask, or it cannot be read."""
        mask = self.records[name].mask
        try:
            return None if mask is None else Decoding.of(self.catalogue).mask(mask)
        except DataError:
            return None


def write_audit_page(path: Path, content: Audited) -> None:
    """Write ``index.html``, which needs no network. Only the pictures that it shows are read.

    Args:
        path: The file.
        content: What was found.
    """
    found = content.audit
    sizes = ", ".join(f"{part} {number}" for part, number in found.num_pictures.items())
    masks = sum(record.mask is not None for record in content.catalogue.records)
    whole = f"{found.groups} is kept whole" if found.groups else "each picture is taken by itself"
    facts = [
        f"{len(content.catalogue.records)} pictures, {masks} with a mask; {len(content.catalogue.classes)} classes: "
        f"{', '.join(content.catalogue.classes)}.",
        f"Split {found.method}, fold {found.fold} ({sizes}); {whole}. SHA-256 of the pictures {found.sha256[:12]}. "
        f"Made with hsl audit; {AUDIT} names all files.",
        *found.not_read,
    ]
    parts = {
        "Rules": [PageSection("State of each rule", tables=[_states(found)]), *_findings(found)],
        "Parts": [_parts(content.parts)],
        "Copies and near-duplicates": _twin_sections(content),
        "Pictures worth a look": _unusual_sections(content),
    }
    write_sections_page(path, f"Audit of {found.data}", facts, {"audit": _answer(content)}, parts)


def _answer(content: Audited) -> list[str]:
    states = content.audit.states
    rules = {state: [f"({rule})" for rule, each in states.items() if each.state == state] for state in SIGNS}
    first = (
        f"This stops a run: {', '.join(rules[STOPPED])}." if rules[STOPPED] else "Nothing that was checked stops a run."
    )
    others = [
        f"{state.capitalize()}: {', '.join(rules[state])}." for state in SIGNS if rules[state] and state != STOPPED
    ]
    twins = content.twins
    searched = content.audit.near_duplicates != "off"
    pairs = f"{twins.number} pairs of copies{' or near-duplicates' * searched}, {twins.contradicting} with masks of "
    pairs += "unlike classes." if searched else "unlike classes; near-duplicates were not looked for."
    return [first, *others, pairs, _looks(content.unusual)]


def _looks(unusual: Sequence[Unusual]) -> str:
    checked = listed(unusual)
    found = ", ".join(f"{number} {kind}" for kind, number in checked.items() if number) or "none listed"
    left = [each.kind for each in unusual if each.kind not in checked]
    if not checked:
        return "Pictures worth a look: not checked."
    return f"Pictures worth a look: {found}{'; not checked: ' * bool(left)}{', '.join(left)}."


def _states(found: Audit) -> Table:
    columns = [Column("rule", "rule"), Column("state", "state"), Column("pictures", "pictures concerned", "count"),
               Column("changed", "what was not looked at, or what it rests on")]  # fmt: skip
    rows = []
    for rule, title in RULES.items():
        state = found.states[rule]
        ids = {name for finding in found.findings if finding.rule == rule for name in finding.ids}
        rows.append([f"({rule}) {title}", f"{SIGNS[state.state]}\u00a0{state.state}", len(ids) or None, state.reason])
    caption = "Passed: all was looked at and nothing found. What is off, not checked or partly checked has not passed."
    return Table("states", caption, columns, rows)


def _findings(found: Audit) -> list[PageSection]:
    return [
        PageSection(f"({finding.rule}) {RULES[finding.rule]}: {'stops' if finding.severity == 'stop' else 'warning'}",
                    finding.message)
        for finding in found.findings
    ]  # fmt: skip


def _parts(parts: PartTests) -> PageSection:
    title = "Do the parts hold the same classes?"
    if not parts.tests:
        return PageSection(title, "Not compared: there are no two parts with known classes.")
    return PageSection(title, " ".join(told(parts)), tables=[parts_table([parts])])


def _twin_sections(content: Audited) -> list[PageSection]:
    found = content.audit
    notes = "Near-duplicates were not looked for (off); copies were. " if found.near_duplicates == "off" else ""
    if found.num_blank:
        notes += f"{found.num_blank} pictures without contrast were compared byte for byte only. "
    if not content.twins.number:
        return [PageSection("Pairs", f"{notes}No two pictures were found to be alike.")]
    shown = content.twins.pairs
    rule = (
        "Those with unlike masks first: by how far the shares of the classes are apart, so that a mask that is only "
        "shifted stands among the alike ones. The second picture and its mask are turned as the first one lies."
    )
    sections = [PageSection(f"{len(shown)} of {content.twins.number} pairs shown", notes + rule)]
    return sections + [_twin_section(content, twin) for twin in shown]


def _twin_section(content: Audited, twin: Twin) -> PageSection:
    turn = ORIENTATIONS.index(twin.orientation)
    image, first = content.image(twin.second), content.mask(twin.first)
    second = content.mask(twin.second)
    image, second = (None if each is None else np.ascontiguousarray(turned(each, turn)) for each in (image, second))
    views = [
        _picture(f"first: {twin.first}", content.image(twin.first)), _mask(content, twin.first, first),
        _picture(f"second: {twin.second}", image), _mask(content, twin.second, second),
    ]  # fmt: skip
    kind = "The same file" if twin.copy else f"Correlation {twin.correlation:.4f}"
    kind += f", second {twin.orientation}" if turn else ""
    text = f"{kind}. {_compared(content, twin, first, second)}"
    return PageSection(f"{twin.first} and {twin.second}", text, views=views, large=True)


def _compared(content: Audited, twin: Twin, first: Image | None, second: Image | None) -> str:
    """How unlike two masks are, the second at the size of the first."""
    if first is None or second is None:
        return "Masks not compared: there are not two that can be read."
    if content.catalogue.relabelled & {twin.first, twin.second}:
        return "Masks not compared: one is not the data set's own."
    fitted = second if second.shape == first.shape else resized(second, first.shape)
    share = float((first != fitted).mean())
    return f"Masks unlike in {_percent(share)} of the pixels." if share else "Masks alike in every pixel."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "less than 0.1 %"


def _picture(title: str, image: Image | None) -> View:
    alt = f"picture {title}" if image is not None else "the picture cannot be read"
    return View(title, alt, None if image is None else photo(image))


def _mask(content: Audited, name: str, mask: Image | None) -> View:
    if mask is None:
        missing = content.records[name].mask is None
        return View("mask", "there is no mask" if missing else "the mask cannot be read")
    catalogue = content.catalogue
    colours = colours_of(catalogue.classes, catalogue.overlapping)
    counts = np.bincount(mask.ravel(), minlength=256)
    present = np.flatnonzero(counts).tolist()
    names = ["ignored" if value == IGNORE_INDEX else _name(catalogue, value) for value in present]
    shares = ", ".join(f"{each} {_percent(counts[value] / mask.size)}"
                       for each, value in zip(names, present, strict=True))  # fmt: skip
    return View(f"its mask: {shares}", f"mask of {name}", class_map(mask, colours))


def _name(catalogue: Catalogue, value: int) -> str:
    known = not catalogue.overlapping and value < len(catalogue.classes)
    return catalogue.classes[value] if known else f"value {value}"


def _unusual_sections(content: Audited) -> list[PageSection]:
    sections = [PageSection("How they are chosen", (
        f"By comparison with this data set: beyond the median by more than {DEVIATIONS:g} robust standard deviations "
        f"(1.4826 x median absolute deviation; of logarithms but for the brightness), and by a factor of {FACTOR:g} or "
        f"{GREY_LEVELS:g} grey levels at least. None of them need be wrong. A picture may be listed twice."
    ))]  # fmt: skip
    for each in content.unusual:
        gap = f" Not looked at: {each.unchecked}." if each.unchecked else ""
        if not each.rule:
            sections.append(PageSection(f"{each.kind.capitalize()}: not checked", gap.strip()))
            continue
        shown = list(zip(each.ids, each.values, strict=True))[:PICTURES]
        views = [_picture(f"{name}: {value:.3g}", content.image(name)) for name, value in shown]
        number = f"{len(shown)} of {len(each.ids)} shown" if shown else "none listed"
        text = f"Listed: {each.rule}.{gap}"
        sections.append(PageSection(f"{each.kind.capitalize()}: {number}", text, views=views, large=True))
    return sections
