"""The page that shows the inbox. Started by `serving`.

What is in a mail is from anybody: it is escaped everywhere, HTML is shown as its source, and the page may load and
run nothing.
"""

import json
from collections.abc import Callable, Iterable
from html import escape
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler

from amends_mail_catcher.inbox import CaughtMail, Inbox

InboxPage = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

HEALTH, AS_JSON, MAIL = "/healthz", "/mails.json", "/mail/"
_HEADERS = [
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
]
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1f2933 }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid #d9e2ec; vertical-align: top }}
pre {{ background: #f5f7fa; padding: 1rem; overflow: auto; white-space: pre-wrap }}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def application(inbox: Inbox) -> InboxPage:
    """Return the WSGI application: the inbox, each mail, and all of them as JSON."""

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        status, kind, text = _answer(inbox, environ["REQUEST_METHOD"], environ["PATH_INFO"])
        start_response(status, [("Content-Type", f"{kind}; charset=utf-8"), *_HEADERS])
        return [text.encode()]

    return serve


def _answer(inbox: Inbox, method: str, path: str) -> tuple[str, str, str]:
    if method not in ("GET", "HEAD"):
        return "405 Method Not Allowed", "text/plain", "This is for looking only.\n"
    if path == HEALTH:
        return "200 OK", "text/plain", "ok\n"
    if path == AS_JSON:
        return "200 OK", "application/json", json.dumps([_as_json(mail) for mail in inbox.mails()])
    if path == "/":
        return "200 OK", "text/html", _inbox_page(inbox.mails())
    number = path.removeprefix(MAIL)
    mail = inbox.mail(int(number)) if path.startswith(MAIL) and number.isdecimal() and len(number) < 12 else None
    if mail is None:
        return "404 Not Found", "text/plain", "There is no such mail.\n"
    return "200 OK", "text/html", _mail_page(mail)


def _as_json(mail: CaughtMail) -> dict[str, Any]:
    return {
        "number": mail.number,
        "caughtAt": mail.caught_at.isoformat(),
        "from": mail.sender,
        "to": list(mail.recipients),
        "subject": mail.header("Subject"),
        "messageId": mail.header("Message-ID"),
        "text": mail.text("plain"),
    }


def _inbox_page(mails: list[CaughtMail]) -> str:
    rows = "\n".join(
        f"<tr><td>{mail.caught_at:%H:%M:%S}</td><td>{escape(', '.join(mail.recipients))}</td>"
        f'<td><a href="{MAIL}{mail.number}">{escape(mail.header("Subject") or "(no subject)")}</a></td></tr>'
        for mail in mails
    )
    table = f"<table>\n<tr><th>caught at (UTC)</th><th>to</th><th>subject</th></tr>\n{rows}\n</table>"
    body = table if mails else "<p>No mail has come yet.</p>"
    return _PAGE.format(title="Inbox", body=f"<h1>Inbox</h1>\n<p>Nothing of this was delivered to anybody.</p>\n{body}")


def _mail_page(mail: CaughtMail) -> str:
    subject = escape(mail.header("Subject") or "(no subject)")
    told = {
        "From": mail.sender,
        "To": ", ".join(mail.recipients),
        "Date": mail.header("Date"),
        "Message-ID": mail.header("Message-ID"),
    }
    rows = "\n".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in told.items())
    parts = {"Text": mail.text("plain"), "HTML, as its source": mail.text("html")}
    shown = "\n".join(f"<h2>{title}</h2>\n<pre>{escape(text)}</pre>" for title, text in parts.items() if text)
    body = f'<p><a href="/">Inbox</a></p>\n<h1>{subject}</h1>\n<table>\n{rows}\n</table>\n{shown}'
    return _PAGE.format(title=subject, body=body)


class QuietPageHandler(WSGIRequestHandler):
    """Answers without a line in the log for each request; who says nothing is not waited for."""

    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
