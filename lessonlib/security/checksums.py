"""What a real card, account or token has and a random one has not: check digits, checksums, structure.

Every check takes the bytes that matched and says how many of them, from the first on, are the real thing: 0 for none.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib

BASE62 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
BECH32 = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l"

# Length of an IBAN by country (SWIFT's IBAN registry, ISO 13616).
IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM TL SO",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA",
        30: "JO KW MU", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip


def digits_of(value: bytes) -> str:
    return bytes(byte for byte in value if 48 <= byte < 58).decode()


def luhn(digits: str) -> bool:
    """Luhn's check digit (ISO/IEC 7812-1, annex B)."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _issued(digits: str) -> bool:
    """Is this number of this length given out by one of the large card schemes?"""
    first = {size: int(digits[:size]) for size in (1, 2, 3, 4)}
    match len(digits):
        case 14:
            return 300 <= first[3] <= 305 or first[2] in (36, 38, 39)
        case 15:
            return first[2] in (34, 37)
        case 16:
            return (
                first[1] == 4
                or 51 <= first[2] <= 55
                or 2221 <= first[4] <= 2720
                or first[4] == 6011
                or 644 <= first[3] <= 659
                or 3528 <= first[4] <= 3589
                or first[2] == 62
            )
    return False


def card(value: bytes) -> int:
    digits = digits_of(value)
    separators = set(value) - set(digits.encode())
    return len(value) if len(separators) <= 1 and _issued(digits) and luhn(digits) else 0


def iban(value: bytes) -> int:
    """The remainder by 97, with letters as 10 to 35 and the first four characters last, is 1 (ISO 7064, MOD 97-10).

    What follows the account number (the next word in capitals) may have matched as well.
    """
    wanted = IBAN_LENGTHS.get(value[:2].decode(), 0)
    places = [at for at, byte in enumerate(value) if byte != 32][:wanted]
    if not wanted or len(places) < wanted:
        return 0
    account = bytes(value[at] for at in places)
    end = places[-1] + 1
    cut_inside_a_word = value[end : end + 1].isalnum()
    number = "".join(str(int(chr(byte), 36)) for byte in account[4:] + account[:4])
    return end if int(number) % 97 == 1 and not cut_inside_a_word else 0


def crc_token(value: bytes) -> int:
    """Tokens of GitHub and npm end in the CRC-32 of their random part, as six digits to the base of 62.

    Source: GitHub Engineering, "Behind GitHub's new authentication token formats" (2021).
    """
    body = value[4:]
    number, tail = zlib.crc32(body[:-6]), b""
    for _ in range(6):
        number, digit = divmod(number, 62)
        tail = BASE62[digit : digit + 1] + tail
    return len(value) if body[-6:] == tail else 0


def bech32(value: bytes) -> int:
    """The checksum of Bech32 (BIP 173), which age's secret keys end in."""
    prefix, _, data = value.lower().rpartition(b"1")
    symbols = [byte >> 5 for byte in prefix] + [0] + [byte & 31 for byte in prefix]
    check = 1
    for symbol in symbols + [BECH32.find(byte) for byte in data]:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ symbol
        for bit, term in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= term if top >> bit & 1 else 0
    return len(value) if check == 1 else 0


def _decoded(part: bytes) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except (ValueError, binascii.Error):
        return b""


def jose_header(value: bytes) -> int:
    """A JWT begins with a JSON object that names its algorithm (RFC 7515 §4.1.1, RFC 7516 §4.1.1)."""
    try:
        header = json.loads(_decoded(value.split(b".")[0]))
    except (ValueError, RecursionError):
        return 0
    return len(value) if isinstance(header, dict) and "alg" in header else 0


def discord_token(value: bytes) -> int:
    """The first part of a Discord bot's token is the bot's number in base64."""
    number = _decoded(value.split(b".")[0])
    return len(value) if number.isdigit() and 17 <= len(number) <= 20 else 0


# ------------------------------------------------------------ without a checksum: does it look drawn at random?

PLACEHOLDERS = (
    b"example", b"your", b"xxxx", b"changeme", b"change_me", b"placeholder", b"dummy", b"redacted", b"insert",
    b"replace", b"sample", b"0123456789", b"1234567890", b"abcdef", b"fake", b"****", b"....", b"${", b"{{", b"%s",
)  # fmt: skip
_WORDS = (
    b"password",
    b"passwd",
    b"pass",
    b"secret",
    b"pwd",
    b"pw",
    b"token",
    b"user",
    b"username",
    b"key",
    b"tiger",
)


def is_placeholder(value: bytes) -> bool:
    lower = value.lower()
    return any(map(lower.__contains__, PLACEHOLDERS)) or lower in _WORDS or len(set(lower)) <= 3


def written_out(value: bytes) -> int:
    """Anything but a placeholder or the name of a variable."""
    name = value[1:].replace(b"_", b"")
    variable = value[:1] == b"$" and name.isalnum() and (name.isupper() or name.isalpha())
    return 0 if variable or is_placeholder(value) or value[0] in b"<{[%*" else len(value)


_KIND = bytes(
    ord("d" if 48 <= byte < 58 else "l" if 97 <= byte < 123 else "u" if 65 <= byte < 91 else ".")
    for byte in range(256)
)
_CHANGES = (b"dl", b"ld", b"du", b"ud", b"lu", b"ul")  # two neighbours that differ in kind; "." is none


def random_looking(value: bytes) -> int:
    """Names change from capitals to small letters to digits at the joints of words; keys do at every other character.

    Taken to be random: 16 characters and more in which at least three of ten neighbours differ in kind (without digits,
    four of ten); and passwords from 8 characters on with capitals, small letters, digits and special characters.
    Never: UUIDs and placeholders.
    """
    value = value.rstrip(b".,;:!?")
    kinds = value.translate(_KIND)
    return len(value) if _mixed(value, kinds) and not is_placeholder(value) and not _is_uuid(value) else 0


def _mixed(value: bytes, kinds: bytes) -> bool:
    if len(value) < 8:
        return False
    if set(kinds) == set(b"dlu.") and b"=" not in value and any(byte in b"!@#$%^&*?~" for byte in value):
        return True
    pairs = sum(map(len, runs := kinds.split(b"."))) - len(runs) + runs.count(b"")
    if len(value) < 16 or pairs < 12:
        return False
    return sum(map(kinds.count, _CHANGES)) >= pairs * (0.3 if kinds.count(b"d") > 1 else 0.4)


def _is_uuid(value: bytes) -> bool:
    return [len(part) for part in value.split(b"-")] == [8, 4, 4, 4, 12]


def not_an_example(value: bytes) -> int:
    """Amazon's own documentation writes key ids that end in EXAMPLE."""
    return 0 if value.endswith(b"EXAMPLE") else len(value)
