"""Updates index.json with sizes and checksums of the weights, and the version that the library requires."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from beamforge.io.weights import extra

FOLDER = Path(__file__).parent / "src" / "beamforge_weights"

if __name__ == "__main__":
    contents = {path.stem: path.read_bytes() for path in sorted(FOLDER.glob("*.safetensors"))}
    found = {name: {"bytes": len(data), "sha256": sha256(data).hexdigest()} for name, data in contents.items()}
    index = {"version": extra().version, "weights": found}
    (FOLDER / "index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
