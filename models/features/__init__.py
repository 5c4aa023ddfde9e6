"""Array state of accounts and entities, and the compiled kernels that update it."""
