"""Hikvision access terminals over ISAPI: HTTP with digest authentication, JSON and XML."""
