"""Saving without pickle: numbers in safetensors, everything else in JSON, both replaced at once."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import safetensors.numpy

from ._pack import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

FORMAT = 2  # 1: without checksum
JSON, TENSORS = "model.json", "model.safetensors"
# A complete new model lies here for a moment. Readers take its parts as long as they are here, so the rename of this folder replaces
# both files at once.
_COMMITTED = ".scgim-new"
_WRITING = ".scgim-writing-"  # unfinished folders of this prefix are nobody's, once they are old
_OLD = 3600.0  # seconds
_BLANK = "0" * 64
_TRIES = 3  # a reader may meet a writer between the two files


def write(path: str | Path, state: dict, *, overwrite: bool) -> None:
    """Write a nested dict of arrays, sparse matrices, frames and scalars into a folder.

    The new files are complete on the disk before they replace the old ones in one step. A failure at any moment leaves the old model or
    the new one.

    Raises
    ------
    FileExistsError
        If the folder holds a model and ``overwrite`` is false.
    OSError
        If the files cannot be written. The folder is then as before.
    """
    path = Path(path)
    if _part(path, JSON).exists() and not overwrite:
        raise FileExistsError(f"{path} already holds a model. Pass overwrite=True or another path.")
    tensors: dict[str, np.ndarray] = {}
    packed = pack(state, "", tensors)
    weights = safetensors.numpy.save(tensors)
    text = json.dumps({"format": FORMAT, "sha256": _BLANK, "state": packed}, indent=1).encode()
    text = text.replace(_BLANK.encode(), _checksum(text, weights).encode(), 1)
    made = [each for each in (path, *path.parents) if not each.exists()]
    new = path / f"{_WRITING}{uuid4().hex}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        _settle(path)
        new.mkdir()
        for name, content in ((TENSORS, weights), (JSON, text)):
            _write_file(new / name, content)
        _sync(new)
        while not _commit(new, path / _COMMITTED):
            _settle(path)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        for each in made:  # folders of this call only, and only if empty
            with suppress(OSError):
                each.rmdir()
        if isinstance(error, OSError):
            raise type(error)(
                error.errno,
                f"The model could not be saved in {path} ({error.strerror or error}), and the folder is as before. "
                "Save it elsewhere, or free space and check permissions",
            ) from error
        raise
    _settle(path)


def read(path: str | Path) -> dict:
    """Read the state that :func:`write` wrote, in this or an older version.

    Raises
    ------
    FileNotFoundError
        If there is no model.
    ValueError
        If a later version of scgim wrote it, or the files are damaged.
    """
    path = Path(path)
    if not _part(path, JSON).exists():
        raise FileNotFoundError(f"{path} holds no scgim model ({JSON} is missing).")
    with whole(path):
        for trial in range(_TRIES):
            text, weights = (_read_file(path, name) for name in (JSON, TENSORS))
            saved = _parsed(path, text)
            if saved["format"] < FORMAT or saved["sha256"] == _checksum(text, weights):
                break
            if trial == _TRIES - 1:
                raise DamagedError("its checksum does not agree with its content")
            time.sleep(0.05)
        try:
            tensors = safetensors.numpy.load(weights)
        except Exception:  # noqa: BLE001  (safetensors has its own exceptions, and numpy others)
            raise DamagedError(f"{TENSORS} cannot be read") from None
        return {"format": saved["format"]} | unpack(saved["state"], tensors)


class DamagedError(Exception):
    """A reason why a folder is no whole model; :func:`whole` makes a sentence of it."""


@contextmanager
def whole(path: str | Path) -> Iterator[None]:
    """Everything that fails here is damage of the folder.

    Raises
    ------
    ValueError
        The sentence, with the folder, the reason and the remedy.
    """
    try:
        yield
    except (LaterVersionError, MemoryError):
        raise
    except Exception as error:
        why = str(error) if isinstance(error, DamagedError) else "its entries do not fit together"
        raise ValueError(
            f"{path} is damaged ({why}), so no model was loaded: copy the folder again from its source, or train and save the model anew."
        ) from error


class LaterVersionError(ValueError):
    """The folder was written by a later version of scgim."""


def _parsed(path: Path, text: bytes) -> dict:
    try:
        saved = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise DamagedError(f"{JSON} cannot be read") from None
    number = saved.get("format") if isinstance(saved, dict) else None
    if type(number) is not int or number < 1 or not isinstance(saved.get("state"), dict):
        raise DamagedError(f"{JSON} is no model of scgim")
    if number > FORMAT:
        raise LaterVersionError(
            f"{path} was saved in format {number}; this version reads up to {FORMAT}. Upgrade scgim."
        )
    if number == FORMAT and not isinstance(saved.get("sha256"), str):
        raise DamagedError(f"{JSON} has no checksum")
    return saved


def _checksum(text: bytes, weights: bytes) -> str:
    """Hash of both files. The hash in the JSON itself counts as zeros."""
    blank = re.sub(rb'("sha256": ")[0-9a-f]{64}"', rb"\g<1>" + _BLANK.encode() + b'"', text, count=1)
    return hashlib.sha256(hashlib.sha256(blank).digest() + hashlib.sha256(weights).digest()).hexdigest()


def _part(path: Path, name: str) -> Path:
    """A file of the model: in the folder of a writer that was stopped after its commit, or at its place."""
    new = path / _COMMITTED / name
    return new if new.exists() else path / name


def _read_file(path: Path, name: str) -> bytes:
    for place in (path / _COMMITTED / name, path / name):
        with suppress(FileNotFoundError, NotADirectoryError):
            return place.read_bytes()
    raise DamagedError(f"{name} is missing")


def _commit(new: Path, committed: Path) -> bool:
    """Rename the folder of a complete model, unless another writer is between its commit and its end."""
    try:
        new.rename(committed)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _settle(path: Path) -> None:
    """Move the files of a committed model to their places, also for a writer that was stopped, and remove what is left of others."""
    new = path / _COMMITTED
    if new.is_dir():
        for name in (TENSORS, JSON):
            with suppress(FileNotFoundError):  # another process did it
                (new / name).replace(path / name)
        _sync(path)
        with suppress(OSError):
            new.rmdir()
    for other in path.glob(f"{_WRITING}*"):
        with suppress(OSError):
            if time.time() - other.stat().st_mtime > _OLD:
                shutil.rmtree(other)


def _write_file(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Names of a folder reach the disk; not possible on Windows."""
    if os.name == "posix":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
