"""Our renderer of kustomizations says what kubectl's says, where there is a kubectl."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.lab.deployment import DEPLOY, FOLDERS, rendered


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl to compare with")
@pytest.mark.parametrize("folder", FOLDERS)
def test_kubectl_renders_the_same_objects(folder: str) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", os.path.join(DEPLOY, folder)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == "", "kubectl warns"
    theirs = list(yaml.safe_load_all(done.stdout))
    assert by_name(rendered(folder)) == by_name(theirs)


def by_name(objects: list[dict[str, Any]]) -> dict[tuple[str, str], Any]:
    # What YAML reads as a number of another base is a number.
    return {(one["kind"], one["metadata"]["name"]): json.loads(json.dumps(one)) for one in objects}
