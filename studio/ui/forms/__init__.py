"""Forms: controls that are drawn from a request's fields, and read back into one."""
