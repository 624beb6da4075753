"""Signatures by Standard Webhooks, and what answers mean."""

from __future__ import annotations

import pytest

from bridge import webhook
from bridge.errors import WebhookError, WebhookRefused, WebhookUnreachable

# The example of the standard's own libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE, AT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_standards_own_example() -> None:
    assert webhook.sign(SECRET, MESSAGE, AT, BODY) == SIGNATURE
    headers = webhook.headers_of(SECRET, MESSAGE, AT + 0.9, BODY)
    assert headers == {"webhook-id": MESSAGE, "webhook-timestamp": str(AT), "webhook-signature": SIGNATURE}
    webhook.verify(SECRET, headers, BODY, AT)


def test_without_a_secret_there_is_no_signature() -> None:
    assert "webhook-signature" not in webhook.headers_of("", MESSAGE, AT, BODY)


@pytest.mark.parametrize(
    ("secret", "change", "body", "now", "why"),
    [
        (SECRET, {}, BODY + b" ", AT, "not of this secret"),
        ("another secret", {}, BODY, AT, "not of this secret"),
        (SECRET, {"webhook-id": "msg_other"}, BODY, AT, "not of this secret"),
        (SECRET, {"webhook-timestamp": str(AT + 1)}, BODY, AT, "not of this secret"),
        (SECRET, {"webhook-signature": ""}, BODY, AT, "not of this secret"),
        (SECRET, {"webhook-signature": "v1,\u00fc"}, BODY, AT, "not of this secret"),
        ("", {}, BODY, AT, "not of this secret"),  # no secret is no key that fits everything
        (SECRET, {}, BODY, AT + 301, "too old"),
        (SECRET, {}, BODY, AT - 301, "in the future"),
        (SECRET, {"webhook-timestamp": "now"}, BODY, AT, "no number"),
        (SECRET, {"webhook-timestamp": "\u0663"}, BODY, 3, "no number"),
        (SECRET, {"webhook-id": None}, BODY, AT, "no header webhook-id"),
        (SECRET, {"webhook-signature": None}, BODY, AT, "no header webhook-signature"),
    ],
)
def test_what_is_not_genuine_or_not_new_is_told(
    secret: str, change: dict[str, str | None], body: bytes, now: float, why: str
) -> None:
    changed = webhook.headers_of(SECRET, MESSAGE, AT, BODY) | change
    headers = {name: value for name, value in changed.items() if value is not None}
    with pytest.raises(ValueError, match=why):
        webhook.verify(secret, headers, body, now)


def test_two_secrets_sign_twice_and_either_verifies() -> None:
    headers = webhook.headers_of(f"plain-text {SECRET}", MESSAGE, AT, BODY)
    assert headers["webhook-signature"].split()[1] == SIGNATURE
    webhook.verify(SECRET, headers, BODY, AT)
    webhook.verify("plain-text", headers, BODY, AT)
    webhook.verify("next plain-text", headers, BODY, AT)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_no base64", "whsec_a"])
def test_a_secret_that_is_none_is_refused_without_telling_it(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_") as caught:
        webhook.keys_of(secret)
    assert "base64" in str(caught.value) or "more than" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, None) for status in (200, 201, 202, 204)),
        *((status, WebhookUnreachable) for status in (408, 425, 429, 500, 502, 503, 504, 599)),
        *((status, WebhookRefused) for status in (301, 307, 400, 401, 404, 410, 422, 100, 999 - 900)),
    ],
)
def test_which_answers_are_worth_another_try(status: int, kind: type[WebhookError] | None) -> None:
    error = webhook.judged("the service", status, "7", 0.0)
    assert type(error) is (kind or type(None))
    if error is not None:
        assert (error.status, "the service" in str(error)) == (status, True)
    if isinstance(error, WebhookUnreachable):
        assert error.retry_after_s == 7


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 5000, 3600.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 60.0),
        ("Wed, 21 Oct 2015 07:26:00 GMT", 0.0),
        ("Wed, 21 Oct 2035 07:26:00 GMT", 3600.0),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("1.5", None),
        ("Wed, 99 Oct 99999 07:26:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    at_2015 = 1445412420.0  # 07:27:00
    assert webhook.retry_after_s(value, at_2015) == seconds


def test_waiting_doubles_up_to_its_most_and_scatters() -> None:
    assert [webhook.backoff_s(n, 1.0) for n in (1, 2, 3, 9, 10, 10_000)] == [1, 2, 4, 256, 300, 300]
    assert webhook.backoff_s(3, 0.0) == 2
    assert webhook.backoff_s(1, 0.5, first_s=8) == 6
