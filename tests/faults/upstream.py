"""The upstream to be killed: the embedded collector on a fixed port. `python -m tests.faults.upstream FILE PORT`"""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn

from edge_agent.delivery.collector import Collector
from tests.faults.gateway import SECRET

if __name__ == "__main__":
    collector = Collector(Path(sys.argv[1]), secret=SECRET)
    uvicorn.run(collector.app, host="127.0.0.1", port=int(sys.argv[2]), log_level="critical", lifespan="off")
