"""What tests share: small real things, and the ways of making them."""
