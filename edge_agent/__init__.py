"""The edge agent: the only place where devices, people, rules and templates meet."""

__version__ = "0.1.0"
