"""OneSignal's clients for Node, unmodified, as they are installed from npm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from knocktwice_shared.names import INBOX_MESSAGES

if TYPE_CHECKING:
    import redis

    from support.http_gateway import HttpGateway

#: What "make generators" installs.
NODE = Path(sys.prefix) / "generators" / "node_modules"

pytestmark = pytest.mark.skipif(
    not (NODE / "onesignal-node").exists() and "CI" not in os.environ, reason="needs: make generators"
)

PROGRAM = """
import OneSignal from "@onesignal/node-onesignal";
import Older from "onesignal-node";

const { GATEWAY, KEY } = process.env;
const told = {};
const configuration = OneSignal.createConfiguration({
  restApiKey: KEY,
  baseServer: new OneSignal.ServerConfiguration(`${GATEWAY}/onesignal`, {}),
});
const client = new OneSignal.DefaultApi(configuration);
const message = new OneSignal.Notification();
message.app_id = "app";
message.include_aliases = { external_id: ["u-17", "u-18"] };
message.target_channel = "push";
message.headings = { en: "Ready", de: "Fertig" };
message.contents = { en: "Your order is ready", de: "Ihre Bestellung ist fertig" };
told.sent = await client.createNotification(message);
told.seen = await client.getNotification("app", told.sent.id);
told.cancelled = await client.cancelNotification("app", told.sent.id);
const user = new OneSignal.User();
user.identity = { external_id: "u-17" };
user.properties = { tags: { plan: "gold" }, language: "de" };
user.subscriptions = [{ type: "SMS", token: "+16505550117" }];
told.user = await client.createUser("app", user);
const segment = { name: "Gold", filters: [{ field: "tag", key: "plan", relation: "=", value: "gold" }] };
told.segment = await client.createSegment("app", segment);
try {
  message.buttons = [{ id: "a", text: "A" }];
  await client.createNotification(message);
} catch (error) {
  told.refused = { status: error.code, messages: error.errorMessages ?? String(error.body ?? error.message) };
}

const older = new Older.Client("app", KEY, { apiRoot: `${GATEWAY}/onesignal/api/v1` });
const text = { include_phone_numbers: ["+16505550118"], contents: { en: "Closed today" }, name: "closed" };
told.text = (await older.createNotification(text)).body;
told.device = (await older.addDevice({ device_type: 1, identifier: "token-of-a-phone", tags: { shop: 7 } })).body;
told.pushed = (await older.createNotification({
  include_player_ids: [told.device.id], headings: { en: "Hi" }, contents: { en: "Hello" },
})).body;
told.tagged = (await older.editTagsWithExternalUserIdDevice("u-17", { tags: { plan: "" } })).body;
told.listed = (await older.viewNotifications({ limit: 5 })).body;
told.deleted = (await older.deleteSegment("Gold")).body;
try {
  await older.createNotification({ included_segments: ["Nobody"], contents: { en: "x" }, headings: { en: "x" } });
} catch (error) {
  told.olderRefused = { status: error.statusCode, body: error.body };
}
console.log(JSON.stringify(told));
"""


def test_both_clients_of_node_work(gateway: HttpGateway, valkey: redis.Redis, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(NODE)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "program.js").write_text(PROGRAM)
    node = shutil.which("node")
    assert node
    environment = {**os.environ, "GATEWAY": gateway.url, "KEY": gateway.key(), "NODE_NO_WARNINGS": "1"}
    done = subprocess.run(
        [node, "program.js"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    accepted = [str(entry) for entry in valkey.hvals(INBOX_MESSAGES)]
    for one in ("sent", "text", "pushed"):
        assert any(told[one]["id"] in entry for entry in accepted), one
    assert (told["seen"]["remaining"], told["seen"]["contents"]["de"]) == (2, "Ihre Bestellung ist fertig")
    assert told["cancelled"] == {"success": True}
    assert told["user"]["identity"]["external_id"] == "u-17"
    assert (told["segment"], told["deleted"]) == ({"success": True, "id": "Gold"}, {"success": True})
    assert told["refused"]["status"] == 400
    assert "buttons: " in str(told["refused"]["messages"])
    assert told["device"]["success"] is True
    assert told["tagged"] == {"success": True}
    assert told["listed"]["limit"] == 5
    assert told["olderRefused"]["status"] == 400
    assert "there is no segment 'Nobody'" in told["olderRefused"]["body"]
