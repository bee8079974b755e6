"""Train one model on one fold: `python train.py encoder=mit_b3 fold=1`; sweeps with `-m`."""

from hsl.cli import run_verb

if __name__ == "__main__":
    run_verb("train")
