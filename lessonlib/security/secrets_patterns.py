"""What the output filter looks for: the table of secrets and personal data, most telling first.

The formats are those their makers publish, or that public scanners agree on. Where a kind has a checksum or an inner
structure, it is verified; where it has neither (an AWS secret key is 40 random characters), the words in front of it
have to say what it is.
"""

from __future__ import annotations

from . import checksums
from .pii_patterns import PERSONAL
from .rules import Rule, Tail
from .shapes import (
    ALNUM,
    BASE64,
    DIGIT,
    HEX,
    IS,
    LOWER,
    UPPER,
    URLSAFE,
    WORD,
    maybe,
    one_of,
    secret,
    seq,
    some,
    text,
    times,
    words,
)

UUID = seq(some(HEX, 8), times(seq("-", some(HEX, 4)), 3, 3), "-", some(HEX, 12))


PASSWORD_WORDS = words(
    "password", "passwd", "passphrase", "pwd", "secret", "token", "api key", "access key", "auth key", "account key",
    "private key", "encryption key", "signing key", "master key", "license key", "credential", "bearer", "basic",
)  # fmt: skip
_SUFFIX = maybe(one_of(text("s", True), seq(some("_-", 1), some(WORD, 1, 24))))
_PEM_KIND = seq(some("A-Z ", 0, 24), "PRIVATE KEY", maybe(" BLOCK"), "-----")
_PEM_BODY = one_of("Proc-Type:", "Version:", "Comment:", some(BASE64, 24))
_PEM_TAIL = Tail(
    ALNUM + "+/=\\s\\\\\"'|,:;<>#*_.()-",
    16_384,
    seq("-----END ", some("A-Z ", 0, 24), "PRIVATE KEY", maybe(" BLOCK"), "-----"),
)
_USER = some("^\\s:/@\"'<>`|", 0, 64)
_URL_PASSWORD = some("^\\s/@\"'<>`|", 1, 128)

SECRETS: tuple[Rule, ...] = (
    Rule(
        "private_key",
        seq("-----BEGIN ", _PEM_KIND, some("\\s\\\\nr\"'+|,<b>", 1, 32), _PEM_BODY),
        edge=False,
        tail=_PEM_TAIL,
    ),
    Rule(
        "aws_access_key_id",
        seq(one_of("AKIA", "ASIA", "ABIA", "ACCA"), some("A-Z2-7", 16)),
        checksums.not_an_example,
    ),
    Rule(
        "aws_secret_access_key",
        seq(
            words("aws secret access key", "aws secret key", "secret access key", "aws secret"),
            IS,
            secret(some(BASE64, 40)),
        ),
        checksums.random_looking,
        edge=False,
    ),
    Rule("anthropic_key", seq("sk-ant-", some(LOWER, 2, 8), some(DIGIT, 2), "-", some(URLSAFE, 80, 120))),
    Rule(
        "openai_key",
        seq(
            "sk-",
            maybe(one_of("proj", "svcacct", "admin"), "-"),
            some(URLSAFE, 20, 80),
            "T3BlbkFJ",
            some(URLSAFE, 20, 80),
        ),
    ),
    Rule("google_api_key", seq("AIza", some(URLSAFE, 35))),
    Rule("google_oauth_secret", seq("GOCSPX-", some(URLSAFE, 28))),
    Rule("google_access_token", seq("ya29.", some(URLSAFE, 24)), tail=Tail(URLSAFE + ".", 2048)),
    Rule(
        "azure_storage_key",
        seq(
            one_of("AccountKey=", "SharedAccessKey="),
            secret(one_of(some(BASE64, 86), some(BASE64, 43)), some("=", 1, 2)),
        ),
    ),
    Rule(
        "azure_sas_signature",
        seq(some("?&", 1), "sig=", secret(some(ALNUM + "%+/", 43, 64), one_of("%3D", "="))),
        edge=False,
    ),
    Rule(
        "azure_client_secret", seq(some(ALNUM + "_~.", 3), some(DIGIT, 1), "Q~", some(URLSAFE + ".~", 31, 34))
    ),
    Rule(
        "github_token",
        seq(one_of("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), some(ALNUM, 36)),
        checksums.crc_token,
    ),
    Rule("github_fine_grained_token", seq("github_pat_", some(ALNUM, 22), "_", some(ALNUM, 59))),
    Rule(
        "gitlab_token",
        seq(
            one_of("glpat-", "gldt-", "glrt-", "glptt-"),
            some(URLSAFE, 20, 300),
            maybe(".", some(HEX, 2), some(LOWER + DIGIT, 7)),
        ),
    ),
    Rule("npm_token", seq("npm_", some(ALNUM, 36)), checksums.crc_token),
    Rule("pypi_token", seq("pypi-AgE", some(URLSAFE, 50)), tail=Tail(URLSAFE, 2048)),
    Rule("rubygems_key", seq("rubygems_", some(HEX, 48))),
    Rule("huggingface_token", seq(one_of("hf_", "api_org_"), some(ALNUM, 34))),
    Rule("replicate_token", seq("r8_", some(ALNUM, 37))),
    Rule("groq_key", seq("gsk_", some(ALNUM, 52))),
    Rule("perplexity_key", seq("pplx-", some(ALNUM, 48))),
    Rule("xai_key", seq("xai-", some(ALNUM, 80))),
    Rule(
        "slack_webhook",
        seq(
            "hooks.slack.com/",
            secret(one_of("services", "workflows", "triggers"), times(seq("/", some(ALNUM, 8, 48)), 3, 4)),
        ),
    ),
    Rule("slack_token", seq("xox", some("abeoprs", 1), maybe(".xoxp"), "-", some(ALNUM + "-", 24, 180))),
    Rule(
        "slack_app_token",
        seq(
            "xapp-",
            some(DIGIT, 1),
            "-",
            some(UPPER + DIGIT, 8, 14),
            "-",
            some(DIGIT, 10, 16),
            "-",
            some(HEX, 64),
        ),
    ),
    Rule(
        "discord_webhook",
        seq(
            one_of("discord.com", "discordapp.com"),
            secret("/api/webhooks/", some(DIGIT, 17, 20), "/", some(URLSAFE, 60, 70)),
        ),
    ),
    Rule(
        "discord_bot_token",
        seq(some("MNO", 1), some(URLSAFE, 22, 27), ".", some(URLSAFE, 6), ".", some(URLSAFE, 27, 40)),
        checksums.discord_token,
    ),
    Rule(
        "teams_webhook",
        seq(
            ".webhook.office.com/",
            secret("webhookb2/", UUID, "@", UUID, "/IncomingWebhook/", some(HEX, 32), "/", UUID),
        ),
        edge=False,
    ),
    Rule("telegram_bot_token", seq(some(DIGIT, 8, 10), ":AA", some(URLSAFE, 33))),
    Rule("stripe_key", seq(one_of("sk_", "rk_"), one_of("live_", "test_"), some(ALNUM, 16, 120))),
    Rule("stripe_webhook_secret", seq("whsec_", some(ALNUM + "+/=", 32, 64))),
    Rule("square_token", seq(one_of("sq0atp-", "sq0csp-"), some(URLSAFE, 22, 43))),
    Rule("shopify_token", seq("shp", one_of("at", "ca", "pa", "ss"), "_", some(HEX + "A-F", 32))),
    Rule("twilio_key", seq("SK", some(HEX, 32))),
    Rule("sendgrid_key", seq("SG.", some(URLSAFE, 22), ".", some(URLSAFE, 43))),
    Rule("mailgun_key", seq("key-", some(HEX, 32))),
    Rule("mailchimp_key", seq(some(HEX, 32), "-us", some(DIGIT, 1, 2))),
    Rule("brevo_key", seq("xkeysib-", some(HEX, 64), "-", some(ALNUM, 16))),
    Rule("digitalocean_token", seq("do", some("opr", 1), "_v1_", some(HEX, 64))),
    Rule("databricks_token", seq("dapi", some(HEX, 32), maybe("-", some(DIGIT, 1)))),
    Rule("grafana_token", seq("glsa_", some(ALNUM, 32), "_", some(HEX + "A-F", 8))),
    Rule("vault_token", seq(one_of("hvs.", "hvb."), some(URLSAFE, 24)), tail=Tail(URLSAFE, 512)),
    Rule("terraform_token", seq(some(ALNUM, 14), ".atlasv1.", some(URLSAFE + "=", 60, 70))),
    Rule("doppler_token", seq("dp.pt.", some(ALNUM, 43))),
    Rule("linear_key", seq("lin_api_", some(ALNUM, 40))),
    Rule("notion_token", seq("ntn_", some(DIGIT, 11), some(ALNUM, 35))),
    Rule("postman_key", seq("PMAK-", some(HEX, 24), "-", some(HEX, 34))),
    Rule("newrelic_key", seq("NRAK-", some(UPPER + DIGIT, 27))),
    Rule("atlassian_token", seq("ATATT3", some(URLSAFE, 64)), tail=Tail(URLSAFE + "=", 512)),
    Rule("pulumi_token", seq("pul-", some(HEX, 40))),
    Rule("age_secret_key", seq("AGE-SECRET-KEY-1", some(UPPER + DIGIT, 58)), checksums.bech32),
    Rule(
        "heroku_key",
        one_of(
            seq(words("heroku api key", "heroku"), IS, secret(UUID)),
        ),
        edge=False,
    ),
    Rule(
        "jwt",
        seq("eyJ", some(URLSAFE, 10, 480), ".", some(URLSAFE, 2)),
        checksums.jose_header,
        tail=Tail(URLSAFE + ".=", 16_384),
    ),
    Rule(
        "connection_password",
        seq(
            some("a-z", 1),
            some("a-z0-9+.", 1, 20),
            "://",
            _USER,
            ":",
            secret(_URL_PASSWORD),
            "@",
            some(ALNUM + "[", 1),
        ),
        checksums.written_out,
        after="",
    ),
    Rule(
        "connection_password",
        seq(
            one_of(words("user id"), words("uid"), words("user")),
            "=",
            some("^;\\s\"'", 1, 64),
            ";",
            some(" ", 0, 3),
            one_of(words("password"), words("pwd")),
            "=",
            secret(some("^;\\s\"'`", 4, 128)),
        ),
        checksums.written_out,
        after="",
    ),
    Rule(
        "assigned_secret",
        seq(
            PASSWORD_WORDS,
            _SUFFIX,
            IS,
            secret(some(ALNUM + "!#$%&^*+/~_@", 1), some(ALNUM + "!#$%&?^*+/~_@=.:-", 7, 160)),
        ),
        checksums.random_looking,
        edge=False,
        after=WORD + "(\\[{",
    ),
)

RULES: tuple[Rule, ...] = SECRETS + PERSONAL
KINDS: tuple[str, ...] = tuple(dict.fromkeys(rule.kind for rule in RULES))
