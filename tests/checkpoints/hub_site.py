"""Repositories of a hub that a server on this machine plays."""

from __future__ import annotations

import json

from web_server import Site, ranged

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def publish(
    hub: Site, repo_id: str, files: dict[str, bytes], revision: str = "main", listed: bytes | None = None
):
    listing = {
        "id": repo_id,
        "sha": COMMIT,
        "siblings": [{"rfilename": name, "size": len(data)} for name, data in files.items()],
    }
    body = json.dumps(listing).encode() if listed is None else listed
    for path in (f"/api/models/{repo_id}", f"/api/models/{repo_id}/revision/{revision}"):
        hub.paths[path] = lambda request: (200, {"Content-Type": "application/json"}, body)
    for name, data in files.items():

        def serve(request, data=data):
            status, headers, body = ranged(data, request.headers.get("Range"))
            return status, {"ETag": f'"{hash(data)}"', "X-Repo-Commit": COMMIT} | headers, body

        hub.paths[f"/{repo_id}/resolve/{COMMIT}/{name}"] = serve


def asked(hub: Site) -> list[str]:
    return [path.rpartition("/")[2].partition("?")[0] for _, path, _ in hub.asked]
