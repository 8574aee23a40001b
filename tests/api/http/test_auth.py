"""The one token of a server on one machine: it admits callers with the token only."""

import pytest

from openseer_api.http.auth import Access, BearerAuth, Unauthenticated


@pytest.mark.parametrize("access", ["read", "write"])
async def test_the_token_admits_every_call(access: Access) -> None:
    await BearerAuth("s3cret").check("s3cret", "default", "job", access)


@pytest.mark.parametrize("token", [None, "", "s3cre", "s3cret ", "S3CRET", "größe", "s3cret\x00"])
async def test_any_other_token_is_refused(token: str | None) -> None:
    with pytest.raises(Unauthenticated, match="token"):
        await BearerAuth("s3cret").check(token, "default", "job", "read")


def test_an_empty_token_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match="admit every caller"):
        BearerAuth("")
