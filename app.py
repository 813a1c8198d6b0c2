"""Builds the page and launches it: `python app.py`, then open the address it prints."""

import argparse
import os

from studio.ui.page import serve


def main() -> None:
    parser = argparse.ArgumentParser(description="Open the studio in a browser.")
    # A Space must listen to everybody; at home the page is this machine's own.
    parser.add_argument("--host", default="0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1")
    parser.add_argument("--port", type=int, default=None, help="default: the first free one from 7860")
    parser.add_argument("--open", action="store_true", help="open a browser window")
    chosen = parser.parse_args()
    serve(host=chosen.host, port=chosen.port, open_browser=chosen.open)


if __name__ == "__main__":
    main()
