"""Sealed biometric templates and 1:N search over them; knows no devices."""
