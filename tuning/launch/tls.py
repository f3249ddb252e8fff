"""Certificates for one cluster: an authority that signs once and is thrown away, and one certificate for all nodes.

Ray's processes check the address that they dial against the certificate, so it names every node; a node with another
address needs new ones. This keeps a listener on the network from reading; who may speak is the token's matter.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from methods.errors import InputError, WorkFailed

YEARS = 2  # a cluster is taken down long before

_CONFIG = """[req]
distinguished_name = name
[name]
[ca]
default_ca = here
[here]
dir = {folder}
new_certs_dir = {folder}
database = {folder}/index
serial = {folder}/serial
default_md = sha256
policy = any
unique_subject = no
copy_extensions = none
[any]
commonName = supplied
[authority]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign
subjectKeyIdentifier = hash
[node]
basicConstraints = critical,CA:false
keyUsage = critical,digitalSignature,keyEncipherment
extendedKeyUsage = serverAuth,clientAuth
subjectAltName = {names}
"""


def make_certificates(folder: Path, addresses: Sequence[str]) -> None:
    """Write ``ca.crt``, ``node.crt`` and ``node.key`` (0600) to ``folder``; ``addresses`` are all nodes'.

    They are valid from yesterday on, so that a node whose clock is off takes them too. Raises ``InputError`` without
    openssl, and for a name that cannot stand in a certificate.
    """
    program = shutil.which("openssl")
    if program is None:
        raise InputError("--tls needs the program 'openssl' on this machine, and it is not on the PATH")
    names = ",".join(dict.fromkeys(_alternative(address) for address in (*addresses, "127.0.0.1", "::1", "localhost")))
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    dates = ["-startdate", f"{now - day:%Y%m%d%H%M%SZ}", "-enddate", f"{now + 365 * YEARS * day:%Y%m%d%H%M%SZ}"]
    with tempfile.TemporaryDirectory(prefix="skeltune-tls-") as temporary:
        work = Path(temporary)  # 0700; the authority's key never leaves it

        def openssl(*arguments: str) -> None:
            done = subprocess.run(
                [program, *arguments], cwd=work, capture_output=True, text=True, check=False, umask=0o077
            )
            if done.returncode:
                raise WorkFailed(f"openssl {arguments[0]} failed: {' '.join(done.stderr.split())[-400:]}")

        (work / "config").write_text(_CONFIG.format(folder=work, names=names), encoding="utf-8")
        (work / "index").write_text("")
        (work / "serial").write_text(os.urandom(15).hex() + "0A")
        for who in ("authority", "node"):
            openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", f"{who}.key")
            subject = ["-subj", f"/CN=skeltune {who}"]
            openssl("req", "-new", "-config", "config", "-key", f"{who}.key", *subject, "-out", f"{who}.csr")
        sign = ["ca", "-batch", "-notext", "-config", "config", *dates]
        openssl(*sign, "-selfsign", "-extensions", "authority", "-keyfile", "authority.key",
                "-in", "authority.csr", "-out", "authority.crt")  # fmt: skip
        openssl(*sign, "-extensions", "node", "-cert", "authority.crt", "-keyfile", "authority.key",
                "-in", "node.csr", "-out", "node.crt")  # fmt: skip
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for source, target in (("authority.crt", "ca.crt"), ("node.crt", "node.crt"), ("node.key", "node.key")):
            copy = folder / f".{target}.part"
            shutil.copyfile(work / source, copy, follow_symlinks=False)
            copy.chmod(0o600)
            os.replace(copy, folder / target)


def _alternative(address: str) -> str:
    """One entry of subjectAltName."""
    try:
        return f"IP:{ipaddress.ip_address(address)}"
    except ValueError:
        if not address or not address.isascii() or set(address) - set("abcdefghijklmnopqrstuvwxyz0123456789-."):
            raise InputError(f"{address!r} is no host name or IP address that a certificate could name") from None
        return f"DNS:{address}"
