"""Refuses half of an object store's credentials before the client is opened.

The client itself takes the half of a credential for none, and asks the machine's metadata service for another one. The
first write would then fail much later, without a word about the variable that is missing. Only what is certain to fail
is refused: what names an identity of the machine or of its platform may be complete without any secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

_AWS_KEY = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"})
_AWS_SESSION = _AWS_KEY | {"AWS_SESSION_TOKEN"}
_AWS_ROLE = frozenset({"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"})
_AWS_UNSIGNED = frozenset({"AWS_SKIP_SIGNATURE"})
_AZURE_KEY = frozenset({"AZURE_STORAGE_ACCOUNT_KEY"})
_AZURE_TOKEN = frozenset({"AZURE_STORAGE_TOKEN"})
_AZURE_CLIENT = frozenset({"AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"})
_AZURE_FEDERATED = frozenset({"AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_ID", "AZURE_TENANT_ID"})
_AZURE_USER_ASSIGNED = frozenset({"AZURE_CLIENT_ID", "AZURE_TENANT_ID"})
_AZURE_FABRIC = frozenset(
    f"AZURE_FABRIC_{name}" for name in ("TOKEN_SERVICE_URL", "WORKLOAD_HOST", "SESSION_TOKEN", "CLUSTER_IDENTIFIER")
)
_AZURE_CHOSEN = frozenset({"AZURE_CREDENTIAL_TYPE"})
_AZURE_UNSIGNED = frozenset({"AZURE_SKIP_SIGNATURE"})
_AZURE_EMULATOR = frozenset({"AZURE_STORAGE_USE_EMULATOR"})
_AZURE_CLI = frozenset({"AZURE_USE_AZURE_CLI"})

_WHOLE: dict[str, tuple[frozenset[str], ...]] = {
    "AWS": (
        _AWS_KEY, _AWS_SESSION, _AWS_ROLE, _AWS_UNSIGNED,
        frozenset({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"}), frozenset({"AWS_CONTAINER_CREDENTIALS_FULL_URI"}),
    ),
    "AZURE": (
        _AZURE_KEY, _AZURE_TOKEN, frozenset({"AZURE_STORAGE_SAS_TOKEN"}), _AZURE_CLIENT, _AZURE_FEDERATED,
        _AZURE_USER_ASSIGNED, frozenset({"AZURE_MSI_ENDPOINT"}), frozenset({"AZURE_MSI_RESOURCE_ID"}),
        frozenset({"AZURE_OBJECT_ID"}), _AZURE_FABRIC, _AZURE_CHOSEN, _AZURE_UNSIGNED, _AZURE_EMULATOR, _AZURE_CLI,
    ),
}  # fmt: skip
"""The sets of variables that are a credential each. The client checks a Google service account by itself."""

_SECRET: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "AWS": (_AWS_SESSION, _AWS_SESSION),
    "AZURE": (frozenset({"AZURE_CLIENT_SECRET"}), _AZURE_CLIENT),
}
"""The variables that begin a secret of several parts, and all parts, which belong into one place."""

_TOKEN_FILE = {
    "AWS": ("AWS_WEB_IDENTITY_TOKEN_FILE", _AWS_ROLE, (_AWS_KEY, _AWS_UNSIGNED)),
    "AZURE": (
        "AZURE_FEDERATED_TOKEN_FILE", _AZURE_FEDERATED,
        (_AZURE_KEY, _AZURE_TOKEN, _AZURE_FABRIC, _AZURE_CHOSEN, _AZURE_UNSIGNED, _AZURE_EMULATOR),
    ),
}  # fmt: skip
"""The variable that names a token's file, the credential that reads it, and those that the client prefers to it."""

_SAME = {
    "AWS_TOKEN": "AWS_SESSION_TOKEN",
    **dict.fromkeys(
        ("AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY", "AZURE_ACCOUNT_KEY", "AZURE_ACCESS_KEY",
         "AZURE_MASTER_KEY"),
        "AZURE_STORAGE_ACCOUNT_KEY",
    ),
    **dict.fromkeys(("AZURE_STORAGE_SAS_KEY", "AZURE_SAS_KEY", "AZURE_SAS_TOKEN"), "AZURE_STORAGE_SAS_TOKEN"),
    **dict.fromkeys(("AZURE_TOKEN", "AZURE_BEARER_TOKEN"), "AZURE_STORAGE_TOKEN"),
    "AZURE_STORAGE_CLIENT_ID": "AZURE_CLIENT_ID",
    "AZURE_STORAGE_CLIENT_SECRET": "AZURE_CLIENT_SECRET",
    **dict.fromkeys(
        ("AZURE_STORAGE_TENANT_ID", "AZURE_STORAGE_AUTHORITY_ID", "AZURE_AUTHORITY_ID"), "AZURE_TENANT_ID"
    ),
    "AZURE_IDENTITY_ENDPOINT": "AZURE_MSI_ENDPOINT",
    "AZURE_USE_EMULATOR": "AZURE_STORAGE_USE_EMULATOR",
}  # fmt: skip
"""The client's other names of the same variables."""

_PLATFORM = "IDENTITY_ENDPOINT"
"""What Azure's App Service and Container Apps set; the client takes it for AZURE_MSI_ENDPOINT."""

_OFF = {
    **dict.fromkeys(
        (*_AWS_UNSIGNED, *_AZURE_UNSIGNED, *_AZURE_EMULATOR, *_AZURE_CLI), ("false", "0", "no", "off", "n")
    ),
    "AZURE_CREDENTIAL_TYPE": ("auto",),
}
"""The values by which a switch is as good as absent. The client refuses by itself what is no value at all."""

_SCHEMES = {"s3": "AWS", "s3a": "AWS"} | dict.fromkeys(("az", "adl", "azure", "abfs", "abfss"), "AZURE")


def check_whole(url: str, given: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Raises ValueError, which names what is missing, for a part of a credential of the store at `url`.

    `given` holds the variables of a folder and wins over `environment`. A secret that the folder begins must be
    complete in it: the environment would complete it with a wrong half. What names an identity may come from both. S3
    and Google Cloud Storage without any credential use the machine's own identity. For Azure that identity has to be
    named, by AZURE_MSI_ENDPOINT for instance: an account's name without its key looks the same.
    """
    provider = _SCHEMES.get(urlsplit(url).scheme, "")
    if provider not in _WHOLE:
        return
    mine = _named(provider, given)
    others = _named(provider, {name: value for name, value in environment.items() if _read(provider, name)})
    begins, parts = _SECRET[provider]
    if mine.keys() & begins:
        others = {name: value for name, value in others.items() if name not in parts}
    in_folder = bool(_parts(provider, mine)) or (bool(given) and not _parts(provider, others))
    source = "store.credentials: the folder" if in_folder else "store.url: the environment"
    _check(provider, source, others | mine)


def _read(provider: str, name: str) -> bool:
    """Whether the client reads this variable of the environment."""
    return name.upper().startswith(f"{provider}_") or name == _PLATFORM


def _named(provider: str, variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that have a value and are not switched off, by their canonical names.

    In a folder the client takes them without the provider's prefix as well.
    """
    named = {}
    for given, value in variables.items():
        name = f"{provider}_{given.upper().removeprefix(f'{provider}_')}"
        name = _SAME.get(name, name)
        if value and value.lower() not in _OFF.get(name, ()):
            named[name] = value
    return named


def _parts(provider: str, variables: Mapping[str, str]) -> frozenset[str]:
    """The variables that are a credential or a part of one."""
    return frozenset().union(*_WHOLE[provider]) & variables.keys()


def _check(provider: str, source: str, variables: Mapping[str, str]) -> None:
    parts = _parts(provider, variables)
    if not parts and provider == "AZURE":
        raise ValueError(
            f"{source} holds no credential, AZURE_STORAGE_ACCOUNT_KEY for instance; for the machine's own identity set "
            "AZURE_MSI_ENDPOINT, AZURE_CLIENT_ID, AZURE_OBJECT_ID or AZURE_MSI_RESOURCE_ID; or set one "
            "of AZURE_USE_AZURE_CLI, AZURE_SKIP_SIGNATURE and AZURE_STORAGE_USE_EMULATOR to true"
        )
    if half := _missing(provider, parts):
        raise ValueError(f"{source} holds a part of the credentials, not {' and '.join(sorted(half))}")
    name, reader, preferred = _TOKEN_FILE[provider]
    if reader <= parts and not any(whole <= parts for whole in preferred) and not Path(variables[name]).is_file():
        raise ValueError(f"{source} names a file that is not there in {name}")


def _missing(provider: str, parts: frozenset[str]) -> frozenset[str]:
    """The missing variables of the most complete credential; empty if one is complete or none is begun."""
    if parts & _AWS_KEY:
        return _AWS_KEY - parts  # beside a whole identity as well: the client refuses half a key there
    user_assigned = parts & (_AZURE_CLIENT | _AZURE_FEDERATED) == {"AZURE_CLIENT_ID"}
    if not parts or user_assigned or any(whole <= parts for whole in _WHOLE[provider]):
        return frozenset()
    begun = [whole - parts for whole in _WHOLE[provider] if whole & parts]
    return min(begun, key=lambda missing: (len(missing), sorted(missing)))
