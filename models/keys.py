"""Ed25519 keys: who signed an envelope, and how keys are kept on disk."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from models.errors import InvalidInputError, SettingsError

KEY_BYTES = 32
SIGNATURE_BYTES = 64
KEY_ID_DIGITS = 16
_PRIVATE_MODE = 0o600


def key_id_of(public_key: bytes) -> str:
    """Return the short name of a public key: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public_key).hexdigest()[:KEY_ID_DIGITS]


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key; signs, and never shows itself.

    Parameters
    ----------
    seed
        The 32 secret bytes from which Ed25519 derives everything.

    Raises
    ------
    InvalidInputError
        If ``seed`` is not 32 bytes.
    """

    seed: bytes = field(repr=False)
    _key: Ed25519PrivateKey = field(init=False, repr=False, compare=False)
    public_key: bytes = field(init=False)
    key_id: str = field(init=False)

    def __post_init__(self) -> None:
        if len(self.seed) != KEY_BYTES:
            raise InvalidInputError(f"seed: expected {KEY_BYTES} bytes, got {len(self.seed)}")
        key = Ed25519PrivateKey.from_private_bytes(self.seed)
        public_key = key.public_key().public_bytes_raw()
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "public_key", public_key)
        object.__setattr__(self, "key_id", key_id_of(public_key))

    @classmethod
    def generate(cls) -> "Signer":
        """Return a new key from the operating system's randomness."""
        return cls(os.urandom(KEY_BYTES))

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature; the same message gives the same bytes."""
        return self._key.sign(message)


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key.

    Parameters
    ----------
    public_key
        Its 32 bytes.

    Raises
    ------
    InvalidInputError
        If ``public_key`` is not an Ed25519 public key.
    """

    public_key: bytes
    _key: Ed25519PublicKey = field(init=False, repr=False, compare=False)
    key_id: str = field(init=False)

    def __post_init__(self) -> None:
        try:
            key = Ed25519PublicKey.from_public_bytes(self.public_key)
        except ValueError as error:
            raise InvalidInputError(
                f"public_key: expected the {KEY_BYTES} bytes of an Ed25519 key, "
                f"got {len(self.public_key)} bytes"
            ) from error
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "key_id", key_id_of(self.public_key))

    @classmethod
    def from_hex(cls, text: str) -> "Verifier":
        """Return the key written as 64 hexadecimal digits, as registries and settings hold it."""
        try:
            return cls(bytes.fromhex(text))
        except ValueError as error:
            raise InvalidInputError(
                "public key: expected 64 hexadecimal digits of an Ed25519 key"
            ) from error

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Return whether ``signature`` of ``message`` was made with the matching private key."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def save_signer(signer: Signer, path: Path) -> None:
    """Write the private key as PKCS #8 PEM, readable by its owner alone; refuse to overwrite.

    Raises
    ------
    SettingsError
        If ``path`` exists already.
    """
    pem = Ed25519PrivateKey.from_private_bytes(signer.seed).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_MODE)
    except FileExistsError as error:
        raise SettingsError(
            f"{path}: expected no file there, a key is never overwritten; move it away"
        ) from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)


def load_signer(path: Path) -> Signer:
    """Read a private key: PKCS #8 PEM, or 64 hexadecimal digits of the seed.

    Raises
    ------
    SettingsError
        If the file is missing, open to others than its owner, or holds no Ed25519 key.
    """
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: expected a private key file, cannot read it") from error
    if mode & 0o077:
        raise SettingsError(f"{path}: expected mode 600, got {mode & 0o777:o}; chmod 600 it")
    return _parse_private(data, path)


def _parse_private(data: bytes, path: Path) -> Signer:
    try:
        if not data.startswith(b"-----BEGIN"):
            return Signer(bytes.fromhex(data.decode("ascii").strip()))
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise SettingsError(
            f"{path}: expected an unencrypted Ed25519 key as PEM or 64 hexadecimal digits"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"{path}: expected an Ed25519 key, got another kind of key")
    return Signer(key.private_bytes_raw())
