"""The server beneath the page: who may ask for what, and who is asking."""
