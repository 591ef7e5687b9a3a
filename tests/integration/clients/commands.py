#!/usr/bin/python3
"""The commands of README.md, so that they are known to work: the last one of a language runs its backend, those before prepare it.

    commands.py [LANGUAGE...]    prepares the backends (all of them, if none is named) below build/clients; needs the network once

Nothing is done twice: a language is prepared again only when its files, the proto files or the commands have changed.
"""

import hashlib
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys

CLIENTS = pathlib.Path(__file__).resolve().parent
ROOT = CLIENTS.parents[2]
BUILD = ROOT / "build/clients"
README = (CLIENTS / "README.md").read_text()
COPY = re.search(r"```sh\n(.*?)```", README, re.S).group(1)
BLOCKS = {name.lower(): block.replace("\\\n", "").strip().splitlines()
          for name, block in re.findall(r"^## (\w+)\n\n```sh\n(.*?)```", README, re.S | re.M)}
PROGRAMS = {"python": [], "go": ["go", "protoc"], "node": ["node", "npm"]}
DEBIAN = {"go": "golang-go", "protoc": "protobuf-compiler", "node": "nodejs", "npm": "npm",
          "grpc": "python3-grpcio", "grpc_tools": "python3-grpc-tools"}


class Missing(Exception):
    """Something has to be installed first, or could not be; the text says what."""


def require_tools(language):
    missing = [program for program in PROGRAMS[language] if not shutil.which(program)]
    if language == "python":
        missing += [module for module in ("grpc", "grpc_tools") if not importlib.util.find_spec(module)]
    if missing:
        raise Missing(f"the {language} backend needs {' and '.join(missing)}: "
                      f"apt-get install {' '.join(DEBIAN[name] for name in missing)}")


def fingerprint(language):
    digest = hashlib.sha256("\n".join(BLOCKS[language]).encode())
    for path in sorted([*(ROOT / "proto").rglob("*.proto"), *(CLIENTS / language).rglob("*")]):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def prepare(language):
    require_tools(language)
    stamp, wanted = BUILD / f"{language}.prepared", fingerprint(language)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(BUILD / language, ignore_errors=True)
    script = "\n".join(["set -e", COPY, *BLOCKS[language][:-1]])
    if language == "go":
        script += "\ngo build"  # so that `go run` starts without delay
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Missing(f"the {language} backend could not be prepared:\n{script}\n{done.stdout[-3000:]}")
    stamp.write_text(wanted)


def start(language, *arguments, environment):
    """The last command of the block, with these arguments, as a process group of its own."""
    cd, command = BLOCKS[language][0], BLOCKS[language][-1]
    return subprocess.Popen(["bash", "-c", f'{cd} && exec {command} "$@"', language, *arguments], cwd=ROOT,
                            env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            start_new_session=True)


if __name__ == "__main__":
    try:
        for name in sys.argv[1:] or BLOCKS:
            prepare(name)
    except Missing as missing:
        sys.exit(f"error: {missing}")
