"""The audit as people read it: a line per rule."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hsl.console import PlainConsole
from hsl.data.audit.audit import RULES, Audit
from hsl.data.audit.rules import STOP
from hsl.data.audit.states import OFF, PASSED


def print_table(audit: Audit, console: Console | None = None) -> None:
    """Print a line per rule and finding, with one example, and below it what was found and the way out."""
    sizes = ", ".join(f"{part} {number}" for part, number in audit.num_pictures.items())
    table = Table(title=f"Audit of {audit.data}, {audit.method}, fold {audit.fold}: {sizes}", title_justify="left")
    for name in ("rule", "severity", "pictures", "example"):
        table.add_column(name, overflow="fold", justify="right" if name == "pictures" else "left")
    for rule, title in RULES.items():
        for finding in (found := [finding for finding in audit.findings if finding.rule == rule]):
            severity = Text(finding.severity, style="red" if finding.severity == STOP else "yellow")
            example = [audit.pairs[0].first, audit.pairs[0].second] if rule == "c" else finding.ids[:1]
            table.add_row(f"({rule}) {title}", severity, str(len(finding.ids)), ", ".join(example))
        if not found:
            style = {PASSED: "green", OFF: ""}.get(audit.states[rule].state, "yellow")
            table.add_row(f"({rule}) {title}", Text(audit.states[rule].state, style=style))
    console = console or PlainConsole()
    console.print(table)
    for finding in audit.findings:
        console.print(f"({finding.rule}) {finding.message}", soft_wrap=True)
    for rule, state in audit.states.items():
        if state.reason and state.state != OFF:
            console.print(f"({rule}) {state.state}: {state.reason}.", soft_wrap=True)
    for sentence in audit.not_read:
        console.print(sentence, soft_wrap=True)
    if audit.near_duplicates != "off":
        blank = f" {audit.num_blank} pictures without contrast were not compared." if audit.num_blank else ""
        console.print(f"Near-duplicates: {audit.num_across} pairs across parts, {audit.num_inside} inside them.{blank}")
