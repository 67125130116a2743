"""OpenSSL 3's own path validation as a second opinion, in this process through ctypes; used by tests alone."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache

_CRL_CHECK_ALL = 0x4 | 0x8 | 0x1000  # with extended CRL features: separate signers, reasons
_POLICY_CHECK = 0x80
_EXPLICIT_POLICY = 0x100
_PURPOSE_CLIENT = 1


class Oracle:
    """The functions of libcrypto that one verification needs."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._c = library
        pointer, integer, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_long
        for result, arguments, names in (
            (pointer, [], "X509_STORE_new X509_STORE_CTX_new OPENSSL_sk_new_null"),
            (pointer, [pointer], "X509_STORE_CTX_get0_param"),
            (pointer, [pointer, pointer, long], "d2i_X509 d2i_X509_CRL"),
            (pointer, [ctypes.c_char_p, integer], "OBJ_txt2obj"),
            (integer, [pointer], "X509_verify_cert X509_STORE_CTX_get_error"),
            (integer, [pointer, pointer], "X509_STORE_add_cert X509_VERIFY_PARAM_add0_policy OPENSSL_sk_push"),
            (integer, [pointer, integer], "X509_VERIFY_PARAM_set_purpose"),
            (integer, [pointer, ctypes.c_ulong], "X509_VERIFY_PARAM_set_flags"),
            (integer, [pointer] * 4, "X509_STORE_CTX_init"),
            (None, [], "ERR_clear_error"),
            (None, [pointer], "X509_free X509_CRL_free X509_STORE_free X509_STORE_CTX_free OPENSSL_sk_free"),
            (None, [pointer, pointer], "X509_STORE_CTX_set0_crls"),
            (None, [pointer, ctypes.c_int64], "X509_VERIFY_PARAM_set_time"),
        ):
            for name in names.split():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments

    def verify(
        self,
        target: bytes,
        sent: Sequence[bytes],
        roots: Sequence[bytes],
        at: datetime,
        *,
        crls: Sequence[bytes] | None = None,
        policies: Sequence[str] | None = None,
        explicit: bool = False,
    ) -> int:
        """X509_V_OK (0), or OpenSSL's error number; -1 when a certificate does not parse."""
        c = self._c
        with (
            self._parsed([target, *sent, *roots], "X509") as (leaf, *others),
            self._parsed(crls or (), "X509_CRL") as loaded,
        ):
            if not all((leaf, *others)):
                return -1
            store, context = c.X509_STORE_new(), c.X509_STORE_CTX_new()
            untrusted, status = self._stack(others[: len(sent)]), self._stack([one for one in loaded if one])
            try:
                for root in others[len(sent) :]:
                    c.X509_STORE_add_cert(store, root)
                c.X509_STORE_CTX_init(context, store, leaf, untrusted)
                parameters = c.X509_STORE_CTX_get0_param(context)
                c.X509_VERIFY_PARAM_set_time(parameters, int(at.timestamp()))
                c.X509_VERIFY_PARAM_set_purpose(parameters, _PURPOSE_CLIENT)
                flags = 0
                if crls is not None:
                    flags |= _CRL_CHECK_ALL
                    c.X509_STORE_CTX_set0_crls(context, status)
                if policies is not None:
                    flags |= _POLICY_CHECK | (_EXPLICIT_POLICY if explicit else 0)
                    for policy in policies or ["2.5.29.32.0"]:
                        c.X509_VERIFY_PARAM_add0_policy(parameters, c.OBJ_txt2obj(policy.encode("ascii"), 1))
                c.X509_VERIFY_PARAM_set_flags(parameters, flags)
                if c.X509_verify_cert(context) == 1:
                    return 0
                return int(c.X509_STORE_CTX_get_error(context)) or 1
            finally:
                c.X509_STORE_CTX_free(context)
                c.X509_STORE_free(store)
                c.OPENSSL_sk_free(untrusted)
                c.OPENSSL_sk_free(status)
                c.ERR_clear_error()

    def _stack(self, items: Sequence[int]) -> int:
        stack = self._c.OPENSSL_sk_new_null()
        for item in items:
            self._c.OPENSSL_sk_push(stack, item)
        return int(stack)

    @contextmanager
    def _parsed(self, contents: Sequence[bytes], kind: str) -> Iterator[list[int]]:
        decode, free = getattr(self._c, f"d2i_{kind}"), getattr(self._c, f"{kind}_free")
        made = []
        try:
            for content in contents:
                buffer = ctypes.create_string_buffer(content, len(content))
                at = ctypes.c_void_p(ctypes.addressof(buffer))
                made.append(decode(None, ctypes.byref(at), len(content)))
            yield made
        finally:
            for one in made:
                free(one)


@cache
def find_oracle() -> Oracle | None:
    """The system's OpenSSL 3, None where there is none."""
    for name in ("libcrypto.so.3", ctypes.util.find_library("crypto")):
        if name is None:
            continue
        try:
            return Oracle(ctypes.CDLL(name))
        except (OSError, AttributeError):
            continue
    return None
