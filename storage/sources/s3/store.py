"""A bucket's address, region and signatures.

botocore knows the AWS default chain (IRSA, profiles, instance roles) and AWS's own addresses. If the configuration has
keys and an endpoint, as in Kthena's pods, neither is needed. botocore's session and client, which take 100 ms and
20 MB, are then not created (docs/adr/0012).
"""

from __future__ import annotations

import ipaddress
import os
import re
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest

from storage.errors import CredentialsError, NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from storage.request.config import Config
    from storage.request.source import S3Source

__all__ = ["Store", "find_store"]

_DEFAULT_REGION: Final = "us-east-1"
# A label of a host name.
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9-]*[a-z0-9]")
_CREDENTIAL_ERRORS: Final = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ProfileNotFound",
    "TokenRetrievalError",
    "NoAuthTokenError",
)


class _Keys(NamedTuple):
    """Credentials as botocore's signer reads them."""

    access_key: str
    secret_key: str
    token: str | None


class Store:
    """A bucket at its address, with what is needed to sign requests.

    Attributes:
        region: The region in signatures.
        named: Whether the endpoint was configured. Then the store's hints at other regions are ignored.
    """

    def __init__(
        self, address: Callable[[str], str], region: str, keys: Callable[[], Any] | None, *, named: bool
    ) -> None:
        """Combine what `find_store` found.

        Args:
            address: Returns the bucket's URL in a region, with a trailing slash.
            region: The region in signatures.
            keys: Returns the current credentials, which may rotate; `None` for unsigned requests.
            named: Whether the endpoint was configured.
        """
        self._address = address
        self._keys = keys
        self.region = region
        self.named = named
        self._base = address(region)

    def url(self, path: str = "", query: str = "") -> str:
        """Return the URL of a key (`path`, percent-encoded), or of the bucket."""
        root = self._base if path or urlsplit(self._base).path == "/" else self._base.removesuffix("/")
        return f"{root}{path}" + (f"?{query}" if query else "")

    def move(self, region: str) -> None:
        """Use another AWS region from now on."""
        self.region, self._base = region, self._address(region)

    def sign(self, method: str, url: str, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers with a signature. All x-amz headers must be passed, because S3 requires them to be signed.

        Raises:
            CredentialsError: The credentials cannot be renewed.
        """
        if self._keys is None:
            return dict(headers)
        with plain_errors(url):
            request = AWSRequest(method, url, dict(headers))
            S3SigV4Auth(self._keys(), "s3", self.region).add_auth(request)
            return dict(request.headers.items())


def find_store(source: S3Source, config: Config) -> Store:
    """Find a bucket's address, region and credentials.

    Raises:
        CredentialsError: There are none, and anonymous access was not requested.
    """
    with plain_errors(source.uri):
        session = None if _says_all(config) else _session()
        keys = _find_keys(source, config, session)
        region = config.region or (session and session.get_config_variable("region")) or _DEFAULT_REGION
        endpoint = config.endpoint or (session and session.get_config_variable("endpoint_url"))
        # OBS uses virtual-hosted addresses.
        style = config.addressing_style or ("virtual" if source.scheme == "obs" else _profile_style(session))
        if endpoint:
            base = _address(endpoint, source.bucket, virtual=style == "virtual")
            return Store(lambda _region: base, region, keys, named=True)
        return Store(partial(_amazon_address, session, source.bucket, style), region, keys, named=False)


def _says_all(config: Config) -> bool:
    """Whether the configuration says everything, so that AWS's own variables and files are not needed."""
    keys = config.anonymous or config.access_key or not config.ambient
    file = Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
    return bool(keys and config.endpoint and (config.region or not file.exists()))


def _session() -> Any:
    import botocore.session

    return botocore.session.Session()


def _find_keys(source: S3Source, config: Config, session: Any) -> Callable[[], Any] | None:
    if config.anonymous:
        return None
    if config.access_key and config.secret_key:
        token = config.session_token.reveal() if config.session_token else None
        keys = _Keys(config.access_key.reveal(), config.secret_key.reveal(), token)
        return lambda: keys
    if not config.ambient:
        return None  # a caller's endpoint: the pod's credentials must not go there
    found = session.get_credentials()
    if found is None:
        raise CredentialsError(
            f"no credentials for {source.uri}: set ACCESS_KEY and SECRET_KEY, or give the pod a role; "
            "for a public bucket ask for anonymous access (S3_ANONYMOUS=true)"
        )
    frozen: Callable[[], Any] = found.get_frozen_credentials
    return frozen


def _profile_style(session: Any) -> str | None:
    settings = session.get_scoped_config().get("s3") if session else None
    return settings.get("addressing_style") if isinstance(settings, dict) else None


def _address(endpoint: str, bucket: str, *, virtual: bool) -> str:
    """Return the bucket's URL: as a host name if that is wanted and possible, otherwise as a path."""
    parts = urlsplit(endpoint)
    if virtual and not _is_number(parts.hostname or "") and _can_be_host(bucket, dots=parts.scheme == "http"):
        return f"{parts.scheme}://{bucket}.{parts.netloc}{parts.path.rstrip('/')}/"
    return f"{endpoint.rstrip('/')}/{bucket}/"


def _can_be_host(bucket: str, *, dots: bool) -> bool:
    # A certificate for *.domain does not cover a bucket name with dots, which is several labels.
    labels = bucket.split(".")
    return (dots or len(labels) == 1) and all(map(_LABEL.fullmatch, labels))


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _amazon_address(session: Any, bucket: str, style: str | None, region: str) -> str:
    """Return the bucket's URL in AWS, at botocore's endpoint for the region."""
    # With placeholder keys, botocore does not search for credentials.
    client = session.create_client("s3", region_name=region, aws_access_key_id="-", aws_secret_access_key="-")  # noqa: S106 - no password
    return _address(client.meta.endpoint_url, bucket, virtual=style != "path")


@contextmanager
def plain_errors(what: str) -> Iterator[None]:
    """Convert botocore's exceptions into our own errors."""
    from botocore import exceptions

    try:
        yield
    except exceptions.BotoCoreError as error:
        if type(error).__name__ in _CREDENTIAL_ERRORS:
            raise CredentialsError(f"no credentials for {what}: {error}") from error
        raise NetworkError(f"{what} cannot be asked for: {_text(error)}") from error
    except exceptions.ClientError as error:  # STS refuses
        raise CredentialsError(f"no credentials for {what}: {error}") from error


def _text(error: Exception) -> str:
    """Return an error's text without the queries of URLs, which may hold signatures."""
    return re.sub(r"https?://\S+", lambda match: urlsplit(match[0])._replace(query="").geturl(), str(error))
