"""The edge agent: the only place where devices, people, rules and templates meet.

One file a flow stands here at the top: attendance, entry, enrolment, erasure, decommission, incidents. What they are
made of has rooms: `devices`, `doors`, `people`, `biometrics`, pure rules in `policy`, engines in `matching`, recipients
in `delivery`. `agent.py` puts them together; `api`, `console` and `command_line` are the ways in.
"""

__version__ = "0.1.0"
