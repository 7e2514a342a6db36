"""Makes the checkout importable in its virtual environment and puts `edge-agent` on its path.

What an editable install does, without a build backend and without asking an index for one.
"""

import sys
import sysconfig
from pathlib import Path

root = Path(__file__).resolve().parents[1]
Path(sysconfig.get_path("purelib"), "edge_agent_checkout.pth").write_text(f"{root}\n", "utf-8")
script = Path(sysconfig.get_path("scripts"), "edge-agent")
script.write_text(f"#!{sys.executable}\nimport sys\nfrom edge_agent.__main__ import main\nsys.exit(main())\n", "utf-8")
script.chmod(0o755)
