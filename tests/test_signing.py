"""Signed manifests: ssh-keygen and openssl are the judges of what we sign, and their signatures are put to us."""

from __future__ import annotations

import base64
import importlib.util
import os
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hub_fixtures import REPO, changed, push
from hub_server import HubServer

import bignas_zoo as bz
from bignas_zoo.cli.main import main
from bignas_zoo.errors import IntegrityError, LocalIOError, UsageError
from bignas_zoo.files import store
from bignas_zoo.hub import fetching, pushing, signing
from bignas_zoo.hub.pushing import Bundle

pytest.importorskip("cryptography")
needs_ssh = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen")
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl")
SECRET = "canary-password"


def call(*command: object, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(c) for c in command], input=data, capture_output=True, check=False, timeout=60)


def make_key(place: Path, name: str = "key") -> Path:
    """Make a pair without any tool."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    path = place / name
    path.write_bytes(
        key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    )  # fmt: skip
    path.chmod(0o600)
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    path.with_name(f"{name}.pub").write_bytes(public + b" somebody@somewhere\n")
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path)


def signed_push(made: Bundle, key: Path, repo: str = REPO) -> pushing.PushResult:
    return push(pushing.signed(made, repo, signing.read_signer(key)), repo)


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    everything = f"{result.output}\n{result.stderr}\n{''.join(traceback.format_exception(result.exception))}"
    assert "internal error" not in everything
    assert "PRIVATE KEY" not in everything
    assert SECRET not in everything
    return result


@needs_ssh
def test_ssh_keygen_accepts_what_push_signs(hub: HubServer, tiny_bundle: Bundle, key: Path, tmp_path: Path) -> None:
    signed_push(tiny_bundle, key)
    head = hub.repos[REPO].head()
    public = key.with_name("key.pub").read_text()
    allowed, signature = tmp_path / "allowed", tmp_path / "sums.sig"
    allowed.write_text(f"zoo {public}")
    signature.write_bytes(head["SHA256SUMS.sig"])

    def verify(data: bytes, purpose: str) -> int:
        options = ("-f", allowed, "-I", "zoo", "-n", purpose, "-s", signature)
        return call("ssh-keygen", "-Y", "verify", *options, data=data).returncode

    assert verify(head["SHA256SUMS"], f"{REPO}@bignas-zoo") == 0
    assert verify(head["SHA256SUMS"] + b" ", f"{REPO}@bignas-zoo") != 0
    assert verify(head["SHA256SUMS"], "zoo/other@bignas-zoo") != 0
    made = call("ssh-keygen", "-l", "-f", key.with_name("key.pub")).stdout.decode()
    assert signing.read_signer(key).fingerprint in made.split()


@needs_ssh
@pytest.mark.parametrize("digest", ["sha512", "sha256"])
def test_a_signature_of_ssh_keygen_with_its_own_key_is_accepted(tmp_path: Path, digest: str) -> None:
    key, file = tmp_path / "id", tmp_path / "SHA256SUMS"
    assert call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a b", "-f", key).returncode == 0
    file.write_bytes(b"# bignas-zoo/manifest/1\n")
    options = ("-f", key, "-n", f"{REPO}@bignas-zoo", "-O", f"hashalg={digest}")
    assert call("ssh-keygen", "-Y", "sign", *options, file).returncode == 0
    made = file.with_name("SHA256SUMS.sig").read_bytes()
    public = signing.read_verifier(tmp_path / "id.pub")
    public.check(file.read_bytes(), made, REPO, "there")
    if digest == "sha512":  # Ed25519 signs the same bytes the same way
        assert signing.read_signer(key).sign(file.read_bytes(), REPO) == made
    with pytest.raises(IntegrityError, match="not over this SHA256SUMS"):
        public.check(b"other", made, REPO, "there")


@needs_openssl
def test_keys_of_openssl_with_and_without_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, locked, public = tmp_path / "plain.pem", tmp_path / "locked.pem", tmp_path / "public.pem"
    call("openssl", "genpkey", "-algorithm", "ed25519", "-out", plain)
    call("openssl", "pkey", "-in", plain, "-aes256", "-passout", f"pass:{SECRET}", "-out", locked)
    call("openssl", "pkey", "-in", plain, "-pubout", "-out", public)
    signature = signing.read_signer(plain).sign(b"data", REPO)
    signing.read_verifier(public).check(b"data", signature, REPO, "there")
    with pytest.raises(UsageError, match=r"has a password, and stdin is no terminal.*Set BIGNAS_ZOO_SIGN_PASSWORD"):
        signing.read_signer(locked)
    monkeypatch.setenv("BIGNAS_ZOO_SIGN_PASSWORD", SECRET)
    assert signing.read_signer(locked).sign(b"data", REPO) == signature
    assert SECRET not in repr(signing.read_signer(locked))
    monkeypatch.setenv("BIGNAS_ZOO_SIGN_PASSWORD", "wrong")
    with pytest.raises(UsageError, match="not a private key, or the password is wrong"):
        signing.read_signer(locked)
    monkeypatch.delenv("BIGNAS_ZOO_SIGN_PASSWORD")
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr("getpass.getpass", lambda prompt: SECRET)
    assert signing.read_signer(locked).sign(b"data", REPO) == signature


@needs_ssh
def test_a_key_of_ssh_keygen_with_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "id"
    call("ssh-keygen", "-q", "-t", "ed25519", "-a", "1", "-N", SECRET, "-f", key)
    with pytest.raises(UsageError, match="has a password"):
        signing.read_signer(key)
    monkeypatch.setenv("BIGNAS_ZOO_SIGN_PASSWORD", SECRET)
    if importlib.util.find_spec("bcrypt"):
        signature = signing.read_signer(key).sign(b"data", REPO)
        signing.read_verifier(tmp_path / "id.pub").check(b"data", signature, REPO, "there")
    else:
        with pytest.raises(UsageError, match=r"cannot be read here.*If it has a password: pip install"):
            signing.read_signer(key)


def test_get_with_the_key_and_the_command_line(hub: HubServer, slice_folder: Path, stand_ins: None, key: Path) -> None:
    result = run("push", slice_folder, "--repo", REPO, "--sign", key, "--yes")
    assert result.exit_code == 0, result.stderr
    assert "+ SHA256SUMS.sig" in result.output
    again = run("push", slice_folder, "--repo", REPO, "--sign", key, "--yes")
    assert "nothing to do" in again.output
    out = key.parent / "out"
    assert run("get", f"hf://{REPO}", "--verify-key", f"{key}.pub", "-o", out).exit_code == 0
    assert not (out / "SHA256SUMS.sig").exists()
    assert bz.Slice.from_pretrained(REPO, verify_key=f"{key}.pub", local_files_only=True).name == "tiny-s"
    other = make_key(key.parent, "other")
    refused = run("get", f"hf://{REPO}", "--verify-key", f"{other}.pub", "-o", key.parent / "no")
    assert refused.exit_code == 4
    assert signing.read_signer(key).fingerprint in refused.stderr
    assert not (key.parent / "no").exists()


def test_an_unsigned_slice_is_refused_before_any_file_is_fetched(
    hub: HubServer, tiny_bundle: Bundle, key: Path
) -> None:
    push(tiny_bundle)
    before = len(hub.requests)
    result = run("get", f"hf://{REPO}", "--verify-key", f"{key}.pub", "-o", key.parent / "out")
    assert result.exit_code == 4
    assert "is not signed: it has no SHA256SUMS.sig" in result.stderr
    fetched = {r.path.partition("/resolve/")[2].partition("/")[2] for r in hub.requests[before:]} - {""}
    assert fetched == {"SHA256SUMS"}
    assert fetching.fetch(f"hf://{REPO}").commit  # without the key it is a slice like any other
    with pytest.raises(IntegrityError, match="is not signed"):
        fetching.fetch(f"hf://{REPO}", verify_key=f"{key}.pub")
    assert fetching.fetch(f"hf://{REPO}").cached  # and a refusal harms no entry of the cache


def test_a_signature_over_another_manifest_or_for_another_repository(
    hub: HubServer, tiny_bundle: Bundle, key: Path, tmp_path: Path
) -> None:
    signed_push(tiny_bundle, key)
    good = hub.repos[REPO].head()["SHA256SUMS.sig"]
    newer = changed(tiny_bundle, tmp_path / "newer", "labels.txt", b"v\nw\nx\ny\nz\n")
    stale = newer.files["SHA256SUMS"].with_name("SHA256SUMS.sig")
    stale.write_bytes(good)
    push(Bundle(newer.slice, {**newer.files, "SHA256SUMS.sig": stale}, {}))
    with pytest.raises(IntegrityError, match="not over this SHA256SUMS: one of the two was changed"):
        fetching.fetch(f"hf://{REPO}", verify_key=f"{key}.pub")
    copied = tmp_path / "SHA256SUMS.sig"
    copied.write_bytes(good)
    push(Bundle(tiny_bundle.slice, {**tiny_bundle.files, "SHA256SUMS.sig": copied}, {}), "zoo/other")
    with pytest.raises(IntegrityError, match=r"signature is for 'zoo/tiny@bignas-zoo', not for 'zoo/other@bignas-zoo'"):
        fetching.fetch("hf://zoo/other", verify_key=f"{key}.pub")


def test_a_push_without_a_key_keeps_or_removes_the_signature(
    hub: HubServer, tiny_bundle: Bundle, key: Path, tmp_path: Path
) -> None:
    first = signed_push(tiny_bundle, key)
    again = push(tiny_bundle)  # the same content: the signature is still good
    assert (again.pushed, again.commit) == (False, first.commit)
    newer = changed(tiny_bundle, tmp_path / "newer", "labels.txt", b"v\nw\nx\ny\nz\n")
    result = push(newer)
    assert {c.path: c.kind for c in result.plan.changes}["SHA256SUMS.sig"] == "removed"
    assert "SHA256SUMS.sig" not in hub.repos[REPO].head()


def test_the_cache_keeps_the_signature_and_verifies_it_each_time(
    hub: HubServer, tiny_bundle: Bundle, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_push(tiny_bundle, key)
    fetched = fetching.fetch(f"hf://{REPO}")  # without a key
    signature = fetched.folder.parent / "SHA256SUMS.sig"
    requests = len(hub.requests)
    assert fetching.fetch(f"hf://{REPO}", offline=True, verify_key=f"{key}.pub").cached
    signature.unlink()
    with pytest.raises(IntegrityError, match=r"SHA256SUMS\.sig: missing.*Offline"):
        fetching.fetch(f"hf://{REPO}", offline=True, verify_key=f"{key}.pub")
    assert len(hub.requests) == requests
    assert not fetching.fetch(f"hf://{REPO}", verify_key=f"{key}.pub").cached  # online, it is fetched again
    assert signature.is_file()
    other = make_key(key.parent, "other")
    with pytest.raises(IntegrityError, match="signed by another key"):
        fetching.fetch(f"hf://{REPO}", offline=True, verify_key=f"{other}.pub")


def test_no_changed_or_cut_signature_is_accepted(key: Path) -> None:
    good = signing.read_signer(key).sign(b"data", REPO)
    public = signing.read_verifier(key.with_name("key.pub"))
    public.check(b"data", good, REPO, "there")
    head, *body, tail, _ = good.split(b"\n")
    blob = base64.b64decode(b"".join(body))
    for place in range(len(blob)):
        bad = bytearray(blob)
        bad[place] ^= 1
        with pytest.raises(IntegrityError):
            public.check(b"data", b"\n".join([head, base64.b64encode(bad), tail, b""]), REPO, "there")
    for end in range(len(blob)):
        with pytest.raises(IntegrityError):
            public.check(b"data", b"\n".join([head, base64.b64encode(blob[:end]), tail, b""]), REPO, "there")
    for text in (b"", good[:-40], good + b"x", good * 2, b"\xff" * 100, good.replace(b"SSH", b"PGP"), good * 30):
        with pytest.raises(IntegrityError, match="is no signature"):
            public.check(b"data", text, REPO, "there")


def test_files_that_are_no_such_key(key: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    public, other = key.with_name("key.pub"), generate_private_key(SECP256R1())
    curve, noise, large = tmp_path / "curve", tmp_path / "noise", tmp_path / "large"
    curve.write_bytes(
        other.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    )  # fmt: skip
    (tmp_path / "curve.pub").write_bytes(
        other.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    )
    noise.write_bytes(b"\0\xff noise")
    large.write_bytes(b"x" * (1 << 20))
    with pytest.raises(
        UsageError, match=r"key: is a private key; to verify, the public one is needed, e\.g\. .*key\.pub"
    ):
        signing.read_verifier(key)
    for path, why in (
        (public, "is a public key; to sign"),
        (noise, "is no private key"),
        (large, "too large for a key"),
    ):
        with pytest.raises(UsageError, match=rf"{why}.*ssh-keygen -t ed25519"):
            signing.read_signer(path)
    two, pipe = tmp_path / "two.pub", tmp_path / "pipe"
    two.write_bytes(2 * (public.read_bytes().strip() + b"\n"))
    with pytest.raises(UsageError, match="holds several lines, and one public key is asked for"):
        signing.read_verifier(two)
    os.mkfifo(pipe)
    for read in (signing.read_signer, signing.read_verifier):
        with pytest.raises(UsageError, match="is no regular file, so no key"):
            read(pipe)
    for path in (noise, large):
        with pytest.raises(UsageError, match="not a public key|cannot be read here|too large"):
            signing.read_verifier(path)
    with pytest.raises(UsageError, match="not an Ed25519 key"):
        signing.read_signer(curve)
    with pytest.raises(UsageError, match="not an Ed25519 key"):
        signing.read_verifier(tmp_path / "curve.pub")
    with pytest.raises(LocalIOError, match="cannot be read"):
        signing.read_signer(tmp_path / "none")


def test_a_key_that_others_can_read_is_a_remark(key: Path) -> None:
    said: list[str] = []
    signing.read_signer(key, said.append)
    assert said == []
    key.chmod(0o644)
    signing.read_signer(key, said.append)
    assert said == [f"{key}: other users can read this private key; `chmod 600` keeps it to yourself"]


def test_without_the_extra(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for read, path in ((signing.read_signer, key), (signing.read_verifier, key.with_name("key.pub"))):
        with pytest.raises(UsageError, match=r"need the package cryptography\. pip install 'bignas-zoo\[sign\]'"):
            read(path)


def test_a_key_is_for_the_hub_only(key: Path, slice_folder: Path, hub: HubServer) -> None:
    with pytest.raises(UsageError, match="a key verifies what was pushed to the Hub"):
        bz.get("bignas-cifar10-s", verify_key=f"{key}.pub", output=key.parent / "out")
    with pytest.raises(UsageError, match="a key verifies what was pushed to the Hub"):
        bz.load("bignas-cifar10-s", verify_key=f"{key}.pub")
    with pytest.raises(UsageError, match="is a slice folder"):
        bz.Slice.from_pretrained(str(slice_folder), verify_key=f"{key}.pub")
    with pytest.raises(UsageError, match="is a public key; to sign, the private one is needed"):
        bz.push(slice_folder, REPO, sign=f"{key}.pub")
    assert hub.requests == []
    assert not (store.cache_root() / "hub").exists()
