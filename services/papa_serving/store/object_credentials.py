"""Refuses half of an object store's credentials before the client is opened.

The client itself takes the half of a credential for none, and asks the machine's metadata service for another one. The
first write would then fail much later, without a word about the variable that is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

_AWS_KEY = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"})
_AWS_ROLE = frozenset({"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"})
_AWS_SESSION = "AWS_SESSION_TOKEN"
_AZURE_KEY = frozenset({"AZURE_STORAGE_ACCOUNT_KEY"})
_AZURE_CLIENT = frozenset({"AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"})
_AZURE_FEDERATED = frozenset({"AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_ID", "AZURE_TENANT_ID"})
_AZURE_IDENTITY = _AZURE_CLIENT | _AZURE_FEDERATED

_WHOLE: dict[str, tuple[frozenset[str], ...]] = {
    "AWS": (_AWS_KEY, _AWS_ROLE),
    "AZURE": (
        _AZURE_KEY, frozenset({"AZURE_STORAGE_SAS_TOKEN"}), frozenset({"AZURE_STORAGE_TOKEN"}),
        frozenset({"AZURE_MSI_ENDPOINT"}), frozenset({"AZURE_USE_AZURE_CLI"}), frozenset({"AZURE_SKIP_SIGNATURE"}),
        _AZURE_CLIENT, _AZURE_FEDERATED,
    ),
}  # fmt: skip
"""The sets of variables that are a credential each. The client checks a Google service account by itself."""

_SAME = {
    "AZURE_STORAGE_ACCESS_KEY": "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_MASTER_KEY": "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_KEY": "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CLIENT_ID": "AZURE_CLIENT_ID",
    "AZURE_STORAGE_CLIENT_SECRET": "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_TENANT_ID": "AZURE_TENANT_ID",
    "AZURE_STORAGE_AUTHORITY_ID": "AZURE_TENANT_ID",
    "AZURE_AUTHORITY_ID": "AZURE_TENANT_ID",
    "AZURE_IDENTITY_ENDPOINT": "AZURE_MSI_ENDPOINT",
}
"""The client's other names of the same variables."""

_TOKEN_FILES = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AZURE_FEDERATED_TOKEN_FILE")
_SCHEMES = {"s3": "AWS", "s3a": "AWS"} | dict.fromkeys(("az", "adl", "azure", "abfs", "abfss"), "AZURE")


def check_whole(url: str, given: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Raises ValueError, which names what is missing, for a part of a credential of the store at `url`.

    `given` holds the variables of a folder and wins over `environment`. A credential that the folder begins must be
    complete in it: the environment would complete it with a wrong half. S3 and Google Cloud Storage without any
    credential use the machine's own identity. For Azure that identity has to be named, by AZURE_CLIENT_ID or
    AZURE_MSI_ENDPOINT: an account's name without its key looks the same.
    """
    provider = _SCHEMES.get(urlsplit(url).scheme, "")
    if provider not in _WHOLE:
        return
    mine, others = _named(given), _named(environment)
    for source, variables in (("store.credentials: the folder", mine), ("store.url: the environment", others)):
        if _parts(provider, variables):
            _check(provider, source, variables)
            return
    if provider == "AZURE":
        where = "store.credentials: the folder" if given else "store.url: the environment"
        raise ValueError(
            f"{where} holds no credential, AZURE_STORAGE_ACCOUNT_KEY for instance; for the machine's own identity set "
            "AZURE_MSI_ENDPOINT, or AZURE_CLIENT_ID"
        )


def _named(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that have a value, by their canonical names."""
    return {_SAME.get(name.upper(), name.upper()): value for name, value in variables.items() if value}


def _parts(provider: str, variables: Mapping[str, str]) -> frozenset[str]:
    """The variables that are a credential or a part of one."""
    parts = frozenset().union(*_WHOLE[provider], {_AWS_SESSION})
    return parts & variables.keys()


def _check(provider: str, source: str, variables: Mapping[str, str]) -> None:
    if half := _missing(provider, _parts(provider, variables)):
        raise ValueError(f"{source} holds a part of the credentials, not {' and '.join(sorted(half))}")
    for name in _TOKEN_FILES:
        if name in variables and not Path(variables[name]).is_file():
            raise ValueError(f"{source} names a file that is not there in {name}")


def _missing(provider: str, parts: frozenset[str]) -> frozenset[str]:
    """The missing variables of the most complete credential; empty if one is complete."""
    if _AWS_SESSION in parts or parts & _AWS_KEY:
        return _AWS_KEY - parts  # beside a whole role as well: the client refuses half a key there
    if any(whole <= parts for whole in _WHOLE[provider]) or parts & _AZURE_IDENTITY == {"AZURE_CLIENT_ID"}:
        return frozenset()
    begun = [whole - parts for whole in _WHOLE[provider] if whole & parts]
    return min(begun, key=lambda missing: (len(missing), sorted(missing)))
