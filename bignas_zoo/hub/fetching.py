"""From ``hf://ORG/NAME`` to a slice folder in the cache: one commit's files, each checked at fetch and at load.

An entry of the cache is a folder ``hub/ORG--NAME/COMMIT`` with the manifest, a digest of it, config.json, and
``slice``, a slice folder. It is made beside its place and renamed; what a branch or tag was last seen to mean is in
``refs``, for use offline.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bignas_zoo.errors import BigNASError, IntegrityError, LocalIOError, NetworkError
from bignas_zoo.files import leftovers, names, store
from bignas_zoo.files.records import reading
from bignas_zoo.files.say import Say, silent
from bignas_zoo.hub import layout, manifest
from bignas_zoo.hub.address import COMMIT, Address, parse
from bignas_zoo.hub.client import Hub, State, is_offline, is_same
from bignas_zoo.hub.signing import MAX_SIGNATURE, Verifier, read_verifier
from bignas_zoo.zoo import slice_folder

#: A file of a slice is smaller than this.
MAX_BYTES = 2 << 30
#: In an entry of the cache: the sha256 of the manifest, which lists all others, and of its signature.
OTHER_PLACE = "Free space there, or set BIGNAS_ZOO_CACHE to another folder."


@dataclass(frozen=True)
class Fetched:
    """A slice of the Hub in the cache, all files checked.

    Attributes:
        address: what was asked for.
        commit: what that is.
        folder: its slice folder; not to be written to.
        cached: whether it was there already.
    """

    address: Address
    commit: str
    folder: Path
    cached: bool


def fetch(
    address: str | Address, *, offline: bool = False, token: str | None = None, verify_key: str | Path | None = None,
    say: Say = silent,
) -> Fetched:  # fmt: skip
    """Fetch a slice of the Hub, unless the cache has it.

    Args:
        address: ``hf://ORG/NAME`` or ``hf://ORG/NAME@REVISION``.
        offline: make no request at all: what a branch or tag meant when it was last fetched counts.
        token: for a private repository; by default HF_TOKEN, or that of ``hf auth login``.
        verify_key: file of the public key that must have signed it; it is checked before any file is fetched.
        say: told what is going on.

    Raises:
        UsageError: this is no address.
        NotFoundError: no such repository, revision or file.
        AuthError: the repository is private and the token does not open it.
        NetworkError: the Hub cannot be reached or failed; or offline, and the cache lacks it.
        IntegrityError: a file is not what the manifest says, after a second try; or the repository is no slice; or
            it is not signed by `verify_key`.
        LocalIOError: the cache cannot be written.
    """
    wanted = parse(address) if isinstance(address, str) else address
    key = None if verify_key is None else read_verifier(Path(verify_key))
    home = store.cache_root() / names.HUB / wanted.folder
    offline = offline or is_offline()
    for place in (home, home / names.REFS):
        leftovers.remove(place)
    hub, state = None, None
    if wanted.is_commit:
        commit = wanted.revision
    elif offline:
        commit = _remembered(home, wanted)
    else:
        hub = Hub(token)
        state = hub.state(wanted.repo, wanted.revision)
        commit = _checked_commit(state.commit, wanted)
        _remember(home, wanted, commit, say)
    entry = home / commit
    leftovers.keep(entry)
    damage = _damage(entry)
    unsigned = None if damage else _not_signed(entry, wanted, key)
    if damage is None and unsigned is None:
        leftovers.mark_used(entry)
        return Fetched(wanted, commit, entry / names.FETCHED_SLICE, True)
    if offline:
        _refuse_offline(wanted, commit, entry, damage or str(unsigned))
    hub = hub or Hub(token)
    state = state or hub.state(wanted.repo, commit)
    if entry.exists():
        say(f"{damage or 'the copy in the cache is not signed by this key.'} Fetching it again.")
    _fill(hub, wanted, state, entry, key, say)
    leftovers.keep(entry)
    return Fetched(wanted, commit, entry / names.FETCHED_SLICE, False)


def _checked_commit(commit: str, wanted: Address) -> str:
    # It becomes the name of a folder.
    if not COMMIT.fullmatch(commit):
        raise NetworkError(f"{wanted}: the Hub names {commit[:60]!r} as its commit, which is none.")
    return commit


def _ref(home: Path, wanted: Address) -> Path:
    return home / names.REFS / f"{wanted.revision.replace('/', '--')}.json"


def _remember(home: Path, wanted: Address, commit: str, say: Say) -> None:
    """Keep what a branch or tag means now; a cache that cannot be written to may still be read."""
    path, ref = _ref(home, wanted), store.sealed({"revision": wanted.revision, "commit": commit})
    try:
        if not path.is_file() or read_ref(path) != ref:
            path.parent.mkdir(parents=True, exist_ok=True)
            store.write_json(path, ref)
    except (LocalIOError, OSError) as error:
        say(f"{path}: not kept for use offline ({error})")


def read_ref(path: Path) -> dict[str, Any] | None:
    """Return what was kept of a branch or tag: ``revision`` and ``commit``; None if it is missing or damaged."""
    try:
        ref = store.read_json(path)
        store.check_seal(ref)
        return dict(ref)
    except (IntegrityError, LocalIOError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _remembered(home: Path, wanted: Address) -> str:
    path = _ref(home, wanted)
    ref = read_ref(path) if path.is_file() else None
    if not isinstance(ref, dict) or ref.get("revision") != wanted.revision or not _is_commit(ref.get("commit")):
        raise NetworkError(f"{wanted}: offline, and never fetched to {store.cache_root()}. Fetch it once while online.")
    return str(ref["commit"])


def _is_commit(value: object) -> bool:
    return isinstance(value, str) and COMMIT.fullmatch(value) is not None


def _refuse_offline(wanted: Address, commit: str, entry: Path, damage: str) -> None:
    if entry.exists():
        raise IntegrityError(f"{damage} Offline, it cannot be fetched again; do so while online.")
    raise NetworkError(
        f"{wanted}: offline, and commit {commit[:12]} is not in {store.cache_root()}. Fetch it once while online."
    )


def check(entry: Path) -> dict[str, Any]:
    """Check every file of an entry of the cache against its manifest.

    Returns:
        Name in the slice folder to record.

    Raises:
        IntegrityError: a file is missing, damaged, or not in the manifest.
        LocalIOError: it cannot be read.
    """
    path, records = entry / names.SUMS, {}
    if not path.is_file():
        raise IntegrityError(f"{entry}: has no {names.SUMS}.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LocalIOError(f"{path}: cannot be read ({error.strerror}).") from error
    _check_own(entry)
    listed = manifest.read(data, str(path))
    for name, digest in _wanted(listed, str(path)).items():
        file = _place(entry, name)
        if file.is_symlink():
            raise IntegrityError(f"{file}: is a link.")
        store.verify(file, digest, fix="")
        if file.parent.name == names.FETCHED_SLICE:
            records[file.name] = store.record(file)
    unknown = {p.name for p in (entry / names.FETCHED_SLICE).iterdir()} - set(records)
    if unknown:
        raise IntegrityError(f"{entry / 'slice'}: '{sorted(unknown)[0][:60]}' is not in {names.SUMS}.")
    return records


def _check_own(entry: Path) -> None:
    """Check the manifest of an entry, and its signature, against their digests."""
    path = entry / names.DIGESTS
    data = store.read_json(path)
    with reading(f"{path}: not a valid list of digests"):
        store.check_seal(data)
        digests = {name: str(data[name]) for name in (names.SUMS, names.SIGNATURE) if name in data}
        digests[names.SUMS]
    for name, digest in digests.items():
        store.verify(entry / name, digest, fix="")


def _damage(entry: Path) -> str | None:
    """Return what is wrong with an entry of the cache; None if it is good."""
    try:
        check(entry)
        return None
    except BigNASError as error:
        return str(error)


def _not_signed(entry: Path, wanted: Address, key: Verifier | None) -> str | None:
    """Return why a good entry of the cache is not signed by a key; None if it is, or no key is asked for."""
    if key is None:
        return None
    file = entry / names.SIGNATURE
    try:
        signature = file.read_bytes() if file.is_file() and file.stat().st_size <= MAX_SIGNATURE else None
        key.check((entry / names.SUMS).read_bytes(), signature, wanted.repo, str(wanted))
        return None
    except (IntegrityError, OSError) as error:
        return str(error)


def _wanted(listed: Mapping[str, str], where: str) -> dict[str, str]:
    """Return the files of a manifest that are fetched: path to sha256."""
    missing = [path for path in layout.REQUIRED if path not in listed]
    if missing:
        raise IntegrityError(f"{where}: is no slice: {', '.join(missing)} not listed.")
    return {p: digest for p, digest in listed.items() if p == names.CONFIG or layout.local(p) is not None}


def _place(entry: Path, path: str) -> Path:
    name = layout.local(path)
    return entry / path if name is None else entry / names.FETCHED_SLICE / name


def _fill(hub: Hub, wanted: Address, state: State, entry: Path, key: Verifier | None, say: Say) -> None:
    """Fetch a commit's files, check them, and put them into the cache in one go."""
    home = entry.parent
    say(f"fetching {wanted} (commit {state.commit[:12]})")
    try:
        home.mkdir(parents=True, exist_ok=True)
        with store.working_folder(home) as work:
            files = _download(hub, wanted, state, work, key)
            _check_slice(work / names.FETCHED_SLICE, wanted)
            if (_damage(entry) or _not_signed(entry, wanted, key)) is None:
                return  # another process was faster
            with store.new_folder(entry, force=True, marker=None) as new:
                (new / names.FETCHED_SLICE).mkdir()
                for path in files:
                    store.copy(_place(work, path), _place(new, path))
                own = [path for path in files if path in (names.SUMS, names.SIGNATURE)]
                store.write_json(new / names.DIGESTS, store.sealed({path: store.sha256(new / path) for path in own}))
    except OSError as error:
        if _damage(entry) is not None:  # or else another process was faster, and that is as good
            why = str(error) if isinstance(error, LocalIOError) else error.strerror
            raise LocalIOError(f"{home}: cannot be written to: {str(why).rstrip('.')}. {OTHER_PLACE}") from error


def _check_slice(folder: Path, wanted: Address) -> None:
    """Check that a slice that was just fetched could be loaded; an entry that could not is no entry."""
    try:
        slice_folder.check_files(folder)
    except IntegrityError as error:  # the folder is gone by the time somebody reads this
        said = str(error).replace(f"{folder}{os.sep}", "").removesuffix(slice_folder.REMAKE).rstrip()
        raise IntegrityError(f"{wanted}: {said} Nothing of it is kept; its owner should push it again.") from error


def _download(hub: Hub, wanted: Address, state: State, work: Path, key: Verifier | None) -> list[str]:
    """Fetch the manifest and the files it lists into a folder; return their paths."""
    where = f"{hub.url(wanted.repo)}: {names.SUMS}"
    if names.SUMS not in state.files:
        raise IntegrityError(
            f"{hub.url(wanted.repo)}: is no slice of this project: it has no {names.SUMS}. "
            "Slices are put there by `bignas-zoo push`."
        )
    (work / names.FETCHED_SLICE).mkdir()
    raw = work / ".raw"
    _check_size(state, names.SUMS, manifest.MAX_BYTES, where)
    data = _checked_by_git(hub, wanted, state, names.SUMS, raw)
    first, own = _wanted(manifest.read(data, where), where), [names.SUMS]
    signature, signed = None, state.files.get(names.SIGNATURE)
    if signed and 0 <= signed.bytes <= MAX_SIGNATURE:  # kept without a key too: it can then be verified offline
        signature = _checked_by_git(hub, wanted, state, names.SIGNATURE, raw)
        own.append(names.SIGNATURE)
    if key is not None:
        key.check(data, signature, wanted.repo, hub.url(wanted.repo))
    for path, digest in first.items():
        _check_size(state, path, MAX_BYTES, hub.url(wanted.repo))
        _fetch_file(hub, wanted, state, path, digest, raw)
        store.copy(raw / path, _place(work, path))
    for path in own:
        store.copy(raw / path, work / path)
    return [*own, *first]


def _checked_by_git(hub: Hub, wanted: Address, state: State, path: str, raw: Path) -> bytes:
    """Fetch a file that no manifest lists, a second time if what came is not what git's id says."""
    for force in (False, True):
        data = hub.download(wanted.repo, state.commit, path, raw, force=force).read_bytes()
        if is_same(data, state.files[path]):
            return data
    raise IntegrityError(
        f"{hub.url(wanted.repo)}: {path}: arrived twice with other bytes than the Hub's own listing says. "
        "Try again later."
    )


def _check_size(state: State, path: str, most: int, where: str) -> None:
    if path not in state.files:
        raise IntegrityError(f"{where}: {path} is in its {names.SUMS}, but not there. Its owner should push again.")
    if not 0 <= state.files[path].bytes <= most:
        raise IntegrityError(f"{where}: {path} has {state.files[path].bytes:,} bytes; at most {most:,} are fetched.")


def _fetch_file(hub: Hub, wanted: Address, state: State, path: str, digest: str, raw: Path) -> None:
    """Fetch a file; wrong bytes are fetched once more, as caches and lines fail, and then refused."""
    known = state.files[path].sha256
    if known not in (None, digest):
        raise IntegrityError(
            f"{hub.url(wanted.repo)}: {path} has sha256 {str(known)[:12]}… there, {names.SUMS} says {digest[:12]}…. "
            "One of them was replaced; its owner should push again."
        )
    for force in (False, True):
        file = hub.download(wanted.repo, state.commit, path, raw, force=force)
        try:
            store.verify(file, digest, size=state.files[path].bytes, fix="")
            return
        except IntegrityError as error:
            if force:
                said = str(error).replace(str(file), file.name)
                raise IntegrityError(
                    f"{hub.url(wanted.repo)}: {path} arrived twice with other bytes than its {names.SUMS} says: "
                    f"{said} A mirror may be stale or tampered with; nothing of it is kept."
                ) from error
