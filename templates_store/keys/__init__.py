"""Where key-encryption keys rest: one small interface, a provider per kind of vault."""
