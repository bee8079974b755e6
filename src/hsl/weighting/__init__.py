"""How objectives become one total: the only place where that happens."""
