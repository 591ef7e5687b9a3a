#!/usr/bin/env python3
"""Holds the sources against the structure that the READMEs describe. Prints each offence; the exit code tells.

  * What belongs to a domain target includes no I/O header, not even through another header of ours.
  * core/ and edge/ never include each other; common/ includes neither.
  * websocketpp, hiredis, cpp-jwt and libcurl are included by one .cc file each (and headers private to it).
  * The top level holds what DESIGN allows, and every folder of it has a README.md.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
IO = re.compile(r"^(grpc|grpcpp|asio|websocketpp|hiredis|curl|openssl|jwt|sys/|netinet/|arpa/|unistd\.h|netdb\.h|fcntl\.h|"
                r"thread|mutex|condition_variable|fstream|iostream|spdlog|prometheus|random)|\.grpc\.pb\.h$")
SINGLE = {"websocketpp": r"^websocketpp/", "hiredis": r"^hiredis/", "cpp-jwt": r"^jwt/", "libcurl": r"^curl/"}
TOP = {"CMakeLists.txt", "CMakePresets.json", "LICENSE", "README.md", "proto", "core", "edge", "common", "tests", "compose",
       "scripts"}

offences = []


def includes(path):
    return INCLUDE.findall(path.read_text())


def domain_files(folder):
    text = (ROOT / folder / "CMakeLists.txt").read_text()
    block = re.search(rf"presence_library\(presence_{folder}_domain\s(.*?)LIBS", text, re.S).group(1)
    return [ROOT / folder / name for name in block.split() if name.endswith(".cc")]


def closure(path, seen):
    """Yields (file, include) for the file and all headers of ours that it reaches."""
    if path in seen:
        return
    seen.add(path)
    for kind, name in includes(path):
        yield path, name
        inner = ROOT / name
        if kind == '"' and inner.exists():
            yield from closure(inner, seen)


for folder in ("core", "edge"):
    seen = set()
    files = domain_files(folder)
    assert len(files) >= 4, f"{folder}: the domain target is not found"
    for source in files:
        for path, name in closure(source, seen):
            # common/log.h and friends are not for pure code either, but for the text functions beside them.
            if IO.search(name):
                offences.append(f"{path.relative_to(ROOT)} is part of the {folder} domain and includes {name}")

tracked = [ROOT / line for line in
           subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.h", "*.cc"], cwd=ROOT,
                          capture_output=True, text=True, check=True).stdout.split()]
users = {library: set() for library in SINGLE}
for path in tracked:
    if not path.exists():
        continue
    place = path.relative_to(ROOT).parts[0]
    for _, name in includes(path):
        target = name.split("/")[0]
        if {place, target} == {"core", "edge"} or (place == "common" and target in ("core", "edge")):
            offences.append(f"{path.relative_to(ROOT)} includes {name}")
        for library, pattern in SINGLE.items():
            if re.search(pattern, name) and path.suffix == ".cc" and place != "tests":
                users[library].add(str(path.relative_to(ROOT)))
for library, files in users.items():
    if len(files) != 1:
        offences.append(f"{library} is to be included by one .cc file, not by {sorted(files)}")

for entry in subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True,
                            text=True, check=True).stdout.splitlines():
    top = entry.split("/")[0]
    if top not in TOP and not top.startswith("."):
        offences.append(f"{top} does not belong to the top level")
for name in sorted(TOP):
    if (ROOT / name).is_dir() and not (ROOT / name / "README.md").exists():
        offences.append(f"{name}/ has no README.md")

for offence in sorted(set(offences)):
    print(offence)
sys.exit(1 if offences else 0)
