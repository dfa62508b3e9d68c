"""`push`: a slice to its repository on the Hub, planned first, then made in one commit.

A push can be given again at any time; see `hub.pushing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bignas_zoo.errors import NotFoundError, UsageError
from bignas_zoo.files import store
from bignas_zoo.files.say import Say, silent
from bignas_zoo.hub.address import COMMIT, MAIN, check_owner, check_repo, check_revision
from bignas_zoo.hub.client import Hub
from bignas_zoo.hub.pushing import Bundle, Plan, PushResult, carry_out, plan, signed
from bignas_zoo.hub.signing import read_signer
from bignas_zoo.tasks.bundle import make, source
from bignas_zoo.tasks.opening import open_slice
from bignas_zoo.zoo import registry
from bignas_zoo.zoo.family import no_weights
from bignas_zoo.zoo.license import check_publishing

Agree = Callable[[Sequence[Plan]], bool]


def push(
    name: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str = MAIN,
    family: str | Path | None = None,
    token: str | None = None,
    sign: str | Path | None = None,
    accept_licence: str | None = None,
    agree: Agree = lambda plans: True,
    say: Say = silent,
) -> PushResult:
    """Push a slice to a repository of the Hub, in one commit; the same content again makes none.

    Args:
        name: of a slice; or a slice folder of `get`, `export` or `finetune`, whose TFLite and ONNX exports are pushed.
        repo: ``ORG/NAME``, made if it is not there.
        private: others shall not see it.
        revision: the branch to commit to, made if it is not there.
        family: where to look for the name.
        token: with write access; by default HF_TOKEN, or that of ``hf auth login``.
        sign: file of an Ed25519 private key to sign the manifest with, see `hub.signing`.
        accept_licence: the licence of the weights, where it forbids commercial use and the repository is public.
        agree: shown the plan before anything is sent; False stops there.
        say: told what is going on, a sentence at a time.

    Returns:
        The plan, and the commit.

    Raises:
        UsageError: a name is none, or a public repository is there and `private` is asked for; or a non-commercial
            licence is not accepted.
        NotFoundError: no such slice.
        IntegrityError: a file of the slice is damaged.
        AuthError: no token, or it may not write there.
        NetworkError: the Hub cannot be reached or failed, or somebody else pushed meanwhile.
    """
    return push_all([(name, check_repo(repo))], private, revision, family, token, sign, accept_licence, agree, say)[0]


def push_family(
    family: str | Path,
    owner: str,
    *,
    private: bool = False,
    revision: str = MAIN,
    token: str | None = None,
    sign: str | Path | None = None,
    accept_licence: str | None = None,
    agree: Agree = lambda plans: True,
    say: Say = silent,
) -> list[PushResult]:
    """Push every slice of a family to a repository of its own, ``OWNER/SLICE``; see `push`.

    Args:
        family: name, or a folder made by `train`.
        owner: a user or organisation.
        private, revision, token, sign, accept_licence, agree, say: see `push`; `agree` is shown all plans at once.

    Returns:
        A result a slice, ordered by MACs. After a failure the same call completes what is missing.

    Raises:
        NotFoundError: no such family, or it has no weights.
        UsageError, IntegrityError, AuthError, NetworkError: see `push`.
    """
    home = registry.get_family(family)
    if not home.has_weights:
        raise NotFoundError(no_weights(home))
    check_owner(owner)
    targets: list[tuple[str | Path, str]] = [(s.name, check_repo(f"{owner}/{s.name}")) for s in home.slices]
    return push_all(targets, private, revision, family, token, sign, accept_licence, agree, say)


def push_all(
    targets: Sequence[tuple[str | Path, str]], private: bool, revision: str, family: str | Path | None,
    token: str | None, sign: str | Path | None, accept_licence: str | None, agree: Agree, say: Say,
) -> list[PushResult]:  # fmt: skip
    """Push slices, each to a repository, once all of them are planned and agreed to."""
    branch = check_revision(revision)
    if COMMIT.fullmatch(branch):
        raise UsageError(f"revision '{branch}': is a commit, which cannot be pushed to. Name a branch.")
    hub = Hub(token)
    hub.require_token()
    for name, _ in targets:  # before anything is asked of the Hub
        check_publishing(str(name), open_slice(name, family).slice.license, accept_licence, private=private)
    signer = None if sign is None else read_signer(Path(sign), say)
    with store.scratch_folder() as place:
        prepared = []
        for number, (name, repo) in enumerate(targets):
            bundle = _bundle(name, repo, family, place / str(number), say)
            bundle = bundle if signer is None else signed(bundle, repo, signer)
            prepared.append((bundle, plan(hub, bundle, repo, branch, private)))
        plans = [planned for _, planned in prepared]
        if not all(p.is_empty for p in plans) and not agree(plans):
            return [PushResult(p, None, False, None) for p in plans]
        return [carry_out(hub, bundle, planned, say) for bundle, planned in prepared]


def _bundle(name: str | Path, repo: str, family: str | Path | None, place: Path, say: Say) -> Bundle:
    """Make the files of a repository under a folder; the slice folder's own are copied, since it may not outlive it."""
    place.mkdir()
    with source(name, family, say) as folder:
        bundle = make(folder, repo, place, say)
        files = {}
        for path, file in bundle.files.items():
            files[path] = file
            if place not in file.parents:
                files[path] = place / path
                files[path].parent.mkdir(parents=True, exist_ok=True)
                store.copy(file, files[path])
    for file_name, reason in bundle.left_out.items():
        say(f"{file_name}: stays here; {reason}")
    return Bundle(bundle.slice, files, bundle.left_out)
