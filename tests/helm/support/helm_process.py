"""Helm in a process of its own: its Go runtime takes signals and never leaves.

Reads one JSON request a line: {"chart": PATH, "values": {...}, "upgrade": {...} or absent}. Answers one JSON line:
{"manifest", "notes", "upgraded"} or {"error"}.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import sys
from typing import Any

from headway.tests.helm.support import helm_package
from headway.tests.helm.support.fake_kubernetes import FakeKubernetes

sys.path.insert(0, str(helm_package.site()))

from helm_sdkpy.actions import Configuration, Install, Upgrade
from helm_sdkpy.chart import Lint
from helm_sdkpy.exceptions import HelmError

RELEASE = "demo"


async def run(request: dict[str, Any]) -> dict[str, Any]:
    fake = FakeKubernetes()
    try:
        configuration = Configuration(kubeconfig=fake.kubeconfig())
        if request.get("lint"):
            return {"lint": await Lint(configuration).run(request["chart"])}
        install = Install(configuration)
        await install.run(RELEASE, request["chart"], values=request["values"], wait=False, timeout=30)
        answer = release(fake, 1)
        if "upgrade" in request:
            upgrade = Upgrade(configuration)
            await upgrade.run(RELEASE, request["chart"], values=request["upgrade"], wait=False, timeout=30)
            answer["upgraded"] = release(fake, 2)["manifest"]
        return answer
    except HelmError as error:
        return {"error": str(error)}
    finally:
        fake.close()


def release(fake: FakeKubernetes, revision: int) -> dict[str, Any]:
    """What Helm stored: base64 of base64 of gzip of JSON."""
    secret = fake.objects[f"/api/v1/namespaces/default/secrets/sh.helm.release.v1.{RELEASE}.v{revision}"]
    stored = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(secret["data"]["release"]))))
    return {"manifest": stored["manifest"], "notes": stored["info"].get("notes", ""), "hooks": stored.get("hooks")}


def main() -> None:
    # Go writes to stdout what it likes: keep the answers on a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(asyncio.run(run(json.loads(line)))) + "\n")
        answers.flush()


main()
