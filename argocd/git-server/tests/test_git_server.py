"""The git server as git sees it: a real server on loopback, a real git in front of it."""

import hashlib
import hmac
import json
import os
import socket
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from amends_git_server.serving import server
from amends_git_server.settings import Settings

from .conftest import HOOK, PUSH, READ, Clone


def cloned(tmp_path, served, name, token=READ):
    other = Clone(tmp_path)
    done = other.git("clone", "--quiet", f"http://argocd:{token}@{served}/amends.git", name, check=False)
    return Clone(tmp_path / name), done


def test_what_is_pushed_can_be_cloned_with_the_token_to_read(clone, served, tmp_path):
    first = clone.commit("a.txt", "one")
    assert clone.push().returncode == 0
    copy, done = cloned(tmp_path, served, "copy")
    assert done.returncode == 0, done.stderr
    assert copy.git("rev-parse", "HEAD").stdout.strip() == first
    assert (copy.folder / "a.txt").read_text() == "one"


def test_a_large_push_arrives_whole(clone, served, tmp_path):
    """Over a megabyte git sends in chunks, without a length."""
    content = os.urandom(3_000_000)
    (clone.folder / "large").write_bytes(content)
    clone.commit("a.txt", "one")
    assert clone.push().returncode == 0
    copy, _ = cloned(tmp_path, served, "copy")
    assert (copy.folder / "large").read_bytes() == content


@pytest.mark.parametrize("token", [READ, "", "wrong-token-0123456789", PUSH[:-1]])
def test_only_the_token_to_push_pushes(clone, served, token):
    clone.commit("a.txt", "one")
    refused = clone.push(to=f"http://dev:{token}@{served}/amends.git")
    assert refused.returncode != 0
    assert "Authentication failed" in refused.stderr or "could not read" in refused.stderr, refused.stderr


def test_nothing_is_read_without_a_token(clone, served, tmp_path):
    clone.commit("a.txt", "one")
    clone.push()
    _, done = cloned(tmp_path, served, "copy", token="wrong-token-0123456789")
    assert done.returncode != 0
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://{served}/amends.git/info/refs?service=git-upload-pack")
    with refused.value as answer:
        assert answer.code == 401


def test_there_is_no_other_repository(clone, served):
    clone.commit("a.txt", "one")
    for path in ("other.git", "../etc", "srv/amends.git"):
        assert clone.push(to=f"http://dev:{PUSH}@{served}/{path}").returncode != 0


def test_main_is_not_rewritten(clone):
    clone.commit("a.txt", "one")
    clone.commit("a.txt", "two")
    assert clone.push().returncode == 0
    clone.git("reset", "--quiet", "--hard", "HEAD~1")
    clone.commit("a.txt", "another two")
    refused = clone.push("--force", "main")
    assert refused.returncode != 0
    assert "main is not rewritten" in refused.stderr


def test_main_is_not_deleted(clone):
    clone.commit("a.txt", "one")
    clone.push()
    refused = clone.push("--delete", "main")
    assert refused.returncode != 0
    assert "is not deleted" in refused.stderr


def test_another_branch_may_be_rewritten_and_deleted(clone):
    clone.commit("a.txt", "one")
    clone.push()
    clone.commit("a.txt", "two")
    assert clone.push("main:try").returncode == 0
    clone.git("reset", "--quiet", "--hard", "HEAD~1")
    clone.commit("a.txt", "another two")
    assert clone.push("--force", "main:try").returncode == 0
    assert clone.push("--delete", "try").returncode == 0


def test_of_pushes_at_once_one_wins_and_no_commit_is_lost(clone, served, tmp_path):
    clone.commit("a.txt", "one")
    clone.push()
    clones = [cloned(tmp_path, served, f"copy-{number}", token=PUSH)[0] for number in range(6)]
    tips = {one: one.commit(f"{one.folder.name}.txt", "mine") for one in clones}
    with ThreadPoolExecutor(len(clones)) as threads:
        answers = list(threads.map(lambda one: one.git("push", "origin", "HEAD:main", check=False), clones))
    winners = [one for one, answer in zip(clones, answers, strict=True) if answer.returncode == 0]
    after, _ = cloned(tmp_path, served, "after")
    assert len(winners) == 1, [answer.stderr for answer in answers]
    assert after.git("rev-parse", "HEAD").stdout.strip() == tips[winners[0]]


def test_clones_during_pushes_are_whole(clone, served, tmp_path):
    clone.commit("a.txt", "x" * 100_000)
    clone.push()

    def pushes():
        for number in range(5):
            clone.commit("a.txt", f"{number}" * 100_000)
            assert clone.push().returncode == 0

    with ThreadPoolExecutor(4) as threads:
        pushing = threads.submit(pushes)
        answers = list(threads.map(lambda number: cloned(tmp_path, served, f"c{number}")[1], range(20)))
        pushing.result()
    assert [answer.stderr for answer in answers if answer.returncode] == []


def test_argo_cd_is_told_of_a_push_in_githubs_form_and_signed(clone, receiver):
    clone.commit("a.txt", "one")
    clone.push()
    receiver.told.get(timeout=10)
    before = clone.git("rev-parse", "HEAD").stdout.strip()
    after = clone.commit("argocd/envs/kind/orders.yaml", "image: {tag: two}\n")
    clone.push()
    headers, body = receiver.told.get(timeout=10)
    event = json.loads(body)
    assert headers["X-GitHub-Event"] == "push"
    assert headers["X-Hub-Signature-256"] == "sha256=" + hmac.new(HOOK.encode(), body, hashlib.sha256).hexdigest()
    assert (event["ref"], event["before"], event["after"]) == ("refs/heads/main", before, after)
    assert event["repository"]["html_url"] == "http://git.example/amends"
    assert event["commits"][0]["modified"] == ["argocd/envs/kind/orders.yaml"]


def test_a_receiver_that_is_away_is_told_again(clone, receiver):
    receiver.refuse = 2
    after = clone.commit("a.txt", "one")
    clone.push()
    assert json.loads(receiver.told.get(timeout=15)[1])["after"] == after


def test_a_refused_push_is_told_to_nobody(clone, receiver):
    clone.commit("a.txt", "one")
    clone.push()
    receiver.told.get(timeout=10)
    assert clone.push("--delete", "main").returncode != 0
    after = clone.commit("a.txt", "two")
    clone.push()
    assert json.loads(receiver.told.get(timeout=10)[1])["after"] == after


def test_a_tag_with_a_message_is_taken_and_told_to_nobody(clone, receiver):
    clone.commit("a.txt", "one")
    clone.push()
    receiver.told.get(timeout=10)
    clone.git("tag", "--annotate", "v1", "-m", "first")
    assert clone.push("v1").returncode == 0
    after = clone.commit("a.txt", "two")
    clone.push()
    assert json.loads(receiver.told.get(timeout=10)[1])["after"] == after


def test_health_needs_no_token(served):
    with urllib.request.urlopen(f"http://{served}/healthz") as answer:
        assert answer.status == 200


def test_settings_name_what_is_missing(tmp_path):
    given = {"AMENDS_GIT_SECRETS": str(tmp_path), "AMENDS_GIT_REPOSITORY": "/srv/x.git", "AMENDS_GIT_URL": "http://x"}
    with pytest.raises(FileNotFoundError, match="push"):
        Settings.read(given)
    for name in ("push", "read", "webhook"):
        (tmp_path / name).write_text(f"{name}-0123456789-abcdef\n")
    assert Settings.read(given).push_token == "push-0123456789-abcdef"
    (tmp_path / "read").write_text("short")
    with pytest.raises(ValueError, match="read"):
        Settings.read(given)


def test_a_server_that_starts_again_serves_what_was_pushed(tmp_path, clone, served):
    tip = clone.commit("a.txt", "one")
    clone.push()
    settings = Settings(tmp_path / "srv" / "amends.git", "http://git.example/amends", PUSH, READ, HOOK, port=0)
    with server(settings) as again:
        threading.Thread(target=again.serve_forever, daemon=True).start()
        copy, done = cloned(tmp_path, f"127.0.0.1:{again.server_address[1]}", "copy")
        assert done.returncode == 0, done.stderr
        assert copy.git("rev-parse", "HEAD").stdout.strip() == tip
        again.shutdown()
    assert socket.create_connection(served.split(":"), timeout=5).close() is None


def test_a_webhook_goes_past_the_proxy_of_the_environment(clone, receiver, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    clone.commit("a.txt", "one")
    assert clone.git("-c", "http.proxy=", "push", "kind", "main", check=False).returncode == 0
    assert receiver.told.get(timeout=10)
