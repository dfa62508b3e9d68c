"""The slices that the public functions give: those of the zoo, with their two ways to the Hugging Face Hub."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bignas_zoo.errors import UsageError
from bignas_zoo.hub.address import Address, check_repo, check_revision
from bignas_zoo.tasks.opening import holds_slice, open_folder, open_slice
from bignas_zoo.zoo import registry, slice_folder
from bignas_zoo.zoo import slice as zoo
from bignas_zoo.zoo.family import Family


@dataclasses.dataclass(frozen=True)
class Slice(zoo.Slice):
    """A slice of the zoo, with the attributes it has there, that can be fetched from and pushed to the Hub."""

    @classmethod
    def of(cls, slice_: zoo.Slice) -> Slice:
        """Return a slice of the zoo as one that can be pushed."""
        if isinstance(slice_, cls):
            return slice_
        public = cls(**{field.name: getattr(slice_, field.name) for field in dataclasses.fields(slice_)})
        vars(public).update(vars(slice_))  # its cost as well, if that has been counted
        return public

    @classmethod
    def from_pretrained(
        cls, repo: str, *, revision: str = "main", token: str | None = None, local_files_only: bool = False,
        verify_key: str | Path | None = None,
    ) -> Slice:  # fmt: skip
        """Fetch a slice of the Hugging Face Hub; every file is checked by its sha256.

        Args:
            repo: ``ORG/NAME``, or a slice folder.
            revision: a branch, tag or commit.
            token: for a private repository; by default HF_TOKEN, or that of ``hf auth login``.
            local_files_only: make no request; what was fetched before counts.
            verify_key: file of the Ed25519 public key that must have signed it.

        Returns:
            The slice; `folder` says where its files are, and ``bignas_zoo.load(slice.folder)`` gives its network.

        Raises:
            UsageError, NotFoundError, AuthError, NetworkError, IntegrityError, LocalIOError: see `get`.
        """
        from bignas_zoo.hub.fetching import fetch

        if holds_slice(repo):
            if verify_key is not None:
                raise UsageError(
                    f"{repo}: is a slice folder; what is signed is the manifest on the Hub. Name ORG/NAME."
                )
            slice_folder.check_files(Path(repo))
            return cls.of(open_folder(Path(repo)).slice)
        address = Address(check_repo(repo), check_revision(revision))
        fetched = fetch(address, offline=local_files_only, token=token, verify_key=verify_key)
        return cls.of(open_folder(fetched.folder).slice)

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool = False,
        revision: str = "main",
        family: str | Path | None = None,
        token: str | None = None,
        sign: str | Path | None = None,
    ) -> str:
        """Push the slice to the Hugging Face Hub, in one commit; see `bignas_zoo.push`.

        Args:
            repo: ``ORG/NAME``, made if it is not there.
            private: others shall not see it.
            revision: the branch to commit to.
            family: the folder of its family, if that is none of the shipped ones.
            token: with write access; by default HF_TOKEN, or that of ``hf auth login``.
            sign: file of an Ed25519 private key to sign with.

        Returns:
            The commit.

        Raises:
            UsageError, NotFoundError, AuthError, NetworkError, IntegrityError: see `bignas_zoo.push`.
        """
        from bignas_zoo.tasks.push import push

        pushed = push(
            self.folder or self.name, repo, private=private, revision=revision, family=family, token=token, sign=sign
        )
        return str(pushed.commit)


def public(family: Family) -> Family:
    """Return a family of the zoo whose slices can be pushed."""
    return dataclasses.replace(family, slices=tuple(map(Slice.of, family.slices)))


def get_family(name: str | Path) -> Family:
    """Return a family by name, or from a folder that `train` made.

    Args:
        name: a shipped family's name, or the path of a folder that holds family.json, or of a training's run.

    Raises:
        NotFoundError: neither a family nor such a folder.
        IntegrityError: the folder's family.json is damaged.
    """
    return public(registry.get_family(name))


def list_slices(family: str | Path | None = None) -> tuple[Slice, ...]:
    """Return all slices, of one family or of all, ordered by family and MACs."""
    return tuple(map(Slice.of, registry.list_slices(family)))


def find(name: str | Path, family: str | Path | None = None) -> Slice:
    """Return a slice by its name, from a slice folder, or of the Hub.

    Raises:
        NotFoundError: no such slice.
        IntegrityError: the folder's slice.json is damaged.
        AuthError, NetworkError: the Hub does not give it.
    """
    return Slice.of(open_slice(name, family).slice)
