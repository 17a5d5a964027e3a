"""The command line: ``python -m scgim demo --out DIR``."""

from __future__ import annotations

import argparse
from pathlib import Path


def main(argv: list[str] | None = None) -> None:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m scgim", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="the whole workflow on the shipped Sachs data")
    demo.add_argument(
        "--out", type=Path, default=Path("demo-output"), help="folder for tables, figures and the annotated AnnData"
    )
    demo.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)

    from scgim._demo import run

    run(args.out, seed=args.seed)


if __name__ == "__main__":
    main()
