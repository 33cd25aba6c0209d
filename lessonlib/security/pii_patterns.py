"""Personal data in the table of what is looked for: payment cards, bank accounts, e-mail addresses, phone numbers."""

from __future__ import annotations

from . import checksums
from .rules import Rule
from .shapes import ALNUM, DIGIT, IS, UPPER, maybe, one_of, secret, seq, some, times, words

# Top-level domains of more than two letters that people have addresses under. With all of IANA's 1,400 ("weight",
# "data", "zip"), a@b.data in source code would be an address.
_DOMAINS = {
    b"com", b"org", b"net", b"edu", b"gov", b"mil", b"int", b"info", b"biz", b"name", b"pro", b"dev", b"app",
    b"cloud", b"online", b"site", b"tech", b"xyz", b"email", b"mail", b"agency", b"company", b"coop", b"museum",
    b"travel", b"jobs", b"mobi", b"tel", b"asia", b"cat", b"blog", b"shop", b"store", b"live", b"life", b"world",
    b"group", b"team", b"academy", b"school", b"university", b"health", b"care", b"bank", b"law", b"legal",
    b"consulting", b"solutions", b"services", b"systems", b"software", b"digital", b"media", b"news", b"art",
    b"design", b"studio", b"berlin", b"london", b"paris", b"tokyo", b"amsterdam", b"wien", b"swiss", b"africa",
}  # fmt: skip
# Reserved for documentation and tests (RFC 2606, RFC 6761), and accounts nobody reads.
_NOBODY = (b"example.com", b"example.org", b"example.net", b"example.edu")
_ROLES = (b"git", b"hg", b"svn", b"noreply", b"no-reply", b"donotreply")
_LISTS = (b"-sig", b"-dev", b"-users", b"-bugs", b"-list", b"-announce")  # mailing lists are nobody's own
# Published on purpose, and licences want it kept.
_ATTRIBUTION = r"(?i:__author__|@author|\bauthors?:|\bcopyright\b|\bwritten by\b|\bcontributed by\b)"

# No country's calling code begins like this (ITU-T E.164); every other beginning is in use.
_UNUSED_CODES = ("0", "28", "83", "89")


def email(value: bytes) -> int:
    local, _, domain = value.lower().partition(b"@")
    top = domain.rpartition(b".")[2]
    known = len(top) == 2 or top in _DOMAINS
    nobody = (
        local in _ROLES
        or local.endswith(_LISTS)
        or any(domain == name or domain.endswith(b"." + name) for name in _NOBODY)
    )
    return len(value) if known and not nobody and b".." not in value and local.strip(b"._%+-") else 0


def _north_american(digits: str) -> bool:
    """Area code and exchange begin with 2 to 9 and are no service codes; 555-01xx is for films."""
    area, exchange = digits[:3], digits[3:6]
    return (
        len(digits) == 10
        and area[0] in "23456789"
        and exchange[0] in "23456789"
        and not area.endswith("11")
        and not exchange.endswith("11")
        and not (exchange == "555" and digits[6:8] == "01")
        and len(set(digits)) > 2
    )


def phone_international(value: bytes) -> int:
    value = value.rstrip(b" .-(")
    digits = checksums.digits_of(value)
    if digits[0] == "1":
        return len(value) if _north_american(digits[1:]) else 0
    if digits.startswith(_UNUSED_CODES):
        return 0
    groups = (
        value[1:].replace(b"(0)", b"").replace(b"(", b" ").replace(b")", b" ").replace(b"-", b" ").split()
    )
    if b"." in value or not 8 <= len(digits) <= 15 or len(set(digits)) <= 2:
        return 0
    if len(groups) == 1:
        return len(value) if len(digits) >= 11 else 0
    return len(value) if len(groups[0]) <= 5 and all(len(group) >= 2 for group in groups[2:]) else 0


def phone_national(value: bytes) -> int:
    return len(value) if _north_american(checksums.digits_of(value)) else 0


def phone_named(value: bytes) -> int:
    value = value.rstrip(b" .-/(")
    digits = checksums.digits_of(value)
    return (
        len(value)
        if 7 <= len(digits) <= 15 and len(set(digits)) > 2 and digits not in "01234567890123456789"
        else 0
    )


_FOUR = some(DIGIT, 4)

PERSONAL: tuple[Rule, ...] = (
    Rule(
        "payment_card",
        one_of(
            seq(_FOUR, some(" -", 1), _FOUR, some(" -", 1), _FOUR, some(" -", 1), _FOUR),
            seq(_FOUR, some(" -", 1), some(DIGIT, 6), some(" -", 1), some(DIGIT, 4, 5)),
            some(DIGIT, 14, 16),
        ),
        checksums.card,
        before=".,+_-",
    ),
    Rule(
        "iban",
        seq(
            some(UPPER, 2),
            some(DIGIT, 2),
            times(seq(maybe(" "), some(ALNUM, 4)), 2, 7),
            maybe(maybe(" "), some(ALNUM, 1, 3)),
        ),
        checksums.iban,
        after="",
    ),
    Rule(
        "email",
        seq(
            some(ALNUM + "._%+-", 1, 64),
            "@",
            times(seq(some(ALNUM + "-", 1, 40), "."), 1, 4),
            some("A-Za-z", 2, 12),
        ),
        email,
        before=ALNUM + "._%+/@-",
        unless=_ATTRIBUTION,
    ),
    Rule(
        "phone",
        seq("+", times(seq(some(DIGIT, 1), some(" .()-", 0, 2)), 7, 14), some(DIGIT, 1)),
        phone_international,
        edge=False,
        before=ALNUM + ")+._-",
    ),
    Rule(
        "phone",
        one_of(
            seq("(", some(DIGIT, 3), ")", maybe(" "), some(DIGIT, 3), "-", some(DIGIT, 4)),
            seq(some(DIGIT, 3), "-", some(DIGIT, 3), "-", some(DIGIT, 4)),
            seq(some(DIGIT, 3), ".", some(DIGIT, 3), ".", some(DIGIT, 4)),
        ),
        phone_national,
        edge=False,
        before=ALNUM + "._+/-",
        after=ALNUM + "_-",
    ),
    Rule(
        "phone",
        seq(
            words(
                "phone",
                "telephone",
                "tel",
                "mobile",
                "fax",
                "whatsapp",
                "phone number",
                "telephone number",
                "call me",
            ),
            IS,
            secret(some("+(", 0, 1), times(seq(some(DIGIT, 1), some(" ./()-", 0, 2)), 6, 14), some(DIGIT, 1)),
        ),
        phone_named,
    ),
)
