"""S3 and OBS: boto3's core lists, heads and signs; `storage.ranges` fetches.

Only `botocore` is used of boto3, and only here: a client of boto3 itself takes
200 ms longer to make. Each request is signed anew with headers, so nothing
expires in a long download, and credentials that rotate (IRSA, instance roles)
are those of the moment.

ETags are digests where the store says so: the MD5 of an object put in one piece,
the MD5 of parts' MD5s for a multipart upload ("...-12"). Neither holds for
objects under SSE-KMS or SSE-C. A full-object `x-amz-checksum-*` is better, and is taken first.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import botocore.session  # type: ignore[import-untyped]
from botocore import UNSIGNED, exceptions
from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.config import Config as ClientConfig  # type: ignore[import-untyped]

from storage.errors import (
    CorruptError,
    CredentialsError,
    DeniedError,
    NetworkError,
    NotFoundError,
    StorageError,
)
from storage.fetch.s3_digests import checksum, etag_digest, is_opaque, likely_part_size, multipart
from storage.plan import Digest, Listing, RemoteFile
from storage.ranges import Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from storage.config import Config
    from storage.source import S3Source

__all__ = ["S3Origin"]

_DEFAULT_REGION: Final = "us-east-1"
_RETRIES: Final = 4
_EXPIRED: Final = frozenset(("ExpiredToken", "RequestExpired"))
_MISSING: Final = frozenset(("NoSuchBucket", "NoSuchKey", "NotFound", "404"))
_HINTS: Final[Mapping[str, str]] = {
    "AccessDenied": "the credentials have no right to it",
    "AllAccessDisabled": "access to it is disabled",
    "InvalidAccessKeyId": "the access key is unknown there: check ACCESS_KEY and ENDPOINT",
    "SignatureDoesNotMatch": "the secret key does not fit the access key: check SECRET_KEY",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is not valid",
    "RequestTimeTooSkewed": "the clock of this machine is off",
    "AuthorizationHeaderMalformed": "the region is another: set AWS_REGION",
    "PermanentRedirect": "the bucket is in another region or at another endpoint: set AWS_REGION or ENDPOINT",
    "403": "the credentials have no right to it",
}


class S3Origin:
    """A prefix of a bucket."""

    def __init__(self, source: S3Source, config: Config) -> None:
        """Make the client; no request is sent yet.

        Raises:
            CredentialsError: There are none, and anonymous access was not asked for.
        """
        self._source = source
        self._session = botocore.session.Session()
        self._region = config.region or self._session.get_config_variable("region") or _DEFAULT_REGION
        with _plain_errors(source.uri):
            self._credentials = None if config.anonymous else self._find_credentials(config)
            self._endpoint = config.endpoint or self._session.get_config_variable("endpoint_url")
            self._style = config.addressing_style or ("virtual" if source.scheme == "obs" else None)
            self._client = self._make_client()
        self._base = self._find_base()

    def _find_credentials(self, config: Config) -> Any:  # noqa: ANN401 - botocore has no types
        if config.access_key and config.secret_key:
            token = config.session_token.reveal() if config.session_token else None
            self._session.set_credentials(config.access_key.reveal(), config.secret_key.reveal(), token)
        elif not config.ambient:
            return None  # a stranger's endpoint: none of ours go there
        found = self._session.get_credentials()
        if found is None:
            raise CredentialsError(
                f"no credentials for {self._source.uri}: set ACCESS_KEY and SECRET_KEY, or give the pod a role; "
                "for a public bucket ask for anonymous access (S3_ANONYMOUS=true)"
            )
        return found

    def _make_client(self) -> Any:  # noqa: ANN401 - botocore has no types
        options = ClientConfig(
            signature_version="s3v4" if self._credentials else UNSIGNED,
            s3={"addressing_style": self._style} if self._style else {},
            retries={"mode": "standard", "total_max_attempts": _RETRIES},
            connect_timeout=10,
            read_timeout=20,
            # Stores that are not AWS know no flexible checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        client = self._session.create_client(
            "s3", region_name=self._region, endpoint_url=self._endpoint, config=options
        )
        if self._endpoint:
            client.meta.events.register("before-call.s3", _stay)
        return client

    def _find_base(self) -> str:
        """Return the address of keys: host or path style, as the client would have it."""
        url = self._client.generate_presigned_url("get_object", Params={"Bucket": self._source.bucket, "Key": "k"})
        return str(url).partition("?")[0].removesuffix("k")

    def listing(self) -> Listing:
        """List the objects below the prefix, or the one object of that name.

        Raises:
            StorageError: The bucket cannot be listed.
        """
        prefix = self._source.prefix
        below = f"{prefix}/" if prefix else ""
        rows = [row for row in self._rows(below) if not (row["Key"].endswith("/") and not row["Size"])]
        files = [self._file(row, row["Key"].removeprefix(below)) for row in rows]
        if not files and prefix:
            exact = [row for row in self._rows(prefix, limit=1) if row["Key"] == prefix]
            files = [self._file(row, prefix.rpartition("/")[2]) for row in exact]
        return Listing(self._source.uri, "", tuple(files))

    def _rows(self, prefix: str, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        arguments = {"Bucket": self._source.bucket, "Prefix": prefix} | ({"MaxKeys": limit} if limit else {})
        token: str | None = None
        while True:
            with _plain_errors(self._source.uri):
                page = self._client.list_objects_v2(**arguments, **({"ContinuationToken": token} if token else {}))
            self._learn_region(page)
            yield from page.get("Contents", ())
            following = page.get("NextContinuationToken")
            if limit or not page.get("IsTruncated"):
                return
            if not following or following == token:
                raise CorruptError(f"{self._source.uri}: the listing says that it goes on, and does not say where")
            token = following

    def _learn_region(self, page: Mapping[str, Any]) -> None:
        """Sign for the region that the bucket is in: botocore followed a redirect, the byte engine does not."""
        region = page["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        if region and region != self._region and not self._endpoint:
            self._region = region
            self._client = self._make_client()
            self._base = self._find_base()

    def _file(self, row: Mapping[str, Any], path: str) -> RemoteFile:
        etag = str(row.get("ETag", "")).strip('"')
        return RemoteFile(path, int(row["Size"]), etag, row["Key"], etag_digest(etag))

    def request(self, file: RemoteFile) -> Request:
        """Return a GET for an object, signed now."""
        url = self._base + quote(file.origin, safe="/~")
        headers = self._sign("GET", url, {"x-amz-checksum-mode": "ENABLED"} if file.size else {})
        if file.validator:
            headers["If-Match"] = f'"{file.validator}"'
        return Request(url, headers, file.validator or None)

    def _sign(self, method: str, url: str, headers: dict[str, str]) -> dict[str, str]:
        """Return headers with a signature of them; every x-amz header must be in it."""
        if self._credentials is None:
            return headers
        request = AWSRequest(method, url, headers)
        S3SigV4Auth(self._credentials.get_frozen_credentials(), "s3", self._region).add_auth(request)
        return dict(request.headers.items())

    def digest(self, file: RemoteFile, headers: Mapping[str, str] | None) -> Digest | None:
        """Return what an object must add up to, as the headers of a GET or HEAD and its ETag say."""
        if headers is None:
            headers = self._head(file) if file.size else {}
        found = checksum(headers)
        if found:
            return found
        if is_opaque(headers):
            return None
        parts = multipart(file.validator)
        return self._multipart_digest(file, *parts) if parts else file.digest

    def _head(self, file: RemoteFile, **arguments: Any) -> Mapping[str, str]:  # noqa: ANN401 - botocore's own
        with _plain_errors(f"{file.path} of {self._source.uri}"):
            answer = self._client.head_object(
                Bucket=self._source.bucket, Key=file.origin, ChecksumMode="ENABLED", **arguments
            )
        headers: Mapping[str, str] = answer["ResponseMetadata"]["HTTPHeaders"]
        return headers

    def _multipart_digest(self, file: RemoteFile, value: str, count: int) -> Digest | None:
        """Return the digest over parts; certain when the store confirms the first part and the last."""
        first, last = self._part_length(file, 1), self._part_length(file, count)
        if first and last and first * (count - 1) + last == file.size:
            return Digest("md5-parts", value, first)
        guess = likely_part_size(file.size, count)
        return Digest("md5-parts", value, guess, certain=False) if guess else None

    def _part_length(self, file: RemoteFile, number: int) -> int | None:
        try:
            headers = self._head(file, PartNumber=number)
        except StorageError:
            return None
        # A store that does not know parts answers with the whole object.
        return int(headers["content-length"]) if headers.get("x-amz-mp-parts-count") else None

    def refresh(self, file: RemoteFile) -> RemoteFile:
        """Return what an object is by now."""
        headers = self._head(file)
        etag = headers.get("etag", "").strip('"')
        return RemoteFile(file.path, int(headers["content-length"]), etag, file.origin, etag_digest(etag))

    def explain(
        self, file: RemoteFile, status: int, headers: Mapping[str, str], body: bytes
    ) -> tuple[StorageError, bool]:
        """Return the error that the store's answer means, and whether a new signature may help."""
        match = re.search(rb"<Code>(\w+)</Code>", body)
        code = match[1].decode() if match else str(status)
        error = _error_of(code, f"{file.path} of {self._source.uri}", status, headers.get("x-amz-bucket-region"))
        # The listing was not refused: keys may have been rotated since, or a proxy was out of step.
        return error, status == HTTPStatus.FORBIDDEN or code in _EXPIRED


def _stay(params: dict[str, Any], **_: object) -> None:
    """Keep botocore from looking for the bucket in other regions: an endpoint that was named is the one that is meant."""
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


@contextmanager
def _plain_errors(what: str) -> Iterator[None]:
    try:
        yield
    except exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        metadata = error.response.get("ResponseMetadata", {})
        region = metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region")
        raise _error_of(code, what, int(metadata.get("HTTPStatusCode", 0)), region) from error
    except _CREDENTIAL_ERRORS as error:
        raise CredentialsError(f"no credentials for {what}: {error}") from error
    except exceptions.HTTPClientError as error:
        raise NetworkError(f"{what} cannot be reached: {_text(error)}") from error
    except (exceptions.BotoCoreError, ValueError) as error:
        raise NetworkError(f"{what} cannot be asked for: {_text(error)}") from error


_CREDENTIAL_ERRORS: Final = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.ProfileNotFound,
    exceptions.TokenRetrievalError,
    exceptions.NoAuthTokenError,
)


def _error_of(code: str, what: str, status: int, region: str | None = None) -> StorageError:
    if code in _MISSING or status == HTTPStatus.NOT_FOUND:
        return NotFoundError(f"{what} does not exist ({code})")
    if code in _HINTS or status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        where = f"; the bucket is in {region}" if region else ""
        return DeniedError(f"{what} is refused: {_HINTS.get(code, 'access denied')} ({code}){where}")
    return NetworkError(f"{what}: the store answers {status or 'with an error'} ({code})")


def _text(error: Exception) -> str:
    """Return an error's text without the query of its URLs: they may be signed."""
    return re.sub(r"https?://\S+", lambda match: urlsplit(match[0])._replace(query="").geturl(), str(error))
