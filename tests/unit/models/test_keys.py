"""Ed25519 keys: published vectors, files, refusals."""

from pathlib import Path

import pytest

from models.errors import InvalidInputError, SettingsError
from models.keys import Signer, Verifier, load_signer, save_signer

# RFC 8032, section 7.1, test 2.
RFC_SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
RFC_PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
RFC_SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_signatures_are_those_of_rfc_8032() -> None:
    """Key, public key and signature of the RFC's second test agree."""
    signer = Signer(RFC_SEED)
    assert signer.public_key == RFC_PUBLIC
    assert signer.sign(b"\x72") == RFC_SIGNATURE
    assert Verifier(RFC_PUBLIC).verify(RFC_SIGNATURE, b"\x72")


def test_a_changed_message_or_signature_does_not_verify() -> None:
    """One flipped bit in either is enough."""
    verifier = Verifier(RFC_PUBLIC)
    assert not verifier.verify(RFC_SIGNATURE, b"\x73")
    assert not verifier.verify(bytes([RFC_SIGNATURE[0] ^ 1]) + RFC_SIGNATURE[1:], b"\x72")


def test_signer_and_verifier_agree_on_the_key_id() -> None:
    """The key id is a function of the public key alone."""
    signer = Signer.generate()
    assert Verifier(signer.public_key).key_id == signer.key_id
    assert Verifier.from_hex(signer.public_key.hex()).key_id == signer.key_id
    assert Signer.generate().key_id != signer.key_id


def test_a_signer_does_not_show_its_seed() -> None:
    """Neither the bytes nor their hexadecimal digits are in the repr."""
    shown = repr(Signer(RFC_SEED))
    assert RFC_SEED.hex() not in shown
    assert repr(RFC_SEED) not in shown


def test_a_saved_key_is_readable_by_its_owner_alone_and_comes_back(tmp_path: Path) -> None:
    """PEM file, mode 600, same key."""
    path = tmp_path / "keys" / "alpha.pem"
    save_signer(Signer(RFC_SEED), path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_signer(path) == Signer(RFC_SEED)


def test_a_key_file_may_hold_the_seed_in_hexadecimal(tmp_path: Path) -> None:
    """As secret stores often give it."""
    path = tmp_path / "alpha.hex"
    path.write_text(RFC_SEED.hex() + "\n")
    path.chmod(0o600)
    assert load_signer(path).public_key == RFC_PUBLIC


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    """Saving twice to one place fails and leaves the first key."""
    path = tmp_path / "alpha.pem"
    save_signer(Signer(RFC_SEED), path)
    with pytest.raises(SettingsError, match="never overwritten"):
        save_signer(Signer.generate(), path)
    assert load_signer(path).public_key == RFC_PUBLIC


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The message says which mode is expected."""
    path = tmp_path / "alpha.hex"
    path.write_text(RFC_SEED.hex())
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="expected mode 600, got 644"):
        load_signer(path)


@pytest.mark.parametrize("content", [b"", b"zz" * 32, b"ab" * 31, b"-----BEGIN NOTHING-----\n"])
def test_a_file_without_a_key_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    """Whatever else it holds."""
    path = tmp_path / "alpha.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SettingsError, match=r"alpha\.key"):
        load_signer(path)


def test_a_missing_key_file_is_refused_by_name(tmp_path: Path) -> None:
    """An operator sees the path."""
    with pytest.raises(SettingsError, match=r"nowhere\.pem"):
        load_signer(tmp_path / "nowhere.pem")


@pytest.mark.parametrize("text", ["", "00", "zz" * 32])
def test_a_public_key_that_is_none_is_refused(text: str) -> None:
    """Wrong length or no hexadecimal digits."""
    with pytest.raises(InvalidInputError):
        Verifier.from_hex(text)


def test_a_seed_of_another_length_is_refused() -> None:
    """Ed25519 seeds have 32 bytes."""
    with pytest.raises(InvalidInputError, match="expected 32 bytes, got 31"):
        Signer(bytes(31))
