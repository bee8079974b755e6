"""`hsl smoke export`: does a model leave the suite on this machine, from training to a picture without torch."""

import subprocess
import sys
from pathlib import Path

from omegaconf import DictConfig

from hsl.errors import ConfigError, DataError
from hsl.files.io import read_json
from hsl.run_folder.layout import CONFIG
from hsl.terminal import say
from hsl.verbs.ensemble.ensemble_smoke import call
from hsl.verbs.export.export import PARITY, check_packages

WITHOUT_TORCH = (
    "import sys; sys.modules['torch'] = None; from hsl.exporting.command_line import main; sys.exit(main(sys.argv[1:]))"
)


def smoke_export(cfg: DictConfig) -> None:
    """Train on drawn pictures, export, and run the artefact.

    Raises:
        ConfigError: the output is no new or empty folder, or a package is missing.
        DataError: a command failed; the message tells what it said.
    """
    output = Path(cfg.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"`output` should be a new or empty folder. Found `output = {output}`. Choose another.")
    check_packages(cfg.format)
    call("train", *cfg.settings, f"data.root={output}/data", f"output_root={output}", "name=light")
    (run,) = (path.parent for path in output.glob(f"light/fold0/*/{CONFIG}"))
    artefact = output / "artefact"
    call("export", f"run={run}", f"output={artefact}", f"output_root={output}", f"format={cfg.format}")
    page = read_json(artefact / PARITY)
    changed = max(share for row in page["pictures"] for share in row["changed_pixels"].values())
    say(f"{len(page['pictures'])} comparisons with `hsl predict`: at most {changed:.4%} of the pixels changed")
    if cfg.format != "torch_export":
        picture = next(iter(sorted((output / "data").rglob("*.png"))))
        words = [str(artefact), str(picture), "--output", str(output / "predicted")]
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise DataError(f"The artefact should predict without torch. Found: {done.stderr.strip()[-400:]}")
        say("the artefact predicts in a process without torch: ok")
