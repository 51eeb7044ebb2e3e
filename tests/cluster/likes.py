"""Checks the outcome of all likes under load."""

from __future__ import annotations

import json

from papa_serving.client import Client

from tests.cluster.conftest import Service
from tests.cluster.nodes import PATIENCE
from tests.cluster.traffic import Traffic


def assert_every_like_is_learnt(service: Service, traffic: Traffic) -> None:
    """Each once, in order, in a chain of revisions, and the newest is served."""
    with Client(service.address) as client:
        for shopper in traffic.shoppers:
            newest = client.wait_for_revision(shopper.user, settled=True, timeout=PATIENCE)
            state = client.get_user(shopper.user)
            assert (state.pending_events, state.dead_letters, state.likes) == (0, 0, len(shopper.liked))
            assert learnt(service, client, shopper.user) == shopper.liked
            assert client.generate(shopper.user, 1).revision == newest.name


def learnt(service: Service, client: Client, user: str) -> list[str]:
    """The event ids of the user's revisions, oldest first. Each one's parent must be the one before."""
    names = [each.name for each in client.list_revisions(user)][::-1]
    files = [next((service.folder / "revisions").rglob(f"{name}/manifest.json")) for name in names]
    manifests = [json.loads(file.read_text()) for file in files]
    assert [manifest["parent"] for manifest in manifests] == ["", *names[:-1]]
    return [event for manifest in manifests for event in manifest["events"]]
