"""Writes ``dashboards/*.json`` anew: ``python -m grafana.generate``. A test holds them together."""

from __future__ import annotations

import json
from pathlib import Path

from grafana.boards import BOARDS
from grafana.panels import dashboard_json

HERE = Path(__file__).resolve().parent


def files() -> dict[Path, str]:
    """What each committed file has to hold."""
    return {
        HERE / "dashboards" / f"{board.uid}.json": json.dumps(dashboard_json(board), indent=1)
        + "\n"
        for board in BOARDS
    }


def main() -> None:
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(path.relative_to(HERE.parent))


if __name__ == "__main__":
    main()
