"""Signatures of a manifest by one's own Ed25519 key, in OpenSSH's format: `ssh-keygen -Y verify` checks them as well.

A signature is over the bytes of ``SHA256SUMS`` and the repository it is pushed to, so it covers every file the manifest
lists and is worth nothing under another name. It does not say which commit is the newest. Format: PROTOCOL.sshsig of
OpenSSH; normative for this project: docs/FORMAT.md. `cryptography` is imported when a key is read, not before.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bignas_zoo.errors import IntegrityError, LocalIOError, UsageError
from bignas_zoo.files import names
from bignas_zoo.files.say import Say, silent

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PASSWORD = "BIGNAS_ZOO_SIGN_PASSWORD"
INSTALL = "pip install 'bignas-zoo[sign]'."
MAKE_KEY = "Make a pair with `ssh-keygen -t ed25519 -f KEY`; KEY signs, KEY.pub verifies."
MAX_KEY, MAX_SIGNATURE = 16 << 10, 4 << 10
KIND, MAGIC, VERSION = b"ssh-ed25519", b"SSHSIG", 1
HASHES: dict[bytes, Callable[[bytes], hashlib._Hash]] = {b"sha512": hashlib.sha512, b"sha256": hashlib.sha256}
ARMOUR = re.compile(rb"-----BEGIN SSH SIGNATURE-----\s+([A-Za-z0-9+/=\s]+?)\s+-----END SSH SIGNATURE-----\s*")


def purpose(repo: str) -> str:
    """Return what a signature is for, OpenSSH's "namespace": the manifest of this repository and nothing else."""
    return f"{repo}@bignas-zoo"


@dataclass(frozen=True)
class Signer:
    """A private key, ready to sign. Nothing of it is ever printed."""

    _key: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"Signer({self.fingerprint})"

    @property
    def fingerprint(self) -> str:
        """Its public key's fingerprint."""
        return fingerprint(self._public)

    @property
    def _public(self) -> bytes:
        return bytes(self._key.public_key().public_bytes_raw())

    def sign(self, data: bytes, repo: str) -> bytes:
        """Return the signature file of a manifest; the same bytes each time.

        Args:
            data: bytes of the manifest.
            repo: ``ORG/NAME`` it is pushed to.
        """
        name = purpose(repo).encode()
        signature = self._key.sign(_signed_bytes(data, name, b"sha512"))
        parts = (_string(KIND) + _string(self._public), name, b"", b"sha512", _string(KIND) + _string(signature))
        text = base64.b64encode(MAGIC + struct.pack(">I", VERSION) + b"".join(map(_string, parts)))
        lines = [text[i : i + 70] for i in range(0, len(text), 70)]
        return b"\n".join([b"-----BEGIN SSH SIGNATURE-----", *lines, b"-----END SSH SIGNATURE-----", b""])


@dataclass(frozen=True)
class Verifier:
    """A public key.

    Attributes:
        public: its 32 bytes.
        source: the file it is from.
    """

    public: bytes
    source: Path

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it."""
        return fingerprint(self.public)

    def check(self, data: bytes, signature: bytes | None, repo: str, where: str) -> None:
        """Check that this key signed these bytes for this repository.

        Args:
            data: bytes of the manifest.
            signature: bytes of the signature file; None if there is none.
            repo: ``ORG/NAME`` it was fetched from.
            where: what to call the repository in messages.

        Raises:
            IntegrityError: it did not.
        """
        if signature is not None and len(signature) > MAX_SIGNATURE:
            raise IntegrityError(f"{where}: {names.SIGNATURE} is no signature: over {MAX_SIGNATURE:,} bytes.")
        if signature is None:
            raise IntegrityError(
                f"{where}: is not signed: it has no {names.SIGNATURE}. Ask its owner to push it with --sign, or "
                "leave out --verify-key if you trust the Hub."
            )
        try:
            parsed = _parse(signature)
        except ValueError as error:
            raise IntegrityError(f"{where}: {names.SIGNATURE} is no signature ({error}).") from error
        if parsed.public != self.public:
            raise IntegrityError(
                f"{where}: signed by another key, {fingerprint(parsed.public)}; {self.source} is {self.fingerprint}. "
                "Nothing is used; ask its owner which key is right."
            )
        if parsed.purpose != purpose(repo).encode():
            raise IntegrityError(
                f"{where}: its signature is for '{_shown(parsed.purpose)}', not for '{purpose(repo)}'. It was copied "
                "from elsewhere; nothing is used."
            )
        if not _is_good(self.public, parsed, data):
            raise IntegrityError(
                f"{where}: the signature is not over this {names.SUMS}: one of the two was changed. Nothing is used."
            )


def _shown(data: bytes) -> str:
    return "".join(c if c.isprintable() else "?" for c in data[:120].decode("utf-8", "replace"))


def fingerprint(public: bytes) -> str:
    """Return the fingerprint of a public key as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(_string(KIND) + _string(public)).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def read_signer(path: Path, say: Say = silent) -> Signer:
    """Read a private key: OpenSSH's form, or PKCS #8 as `openssl genpkey -algorithm ed25519` writes it.

    A key with a password asks for it on the terminal; elsewhere the environment variable `PASSWORD` has it.

    Args:
        path: the file.
        say: told if others can read the file.

    Raises:
        LocalIOError: it cannot be read.
        UsageError: it is no Ed25519 private key, the password is missing or wrong, or `cryptography` is.
    """
    data = _read(path)
    if b"PRIVATE KEY" not in data:
        public = "is a public key" if data.startswith(KIND) or b"PUBLIC KEY" in data else "is no private key"
        raise UsageError(f"{path}: {public}; to sign, the private one is needed. {MAKE_KEY}")
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        say(f"{path}: other users can read this private key; `chmod 600` keeps it to yourself")
    with _errors(path, "private"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

        load = load_ssh_private_key if b"BEGIN OPENSSH" in data else load_pem_private_key
        try:
            key = load(data, None)
        except TypeError:  # how the library says that a password is needed; PEM and OpenSSH alike
            key = load(data, _password(path))
        if isinstance(key, Ed25519PrivateKey):
            return Signer(key)
    raise UsageError(f"{path}: not an Ed25519 key, the one kind used here. {MAKE_KEY}")


def read_verifier(path: Path) -> Verifier:
    """Read a public key: a line as in KEY.pub of `ssh-keygen`, or PEM as `openssl pkey -pubout` writes it.

    Raises:
        LocalIOError: it cannot be read.
        UsageError: it is no Ed25519 public key, or `cryptography` is missing.
    """
    data = _read(path)
    if b"PRIVATE KEY" in data:
        raise UsageError(f"{path}: is a private key; to verify, the public one is needed, e.g. {path}.pub.")
    if len([line for line in data.splitlines() if line.strip()]) > 1 and b"-----BEGIN" not in data:
        raise UsageError(
            f"{path}: holds several lines, and one public key is asked for. Put it into a file of its own."
        )
    with _errors(path, "public"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key

        key = (load_pem_public_key if b"-----BEGIN" in data else load_ssh_public_key)(data.strip())
        if isinstance(key, Ed25519PublicKey):
            return Verifier(key.public_bytes_raw(), path)
    raise UsageError(f"{path}: not an Ed25519 key, the one kind used here. {MAKE_KEY}")


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # opening a FIFO would wait for ever
            raise UsageError(f"{path}: is no regular file, so no key. {MAKE_KEY}")
        with path.open("rb") as file:
            data = file.read(MAX_KEY + 1)
    except OSError as error:
        raise LocalIOError(f"{path}: cannot be read ({error.strerror}). {MAKE_KEY}") from error
    if len(data) > MAX_KEY:
        raise UsageError(f"{path}: too large for a key. {MAKE_KEY}")
    return data


@contextlib.contextmanager
def _errors(path: Path, kind: str) -> Iterator[None]:
    """Turn what the library raises into errors of ours; nothing of what it says, which may be about the key."""
    try:
        yield
    except UsageError:
        raise
    except ImportError as error:
        raise UsageError(f"signatures need the package cryptography. {INSTALL}") from error
    except (ValueError, TypeError) as error:
        password = ", or the password is wrong" if kind == "private" else ""
        raise UsageError(f"{path}: not a {kind} key{password} ({type(error).__name__}). {MAKE_KEY}") from None
    except Exception as error:  # noqa: BLE001  a kind of its own for what it does not support
        raise UsageError(
            f"{path}: a {kind} key of a kind that cannot be read here ({type(error).__name__}). If it has a password: "
            f"{INSTALL}"
        ) from None


def _password(path: Path) -> bytes:
    given = os.environ.get(PASSWORD)
    if given is not None:
        return given.encode()
    if not sys.stdin or not sys.stdin.isatty():
        raise UsageError(f"{path}: has a password, and stdin is no terminal to ask on. Set {PASSWORD}.")
    import getpass

    return getpass.getpass(f"Password of {path}: ").encode()


@dataclass(frozen=True)
class _Parsed:
    public: bytes
    purpose: bytes
    hash: bytes
    signature: bytes


def _parse(file: bytes) -> _Parsed:
    """Read a signature file; raises ValueError."""
    armour = ARMOUR.fullmatch(file) if len(file) <= MAX_SIGNATURE else None
    if not armour:
        raise ValueError("it does not look like one of `ssh-keygen -Y sign`")
    try:
        blob = base64.b64decode(b"".join(armour[1].split()), validate=True)
    except binascii.Error as error:
        raise ValueError("its base64 is damaged") from error
    if blob[:6] != MAGIC or blob[6:10] != struct.pack(">I", VERSION):
        raise ValueError("it is of another format or version")
    public, name, reserved, digest, signature = _strings(blob[10:], 5)
    (kind, key), (signed_as, raw) = _strings(public, 2), _strings(signature, 2)
    if kind != KIND or signed_as != KIND or len(key) != 32 or len(raw) != 64:
        raise ValueError("it is not by an Ed25519 key")
    if reserved or digest not in HASHES:
        raise ValueError("it uses another hash than SHA-256 or SHA-512")
    return _Parsed(key, name, digest, raw)


def _is_good(public: bytes, parsed: _Parsed, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key: Ed25519PublicKey = Ed25519PublicKey.from_public_bytes(public)
    try:
        key.verify(parsed.signature, _signed_bytes(data, parsed.purpose, parsed.hash))
    except InvalidSignature:
        return False
    return True


def _signed_bytes(data: bytes, name: bytes, digest: bytes) -> bytes:
    return MAGIC + b"".join(map(_string, (name, b"", digest, HASHES[digest](data).digest())))


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _strings(blob: bytes, count: int) -> list[bytes]:
    """Cut bytes into exactly so many strings, each after its length; raises ValueError."""
    strings = []
    for _ in range(count):
        size = int.from_bytes(blob[:4], "big")
        if len(blob) < 4 + size or len(blob) < 4:
            raise ValueError("it is cut off")
        strings.append(blob[4 : 4 + size])
        blob = blob[4 + size :]
    if blob:
        raise ValueError("something follows it")
    return strings
