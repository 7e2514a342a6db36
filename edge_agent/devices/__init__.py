"""The devices in force: kept connected, kept in step with what they should hold, commanded, wiped."""
