"""Ordinary answers that must pass the output filter untouched: prose and code full of numbers and hashes."""

from __future__ import annotations

import base64
import hashlib
import sysconfig
import uuid
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from random import Random

from .output_samples import ALNUM, DIGITS, HEX, luhn_digit

LINES = 40  # of a module, taken as one answer


def _hex(random: Random, count: int) -> str:
    return "".join(random.choices(HEX, k=count))


def _digits(random: Random, count: int) -> str:
    return str(random.randint(1, 9)) + "".join(random.choices(DIGITS, k=count - 1))


def _uuid(random: Random) -> str:
    return str(uuid.UUID(bytes=random.randbytes(16)))


def _no_card(random: Random) -> str:
    """16 digits that begin like a card and end in the wrong check digit."""
    digits = "4" + "".join(random.choices(DIGITS, k=14))
    return digits + str((int(luhn_digit(digits)) + random.randint(1, 9)) % 10)


def _spaced(digits: str) -> str:
    return " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))


def _isbn(random: Random) -> str:
    digits = "978" + "".join(random.choices(DIGITS, k=9))
    check = str(-sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate(digits)) % 10)
    return f"{digits[:3]}-{digits[3]}-{digits[4:7]}-{digits[7:12]}-{check}"


def _certificate(random: Random) -> str:
    body = base64.b64encode(random.randbytes(600)).decode()
    lines = "\n".join(body[i : i + 64] for i in range(0, len(body), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----"


def _image(random: Random) -> str:
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + random.randbytes(random.randint(300, 6000))).decode()


def _integrity(random: Random) -> str:
    return "sha512-" + base64.b64encode(random.randbytes(64)).decode()


def _moment(random: Random) -> str:
    r = random.randint
    return f"20{r(10, 39)}-{r(1, 12):02d}-{r(1, 28):02d}T{r(0, 23):02d}:{r(0, 59):02d}:{r(0, 59):02d}+0{r(0, 9)}:00"


def _address(random: Random) -> str:
    r = random.randint
    return f"{r(1, 254)}.{r(0, 255)}.{r(0, 255)}.{r(1, 254)}:{r(1024, 65535)}"


PLACEHOLDERS = (
    'client = OpenAI(api_key="YOUR_API_KEY")  # or set OPENAI_API_KEY=sk-...',
    "export AWS_ACCESS_KEY_ID=AKIA" + "IOSFODNN7EXAMPLE  # as in Amazon's own documentation",
    "DATABASE_URL=postgresql://user:password@localhost:5432/app\nREDIS=redis://:${REDIS_PASSWORD}@cache:6379/0",
    "Authorization: Bearer <token>\nX-Api-Key: xxxxxxxxxxxxxxxxxxxxxxxx",
    "git clone git@github.com:org/repo.git && mail someone@example.com",
    "token: ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "The file starts with -----BEGIN RSA PRIVATE KEY----- and ends with -----END RSA PRIVATE KEY-----.",
    "A JWT has three parts, header.payload.signature, and starts with eyJ.",
)
ABOUT_SECRETS = (
    'password = getpass.getpass("Password: ")\ntoken = secrets.token_urlsafe(32)\napi_key = os.environ["API_KEY"]',
    "if user.password_hash != hash_password(password, user.salt):\n    raise InvalidCredentialsError(user.id)",
    "tokenizer = AutoTokenizer.from_pretrained('gpt2')\ntoken_ids = tokenizer.encode(text, add_special_tokens=False)",
    "num_tokens: int = sum(len(tokenize(line)) for line in lines)\nsecret_santa = random.sample(names, 2)",
    "SELECT token, password_reset_sent_at FROM users WHERE api_key = $1;\nDROP INDEX token_created_at_idx2020;",
    "const token = localStorage.getItem('accessToken2');\nsetPassword(event.target.value);\nkey = keyFromPassword1(pw)",
    "access_key = settings.AWS_S3_ACCESS_KEY_ID\nsecret = vault.read('secret/data/app1')['data']['password']",
    "kubectl create secret generic db-credentials --from-literal=password=$DB_PASSWORD1 -n prod2",
)

# Each makes one answer.
FAMILIES: dict[str, Callable[[Random], str]] = {
    "UUID": lambda r: f'The request id is {_uuid(r)}; log it as `request_id="{_uuid(r)}"`.',
    "UUID as a token": lambda r: f'{{"idempotency_token": "{_uuid(r)}", "page": {r.randint(1, 9)}}}',
    "git hashes": lambda r: (
        f"git revert {_hex(r, 40)}\ngit cherry-pick {_hex(r, 7)}..{_hex(r, 10)}\nHEAD is now at {_hex(r, 40)}"
    ),
    "checksums": lambda r: (
        f"sha256: {hashlib.sha256(r.randbytes(8)).hexdigest()}  model.bin\nmd5={_hex(r, 32)}\n"
        f'FROM python@sha256:{_hex(r, 64)}\n"integrity": "{_integrity(r)}",\n'
        f"key = hashlib.md5(b'{_hex(r, 8)}')"
    ),
    "base64 image": lambda r: f'<img alt="plot" src="data:image/png;base64,{_image(r)}">',
    "ISBN": lambda r: (
        f"Goodfellow et al., Deep Learning, ISBN {_isbn(r)} "
        f"(ISBN-10 0-{_digits(r, 3)}-{_digits(r, 5)}-{r.randint(0, 9)})."
    ),
    "numbers like phones": lambda r: (
        f"for i in range({_digits(r, 3)}, {_digits(r, 4)}):\n    x = {_digits(r, 3)}-{_digits(r, 3)}\n"
        f"    y = a +{_digits(r, 10)}\npart = '{_digits(r, 3)}-{_digits(r, 2)}-{_digits(r, 4)}'\n"
        f"shape = ({_digits(r, 3)}) {_digits(r, 3)}\n"
        f"z = [{', '.join(_digits(r, r.randint(2, 12)) for _ in range(8))}]"
    ),
    "film phone numbers": lambda r: (
        f"Write phone numbers as 212-555-01{r.randint(10, 99)} or (212) 555-01{r.randint(10, 99)}."
    ),
    "IP addresses": lambda r: (
        f"curl -s http://{_address(r)}/health  # or [2001:db8::{_hex(r, 4)}:{_hex(r, 4)}], "
        f"MAC {':'.join(_hex(r, 2) for _ in range(6))}"
    ),
    "dates": lambda r: (
        f"{_moment(r)} INFO started\n{_moment(r)} WARN slow, {_digits(r, 13)} ns since "
        f"{_digits(r, 10)}.{_digits(r, 6)}"
    ),
    "diff": lambda r: (
        f"@@ -{_digits(r, 3)},{r.randint(1, 9)} +{_digits(r, 3)},{r.randint(1, 9)} @@\n"
        f"-total = {_digits(r, 6)}\n+{_digits(r, 6)}\n+{_digits(r, 4)} {_digits(r, 3)}"
    ),
    "floats": lambda r: (
        f"x = [{r.random()!r}, {r.random()!r}, {r.random() * 1e9!r}, {r.random() * 1e-9!r}]"
        "  # π = 3.141592653589793"
    ),
    "long numbers": lambda r: (
        f"order {_no_card(r)}, invoice {_digits(r, 12)}, parcel {_digits(r, 20)}, post {_digits(r, 19)}, "
        f"factorial {_digits(r, 60)}"
    ),
    "not a card": lambda r: (
        f"| id | count |\n|---|---|\n| {_no_card(r)} | {_digits(r, 5)} |\n| {_spaced(_no_card(r))} | 3 |"
    ),
    "placeholders": lambda r: r.choice(PLACEHOLDERS),
    "code about secrets": lambda r: r.choice(ABOUT_SECRETS),
    "certificates and public keys": lambda r: (
        f"{_certificate(r)}\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{''.join(r.choices(ALNUM, k=43))} me@laptop"
    ),
    "versions and names": lambda r: (
        f"pip install torch=={r.randint(1, 2)}.{r.randint(0, 20)}.{r.randint(0, 9)} "
        f"lodash@{r.randint(1, 4)}.17.21 node@20.x\nimage@2x.png user@host:~$ a@b.T "
        f"{_hex(r, 12)}.dkr.ecr.eu-west-{r.randint(1, 3)}.amazonaws.com/app:{_hex(r, 8)}"
    ),
    "table": lambda r: (
        "| token | id | logprob |\n|---|---|---|\n"
        + "\n".join(f"| {w} | {_digits(r, 5)} | -{r.random():.6f} |" for w in ("the", "key", "secret"))
    ),
    "capitals": lambda r: (
        f"SELECT COUNT(*) FROM {''.join(r.choices('ABCDEFG', k=8))} "
        f"WHERE CODE IN ('DE{_digits(r, 18)}', 'GB{_digits(r, 2)} TEST {_digits(r, 4)}');"
    ),
}


def modules(source: str) -> Iterator[tuple[str, str]]:
    """(name, text) of this Python's standard library: "held out" modules (zoo/held_out.txt), or "library", the rest."""
    root = Path(sysconfig.get_path("stdlib"))
    listed = (resources.files("lessonlib.zoo") / "held_out.txt").read_text().splitlines()
    held_out = {line for line in listed if line and not line.startswith("#")}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if "site-packages" in path.parts or path.parts[len(root.parts)] in ("test", "lib2to3", "idlelib"):
            continue
        if (name in held_out) == (source == "held out"):
            yield name, path.read_text(encoding="utf-8", errors="replace")


def code_answers(source: str) -> Iterator[str]:
    """Modules in pieces of LINES lines, each in a code block between two sentences."""
    for name, text in modules(source):
        lines = text.splitlines()
        for i in range(0, len(lines), LINES):
            code = "\n".join(lines[i : i + LINES])
            yield f"Here is that part of `{name}`:\n\n```python\n{code}\n```\n\nTell me which line to explain."
