"""Who may log in: SCRAM credentials (KIP-554), which PLAIN is checked against as well."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from pegel.admin.base import AdminBase
from pegel.admin.types import UserCredential, UserDescription
from pegel.errors import BrokerError, broker_error
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.alter_user_scram_credentials import (
    AlterUserScramCredentialsRequest,
    AlterUserScramCredentialsResponse,
    ScramCredentialDeletion,
    ScramCredentialUpsertion,
)
from pegel.protocol.messages.describe_user_scram_credentials import (
    DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
    UserName,
)
from pegel.scram import MIN_ITERATIONS, SALT_BYTES, Mechanism, is_plain, salt_password


class UserAdmin(AdminBase):
    """The part of ``Admin`` about users."""

    async def describe_users(
        self, users: Sequence[str] | None = None, *, timeout: float | None = None
    ) -> list[UserDescription]:
        """The users (``None``: all) with the mechanisms that each has a credential for.

        Raises:
            BrokerError: one of them does not exist.
        """
        request = DescribeUserScramCredentialsRequest(
            users=None if users is None else [UserName(name=name) for name in users]
        )
        response = await self._cluster.ask_any(
            request, DescribeUserScramCredentialsResponse, timeout=self._timeout(timeout)
        )
        if response.error_code:
            raise broker_error(response.error_code, "users", response.error_message)
        found = []
        for result in response.results:
            if result.error_code:
                what = f"user {result.user!r}"
                raise broker_error(result.error_code, what, result.error_message)
            credentials = tuple(
                UserCredential(_name(info.mechanism), info.iterations)
                for info in result.credential_infos
            )
            found.append(UserDescription(result.user, credentials))
        return sorted(found, key=lambda user: user.name)

    async def set_user(
        self,
        name: str,
        password: str,
        *,
        mechanisms: Sequence[str] = ("SCRAM-SHA-256", "SCRAM-SHA-512"),
        iterations: int = MIN_ITERATIONS,
        timeout: float | None = None,
    ) -> None:
        """Add a user, or give one another password; connections that are open stay open.

        The brokers get what the password can be checked with, and not the password. Other
        ``iterations`` than these, and fewer mechanisms, tell strangers that this user exists.

        Raises:
            ValueError: a mechanism that is none, or characters that clients write in several ways.
            BrokerError: the credential is not acceptable, with the reason.
        """
        for what, value in (("name", name), ("password", password)):
            if not is_plain(value):
                raise ValueError(
                    f"the {what} is empty, or has characters that not every client sends alike: "
                    "use printable ones in their plain form"
                )
        for mechanism in map(Mechanism.of, mechanisms):
            salt = os.urandom(SALT_BYTES)
            salted = await asyncio.to_thread(salt_password, mechanism, password, salt, iterations)
            change = ScramCredentialUpsertion(
                name=name,
                mechanism=mechanism,
                iterations=iterations,
                salt=salt,
                salted_password=salted,
            )
            # Apache Kafka takes one change of a user in a request.
            await self._alter_users(AlterUserScramCredentialsRequest(upsertions=[change]), timeout)

    async def delete_user(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a user's credentials; connections that are open stay open.

        Raises:
            BrokerError: there is no such user.
        """
        try:
            known = await self.describe_users([name], timeout=timeout)
        except BrokerError as error:
            if error.code is not ErrorCode.RESOURCE_NOT_FOUND:
                raise
            raise broker_error(error.code, f"user {name!r}", "there is no such user") from None
        for credential in (c for user in known for c in user.credentials):
            mechanism = Mechanism.of(credential.mechanism)
            change = ScramCredentialDeletion(name=name, mechanism=mechanism)
            await self._alter_users(AlterUserScramCredentialsRequest(deletions=[change]), timeout)

    async def _alter_users(
        self, request: AlterUserScramCredentialsRequest, timeout: float | None
    ) -> None:
        response = await self._cluster.ask_any(
            request, AlterUserScramCredentialsResponse, timeout=self._timeout(timeout)
        )
        for result in response.results:
            if result.error_code != ErrorCode.NONE:
                what = f"user {result.user!r}"
                raise broker_error(result.error_code, what, result.error_message)


def _name(mechanism: int) -> str:
    return Mechanism(mechanism).sasl_name if mechanism in set(Mechanism) else f"({mechanism})"
