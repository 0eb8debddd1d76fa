"""``python -m pegel``: the command line."""

from __future__ import annotations

from pegel.cli.main import main

if __name__ == "__main__":
    main()
