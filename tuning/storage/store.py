"""A folder behind a URL: whatever fsspec opens (s3://, gs://, a path), with files that appear whole or not at all.

Nothing here waits or tries again: that is :func:`tuning.storage.patience.patiently`'s work, which every caller wraps
around. Rights come from where each library finds them (environment, instance role, configuration file), never from
the URL.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from methods.errors import InputError, WorkFailed, did_you_mean
from tuning.storage.patience import in_words, patiently
from tuning.storage.scratch import beside, to_disk

_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "abfss", "az"), "adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    "hdfs": "pyarrow",
    "oci": "ocifs",
}
_OBJECTS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "memory"}  # an upload appears whole, or not at all
_PART = ".part"


class Store:
    """Files by name under one URL. ``folder``: where they lie when that is a folder of a file system, else None."""

    def __init__(self, files: Any, protocol: str, root: str, url: str) -> None:
        self._files, self._protocol, self._root, self.url = files, protocol, root.rstrip("/"), url
        self.folder = Path(root) if protocol in ("file", "local") else None

    def under(self, name: str) -> Store:
        """The store of one search within this one."""
        return Store(self._files, self._protocol, f"{self._root}/{name}", f"{self.url.rstrip('/')}/{name}")

    def check(self, for_s: float = 60.0) -> None:
        """Write, read and remove a file, making the folder where there is none: once, before a search begins.

        Raises ``InputError`` where that is refused, ``WorkFailed`` where the storage does not answer for ``for_s``.
        """
        name, word = f"check-{uuid.uuid4().hex[:12]}", b"skeltune"
        try:
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
            patiently(lambda: self.put_bytes(word, name), what=f"writing to {self.url}", for_s=for_s)
            found = patiently(lambda: self.read(name), what=f"reading {self.url}", for_s=for_s)
            patiently(lambda: self.remove(name), what=f"removing from {self.url}", for_s=for_s)
        except WorkFailed:
            raise
        except Exception as error:  # each library refuses with errors of its own
            raise InputError(f"{self.url}: cannot be written and read: {in_words(error)}") from error
        if found != word:
            raise InputError(f"{self.url}: does not give back what was written to it")

    def put(self, local: Path, name: str) -> None:
        """Copy a file into the store; readers see it whole or not at all."""
        self._bring(
            name,
            lambda temporary: shutil.copyfile(local, temporary),
            lambda path: self._files.put_file(str(local), path),
        )

    def put_bytes(self, data: bytes, name: str) -> None:
        """As :meth:`put`, for a few bytes."""
        self._bring(name, lambda temporary: temporary.write_bytes(data), lambda path: self._files.pipe_file(path, data))

    def _bring(self, name: str, write: Callable[[Path], Any], upload: Callable[[str], Any]) -> None:
        path = self._path(name)
        if self.folder is not None:
            self._still_there()
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            with beside(target) as temporary:
                write(temporary)
                to_disk(temporary)
                temporary.replace(target)
        elif self._protocol in _OBJECTS:
            upload(path)
        else:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            temporary_path = f"{path}.{uuid.uuid4().hex[:12]}{_PART}"
            upload(temporary_path)
            self._files.mv(temporary_path, path)

    def get(self, name: str, local: Path) -> bool:
        """Bring a file to ``local``, by rename; False when the store has none of that name."""
        local.parent.mkdir(parents=True, exist_ok=True)
        with beside(local) as temporary:
            try:
                self._files.get_file(self._path(name), str(temporary))
            except FileNotFoundError:
                self._still_there()
                return False
            to_disk(temporary)
            temporary.replace(local)
        return True

    def read(self, name: str) -> bytes | None:
        """A small file's bytes; None when the store has none of that name."""
        try:
            return bytes(self._files.cat_file(self._path(name)))
        except FileNotFoundError:
            self._still_there()
            return None

    def names(self, prefix: str = "") -> list[str]:
        """Names of the files straight in the folder ``prefix``, sorted; each begins with it. No folder: no names."""
        return self._list(prefix, "file")

    def folders(self, prefix: str = "") -> list[str]:
        """Names of the folders straight in the folder ``prefix``, sorted."""
        return self._list(prefix, "directory")

    def _list(self, prefix: str, kind: str) -> list[str]:
        # `ls` raises what goes wrong; fsspec's `find` takes a folder that it cannot read for an empty one.
        folder = self._path(prefix) if prefix else self._root
        self._files.invalidate_cache()
        try:
            found = self._files.ls(folder, detail=True)
        except FileNotFoundError:
            self._still_there()
            return []
        paths = {entry["name"].strip("/") for entry in found if entry["type"] == kind}
        leaves = {path.rpartition("/")[2] for path in paths - {folder.strip("/")}}  # `ls` of a file is the file
        return sorted(f"{prefix}/{leaf}" if prefix else leaf for leaf in leaves if not leaf.endswith(_PART))

    def remove(self, name: str) -> None:
        """Remove a file if it is there, and its folder once that is empty."""
        path = self._path(name)
        try:
            self._files.rm_file(path)
        except FileNotFoundError:
            self._still_there()
        if self.folder is not None and Path(path).parent != self.folder:
            try:
                Path(path).parent.rmdir()
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                    raise

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _still_there(self) -> None:
        """Tell a file that is missing from a mount that is: nothing is made anew under a mount point that lost it."""
        if self.folder is not None and not self.folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder))


def open_store(url: str) -> Store:
    """The store behind ``url``: a path, or a URL that fsspec knows. Touches no network; :meth:`Store.check` does.

    Raises ``InputError`` for a URL that cannot be right, that holds a password, or whose package is not installed.
    """
    import fsspec  # type: ignore[import-untyped]

    protocol, rest = _parts(url)
    try:
        kind = fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        needs = f"the package {package}; on every node: pip install {package}" if package else str(error)
        raise InputError(f"{url}: {protocol}:// needs {needs}") from error
    except ValueError as error:
        known = did_you_mean(protocol, ("file", "memory", *_PACKAGES))
        raise InputError(f"{url}: '{protocol}' is no storage that we know{known}") from error
    root = str(Path(rest).expanduser().absolute()) if protocol in ("file", "local") else kind._strip_protocol(url)
    if not root.strip("/"):
        raise InputError(f"{url}: names no bucket or folder")
    try:
        options = kind._get_kwargs_from_urls(url) if protocol not in ("file", "local") else {}
        files = kind(**options, **({"use_listings_cache": False} if protocol in _OBJECTS else {}))
    except Exception as error:  # rights that cannot be found are told by errors of each library's own
        raise InputError(f"{url}: cannot be opened: {in_words(error)}") from error
    return Store(files, protocol, root, url if protocol != "file" or "://" in url else root)


def _parts(url: str) -> tuple[str, str]:
    """Protocol and path. A wrong URL is not repeated where it holds a secret."""
    if not url.strip():
        raise InputError("an empty URL names no storage")
    if "::" in url:
        raise InputError("chained URLs (with ::) cannot be written to; give the storage's own URL")
    if "://" not in url:
        return "file", url
    try:
        found = urlsplit(url)
    except ValueError as error:
        raise InputError(f"not a URL ({error})") from None
    if ":" in found.netloc.rpartition("@")[0] or (found.query and found.scheme != "file"):
        raise InputError(
            f"the {found.scheme}:// URL holds a password or key: URLs stand in logs and process lists; "
            "leave it out and give it where the storage's library looks (environment, configuration file, role)"
        )
    rest = found.netloc + found.path
    if found.scheme in ("file", "local") and found.netloc:
        raise InputError(f"{url}: a file URL has three slashes: file:///{rest}")
    return found.scheme, url.partition("://")[2] if found.scheme in ("file", "local") else rest
