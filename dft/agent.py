"""What runs on the cluster for a campaign elsewhere: ``python -m dft.agent REQUEST``

A request is a file of JSON whose name is the hash of its content, so that a request that was cut
short on its way is noticed. The answer is the last line of standard output. Every command may be
repeated, and the agent may be killed at any moment: what it does is done by
:class:`~dft.slurm.SlurmLauncher`, which is used to that.

Commands: ``submit`` (with the files of the calculations), ``poll``, ``cancel``, ``look`` and
``fetch`` (with the hashes of the files that are sent back).
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dft.slurm import SlurmLauncher
from dft.slurm_settings import SlurmLauncherSettings
from screening.errors import UserError
from screening.io import atomic_write, unwritable

MARK = "SCREEN-ANSWER "
"""Begins the line of the answer; login shells print whatever they like before it."""
INPUTS = ("POSCAR", "calculation.json", "flow.json")
OUTPUTS = ("handle.json", "run.log", "executions.log", "result.json")
"""Sent back in this order: the result means that the others are there."""
LONGEST_LOG = 1 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer one request; exit status 0 whatever the answer says."""
    path = Path((sys.argv[1:] if arguments is None else list(arguments))[0])
    try:
        answer = handle(path)
    except UserError as error:
        answer = {"error": str(error)}
    sys.stdout.write(f"\n{MARK}{json.dumps(answer)}\n")
    return 0


def handle(path: Path) -> dict[str, Any]:
    """The answer to a request."""
    try:
        content = path.read_bytes()
        path.unlink()
    except OSError:
        return {"damaged": True}
    if hashlib.sha256(content).hexdigest() != path.stem:
        return {"damaged": True}
    request = json.loads(content)
    root = Path(request["root"])
    settings = SlurmLauncherSettings.model_validate(request["settings"])
    launcher = SlurmLauncher(root, settings)
    keys: list[str] = request["keys"]
    match request["command"]:
        case "submit":
            for key, files in request["files"].items():
                _unpack(root / key, files, INPUTS)
            launcher.submit(keys)
            return {"states": launcher.poll(keys)}
        case "poll":
            return {"states": launcher.poll(keys)}
        case "cancel":
            launcher.cancel(keys)
            return {}
        case "look":
            return {"activities": {k: a.to_dict() for k, a in launcher.look(keys).items()}}
        case "fetch":
            return {"files": {key: pack(root / key, OUTPUTS) for key in keys}}
    raise UserError(f"The software on the cluster does not know '{request['command']}'; update it.")


def pack(directory: Path, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Files of a directory with their hashes; of long ones the end."""
    packed = {}
    for name in names:
        try:
            content = (directory / name).read_bytes()
        except FileNotFoundError:
            continue
        if name.endswith(".log"):
            content = content[-LONGEST_LOG:]
        packed[name] = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "content": base64.b64encode(content).decode(),
        }
    return packed


def unpack(directory: Path, files: dict[str, dict[str, str]], names: Sequence[str]) -> bool:
    """Write files, in the order of ``names``; False if one of them was damaged on its way."""
    contents = {}
    for name in names:
        if name in files:
            contents[name] = base64.b64decode(files[name]["content"])
            if hashlib.sha256(contents[name]).hexdigest() != files[name]["sha256"]:
                return False
    for name, content in contents.items():
        atomic_write(directory / name, content)
    return True


def _unpack(directory: Path, files: dict[str, dict[str, str]], names: Sequence[str]) -> None:
    """As :func:`unpack`, but files that are there stay: a calculation may be reading them."""
    missing = {name: file for name, file in files.items() if not (directory / name).exists()}
    try:
        if not unpack(directory, missing, names):
            raise UserError(f"Files of {directory.name} were damaged on their way; try again.")
    except OSError as error:
        raise unwritable(directory, error) from error


if __name__ == "__main__":
    sys.exit(main())
