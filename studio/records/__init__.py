"""Records: what was made, as plain folders that explain themselves."""
