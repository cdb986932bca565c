"""Prints what a board's file says about how programs are built for it: triple, glibc and features, a line each.

    python3 cross/board.py device-configs/jetson-nano-4gb.toml

The file and those it inherits from are those that `lichen --device-config` reads, which checks them whole; here the section
[build] alone is looked at. device-configs/README.md lists its keys.
"""

import sys
from pathlib import Path

# A board's file, its family's, the base: more is a circle.
FILES_MAX = 8


def toml_reader():
    """The standard library's reader, or the one inside pip for Python before 3.11."""
    try:
        import tomllib
    except ModuleNotFoundError:
        try:
            from pip._vendor import tomli as tomllib
        except ImportError:
            sys.exit("board files are read by Python 3.11 or later, or by an earlier one with pip")
    return tomllib


def build_section(path):
    """The keys of [build] in a file and those it inherits from; the nearest one wins."""
    toml = toml_reader()
    build = {}
    for _ in range(FILES_MAX):
        try:
            table = toml.loads(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            sys.exit(f"{path}: {error.strerror}")
        except (ValueError, RecursionError) as error:
            sys.exit(f"{path}: {error}")
        own = table.get("build", {})
        if not isinstance(own, dict):
            sys.exit(f"{path}: build must be a section")
        build = {**own, **build}
        if "inherit" not in table:
            return build
        path = path.with_name(Path(str(table["inherit"])).name)
    sys.exit(f"{path}: inherits through more than {FILES_MAX} files (a circle?)")


def main():
    """Prints the three values, or says in one sentence what is missing."""
    if len(sys.argv) != 2:
        sys.exit("usage: board.py FILE")
    path = Path(sys.argv[1])
    build = build_section(path)
    texts = [build.get("triple"), build.get("glibc"), *build.get("features", [None])]
    if not all(isinstance(text, str) for text in texts):
        sys.exit(f"{path}: [build] needs triple and glibc, texts, and features, a list of texts")
    print(build["triple"], build["glibc"], ",".join(build["features"]), sep="\n")


if __name__ == "__main__":
    main()
