"""Synthetic secrets, and ordinary answers that look like some: what the output filter is measured on.

Every secret is drawn at random when it is asked for, in the format and with the checksum that its kind has, so that
none is stored anywhere and none opens anything. Written from the makers' formats, not from the table of patterns.
"""

from __future__ import annotations

import base64
import json
import string
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from random import Random

DIGITS, HEX = string.digits, string.digits + "abcdef"
ALNUM = string.ascii_letters + DIGITS
URLSAFE, BASE64 = ALNUM + "-_", ALNUM + "+/"


@dataclass(frozen=True)
class Sample:
    """A secret as it is written, what of it must not be shown, and the name it is given ("value" if any will do)."""

    kind: str
    written: str
    hidden: str
    name: str = "value"


def _some(random: Random, characters: str, count: int) -> str:
    return "".join(random.choices(characters, k=count))


def _base64(random: Random, size: int) -> str:
    return base64.b64encode(random.randbytes(size)).decode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _uuid(random: Random) -> str:
    return str(uuid.UUID(bytes=random.randbytes(16), version=4))


def _with_crc(random: Random, prefix: str) -> str:
    """As GitHub's and npm's: 30 characters and the six digits, to the base of 62, of their CRC-32."""
    body = _some(random, ALNUM, 30)
    digits, number = (
        string.digits + string.ascii_uppercase + string.ascii_lowercase,
        zlib.crc32(body.encode()),
    )
    return prefix + body + "".join(digits[number // 62**i % 62] for i in range(5, -1, -1))


def luhn_digit(digits: str) -> str:
    total = sum(int(d) if i % 2 else sum(divmod(2 * int(d), 10)) for i, d in enumerate(reversed(digits)))
    return str(-total % 10)


def _card(random: Random) -> str:
    digits, size = random.choice((("4", 16), ("53", 16), ("2300", 16), ("37", 15), ("6011", 16)))
    digits += _some(random, DIGITS, size - 1 - len(digits))
    digits += luhn_digit(digits)
    separator = random.choice(("", " ", "-"))
    cuts = (0, 4, 10, 15) if size == 15 else (0, 4, 8, 12, 16)
    return separator.join(digits[a:b] for a, b in pairwise(cuts))


def _iban(random: Random) -> str:
    country, body = random.choice(
        (
            ("DE", _some(random, DIGITS, 18)),
            ("GB", _some(random, string.ascii_uppercase, 4) + _some(random, DIGITS, 14)),
            ("FR", _some(random, DIGITS, 23)),
            ("NL", _some(random, string.ascii_uppercase, 4) + _some(random, DIGITS, 10)),
            ("NO", _some(random, DIGITS, 11)),
        )
    )
    check = 98 - int("".join(str(int(c, 36)) for c in f"{body}{country}00")) % 97
    number = f"{country}{check:02d}{body}"
    return number if random.random() < 0.5 else " ".join(number[i : i + 4] for i in range(0, len(number), 4))


def _phone(random: Random) -> str:
    n = lambda count: str(random.randint(2, 9)) + _some(random, "2345678", count - 1)  # noqa: E731
    return random.choice(
        (
            f"+1 {n(3)}-{n(3)}-{n(4)}",
            f"({n(3)}) {n(3)}-{n(4)}",
            f"{n(3)}-{n(3)}-{n(4)}",
            f"+44 20 {n(4)} {n(4)}",
            f"+49 {n(2)} {n(7)}",
            f"+33 {n(1)} {n(2)} {n(2)} {n(2)} {n(2)}",
            f"+919{n(9)}",
            f"+1{n(3)}{n(3)}{n(4)}",
        )
    )


def _email(random: Random) -> str:
    first, last = (
        random.choice(("ada", "grace", "linus", "mary")),
        random.choice(("lovelace", "hopper", "jackson")),
    )
    domain = random.choice(("maple-bakery.com", "mail.uni-ulm.de", "posteo.net", "city.gov.uk", "orbit.io"))
    return f"{first}{random.choice(('.', '_', '', '+orders.'))}{last}{random.randint(1, 99)}@{domain}"


def _pem(random: Random) -> str:
    label = random.choice(("RSA ", "EC ", "OPENSSH ", "", "ENCRYPTED "))
    body = _base64(random, random.choice((120, 600, 1200)))
    lines = "\n".join(body[i : i + 64] for i in range(0, len(body), 64))
    return f"-----BEGIN {label}PRIVATE KEY-----\n{lines}\n-----END {label}PRIVATE KEY-----"


def _jwt(random: Random) -> str:
    header = {"alg": random.choice(("HS256", "RS256", "ES256")), "typ": "JWT", "kid": _some(random, HEX, 8)}
    claims = {
        "sub": _some(random, DIGITS, 10),
        "iat": random.randint(1_600_000_000, 1_800_000_000),
        "admin": True,
    }
    parts = [_base64url(json.dumps(part).encode()) for part in (header, claims)]
    return ".".join([*parts, _base64url(random.randbytes(random.choice((32, 64, 256))))])


def _age(random: Random) -> str:
    """Bech32 (BIP 173): 32 bytes as symbols of five bits, and a checksum of six symbols."""
    symbols = [random.randrange(32) for _ in range(51)] + [16 * random.randrange(2)]
    prefix = "age-secret-key-"

    def polymod(values: list[int]) -> int:
        check = 1
        for value in values:
            top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
            for bit, term in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
                check ^= term * (top >> bit & 1)
        return check

    check = (
        polymod([ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + symbols + [0] * 6) ^ 1
    )
    symbols += [check >> 5 * (5 - i) & 31 for i in range(6)]
    return (prefix + "1" + "".join("qpzry9x8gf2tvdw0s3jn54khce6mua7l"[s] for s in symbols)).upper()


def _discord(random: Random) -> str:
    number = _base64url(str(random.randint(10**17, 10**18)).encode())
    return f"{number}.{_some(random, URLSAFE, 6)}.{_some(random, URLSAFE, 38)}"


def _strong_password(random: Random) -> str:
    parts = [_some(random, s, 3) for s in (string.ascii_lowercase, string.ascii_uppercase, DIGITS)]
    characters = list("".join(parts)) + random.choices("!#%&*?", k=2)
    random.shuffle(characters)
    return "".join(characters).lstrip("#%&*?!") + random.choice("abcXYZ")


# Kind -> how it is written. Where only a part is the secret, the parts are joined by a tab: (before, secret, after).
FORMATS: dict[str, Callable[[Random], str]] = {
    "private_key": _pem,
    "aws_access_key_id": lambda r: (
        r.choice(("AKIA", "ASIA")) + _some(r, string.ascii_uppercase + "234567", 16)
    ),
    "anthropic_key": lambda r: f"sk-ant-api03-{_some(r, URLSAFE, 93)}AA",
    "openai_key": lambda r: r.choice(
        (
            "sk-" + _some(r, ALNUM, 20) + "T3Blbk" + "FJ" + _some(r, ALNUM, 20),
            "sk-proj-" + _some(r, URLSAFE, 74) + "T3Blbk" + "FJ" + _some(r, URLSAFE, 73) + "A",
        )
    ),
    "google_api_key": lambda r: "AIza" + _some(r, URLSAFE, 35),
    "google_oauth_secret": lambda r: "GOCSPX-" + _some(r, URLSAFE, 28),
    "google_access_token": lambda r: "ya29." + _some(r, URLSAFE, 180),
    "azure_storage_key": lambda r: (
        "DefaultEndpointsProtocol=https;AccountName=store1;AccountKey=\t"
        + _base64(r, 64)
        + "\t;EndpointSuffix=core.windows.net"
    ),
    "azure_client_secret": lambda r: f"{_some(r, ALNUM, 3)}8Q~{_some(r, ALNUM + '-_~.', 33)}a",
    "github_token": lambda r: _with_crc(r, r.choice(("ghp_", "gho_", "ghs_"))),
    "github_fine_grained_token": lambda r: f"github_pat_{_some(r, ALNUM, 22)}_{_some(r, ALNUM, 59)}",
    "gitlab_token": lambda r: "glpat-" + _some(r, URLSAFE, 20),
    "npm_token": lambda r: _with_crc(r, "npm_"),
    "pypi_token": lambda r: "pypi-" + _base64url(b"\x02\x01\x08pypi.org\x02" + r.randbytes(100)),
    "rubygems_key": lambda r: "rubygems_" + _some(r, HEX, 48),
    "huggingface_token": lambda r: "hf_" + _some(r, string.ascii_letters, 34),
    "replicate_token": lambda r: "r8_" + _some(r, ALNUM, 37),
    "groq_key": lambda r: "gsk_" + _some(r, ALNUM, 52),
    "slack_webhook": lambda r: (
        "https://hooks.slack.com/\tservices/T"
        + _some(r, string.ascii_uppercase + DIGITS, 10)
        + "/B"
        + _some(r, string.ascii_uppercase + DIGITS, 10)
        + "/"
        + _some(r, ALNUM, 24)
        + "\t"
    ),
    "slack_token": lambda r: (
        f"xox{r.choice('bp')}-{_some(r, DIGITS, 12)}-{_some(r, DIGITS, 12)}-{_some(r, ALNUM, 24)}"
    ),
    "discord_webhook": lambda r: (
        f"https://discord.com\t/api/webhooks/{_some(r, DIGITS, 18)}/{_some(r, URLSAFE, 67)}a\t"
    ),
    "discord_bot_token": _discord,
    "teams_webhook": lambda r: (
        f"https://maple.webhook.office.com/\twebhookb2/{_uuid(r)}@{_uuid(r)}"
        f"/IncomingWebhook/{_some(r, HEX, 32)}/{_uuid(r)}\t"
    ),
    "telegram_bot_token": lambda r: f"{r.randint(10**9, 10**10 - 1)}:AA{_some(r, URLSAFE, 33)}",
    "stripe_key": lambda r: "sk_" + r.choice(("live_", "test_")) + _some(r, ALNUM, r.choice((24, 99))),
    "stripe_webhook_secret": lambda r: "whsec_" + _some(r, ALNUM, 32),
    "square_token": lambda r: "sq0atp-" + _some(r, URLSAFE, 22),
    "shopify_token": lambda r: "shpat_" + _some(r, HEX, 32),
    "twilio_key": lambda r: "SK" + _some(r, HEX, 32),
    "sendgrid_key": lambda r: f"SG.{_some(r, URLSAFE, 22)}.{_some(r, URLSAFE, 43)}",
    "mailgun_key": lambda r: "key-" + _some(r, HEX, 32),
    "mailchimp_key": lambda r: f"{_some(r, HEX, 32)}-us{r.randint(1, 21)}",
    "digitalocean_token": lambda r: "dop_v1_" + _some(r, HEX, 64),
    "databricks_token": lambda r: "dapi" + _some(r, HEX, 32),
    "grafana_token": lambda r: f"glsa_{_some(r, ALNUM, 32)}_{_some(r, HEX, 8)}",
    "vault_token": lambda r: "hvs." + _some(r, URLSAFE, 95),
    "terraform_token": lambda r: f"{_some(r, ALNUM, 14)}.atlasv1.{_some(r, URLSAFE, 67)}",
    "linear_key": lambda r: "lin_api_" + _some(r, ALNUM, 40),
    "age_secret_key": _age,
    "jwt": _jwt,
    "connection_password": lambda r: (
        r.choice(("postgresql", "mysql", "mongodb+srv", "redis", "amqp"))
        + f"://orders:\t{_some(r, ALNUM + '-_.!$', r.randint(8, 20))}\t@db.maple.internal:5432/orders"
    ),
    "payment_card": _card,
    "iban": _iban,
    "email": _email,
    "phone": _phone,
}

# Found only by the name that stands before them.
NAMED: dict[str, tuple[tuple[str, ...], Callable[[Random], str]]] = {
    "aws_secret_access_key": (
        ("AWS secret access key", "aws_secret_access_key"),
        lambda r: _some(r, BASE64, 39) + r.choice(ALNUM),
    ),
    "assigned_secret": (
        ("password", "api key", "access token", "client secret", "db_password", "SECRET_KEY", "auth token"),
        lambda r: r.choice(
            (
                lambda: _some(r, ALNUM, r.randint(20, 40)),
                lambda: _some(r, HEX, r.choice((32, 40, 64))),
                lambda: _strong_password(r),
                lambda: _some(r, URLSAFE, 42) + r.choice(ALNUM),
            )
        )(),
    ),
    "heroku_key": (("Heroku API key", "HEROKU_API_KEY"), _uuid),
}


def sample(kind: str, random: Random) -> Sample:
    """A new secret of a kind."""
    if kind in NAMED:
        names, make = NAMED[kind]
        value = make(random)
        return Sample(kind, value, value, random.choice(names))
    written = FORMATS[kind](random)
    hidden = written.split("\t")[1] if "\t" in written else written
    return Sample(kind, written.replace("\t", ""), hidden)


def contexts(item: Sample) -> Iterator[tuple[str, str]]:
    """A secret in five surroundings: (name of the surroundings, answer)."""
    constant, key = item.name.upper().replace(" ", "_"), item.name.lower().replace(" ", "_")
    literal = json.dumps(item.written)
    yield (
        "prose",
        f"Of course. The {item.name} for staging is {item.written}, but please keep it to yourself.",
    )
    yield "JSON", json.dumps({"service": "orders", "retries": 3, key: item.written, "debug": False}, indent=2)
    yield (
        "Python",
        f"import client\n\n{constant} = {literal}\n\napp = client.connect({constant}, timeout=30)\n",
    )
    yield "shell", f"#!/bin/sh\nexport {constant}='{item.written}'\n./deploy.sh --verbose\n"
    cell = item.written.replace("\n", "<br>")
    yield (
        "Markdown",
        f"| setting | what it is |\n|---|---|\n| region | eu-west-1 |\n| {item.name} | `{cell}` |\n",
    )
